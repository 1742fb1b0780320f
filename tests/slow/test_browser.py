"""A real browser on JupyterLab: no question, no popup, and sliders that live before a cell runs."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from html import unescape

import nbformat
import numpy as np
import pytest
from ipywidgets.embed import dependency_state

import build
import start
from lora_mini import svd
from lora_mini.desk.figures import photograph
from lora_mini.desk.sliders import CurveSlider, TextSlider

READERS = {"jupyterlab": "doc/tree", "notebook": "notebooks"}  # and where they show a file
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
PIXELS = """canvas => { const n = canvas.width * canvas.height,
    data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    return Array.from({ length: n }, (_, i) => data[4 * i]); }"""

if not CHROMIUM and not (os.environ.get("CI") and sys.platform == "linux"):
    pytest.skip("no Chromium here: the sliders are not tried in a browser", allow_module_level=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A learner's working copy, as start.py makes it, in a folder with a space and an accent."""
    root = tmp_path_factory.mktemp("my course é")
    shutil.copytree(build.ROOT / "notebooks", root / "notebooks")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("ROOT", root), ("VENV", root), ("MINE", root / "my_notebooks"),
                            ("LOG", root / "log"), ("PYTHON", start.Path(sys.executable))):
            patch.setattr(start, name, value)
        patch.chdir(root)
        start.copy_notebooks()
        environment = start.child_env()
    labconfig = start.Path(environment["JUPYTER_CONFIG_DIR"]) / "labconfig"
    labconfig.mkdir(parents=True)
    page = start.SETTINGS["etc/jupyter/labconfig/page_config.json"]
    (labconfig / "page_config.json").write_text(json.dumps(page))
    settings = root / "lab settings"  # where start.py's overrides lie in a .venv of the course
    settings.mkdir()
    overrides = start.SETTINGS["share/jupyter/lab/settings/overrides.json"]
    (settings / "overrides.json").write_text(json.dumps(overrides))
    return root, environment


@pytest.fixture(scope="module")
def address(folder):
    root, environment = folder
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}",
         "--IdentityProvider.token=", "--ServerApp.ip=127.0.0.1",
         f"--LabApp.app_settings_dir={root / 'lab settings'}", "--LabApp.log_level=ERROR",
         "--ServerApp.log_level=ERROR", "--ServerApp.disable_check_xsrf=True"],
        cwd=root, env=environment | {"PYTHONPATH": str(build.ROOT)})
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{url}/api")
                break
            except OSError:
                time.sleep(0.5)
        yield f"{url}/doc/tree/my_notebooks"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=flags)


def open_notebook(browser, address, name, shows=".rank-slider canvas.rank-picture"):
    page = browser.new_page(viewport={"width": 1100, "height": 1400})
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(f"{address}/{name}", timeout=90_000)
    page.wait_for_selector(shows, timeout=90_000)
    return page


def store(slider, root, environment):
    """Write my_notebooks/curves.ipynb: one cell, not run, with the slider; and trust it."""
    data, metadata = slider._repr_mimebundle_()
    output = nbformat.v4.new_output("display_data", data, metadata=metadata)
    state = dependency_state(slider, drop_defaults=False)
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("slider", outputs=[output])],
        metadata=build.KERNEL | {"widgets": {"application/vnd.jupyter.widget-state+json": {
            "version_major": 2, "version_minor": 0, "state": state}}})
    path = root / "my_notebooks" / "curves.ipynb"
    nbformat.write(notebook, path)
    subprocess.run([sys.executable, "-m", "nbformat.sign", path], env=environment, check=True)


def test_the_first_notebook_opens_quietly_and_its_slider_obeys_the_keyboard(browser, address):
    page = open_notebook(browser, address, "00_welcome.ipynb")
    slider = page.locator(".rank-slider input[type=range]")
    slider.focus()
    for key, rank in (("ArrowRight", 1), ("ArrowRight", 2), ("End", 48), ("Home", 0)):
        page.keyboard.press(key)
        page.wait_for_function(
            "rank => document.querySelector('canvas.rank-picture').ariaLabel.endsWith(' ' + rank)",
            arg=rank, timeout=10_000)
        assert slider.get_attribute("aria-valuetext").startswith(f"rank {rank}: ")
    page.locator(".rank-slider button", has_text="r = 8").click()
    assert slider.input_value() == "8"
    assert page.locator(".jp-Dialog").count() == 0
    assert page.locator(".Toastify__toast").count() == 0
    prompts = page.locator(".jp-InputPrompt").all_inner_texts()
    assert not [text for text in prompts if text.strip("[]: \n*") not in ("", "3")], prompts
    assert all(url.startswith((address.split("/doc")[0], "data:", "blob:")) for url in page.asked)
    page.close()


def test_the_browser_paints_what_numpy_computes(browser, address):
    page = open_notebook(browser, address, "02_low_rank_approximation.ipynb")
    X = photograph()
    canvas = page.locator("canvas.rank-picture").first
    for rank in (1, 5, 64, 16):
        page.locator(".rank-slider input[type=range]").first.evaluate(
            "(e, rank) => { e.value = rank; e.dispatchEvent(new Event('input')); }", rank)
        seen = np.reshape(canvas.evaluate(PIXELS), X.shape)
        assert np.abs(seen - np.clip(svd.low_rank(X, rank), 0, 255)).max() <= 1
    page.close()


def test_a_curve_slider_draws_the_notch_that_the_arrow_keys_choose(browser, address, folder):
    curves = [{"LoRA": [[0.5, 0.7], 0.3, 0.1]}, {"LoRA": [0.2, None, 0.04]},
              {"LoRA": [0.09, 0.02, 0.03]}]
    slider = CurveSlider([0, 6, 24], [1, 2, 8], curves, "words", name="new words", xlabel="rank",
                         ylabel="excess", lines=[{"full <all>": y} for y in (0.05, None, 0.02)])
    store(slider, *folder)
    page = open_notebook(browser, address, "curves.ipynb", ".curve-slider path.curve")
    dial, picture = page.get_by_role("slider", name="new words"), page.locator(".curve-slider svg")
    dial.focus()
    heights, logs = [], []
    for key, notch in ((None, 0), ("ArrowRight", 1), ("End", 2), ("ArrowLeft", 1), ("Home", 0)):
        if key:
            page.keyboard.press(key)
        caption = slider.plot["captions"][notch]
        page.wait_for_function("words => document.querySelector('.curve-slider .caption')"
                               ".textContent === words", arg=caption, timeout=10_000)
        assert dial.get_attribute("aria-valuetext") == caption
        assert picture.get_attribute("aria-label") == caption
        assert picture.locator("path.line").count() == (notch != 1)
        assert picture.locator("path.ghost").count() == 2
        drawn = picture.locator("path.curve").get_attribute("d")
        heights += [float(point.split()[1]) for point in re.split("[ML]", drawn)[1:]]
        logs += [np.log(y) for y in slider.plot["curves"][notch][0]["mean"] if y]
        assert drawn.count("M") == (2 if notch == 1 else 1)  # a gap where nothing was measured
    slope, at_1 = np.polyfit(logs, heights, 1)
    assert slope < 0 and np.abs(slope * np.array(logs) + at_1 - heights).max() < 0.01
    assert not "".join(page.locator(".jp-InputPrompt").all_inner_texts()).strip("[]: \n")
    page.close()


def test_a_text_slider_says_what_the_arrow_keys_choose(browser, address, folder):
    texts, under = ["Hi <b>.", "Two\nlines.", "Three."], ["none", "half", "whole"]
    store(TextSlider([0, 0.5, 1], texts, "words", name="strength", captions=under), *folder)
    page = open_notebook(browser, address, "curves.ipynb", ".text-slider .said")
    dial, said = page.get_by_role("slider", name="strength"), page.locator(".text-slider .said")
    dial.focus()
    for key, notch in ((None, 0), ("ArrowRight", 1), ("End", 2), ("ArrowLeft", 1), ("Home", 0)):
        if key:
            page.keyboard.press(key)
        page.wait_for_function("words => document.querySelector('.text-slider .said')"
                               ".textContent === words", arg=texts[notch], timeout=10_000)
        assert dial.get_attribute("aria-valuetext") == under[notch]
        assert said.is_visible() and page.locator(".caption").inner_text() == under[notch]
    assert not "".join(page.locator(".jp-InputPrompt").all_inner_texts()).strip("[]: \n")
    page.close()


def test_a_slider_that_was_run_and_saved_lives_when_it_is_opened_again(browser, address, folder):
    slider, caption = ".rank-slider input[type=range]", ".rank-slider canvas.rank-picture"
    notebook = nbformat.v4.new_notebook(metadata=build.KERNEL, cells=[nbformat.v4.new_code_cell(
        "import numpy as np\nfrom lora_mini.desk.sliders import RankSlider\n"
        "RankSlider(np.eye(40, 30) + np.arange(30), 'words', most=9)")])
    path = folder[0] / "my_notebooks" / "run.ipynb"
    nbformat.write(notebook, path)
    page = open_notebook(browser, address, "run.ipynb", ".jp-CodeCell")
    for _ in range(20):  # what is run before the kernel listens is lost
        asked = page.locator(".jp-Dialog button.jp-mod-accept")
        if asked.count():  # a busy machine: JupyterLab asks for a kernel that is still starting
            asked.first.click()
        page.locator(".jp-CodeCell .cm-content").first.click()
        page.keyboard.press("Shift+Enter")
        page.wait_for_timeout(3000)
        if page.locator(caption).count():
            break
    page.locator(slider).focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert page.locator(slider).input_value() == "7"
    assert page.locator(".jp-OutputArea-output img").is_hidden()  # the still, behind it
    page.wait_for_timeout(1000)
    page.keyboard.press("Control+s")  # with the focus still on the slider
    for _ in range(100):
        saved = nbformat.read(path, 4)
        if "widgets" in saved.metadata and saved.cells[0].outputs:
            break
        page.wait_for_timeout(200)
    page.keyboard.press("ArrowRight")
    assert page.locator(slider).input_value() == "8"  # and the arrow keys are its own again
    page.close()
    sessions = address.split("/doc")[0] + "/api/sessions"
    for session in json.load(urllib.request.urlopen(sessions)):  # the kernel ends: the file is left
        end = urllib.request.Request(f"{sessions}/{session['id']}", method="DELETE")
        urllib.request.urlopen(end)
    page = open_notebook(browser, address, "run.ipynb", caption)
    assert page.locator(slider).input_value() in ("7", "8")
    icon = "e => getComputedStyle(e, '::before').display"
    box = page.locator(".rank-slider").locator("..")
    assert box.evaluate(icon) == "none" and page.locator("text=Error displaying").count() == 0
    page.close()


def words_of_figures(name):
    """The alternative texts that a committed notebook puts out, in order."""
    notebook = nbformat.read(build.ROOT / "notebooks" / name, 4)
    html = [o.data["text/html"] for c in notebook.cells if c.cell_type == "code"
            for o in c.outputs if "text/html" in o.get("data", {})]
    return [unescape(re.search('<img alt="([^"]*)"', part)[1]) for part in html]


@pytest.mark.parametrize("reader", READERS)
def test_figures_say_their_words_to_a_screen_reader(browser, address, reader):
    base, name = address.split("/doc")[0], "03_lora_in_numpy.ipynb"
    page = browser.new_page(viewport={"width": 1100, "height": 1400})
    page.goto(f"{base}/{READERS[reader]}/notebooks/{name}", timeout=90_000)
    page.wait_for_selector(".jp-OutputArea-output img", timeout=90_000)
    seen = set()
    for _ in range(60):  # a notebook draws the cells that one scrolls to
        pictures = page.locator(".jp-OutputArea-output img").evaluate_all(
            "all => all.map(e => [e.alt, e.naturalWidth])")
        seen |= {alt for alt, width in pictures if width}
        page.locator(".jp-WindowedPanel-outer").first.evaluate("e => e.scrollBy(0, 700)")
        page.wait_for_timeout(200)
    assert seen == set(words_of_figures(name)) and len(seen) > 3
    page.close()


def test_a_page_without_kernel_and_network_shows_the_stills_and_says_their_words(browser, tmp_path):
    for name in ("00_welcome.ipynb", "07_rank_alpha_targets.ipynb"):
        subprocess.run([sys.executable, "-m", "nbconvert", build.ROOT / "notebooks" / name, "--to",
                        "html", "--output-dir", tmp_path], check=True, capture_output=True)
        page = browser.new_page()
        page.route(re.compile("^https?:"), lambda route: route.abort())
        page.goto((tmp_path / name).with_suffix(".html").as_uri(), wait_until="domcontentloaded")
        alts = page.locator(".jp-OutputArea-output img").evaluate_all(
            "all => all.filter(e => e.checkVisibility() && e.naturalWidth).map(e => e.alt)")
        assert alts == words_of_figures(name)
        page.close()


def test_where_the_model_was_not_saved_the_still_is_seen(browser, address, folder):
    source = nbformat.read(build.ROOT / "notebooks" / "00_welcome.ipynb", 4)
    del source.metadata["widgets"]
    path = folder[0] / "my_notebooks" / "lost.ipynb"
    nbformat.write(source, path)
    subprocess.run([sys.executable, "-m", "nbformat.sign", path], env=folder[1], check=True)
    page = open_notebook(browser, address, "lost.ipynb", ".jp-OutputArea-output img")
    assert page.locator(".jp-OutputArea-output img").first.is_visible()
    page.close()
