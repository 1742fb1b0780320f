"""Runs one test of a copied project inside a fresh process, and returns what pytest said."""

import contextlib
import os
import sys
from pathlib import Path

import pytest


def run(folder, test):
    """(pytest's exit status, its output) for `tests/<test>` in `folder`, whose package is used."""
    os.chdir(folder)
    sys.path.insert(0, folder)
    with open("said.txt", "w", encoding="utf-8") as said:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = pytest.main(["-q", "-x", "-p", "no:cacheprovider", f"tests/{test}"])
    return int(status), Path("said.txt").read_text("utf-8")
