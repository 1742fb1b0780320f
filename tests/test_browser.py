"""A real browser on JupyterLab: no question, no popup, and sliders that live before a cell runs."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest

import build
import start
from lora_mini import svd
from lora_mini.desk.figures import photograph

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
    (labconfig / "page_config.json").write_text(json.dumps(start.NO_NEWS))
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


def open_notebook(browser, address, name):
    page = browser.new_page(viewport={"width": 1100, "height": 1400})
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(f"{address}/{name}", timeout=90_000)
    page.wait_for_selector(".rank-slider canvas.rank-picture", timeout=90_000)
    return page


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
