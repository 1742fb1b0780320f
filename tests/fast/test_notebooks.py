"""Rules that make the notebooks one hand's: frame, bets, exercises, figures, names, sizes."""

import ast
import re

import nbformat
import pytest

import build

LESSONS = build.all_lessons()
HOME = {"LoRALinear": "04", "truncated_svd": "02", "low_rank": "02", "energy_kept": "02",
        "effective_rank": "02", "randomized_svd": "02", "attach": "04", "merge": "04"}


def cells(lesson, kind, edition="learner"):
    return [c for c in build.assemble(lesson, edition).cells if c.cell_type == kind]


def prose(lesson):
    return "\n\n".join(c.source for c in cells(lesson, "markdown"))


def calls(source, *names):
    return [n for n in ast.walk(ast.parse(source))
            if isinstance(n, ast.Call) and getattr(n.func, "id", "") in names]


def pattern(node):
    """A regular expression for the strings that a constant or an f-string can be."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    return "".join(re.escape(p.value) if isinstance(p, ast.Constant) else ".+" for p in parts)


each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda p: p.stem[:2])


def test_the_built_notebooks_match_their_lessons():
    build.check(LESSONS)


@each_lesson
def test_the_frame(lesson):
    text = prose(lesson)
    assert text.startswith(f"# {int(lesson.stem[:2])}. ")
    order = ["At the end of this notebook you will be able to", "You need", "## What you have done",
             "**On your own.**", "**In practice.**", "**Further reading.**"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert re.search(r"About \d+ minutes\s+to\s+study", text)


@each_lesson
def test_the_closing_bullets_answer_the_promises_one_by_one(lesson):
    text = prose(lesson)
    promises = text.split("will be able to")[1].split("\n\nYou need")[0]
    answers = text.split("## What you have done")[1].split("**On your own.**")[0]
    count = [len(re.findall(r"^- ", part, re.M)) for part in (promises, answers)]
    assert count[0] == count[1] >= 3
    assert answers.count("- You **") == count[1]


@each_lesson
def test_bets_exercises_and_recall_questions_are_there(lesson):
    code = "\n".join(c.source for c in cells(lesson, "code"))
    names = [c.args[0].value for c in calls(code, "bet") if isinstance(c.args[0], ast.Constant)]
    assert len(names) == len(set(names)) >= 3
    settled = [pattern(c.args[0]) for c in calls(code, "settle", "verdict")]
    for name in names:
        assert any(re.fullmatch(each, name) for each in settled), f"never settled: {name}"
    exercises = [c for c in cells(lesson, "code") if "exercise" in c.metadata.get("tags", [])]
    assert 2 <= len(exercises) <= 4
    if not lesson.stem.startswith("00"):
        assert prose(lesson).split("## ")[0].count("<details>") in (2, 3)


@each_lesson
def test_a_cell_that_expects_or_speaks_a_verdict_does_nothing_else_and_is_folded(lesson):
    for cell in cells(lesson, "code"):
        if calls(cell.source, "expect", "verdict"):
            assert cell.metadata.get("jupyter") == {"source_hidden": True}, cell.source


@each_lesson
def test_sizes(lesson):
    assert len(prose(lesson).split()) <= 2500
    code = [c.source.splitlines() for c in cells(lesson, "code")]
    assert max(map(len, code)) <= 20
    assert max(len(line) for source in code for line in source) <= 110
    assert (build.ROOT / "notebooks" / f"{lesson.stem}.ipynb").stat().st_size < 500_000


def accidental_lists(text):
    """Lines inside a paragraph that Markdown takes for the item of a list."""
    found, listed, before = [], False, ""
    for line in text.splitlines():
        item = re.match(r" {0,3}([-+*]|\d{1,9}[.)]) ", line)
        begins = len(before) < 80 or before.endswith((":", ".", "?", "**"))  # no wrapped line
        if item and not listed and not begins:
            found.append(line)
        if item:
            listed = True
        elif not line.strip() or line.startswith("#"):
            listed = False
        before = line
    return found


@each_lesson
def test_no_line_of_a_paragraph_is_taken_for_a_list(lesson):
    assert accidental_lists(90 * "x" + " of\n8. Then") == ["8. Then"]
    assert accidental_lists(90 * "x" + "\n+ b") == ["+ b"]
    assert accidental_lists("You can:\n- one\n  more\n- two\n\n1. a\n2. b\n\n8.5 is") == []
    for cell in cells(lesson, "markdown"):
        assert accidental_lists(cell.source) == []


@each_lesson
def test_every_figure_has_a_caption_and_words(lesson):
    for cell in cells(lesson, "code"):
        for call in calls(cell.source, "show"):
            assert len(call.args) == 2 and [k.arg for k in call.keywords] == ["alt"]
        assert "plt.show" not in cell.source


@each_lesson
def test_later_cells_never_use_what_an_exercise_defines(lesson):
    code = cells(lesson, "code", "solved")
    for number, cell in enumerate(code):
        if "exercise" not in cell.metadata.get("tags", []):
            continue
        tree = ast.parse(cell.source)
        mine = {n.name for n in tree.body if isinstance(n, ast.FunctionDef)} | {
            t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets}
        for later in code[number + 1:]:
            if "exercise" in later.metadata.get("tags", []):
                continue
            loads = {n.id for n in ast.walk(ast.parse(later.source))
                     if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
            assert not mine & loads, (cell.source[:60], mine & loads)


@each_lesson
def test_what_the_package_holds_is_not_defined_again_after_its_home(lesson):
    for cell in cells(lesson, "code"):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                assert HOME.get(node.name, "99") >= lesson.stem[:2], node.name


@each_lesson
def test_the_committed_outputs_tell_what_the_text_expects(lesson):
    notebook = nbformat.read(build.ROOT / "notebooks" / f"{lesson.stem}.ipynb", 4)
    outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    said = "".join(o.get("text", "") + o.get("data", {}).get("text/plain", "") for o in outputs)
    assert "NOT seen here" not in said
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert not re.search(r"/(root|home|tmp|work|Users)/|ipykernel_\d|Warning", said)


@each_lesson
def test_no_printed_line_is_wider_than_a_projector_shows(lesson):
    notebook = nbformat.read(build.ROOT / "notebooks" / f"{lesson.stem}.ipynb", 4)
    lines = [line for c in notebook.cells if c.cell_type == "code" for o in c.outputs
             for line in o.get("text", "").splitlines()]
    assert [line for line in lines if len(line) > 80] == []
