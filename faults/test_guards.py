"""Faults planted in a toy notebook's references: each must turn its own cell red, by comparison."""

import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor

import nbformat
import pytest

import build

LESSON = '''# %%
from lora_mini.desk import expect
from lora_mini.desk.figures import axes, show

# %%
print("three", 1 + 2);

# %%
fig, ax = axes(2, 1.5)
ax.plot([0, 1])
show(fig, "A line.", alt="It rises from 0 to 1.")

# %% tags=["measured"]
import time
now = time.time()
print(now)

# %%
expect("time goes on", now > 0)
'''


def stripped(notebook):
    notebook.cells[1].execution_count, notebook.cells[1].outputs = None, []


def altered_number(notebook):
    notebook.cells[1].outputs[0].text = "three 4\n"


def wrong_plot(notebook):
    notebook.cells[2].outputs[0].data["text/plain"] = "[figure] It falls from 1 to 0."


def wrong_verdict(notebook):
    notebook.cells[4].outputs[0].text = "NOT seen here: time goes on.\n"


def dead_kernel(notebook):
    notebook.cells[1].source = "import os\nos._exit(1)"


FAULTS = {stripped: (1, "never executed"), altered_number: (1, "mismatch 'stdout'"),
          wrong_plot: (2, "mismatch 'text/plain'"), wrong_verdict: (4, "mismatch 'stdout'"),
          dead_kernel: (1, "kernel died")}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The guards, as in the project, over a sound notebook and one for each fault."""
    folder = tmp_path_factory.mktemp("toy")
    for name in ("conftest.py", "build.py", "pyproject.toml"):
        shutil.copy(build.ROOT / name, folder)
    lesson = folder / "77_toy.py"
    lesson.write_text(LESSON, "utf-8")
    (folder / "lora_mini").symlink_to(build.ROOT / "lora_mini")
    sound = build.execute(build.assemble(lesson), folder)
    nbformat.write(sound, folder / "sound.ipynb")
    for fault in FAULTS:
        notebook = nbformat.from_dict(sound)
        fault(notebook)
        nbformat.write(notebook, folder / f"{fault.__name__}.ipynb")
        sound = nbformat.read(folder / "sound.ipynb", 4)
    return folder


def nbval(folder, *names, report="report.xml"):
    command = [sys.executable, "-m", "pytest", "--nbval", "-q", "-p", "no:cacheprovider",
               f"--junitxml={report}", *names]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def results(project):
    """All notebooks, in two runs: (notebook, number of the code cell) to the failure's text."""
    names = [f"{name}.ipynb" for name in ("sound", *(fault.__name__ for fault in FAULTS))]
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda i: nbval(project, *names[i::2], report=f"{i}.xml"), (0, 1)))
    assert [status for status, _ in done] == [1, 1], done
    reports = [ElementTree.parse(project / f"{i}.xml") for i in (0, 1)]
    cases = [case for report in reports for case in report.iter("testcase")]
    found = {}
    for case in cases:
        bad = [*case.findall("failure"), *case.findall("error")]
        number = int(case.get("name").split()[-1])
        found[case.get("classname").split(".")[0], number] = bad[0].text if bad else ""
    return found


def test_the_sound_notebook_passes(results):
    assert [results["sound", n] for n in range(5)] == [""] * 5


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_turns_its_own_cell_red(results, fault):
    cell, words = FAULTS[fault]
    assert words in results[fault.__name__, cell]
    assert results[fault.__name__, 0] == ""


def test_a_cell_that_needs_the_extra_is_left_out_only_where_it_is_absent(project):
    notebook = nbformat.read(project / "sound.ipynb", 4)
    altered_number(notebook)
    notebook.cells[1].metadata["tags"] = ["needs-llm"]
    nbformat.write(notebook, project / "llm.ipynb")
    source = (project / "build.py").read_text("utf-8")
    try:
        for package, wanted in (("no_such_package", (0, "1 skipped")), ("numpy", (1, "1 failed"))):
            changed = re.sub(r"LLM = .*?\)", f'LLM = ("{package}",)', source)
            (project / "build.py").write_text(changed, "utf-8")
            status, output = nbval(project, "llm.ipynb", report="llm.xml")
            assert (status, wanted[1] in output) == (wanted[0], True), output
    finally:
        (project / "build.py").write_text(source, "utf-8")


def test_an_unknown_tag_stops_the_run(project):
    notebook = nbformat.read(project / "sound.ipynb", 4)
    notebook.cells[1].metadata["tags"] = ["nbval-skip"]
    nbformat.write(notebook, project / "tagged.ipynb")
    status, output = nbval(project, "tagged.ipynb")
    assert status == 4 and "unknown tag ['nbval-skip']" in output
