"""start.py, with everything real but the children it starts: those are recorded and answered here.

Each test runs the script itself, as `python3 start.py ...` would, in a folder whose name has a
space and letters beyond ASCII.
"""

import ast
import errno
import http.server
import io
import json
import os
import platform
import re
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
SOURCE = (REPO / "start.py").read_text("utf-8")
VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
SLIDER = "application/vnd.jupyter.widget-view+json"
PROJECT = '[project]\nname = "x"\ndependencies = ["numpy>=1", "torchvision", "torch>=2.6,<2.14"]\n'


def code(outputs):
    return {"cell_type": "code", "metadata": {}, "source": "1", "execution_count": 5,
            "outputs": outputs}  # fmt: skip


def notebook(text="hello"):
    """A heading, a cell that prints the answer, and a slider; with the slider's stored state."""
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": text},
        code([{"output_type": "stream", "name": "stdout", "text": "the answer"}]),
        code([{"output_type": "display_data", "data": {SLIDER: {"model_id": "a"}}}]),
    ]
    return {"cells": cells, "metadata": {"widgets": {"a": 7}}, "nbformat": 4, "nbformat_minor": 5}


class World:
    """A course folder, and children that do as `answers` say (a status and words for the log)."""

    def __init__(self, root, monkeypatch, capfd):
        self.monkeypatch, self.capfd = monkeypatch, capfd
        self.children, self.ended, self.envs, self.answers = [], [], [], {}
        self.gpu, self.found = False, VERSION
        (root / "notebooks").mkdir(parents=True)
        (root / "pyproject.toml").write_text(PROJECT)
        shutil.copy(REPO / "start.py", root)
        self.move(root)
        self.add("00_welcome"), self.add("01_more")

    def move(self, root):
        self.root, self.venv, self.mine = root, root / ".venv", root / "my_notebooks"
        self.python = self.venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    def add(self, name, text="hello"):
        (self.root / "notebooks" / (name + ".ipynb")).write_text(json.dumps(notebook(text)))

    def mine_of(self, name):
        return json.loads((self.mine / (name + ".ipynb")).read_text("utf-8"))

    def start(self, *arguments):
        """Run start.py; return its exit status and all it printed."""
        self.children.clear()
        self.monkeypatch.setattr(sys, "argv", ["start.py", *arguments])
        usual = signal.getsignal(signal.SIGTERM)
        try:
            runpy.run_path(str(self.root / "start.py"), run_name="__main__")
        except SystemExit as end:
            status, words = (1, end.code) if isinstance(end.code, str) else (end.code, "")
        except KeyboardInterrupt:
            status, words = 130, "Traceback"
        finally:
            signal.signal(signal.SIGTERM, usual)
        printed = self.capfd.readouterr()
        return status, printed.out + printed.err + words

    def did(self, *words):
        """The recorded commands that hold all these words."""
        return [c for c in self.children if all(word in self.line(c) for word in words)]

    def line(self, command):
        return " ".join(command).replace(str(self.root), "@")  # whose name may hold any word


class Child:
    """Stands where subprocess.Popen stands: at the border, and nowhere else."""

    def __init__(self, world, command, cwd, env, stdout, stderr):
        self.command, self.world = [str(part) for part in command], world
        world.children.append(self.command)
        world.envs.append(env)
        assert Path(cwd) == world.root
        key = next((key for key in world.answers if key in world.line(self.command)), None)
        self.answer = world.answers.get(key, (0, ""))
        if stdout:
            stdout.write(self.answer[1].encode())
        if self.command[1:3] == ["-m", "venv"] and self.answer[0] == 0:
            world.python.parent.mkdir(parents=True)
            world.python.write_text("a python")

    def wait(self, timeout=None):
        if isinstance(self.answer[0], list) and timeout:
            what = self.answer[0].pop(0)
            if not isinstance(what, int):
                raise what
            return what
        return 0 if isinstance(self.answer[0], list) else self.answer[0]

    def terminate(self):
        self.world.ended.append(self.command)


@pytest.fixture
def world(tmp_path, monkeypatch, capfd):
    world = World(tmp_path / "my course \u00e9\u0142", monkeypatch, capfd)

    def probe(command, **_):
        return subprocess.CompletedProcess(command, 0, (world.found + "\n").encode())

    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: Child(world, *a, **k))
    monkeypatch.setattr(subprocess, "run", probe)
    monkeypatch.setattr(subprocess, "getstatusoutput", lambda *_, **__: (127 * (not world.gpu), ""))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9e10, 0, 9e10))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    return world


# The script itself


def test_old_pythons_can_read_every_line():
    SOURCE.encode("ascii")  # Python 2 takes nothing else without a coding line
    tree = ast.parse(SOURCE, feature_version=(3, 4))
    newer = (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.Nonlocal, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        assert not isinstance(node, newer), ast.unparse(node)
        assert not getattr(node, "kwonlyargs", None), ast.unparse(node)
        assert not getattr(node, "cause", None), ast.unparse(node)
        if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            assert not any(isinstance(part, ast.Starred) for part in node.elts), ast.unparse(node)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print":
            assert len(node.args) == 1 and not node.keywords, ast.unparse(node)


def test_real_old_pythons_say_one_sentence_and_end_with_1(tmp_path):
    names = ["python2", "python2.7", *(f"python3.{minor}" for minor in range(3, 30))]
    found = [shutil.which(name) for name in names]
    found += sorted(Path.home().glob(".pyenv/versions/*/bin/python"))
    shutil.copy(REPO / "start.py", tmp_path)
    for python in filter(None, found):
        ask = [python, "-c", "import sys; sys.stdout.write('%d.%d' % sys.version_info[:2])"]
        version = subprocess.run(ask, capture_output=True, text=True).stdout
        if version and version not in ("3.11", "3.12", "3.13"):
            tried = [python, "start.py"]
            tried = subprocess.run(tried, cwd=tmp_path, capture_output=True, text=True)
            assert tried.returncode == 1
            assert "3.11, 3.12 or 3.13, but this is Python " + version in tried.stderr
            assert tried.stderr.count("\n") == 1 and tried.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["start.py"]


@pytest.mark.parametrize("version", [(2, 7, 18), (3, 10, 9), (3, 14, 0)])
def test_a_wrong_version_is_told_which_are_right(world, monkeypatch, version):
    monkeypatch.setattr(sys, "version_info", version)
    status, said = world.start()
    monkeypatch.undo()
    assert status == 1 and "3.11, 3.12 or 3.13" in said and "python.org" in said
    assert f"this is Python {version[0]}.{version[1]}" in said


def test_the_versions_are_those_of_pyproject():
    project = tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))["project"]
    low, high = re.search(r"not \(3, (\d+)\) <= .* <= \(3, (\d+)\):", SOURCE).groups()
    assert project["requires-python"] == f">=3.{low},<3.{int(high) + 1}"


def test_it_stays_small():
    lines = SOURCE.splitlines()
    assert len(lines) <= 360 and max(map(len, lines)) <= 100
    for node in ast.walk(ast.parse(SOURCE)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 30, node.name


def test_help_names_every_command_and_option(world):
    status, said = world.start("--help")
    assert status == 0 and not world.children
    words = [f"\n  {word} " for word in ("(none)", "test", "run", "llm", "class")]
    words += ["--torch {auto,cpu,default}", "--no-browser", "--solutions", "{test,llm,run,class}"]
    for word in [*words, "--verbose", "minutes", "my_notebooks/", "delete .venv"]:
        assert word in said


@pytest.mark.parametrize("arguments", [["--tests"], ["run", "x"], ["build"], ["--torch", "cuda"]])
def test_an_unknown_word_is_refused_before_anything_happens(world, arguments):
    status, said = world.start(*arguments)
    assert status == 2 and "usage:" in said and not world.venv.exists()


# Setting up


def test_the_first_start_sets_up_in_order_and_opens_the_course(world):
    status, said = world.start()
    assert status == 0
    torch, course = world.did("-m pip install")
    assert "torch>=2.6,<2.14" in torch and course[-2:] == ["-e", ".[notebooks]"]
    order = [next(word for word in ("venv", "pip", "nbformat.sign", "jupyterlab") if word in child)
             for child in world.children]  # fmt: skip
    assert order == ["venv", "pip", "pip", "nbformat.sign", "jupyterlab"]
    assert world.children[0][0] != str(world.python) and torch[0] == str(world.python)
    assert all(f"Step {i} of 3" in said for i in (1, 2, 3))
    assert re.search(r"took \d+ s\n(.*\n)*Set up in \d+ s\.", said)


def test_the_second_start_only_opens_the_course(world):
    world.start()
    status, said = world.start()
    assert status == 0 and len(world.children) == 1 and "jupyterlab" in world.children[0]
    assert "Step" not in said


def test_a_changed_pyproject_is_noticed_and_followed_without_remaking(world):
    world.start()
    (world.root / "pyproject.toml").write_text(PROJECT.replace("2.14", "2.15"))
    _, said = world.start()
    assert "pyproject.toml has changed" in said and not world.did("-m venv")
    assert world.did("torch>=2.6,<2.15") and world.did(".[notebooks]")
    world.start()
    assert not world.did("-m pip")


def test_a_moved_or_copied_folder_takes_its_environment_along(world, tmp_path):
    world.start()
    shutil.copytree(world.root, tmp_path / "copy")
    for root in (tmp_path / "copy", world.root.rename(tmp_path / "elsewhere \u00f1")):
        world.move(root)
        status, said = world.start()
        assert status == 0 and not world.did("-m venv") and not world.did("pip")
        assert world.envs[-1]["PYTHONPATH"] == str(world.root)  # where lora_mini is found now
        assert not world.did("-m jupyter ")  # console scripts hold the old path: only modules


@pytest.mark.skipif(os.name == "nt", reason="a venv is made with symlinks")
def test_a_real_environment_that_was_moved_finds_the_course_where_it_is_now(tmp_path):
    root = tmp_path / "one"
    (root / "lora_mini").mkdir(parents=True)
    (root / "lora_mini" / "__init__.py").write_text("")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root / ".venv"], check=True)
    (root / ".venv/lib" / f"python{VERSION}" / "site-packages" / "old.pth").write_text(str(root))
    shutil.copy(REPO / "start.py", root)
    root = root.rename(tmp_path / "two")
    start = runpy.run_path(str(root / "start.py"), run_name="start")
    ask = "import lora_mini as m; print(m.__file__)"
    found = subprocess.run([root / ".venv/bin/python", "-c", ask], cwd=tmp_path,
                           env=start["child_env"](), capture_output=True, text=True)
    assert found.stdout.startswith(str(root))


@pytest.mark.parametrize("cause", ["torch", "python"])
@pytest.mark.parametrize("step", ["-m venv", "torch>=", ".[notebooks]"])
@pytest.mark.parametrize("end", ["a failure", "Ctrl-C"])
def test_an_environment_that_works_stands_aside_until_its_successor_is_whole(
    world, cause, step, end
):
    world.start()
    (world.venv / "precious").write_text("packages")
    (world.venv / "jupyter" / "theme").write_text("dark")
    world.answers = {step: (1, "Retrying") if end == "a failure" else ([KeyboardInterrupt()], "")}
    wanted = ["--torch", "default"] if cause == "torch" else []
    world.found = VERSION if cause == "torch" else "3.1"
    status, said = world.start(*wanted)
    assert status == 1 and "The .venv from before is back" in said
    assert (world.venv / "precious").exists() and not (world.root / ".venv.old").exists()
    world.answers, world.found = {}, VERSION
    assert world.start()[0] == 0 and not world.did("-m pip")
    if cause == "torch":
        assert world.start(*wanted)[0] == 0 and world.did("-m venv")
        assert not (world.venv / "precious").exists() and not (world.root / ".venv.old").exists()
        assert (world.venv / "jupyter" / "theme").read_text() == "dark"


def test_an_environment_left_over_never_takes_the_place_of_a_whole_one(world):
    world.start()
    (world.venv / "precious").write_text("packages")
    (world.root / ".venv.old" / "lib").mkdir(parents=True)  # the last start was killed clearing up
    (world.root / "pyproject.toml").write_text(PROJECT + "\n")
    world.answers = {"torch>=": (1, "Retrying")}
    assert world.start()[0] == 1
    assert (world.venv / "precious").exists() and (world.venv / "course.json").exists()


@pytest.mark.parametrize("half", [None, "empty", "some"])
def test_a_start_that_was_killed_between_two_environments_loses_neither(world, half):
    world.start()
    world.venv.rename(world.root / ".venv.old")
    if half:
        world.venv.mkdir()
        (world.venv / "made-by-start.py").touch()
    world.answers = {"torch>=": (1, "Retrying")}
    assert world.start()[0] == (1 if half else 0)
    world.answers = {}
    assert world.start()[0] == 0 and not world.did("-m pip")
    assert (world.venv / "course.json").exists() and not (world.root / ".venv.old").exists()


def test_a_half_made_environment_is_emptied_and_made_anew_but_settings_stay(world):
    world.start()
    (world.venv / "course.json").unlink()
    for name in ("junk", "lib/half", "jupyter/theme"):
        (world.venv / name).mkdir(parents=True)
    status, said = world.start()
    assert status == 0 and "cut short" in said and world.did("-m venv")
    assert not (world.venv / "junk").exists() and not (world.venv / "lib").exists()
    assert (world.venv / "jupyter" / "theme").exists()


@pytest.mark.parametrize("step", ["-m venv", "torch>=", ".[notebooks]"])
def test_whatever_step_fails_the_next_start_begins_anew(world, step):
    world.answers = {step: (1, "oh dear")}
    status, said = world.start()
    assert status == 1 and "oh dear" in said and not world.did("jupyterlab")
    assert not (world.venv / "course.json").exists()
    world.answers = {}
    assert world.start()[0] == 0 and world.did("-m venv") and world.did("jupyterlab")


def test_an_environment_whose_python_is_gone_is_made_anew(world):
    world.start()
    world.python.unlink()
    status, said = world.start()
    assert status == 0 and f"has no Python {VERSION}" in said and world.did("-m venv")


def test_an_environment_of_another_python_is_made_anew(world):
    world.start()
    world.found = "3.1"
    assert f"has no Python {VERSION}" in world.start()[1] and world.did("-m venv")


def test_an_environment_that_someone_else_made_is_added_to_not_emptied(world):
    world.python.parent.mkdir(parents=True)
    world.python.write_text("theirs")
    world.answers = {"torch>=": (1, "a bad day")}
    assert world.start()[0] == 1
    world.answers = {}
    status, said = world.start()
    assert status == 0 and not world.did("-m venv") and world.did("-e .[notebooks]")
    assert world.python.read_text() == "theirs"


def test_an_environment_of_someone_else_that_does_not_fit_is_left_alone(world):
    world.python.parent.mkdir(parents=True)
    world.python.write_text("theirs")
    world.found = "3.1"
    status, said = world.start()
    assert status == 1 and "not from here" in said and "Rename or delete it" in said
    assert world.python.read_text() == "theirs" and not world.children


@pytest.mark.parametrize("system, machine, size, words", [
    ("darwin", "x86_64", 2**63 - 1, "made for Intel Macs"),
    ("win32", "AMD64", 2**31 - 1, "32-bit")])
def test_what_pytorch_does_not_run_on_is_said_before_any_download(
    world, monkeypatch, system, machine, size, words
):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(sys, "maxsize", size)
    status, said = world.start()
    assert status == 1 and words in said and not world.children and not world.venv.exists()


def test_the_tests_add_their_extra_and_the_way_back_adds_nothing(world):
    world.start()
    world.start("test")
    assert not world.did("-m venv") and world.did(".[llm,notebooks,test]")
    world.start()
    assert not world.did("-m pip")
    world.start("test")
    assert not world.did("-m pip") and world.did("-m pytest")


def test_llm_adds_its_extra_opens_the_course_and_is_asked_for_once(world):
    world.start()
    status, said = world.start("llm")
    (course,) = world.did("-e")
    assert status == 0 and course[-1] == ".[llm,notebooks]" and not world.did("-m venv")
    assert "Adding what is needed." in said and "jupyterlab" in world.children[-1]
    world.start("llm")
    assert len(world.children) == 1 and world.did("jupyterlab")
    world.start("test")
    assert world.did(".[llm,notebooks,test]")


def test_run_leaves_cells_out_that_need_what_is_not_there(world):
    skip = "--ExecutePreprocessor.skip_cells_with_tag=needs-llm"
    world.start("run")
    assert len(world.did("nbconvert")) == len(world.did(skip)) == 2
    world.start("llm")
    world.start("run")
    assert len(world.did("nbconvert")) == 2 and not world.did(skip)


def test_llm_may_be_the_first_start(world):
    assert world.start("llm")[0] == 0
    assert world.did("-m venv") and world.did(".[llm,notebooks]") and world.did("jupyterlab")


def test_a_changed_pyproject_brings_back_all_that_was_there(world):
    world.start("test")
    world.gpu = True
    (world.root / "pyproject.toml").write_text(PROJECT + "\n")
    world.start()
    assert world.did(".[llm,notebooks,test]") and world.did("whl/cpu")


def test_without_a_network_for_the_tests_the_course_still_opens(world):
    world.start()
    world.answers = {".[": (1, "Retrying (Retry(total=0))")}
    assert world.start("test")[0] == 1
    assert world.start()[0] == 0 and not world.did("-m pip") and world.did("jupyterlab")


def test_announcements_are_off_in_the_place_that_jupyterlab_reads(world):
    world.start()
    page = json.loads((world.venv / "etc/jupyter/labconfig/page_config.json").read_text())
    assert page == {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}


def test_a_slider_that_was_saved_lives_on_in_an_old_environment_too(world):
    world.start()
    kept = world.venv / "share/jupyter/lab/settings/overrides.json"
    assert json.loads(kept.read_text()) == {
        "@jupyter-widgets/jupyterlab-manager:plugin": {"saveState": True},
        "@jupyterlab/filebrowser-extension:browser": {"showLastModifiedColumn": False}}
    kept.unlink()
    world.start()
    assert kept.exists() and not world.did("-m pip")


def test_kernels_do_not_fill_the_terminal_with_warnings(world):
    world.start()
    profile = Path(world.envs[-1]["IPYTHONDIR"]) / "profile_default"
    calm = json.loads((profile / "ipython_kernel_config.json").read_text())
    assert calm == {"IPKernelApp": {"log_level": 40}}


def test_children_live_apart_from_the_readers_own_python_and_jupyter(world, monkeypatch):
    for name in ("PYTHONPATH", "PYTHONHOME", "JUPYTER_DATA_DIR", "PIP_INDEX_URL", "LORA_MINI_X"):
        monkeypatch.setenv(name, "theirs")
    world.start()
    for env in world.envs:
        assert env["PYTHONPATH"] == str(world.root) and "PYTHONHOME" not in env
        assert env["PYTHONUTF8"] == env["PYTHONNOUSERSITE"] == "1"
        assert env["PIP_INDEX_URL"] == env["LORA_MINI_X"] == "theirs"
        assert env["PATH"].startswith(str(world.python.parent) + os.pathsep)
        for name in ("CONFIG", "DATA", "RUNTIME"):
            assert env[f"JUPYTER_{name}_DIR"].startswith(str(world.venv / "jupyter"))
        assert env["IPYTHONDIR"].startswith(str(world.venv))


# PyTorch's two builds


@pytest.mark.parametrize(
    "platform, gpu, wanted, build",
    [
        ("linux", False, "auto", "cpu"),
        ("win32", False, "auto", "cpu"),
        ("linux", True, "auto", "default"),
        ("darwin", False, "auto", "default"),
        ("linux", False, "default", "default"),
        ("linux", True, "cpu", "cpu"),
    ],
)
def test_the_build_of_pytorch_fits_the_machine_or_the_wish(
    world, monkeypatch, platform, gpu, wanted, build
):
    monkeypatch.setattr(sys, "platform", platform)
    world.gpu = gpu
    _, said = world.start("--torch", wanted)
    (torch,) = world.did("torch>=2.6,<2.14")
    assert ("https://download.pytorch.org/whl/cpu" in torch) == (build == "cpu")
    other = "default" if build == "cpu" else "cpu"
    assert f"PyTorch, {build} build" in said and f"for the other: --torch {other}" in said


def test_a_dead_cpu_index_gives_way_to_the_default_one(world):
    world.answers = {"whl/cpu": (1, "Retrying (Retry(total=0))")}
    status, said = world.start()
    first, second = world.did("torch>=2.6,<2.14")
    assert status == 0 and "-i" in first and "-i" not in second and "index failed" in said
    assert json.loads((world.venv / "course.json").read_text("utf-8"))["torch"] == "default"


def test_whoever_asks_for_the_cpu_build_does_not_get_the_large_one(world):
    world.answers = {"whl/cpu": (1, "Retrying (Retry(total=0))")}
    assert world.start("--torch", "cpu")[0] == 1 and len(world.did("torch>=")) == 1


def test_asking_for_the_other_build_later_remakes_and_asking_for_the_same_does_not(world):
    world.start()
    world.start("--torch", "cpu")
    assert not world.did("-m pip")
    world.start("--torch", "default")
    assert world.did("-m venv") and not world.did("whl/cpu")
    world.start()
    assert not world.did("-m pip")


# When things go wrong


@pytest.mark.parametrize(
    "log, advice",
    [
        ("OSError: [Errno 28] No space left on device", "disk, or the one for temporary files"),
        ("WARNING: Retrying (Retry(total=4)) after connection broken", "internet connection"),
        ("pip._vendor.urllib3.exceptions.ReadTimeoutError: read timed out", "internet connection"),
        ("Temporary failure in name resolution", "internet connection"),
        ("ERROR: No matching distribution found for torch<2.14,>=2.6", "64-bit Python"),
        ("ERROR: metadata-generation-failed", "the lines above say why"),
    ],
)
def test_a_failing_pip_is_read_and_explained(world, log, advice):
    world.answers = {"torch>=": (1, "first line\n" + "so so\n" * 6 + log)}
    status, said = world.start()
    assert status == 1 and advice in said and log in said and "first line" not in said
    assert "Traceback" not in said and "setup.log" in said
    assert "first line" in (world.venv / "setup.log").read_text("utf-8")


def test_a_full_disk_is_seen_even_if_pip_could_not_say_so(world, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9e10, 9e10, 0))
    world.answers = {"torch>=": (1, "Retrying")}
    status, said = world.start()
    assert status == 1 and "Free about 3 GB" in said and "internet" not in said


def test_a_full_disk_is_not_filled_further_from_the_other_index(world):
    world.answers = {"whl/cpu": (1, "OSError: [Errno 28] No space left on device")}
    assert "is full" in world.start()[1] and len(world.did("torch>=")) == 1


@pytest.mark.parametrize("text", ["because ensurepip is not\navailable.", "No module named venv"])
def test_a_python_without_venv_is_told_the_package(world, text):
    world.answers = {"-m venv": (1, text)}
    status, said = world.start()
    assert status == 1 and "sudo apt install python3-venv" in said


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
@pytest.mark.parametrize("method", ["mkdir", "write_text", "rename"])
def test_files_that_cannot_be_written_give_a_sentence(world, monkeypatch, number, method):
    def refuse(path, *_, **__):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, method, refuse)
    status, said = world.start()
    monkeypatch.undo()
    assert status == 1 and os.strerror(number) in said and "Traceback" not in said
    assert "a folder that you can write to" in said and not world.did("jupyterlab")


def test_a_start_without_the_rest_of_the_course_says_so(world):
    (world.root / "pyproject.toml").unlink()
    status, said = world.start()
    assert status == 1 and "needs all its files" in said and "pyproject.toml" in said


@pytest.mark.parametrize(
    "step", ["-m venv", "torch>=", ".[notebooks]", "nbformat.sign", "jupyterlab"])
def test_ctrl_c_ends_the_child_says_a_sentence_and_is_mended(world, step):
    world.answers = {step: ([KeyboardInterrupt()], "")}
    status, said = world.start()
    assert status == 1 and "Stopped." in said and "Traceback" not in said
    assert world.ended[-1] == world.children[-1] and step in world.line(world.ended[-1])
    copied = ["00_welcome", "01_more"] if step == "jupyterlab" else []  # none before its trust
    assert sorted(path.stem for path in world.mine.glob("*.ipynb")) == copied
    world.answers = {}
    assert world.start()[0] == 0
    assert sorted(path.stem for path in world.mine.glob("*.ipynb")) == ["00_welcome", "01_more"]


def test_an_environment_that_is_half_emptied_is_not_taken_for_whole(world, monkeypatch):
    def cut(_):
        raise KeyboardInterrupt

    world.start()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", cut)
        assert "Stopped." in world.start("--torch", "default")[1]
    assert world.start()[0] == 0 and not world.did("-m venv")  # the one from before is back
    (world.venv / "course.json").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", cut)
        world.start()
    assert world.start()[0] == 0 and world.did("-m venv")


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot send Ctrl-C to one process")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_real_signal_in_the_first_step_leaves_no_traceback_and_no_stamp(tmp_path, number):
    root = tmp_path / "my course \u00e9"
    root.mkdir()
    shutil.copy(REPO / "start.py", root)
    (root / "pyproject.toml").write_text(PROJECT)
    env = dict(os.environ, PIP_NO_INDEX="1")
    process = subprocess.Popen([sys.executable, "start.py"], cwd=root, env=env, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    while process.poll() is None and not (root / ".venv" / "pyvenv.cfg").exists():
        time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 1 and "Stopped." in err and "Traceback" not in out + err
    assert not (root / ".venv" / "course.json").exists() and "Step 1" in out


def test_a_long_step_shows_that_it_is_alive(world):
    slow = subprocess.TimeoutExpired("pip", 3)
    world.answers = {"torch>=": ([slow, slow, slow, 0], "")}
    _, said = world.start()
    assert "...\n" not in said and "... took" in said.split("Step 2")[1]


def test_verbose_shows_pip_instead_of_logging_it(world):
    world.answers = {"torch>=": (1, "words for the log")}
    world.start("--verbose")
    assert "words" not in (world.venv / "setup.log").read_text("utf-8")


def test_a_console_without_the_letters_gets_escapes_not_a_crash(world, monkeypatch):
    world.add("02_\u0142\u00f3d\u017a")
    world.start()
    world.add("02_\u0142\u00f3d\u017a", "new")
    console = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", console)
    assert world.start()[0] == 0
    console.flush()
    assert b"new edition of 02_\\u0142" in console.buffer.getvalue()


# The working copy


def test_copies_keep_slider_outputs_and_lose_those_that_give_answers_away(world):
    world.start()
    heading, answer, slider = world.mine_of("00_welcome")["cells"]
    assert answer["outputs"] == [] and answer["execution_count"] is None
    assert slider["outputs"][0]["data"] == {SLIDER: {"model_id": "a"}}
    assert slider["execution_count"] == 5 and "outputs" not in heading
    metadata = world.mine_of("00_welcome")["metadata"]
    assert metadata.pop("language_info")["version"] == platform.python_version()
    assert metadata == {"widgets": {"a": 7}}
    assert "the answer" in (world.root / "notebooks" / "00_welcome.ipynb").read_text()


def test_a_file_of_the_reader_is_never_overwritten(world):
    world.mine.mkdir()
    (world.mine / "01_more.ipynb").write_text("mine, and not even a notebook")
    world.start()
    world.add("01_more", "new"), world.add("00_welcome", "new")
    (world.mine / "00_welcome.ipynb").write_text("my answers")
    world.start()
    assert (world.mine / "01_more.ipynb").read_text() == "mine, and not even a notebook"
    assert (world.mine / "00_welcome.ipynb").read_text() == "my answers"


def test_later_notebooks_are_added_and_only_they_are_trusted(world):
    world.start()
    assert len(world.did("nbformat.sign")[0]) == 5
    world.add("02_late")
    world.start()
    (trust,) = world.did("nbformat.sign")
    assert [Path(name).stem for name in trust[3:]] == ["02_late"]
    assert world.mine_of("02_late")["cells"][1]["outputs"] == []
    world.start()
    assert not world.did("nbformat.sign")


def test_what_is_trusted_is_what_the_copy_will_hold(world, monkeypatch):
    seen = {}
    wait = Child.wait

    def look(child, timeout=None):
        if "nbformat.sign" in child.command:
            seen.update({Path(name).stem: Path(name).read_text() for name in child.command[3:]})
        return wait(child, timeout)

    monkeypatch.setattr(Child, "wait", look)
    world.start()
    assert seen == {path.stem: path.read_text() for path in world.mine.glob("*.ipynb")}
    assert not list(world.mine.glob("*.new")) and not list(world.mine.glob("*.part"))


def test_a_new_edition_is_announced_once_a_start_and_comes_when_the_copy_makes_way(world):
    world.start()
    assert "new edition" not in world.start()[1]
    world.add("01_more", "second edition")
    _, said = world.start()
    assert said.count("new edition") == 1 and "new edition of 01_more.ipynb" in said
    assert "rename or delete" in said and world.mine_of("01_more")["cells"][0]["source"] == "hello"
    (world.mine / "01_more.ipynb").rename(world.mine / "01_old.ipynb")
    assert "new edition" not in world.start()[1]
    assert world.mine_of("01_more")["cells"][0]["source"] == "second edition"
    assert "new edition" not in world.start()[1]


def test_answers_in_a_copy_are_not_taken_for_a_new_edition(world):
    world.start()
    (world.mine / "00_welcome.ipynb").write_text(json.dumps(notebook("my answer")))
    assert "new edition" not in world.start()[1]


@pytest.mark.parametrize("spoilt", ["", "{", "\x00"])
def test_a_spoilt_record_costs_no_answers(world, spoilt):
    world.start()
    (world.mine / ".copied.json").write_text(spoilt)
    (world.mine / "00_welcome.ipynb").write_text("my answers")
    assert world.start()[0] == 0
    assert (world.mine / "00_welcome.ipynb").read_text() == "my answers"


# A class


def test_class_copies_notebooks_without_outputs_and_solutions_and_sets_nothing_up(world):
    folded = {"cell_type": "markdown", "metadata": {}, "source": [
        "<details><summary>Solution</summary>\n", "secret\n", "</details>"]}
    recall = {"cell_type": "markdown", "metadata": {}, "source":
              "<details><summary>What is a rank?</summary>shown</details>"}
    full = notebook()
    full["cells"] += [folded, recall]
    (world.root / "notebooks" / "01_more.ipynb").write_text(json.dumps(full))
    target = world.root / "for class \u00e9"
    status, said = world.start("class", str(target))
    assert not status and "2 notebooks copied" in said and not world.children
    assert not world.venv.exists()
    text = (target / "01_more.ipynb").read_text("utf-8")
    assert "secret" not in text and "shown" in text and "the answer" not in text
    copied = json.loads(text)
    assert all(not cell.get("outputs") for cell in copied["cells"])
    assert "widgets" not in copied["metadata"]
    (target / "01_more.ipynb").write_text("theirs")
    (target / "00_welcome.ipynb").unlink()
    status, said = world.start("class", str(target), "--solutions")
    assert "stays as it is" in said and (target / "01_more.ipynb").read_text() == "theirs"
    (target / "01_more.ipynb").unlink()
    world.start("class", str(target), "--solutions")
    assert "secret" in (target / "01_more.ipynb").read_text("utf-8")


def test_the_solutions_of_the_real_course_are_all_found_and_left_out(world):
    shutil.rmtree(world.root / "notebooks")
    shutil.copytree(REPO / "notebooks", world.root / "notebooks")
    world.start("class", str(world.root / "c"))
    for source in (REPO / "notebooks").glob("*.ipynb"):
        theirs = source.read_text("utf-8")
        cells = json.loads((world.root / "c" / source.name).read_text("utf-8"))["cells"]
        exercises = [c for c in cells if "exercise" in c["metadata"].get("tags", [])]
        assert exercises and len(cells) == len(json.loads(theirs)["cells"]) - len(exercises)


def test_a_first_start_opens_the_edition_of_the_class_and_adds_nothing(world):
    world.start("class", str(world.mine))
    before = {path.name: path.read_text() for path in world.mine.glob("*.ipynb")}
    assert "new edition" not in world.start()[1]
    assert {path.name: path.read_text() for path in world.mine.glob("*.ipynb")} == before


@pytest.mark.parametrize("arguments", [["class"], ["class", "a", "b"], ["class", "--no-such"]])
def test_class_needs_one_folder(world, arguments):
    status, said = world.start(*arguments)
    assert status == 2 and "one folder" in said


# Opening, testing, running


@pytest.fixture
def server(world):
    """A server that answers like JupyterLab's, and the file in which JupyterLab says where."""
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/api/status?token=abc" else 403)
            self.end_headers()

        def log_message(self, *_):
            pass

    world.start()
    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        about = {"url": f"http://127.0.0.1:{found.server_port}/", "token": "abc"}
        folder = world.venv / "jupyter" / "jupyter_runtime_dir"
        folder.mkdir(parents=True)
        (folder / "jpserver-1.json").write_text(json.dumps(about))
        yield about
        found.shutdown()


def test_a_second_start_says_where_the_first_one_is_and_opens_nothing(world, server):
    status, said = world.start()
    assert status == 0 and server["url"] + "lab?token=abc" in said and "open already" in said
    assert not world.children


@pytest.mark.parametrize("spoil", [{"token": "another"}, {"url": "http://127.0.0.1:9/"},
                                   {"url": 3}, {"url": None}])
def test_a_server_that_has_ended_or_is_another_stops_nobody(world, server, spoil):
    path = world.venv / "jupyter" / "jupyter_runtime_dir" / "jpserver-1.json"
    for content in (json.dumps(server | spoil), "", "[]"):
        path.write_text(content)
        assert world.start()[0] == 0 and world.did("jupyterlab")


def test_the_welcome_is_opened_or_else_the_first(world):
    def opened():
        return world.did("jupyterlab")[0]

    world.add("00_about")
    world.start()
    assert "--LabApp.default_url=/lab/tree/my_notebooks/00_welcome.ipynb" in opened()
    for folder in ("notebooks", "my_notebooks"):
        (world.root / folder / "00_welcome.ipynb").unlink()
    world.start()
    assert "--LabApp.default_url=/lab/tree/my_notebooks/00_about.ipynb" in opened()
    assert "-y" in opened() and "--allow-root" in opened()


@pytest.mark.parametrize(
    "platform, display, arguments, opens",
    [
        ("linux", "", [], False),
        ("linux", "DISPLAY", [], True),
        ("linux", "WAYLAND_DISPLAY", [], True),
        ("linux", "DISPLAY", ["--no-browser"], False),
        ("darwin", "", [], True),
        ("win32", "", [], True),
        ("win32", "", ["--no-browser"], False),
    ],
)
def test_a_browser_opens_where_there_can_be_one(
    world, monkeypatch, platform, display, arguments, opens
):
    monkeypatch.setattr(sys, "platform", platform)
    if display:
        monkeypatch.setenv(display, ":0")
    world.start(*arguments)
    assert ("--no-browser" in world.did("jupyterlab")[0]) != opens


@pytest.mark.parametrize(
    "platform, flag", [("linux", "--nbval"), ("darwin", "--nbval-lax"), ("win32", "--nbval-lax")]
)
def test_outputs_are_compared_on_linux_only_and_that_is_said(world, monkeypatch, platform, flag):
    monkeypatch.setattr(sys, "platform", platform)
    _, said = world.start("test")
    (pytest_child,) = world.did("-m pytest")
    assert pytest_child[1:] == ["-m", "pytest", flag, "tests", "lessons", "faults", "notebooks"]
    assert flag + ": only on Linux" in said and not world.mine.exists()


@pytest.mark.parametrize("extra", [["-x"], ["-k", "svd and not slow"], ["tests/test_x.py", "-q"]])
def test_what_follows_test_goes_to_pytest_and_its_status_comes_back(world, extra):
    world.answers = {"-m pytest": (5, "")}
    status, _ = world.start("test", *extra)
    assert status == 5 and world.did("-m pytest")[0][-len(extra) - 1 :] == ["notebooks", *extra]


def test_run_executes_every_notebook_and_goes_on_after_a_failure(world):
    reason = "Traceback\n\x1b[31mNameError\x1b[39m: name 'x' is not defined\n"
    world.answers = {"00_welcome": (1, reason)}
    status, said = world.start("run")
    first, second = world.did("-m nbconvert", "--execute")
    assert status == 1 and "failed: NameError: name 'x' is not defined" in said
    for child, name in ((first, "00_welcome.ipynb"), (second, "01_more.ipynb")):
        assert str(world.root / "notebooks" / name) in child and name in said
        assert child[child.index("--output-dir") + 1] == str(world.root / "build" / "run")
    assert said.count(" took ") == 5 and not world.mine.exists()


def test_run_is_content_when_all_notebooks_are(world):
    assert world.start("run")[0] == 0 and not world.did("jupyterlab")
