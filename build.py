"""Make the notebooks from the lessons, one way: lessons/NN_name.py is the only source.

    python build.py            the learner's edition, into notebooks/ (executed, committed)
    python build.py check      does notebooks/ still match the lessons? (seconds, executes nothing)
    python build.py solved     solutions in place; every check must say "solved"; into build/solved/
    python build.py page       docs/my-adapter-does-not-learn.md, from the zoo's specimens
    python build.py claims     the ledger: docs/claims.json, docs/claims.md, a block in the README

Options: --force executes everything again; names of lessons, such as 02, build only those.

A lesson is Jupytext's percent format. In an `exercise` cell, lines between `# <solution>` and
`# </solution>` are the solution; `# <stub>` ... `# </stub>` holds, commented out, what the learner
finds instead (by default `...`). A cell is executed again only when its lesson's code or the
package changed. CONTRIBUTING.md explains the pattern of a lesson.
"""

import argparse
import ast
import datetime
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parent
PAGE = ROOT / "docs" / "my-adapter-does-not-learn.md"
TAGS = {"measured", "exercise", "needs-llm"}  # all others are compared; unknown tags are errors
LLM = ("transformers", "peft", "gguf", "xllamacpp")  # the extra, without which needs-llm is skipped
EDITIONS = ("learner", "check", "solved")
JUDGES = ("settle", "expect", "verdict")
COVER = "# judged here"
SOLUTION = re.compile(r"^( *)# <solution>\n(.*?)^ *# </solution>\n?", re.S | re.M)
STUB = re.compile(r"^ *# <stub>\n(.*?)^ *# </stub>\n?", re.S | re.M)
FOLDED = "<details><summary>Solution</summary>\n\n```python\n{}\n```\n\n</details>"
KERNEL = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
ENVIRONMENT = {  # one thread, the CPU, and no colours: the same outputs on every machine
    "CUDA_VISIBLE_DEVICES": "", "LORA_MINI_DEVICE": "cpu", "LORA_MINI_PRESET": "laptop",
    "LORA_MINI_PROGRESS": "0",
    "MKL_NUM_THREADS": "1", "NO_COLOR": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
    "LORA_MINI_SMOLLM": os.environ.get("LORA_MINI_SMOLLM") or str(  # 98 MB: not anew for each
        Path(os.environ.get("LORA_MINI_HOME") or "~/.lora_mini").expanduser() / "smollm"),
}


class LessonError(Exception):
    """What is wrong with a lesson, in a sentence that names its file."""


def machine_seconds():
    """{notebook: seconds of machine time} as the README's table says; a toy course has none."""
    readme = ROOT / "README.md"
    text = readme.read_text("utf-8") if readme.exists() else ""
    rows = re.findall(r"^\| `(\d\d_\w+)` .* (\d+) s \|$", text, re.M)
    return {name: int(seconds) for name, seconds in rows}


def all_lessons():
    """The files of the lessons, in order."""
    return sorted((ROOT / "lessons").glob("[0-9][0-9]_*.py"))


def has_llm():
    """Whether the extra for the real language model is installed, all of it."""
    return all(importlib.util.find_spec(name) for name in LLM)


def assemble(lesson, edition="learner"):
    """The notebook of one lesson, not executed: edition is learner or solved."""
    notebook = nbformat.v4.new_notebook(metadata=dict(KERNEL))
    for cell in jupytext.reads(lesson.read_text("utf-8"), fmt="py:percent").cells:
        tags, block = cell.metadata.get("tags", []), SOLUTION.search(cell.source + "\n")
        if unknown := set(tags) - TAGS:
            raise LessonError(f"{lesson.name}: unknown tag {sorted(unknown)}, not of {TAGS}")
        if ("exercise" in tags) != bool(block):
            raise LessonError(f"{lesson.name}: an exercise cell, and no other, holds a solution; "
                              f"see {cell.source[:60]!r}")
        cell.metadata = {"tags": tags} if tags else {}
        if cell.cell_type == "code" and judges(cell.source):
            cell.metadata["jupyter"] = {"source_hidden": True}
            cell.source = f"{COVER}\n{cell.source}"  # JupyterLab shows a folded cell's first line
        notebook.cells.append(cell)
        solved = block and _exercise(cell.source, block[1], "solved")
        if block:
            cell.source = _exercise(cell.source, block[1], edition)
        if solved and edition == "learner":  # markdown: Run All must not answer for the learner
            notebook.cells.append(nbformat.v4.new_markdown_cell(FOLDED.format(solved)))
    check_measured(notebook, lesson.name)
    seen = {}
    for cell in notebook.cells:  # ids from content: a new cell leaves the others' ids alone
        key = hashlib.sha256(cell.source.encode()).hexdigest()[:12]
        seen[key] = seen.get(key, 0) + 1
        cell.id = f"{key}-{seen[key]}"
    return notebook


def judges(source):
    """Whether a cell does nothing but settle, expect or speak a verdict.

    Such a cell is folded: it stands under a bet, and its words would give the answer away.
    """
    body = ast.parse(source).body
    return bool(body) and all(
        isinstance(line, ast.Expr) and isinstance(line.value, ast.Call)
        and getattr(line.value.func, "id", "") in JUDGES for line in body)


def _exercise(source, indent, edition):
    source += "\n"
    stub = STUB.search(source)
    source = STUB.sub("", source)
    if edition == "solved":
        return SOLUTION.sub(r"\2", source).rstrip("\n")
    lines = f"{indent}...  # your code here\n"
    if stub:
        lines = re.sub(r"^( *)# ?", r"\1", stub[1], flags=re.M)
    return SOLUTION.sub(lambda _: lines, source).rstrip("\n")


def check_measured(notebook, name):
    """Raise LessonError unless the code cell after each `measured` one judges what was measured.

    It must call `expect` or `verdict` with a name that the measured cell has assigned. The one
    exception is a cell of ipywidgets' `interact`, which measures nothing by itself.
    """
    code = [c for c in notebook.cells if c.cell_type == "code"]
    for cell, following in zip(code, [*code[1:], None], strict=True):
        if "measured" not in cell.metadata.get("tags", []) or "interact(" in cell.source:
            continue
        measured = ast.parse(cell.source)
        bound = {n.name for n in measured.body if isinstance(n, ast.FunctionDef)}
        bound |= {n.id for n in ast.walk(measured)
                  if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        tree = ast.parse(following.source if following else "")
        calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call)
                 and getattr(n.func, "id", "") in ("expect", "verdict")]
        used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
        if not calls or not bound & used:
            raise LessonError(f"{name}: a measured cell without a verdict: the next code cell must "
                              f"call expect or verdict on one of {sorted(bound)}; see "
                              f"{cell.source[:60]!r}")


def fingerprint(notebook, name):
    """A hash of the notebook's code and of the package's, without comments and docstrings.

    The checks of other notebooks are left out, and the world and the lab where they are not used.
    """
    parts = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    used = {room for room in ("world", "lab")
            for source in parts if re.search(rf"lora_mini\.({room}|lab)\b", source)}
    for path in sorted((ROOT / "lora_mini").rglob("*.py")):
        if path.parent.name == "checks" and path.stem not in ("__init__", f"nb{name[:2]}"):
            continue
        if path.parent.name in {"world", "lab"} - used:
            continue
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list) and body and isinstance(body[0], ast.Expr) \
                    and isinstance(getattr(body[0], "value", None), ast.Constant):
                body[0].value.value = ""
        parts += [path.relative_to(ROOT).as_posix(), ast.dump(tree)]
    parts += [p.read_text("utf-8") for p in sorted((ROOT / "lora_mini").rglob("*.js"))]
    parts += [p.read_text("utf-8") for p in sorted((ROOT / "lora_mini").rglob("*.toml"))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def execute(notebook, folder):
    """Run the notebook in `folder`, with an empty LORA_MINI_HOME, and make its bytes stable."""
    if not has_llm() and any("needs-llm" in c.metadata.get("tags", []) for c in notebook.cells):
        raise LessonError("cells tagged needs-llm can't be built without the extra: pip install -e "
                          f"\".[llm]\" brings {', '.join(LLM)}")
    with tempfile.TemporaryDirectory() as empty:
        os.environ.update(ENVIRONMENT, LORA_MINI_HOME=empty, PYTHONPATH=str(ROOT))
        client = NotebookClient(notebook, timeout=240, record_timing=False,
                                resources={"metadata": {"path": str(folder)}})
        try:
            client.execute()  # keeps the widgets' state and buffers in the notebook's metadata
        except CellExecutionError as error:
            words = re.sub(r"\x1b\[[0-9;]*m", "", str(error))  # no colours
            raise LessonError(f"a cell failed:\n{words}") from None
    widgets = notebook.metadata.get("widgets", {})
    notebook.metadata = dict(KERNEL) | ({"widgets": widgets} if widgets else {})
    text = nbformat.writes(notebook, version=4)
    states = widgets.get("application/vnd.jupyter.widget-state+json", {}).get("state", {})
    for number, model in enumerate(states):
        text = text.replace(model, f"{number:032x}")  # random model ids become counters
    return nbformat.reads(text, as_version=4)


def compared(notebook):
    """What a built notebook and its lesson must have in common."""
    cells = [(c.cell_type, c.id, c.source, dict(c.metadata)) for c in notebook.cells]
    extra = ("widgets", "lora_mini")
    return cells, {k: v for k, v in notebook.metadata.items() if k not in extra}


def check(lessons, folder=ROOT / "notebooks"):
    """Raise LessonError where `folder` holds anything but the built lessons."""
    known = {p.stem for p in all_lessons()}
    stray = {p.stem for p in folder.glob("*.ipynb")} - known
    if stray:
        raise LessonError(f"notebooks without a lesson: {', '.join(sorted(stray))}")
    for lesson in lessons:
        target = folder / f"{lesson.stem}.ipynb"
        if not target.exists():
            raise LessonError(f"{target.name} is missing: run python build.py")
        if compared(nbformat.read(target, 4)) != compared(assemble(lesson)):
            raise LessonError(f"{target.name} differs from its lesson: edit the lesson and run "
                              "python build.py")


def build(lesson, edition, force=False):
    """Write one notebook; True if it had to be executed."""
    folder = ROOT / "notebooks" if edition == "learner" else ROOT / "build" / edition
    folder.mkdir(parents=True, exist_ok=True)
    target, notebook = folder / f"{lesson.stem}.ipynb", assemble(lesson, edition)
    mark = fingerprint(notebook, lesson.stem)
    old = nbformat.read(target, 4) if target.exists() and not force else None
    if old and old.metadata.get("lora_mini", {}).get("code") == mark:
        now, before = ([c for c in nb.cells if c.cell_type == "code"] for nb in (notebook, old))
        for cell, done in zip(now, before, strict=True):  # only words changed
            cell.outputs, cell.execution_count = done.outputs, done.execution_count
        notebook.metadata = old.metadata
        nbformat.write(notebook, target)
        return False
    notebook = execute(notebook, folder)
    notebook.metadata["lora_mini"] = {
        "code": mark, "date": f"{datetime.date.today()}",
        "by": f"{platform.machine()} CPU, {platform.system()}, one thread, torch "
              f"{importlib.metadata.version('torch')}"}
    unsolved = [c.source for c in notebook.cells
                if "exercise" in c.metadata.get("tags", []) and "solved" not in str(c.outputs)]
    if edition == "solved" and unsolved:
        raise LessonError(f"{lesson.name}: a solution does not pass its check:\n{unsolved[0]}")
    nbformat.write(notebook, target)
    return True


def write_page(path=PAGE):
    """Write the page of first aid (see lora_mini/lab/firstaid.py)."""
    os.environ.update(ENVIRONMENT)
    from lora_mini.lab import firstaid  # the notebooks are built without it
    path.write_text(firstaid.page(), "utf-8")


def claims_pages():
    """What `build.py claims` writes: {path: text}. The same from the same records and notebooks."""
    from lora_mini.desk import page  # PyTorch takes a while: only where it is needed
    from lora_mini.lab import claims
    found, readme = claims.ledger(), ROOT / "README.md"
    data = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    return {ROOT / "docs/claims.json": data, ROOT / "docs/claims.md": page.markdown(found),
            readme: page.readme(readme.read_text("utf-8"), found["claims"])}


def write_claims():
    """Read the verdicts' places and facts out of lessons and notebooks; write the pages."""
    from lora_mini.lab import claims
    told = claims.read(ROOT)
    for each in told.values():
        if not each["date"]:  # built before notebooks noted it: the day of its commit
            ask = ["git", "log", "-1", "--format=%as", "--", f"notebooks/{each['notebook']}.ipynb"]
            each["date"] = subprocess.run(ask, cwd=ROOT, capture_output=True,
                                          text=True).stdout.strip()
        each["by"] = each["by"] or "CPU, one thread"
    claims.SPOKEN.write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    for path, text in claims_pages().items():
        path.write_text(text, "utf-8")


def check_claims():
    """Raise LessonError where the ledger's pages are not what records and notebooks say."""
    for path, text in claims_pages().items():
        if path.read_text("utf-8") != text:
            raise LessonError(f"{path.name} differs from what the records and notebooks say: run "
                              "python build.py claims")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("words", nargs="*", help="an edition, and beginnings of lesson names")
    parser.add_argument("--force", action="store_true", help="execute everything again")
    options = parser.parse_args(arguments)
    words = options.words
    if words == ["page"]:
        write_page()
        print(f"{PAGE.name} written")
        return
    if words == ["claims"]:
        return write_claims()
    edition = words.pop(0) if words and words[0] in EDITIONS else "learner"
    lessons = [p for p in all_lessons() if not words or p.name.startswith(tuple(words))]
    if not lessons:
        parser.error(f"no edition and no lesson is called {' '.join(words)}")
    try:
        if edition == "check":
            check(lessons)
            if not words:
                check_claims()
            print(f"{len(lessons)} notebooks match their lessons")
            return
        for lesson in lessons:
            start = time.perf_counter()
            ran = build(lesson, edition, options.force)
            print(f"{lesson.stem:28s} {'executed' if ran else 'unchanged':10s} "
                  f"{time.perf_counter() - start:5.1f} s")
    except LessonError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
