"""From a lesson to a notebook: exercises, editions, stable bytes, and lessons that are refused."""

import nbformat
import pytest

import build

LESSON = '''# %% [markdown]
# # A toy

# %%
import numpy as np

from lora_mini.desk import expect

print(f"{np.sqrt(2):.3f}")

# %% tags=["measured"]
x = sum(np.random.default_rng(0).random(3))
print(x)

# %%
expect("x is below three", x < 3)

# %% tags=["exercise"]
from lora_mini.desk.checks import answer


def double(x):
    # <solution>
    return 2 * x
    # </solution>


answer(lambda: double(4), lambda y: y == 8)

# %% tags=["exercise"]
# <stub>
# halves = [
#     4, 3]
# </stub>
# <solution>
halves = [4, 2]
# </solution>
answer(halves, lambda y: y[1] == 2)
'''


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of one lesson. The package is the real one."""
    for name in ("lessons", "notebooks"):
        (tmp_path / name).mkdir()
    (tmp_path / "lora_mini").symlink_to(build.ROOT / "lora_mini")
    monkeypatch.setattr(build, "ROOT", tmp_path)
    lesson = tmp_path / "lessons" / "77_toy.py"
    lesson.write_text(LESSON, "utf-8")
    return lesson


def sources(notebook):
    return [cell.source for cell in notebook.cells]


def test_the_learners_edition_has_stubs_and_folds_the_whole_solution(project):
    cells = sources(build.assemble(project))
    exercise = next(i for i, source in enumerate(cells) if "def double" in source)
    assert "    ...  # your code here\n" in cells[exercise] and "2 * x" not in cells[exercise]
    assert cells[exercise + 1].startswith("<details><summary>Solution</summary>")
    assert "def double(x):\n    return 2 * x\n" in cells[exercise + 1]
    assert "halves = [\n    4, 3]\nanswer" in cells[exercise + 2]


def test_the_solved_edition_has_no_markers(project):
    solved = sources(build.assemble(project, "solved"))
    assert "def double(x):\n    return 2 * x\n\n\n" in "\n".join(solved)
    assert not any(mark in source for source in solved
                   for mark in ("<solution>", "<stub>", "details"))


def test_a_cell_that_only_judges_is_folded_and_no_other(project):
    cells = [c for c in build.assemble(project).cells if c.cell_type == "code"]
    folded = [c.source for c in cells if c.metadata.get("jupyter") == {"source_hidden": True}]
    assert folded == ['# judged here\nexpect("x is below three", x < 3)']
    assert build.judges('settle("a", 1)\nverdict("C1", of=runs)')
    assert not build.judges('y = 1\nsettle("a", y)') and not build.judges("# nothing")


def test_ids_come_from_content_so_that_a_new_cell_leaves_the_others_alone(project):
    before = {c.id for c in build.assemble(project).cells}
    project.write_text("# %%\nprint(1)\n\n" + LESSON, "utf-8")
    after = [c.id for c in build.assemble(project).cells]
    assert before < set(after) and len(set(after)) == len(after)


def test_building_twice_gives_the_same_bytes_and_the_second_time_runs_nothing(project):
    target = project.parent.parent / "notebooks" / "77_toy.ipynb"
    assert build.build(project, "learner")
    first = target.read_bytes()
    assert b"1.414" in first and b"not attempted yet" in first and b"not yet: got" in first
    assert not build.build(project, "learner")
    assert target.read_bytes() == first
    assert build.build(project, "learner", force=True)
    assert target.read_bytes() == first


def test_other_words_keep_the_results_and_other_code_runs_again(project):
    build.build(project, "learner")
    project.write_text(LESSON.replace("# # A toy", "# # Another title"), "utf-8")
    assert not build.build(project, "learner")
    built = nbformat.read(project.parent.parent / "notebooks" / "77_toy.ipynb", 4)
    assert "Another title" in built.cells[0].source and "1.414" in str(built.cells[1].outputs)
    same = build.fingerprint(build.assemble(project), "77_toy")
    project.write_text(LESSON.replace("sqrt(2)", "sqrt(3)"), "utf-8")
    assert build.fingerprint(build.assemble(project), "77_toy") != same


def test_a_solution_that_does_not_pass_its_check_fails_the_solved_edition(project):
    project.write_text(LESSON.replace("return 2 * x", "return 3 * x"), "utf-8")
    with pytest.raises(build.LessonError, match="does not pass its check"):
        build.build(project, "solved")


def test_a_cell_that_fails_is_one_error_that_shows_the_cell(project):
    project.write_text(LESSON.replace("np.sqrt(2)", "np.sqroot(2)"), "utf-8")
    with pytest.raises(build.LessonError, match="(?s)a cell failed.*sqroot"):
        build.build(project, "learner")


@pytest.mark.parametrize("old, new, words", [
    ('tags=["measured"]', 'tags=["mesured"]', "unknown tag"),
    ('# %% tags=["exercise"]\n# <stub>', "# %%\n# <stub>", "an exercise cell, and no other"),
    ("    # <solution>\n    return 2 * x\n    # </solution>\n", "    ...\n", "and no other"),
    ('expect("x is below three", x < 3)', "print(x)", "measured cell without a verdict"),
    ('expect("x is below three", x < 3)', 'expect("so be it", True)', "on one of"),
])
def test_a_lesson_that_breaks_a_rule_is_refused(project, old, new, words):
    assert LESSON.count(old) == 1
    project.write_text(LESSON.replace(old, new), "utf-8")
    with pytest.raises(build.LessonError, match=words):
        build.assemble(project)


def test_cells_that_need_the_extra_are_not_built_without_it(project, monkeypatch):
    project.write_text(LESSON.replace('["measured"]', '["measured", "needs-llm"]'), "utf-8")
    monkeypatch.setattr(build, "LLM", ("no_such_package",))
    with pytest.raises(build.LessonError, match="needs-llm.*no_such_package"):
        build.build(project, "learner")
    monkeypatch.setattr(build, "LLM", ("numpy",))
    assert build.build(project, "learner")


def test_check_notices_a_lesson_not_rebuilt_a_stray_and_a_missing_notebook(project):
    folder = project.parent.parent / "notebooks"
    with pytest.raises(build.LessonError, match="77_toy.ipynb is missing"):
        build.check([project], folder)
    build.build(project, "learner")
    build.check([project], folder)
    for change in (("A toy", "A boy"), ("below three", "under three"), ("rng(0)", "rng(1)")):
        project.write_text(LESSON.replace(*change), "utf-8")
        with pytest.raises(build.LessonError, match="differs from its lesson"):
            build.check([project], folder)
    project.write_text(LESSON, "utf-8")
    (folder / "78_stray.ipynb").write_text("{}")
    with pytest.raises(build.LessonError, match="without a lesson: 78_stray"):
        build.check([project], folder)
