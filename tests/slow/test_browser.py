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

import nbformat
import numpy as np
import pytest
from ipywidgets.embed import dependency_state

import build
import start
from lora_mini import svd
from lora_mini.desk.figures import photograph
from lora_mini.desk.sliders import CurveSlider

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
    return root, environment


@pytest.fixture(scope="module")
def address(folder):
    root, environment = folder
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}",
         "--IdentityProvider.token=", "--ServerApp.ip=127.0.0.1", "--log-level=ERROR"],
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
    subprocess.run([sys.executable, "-m", "jupyter", "trust", path], env=environment, check=True)


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
