"""Every solution, alone: it must satisfy its check with no more of its lesson than it needs.

`python build.py solved` runs the whole solved notebooks; that takes minutes and happens at night.
"""

import ast
import builtins

import pytest

import build

EXERCISES = [(lesson, number) for lesson in build.all_lessons()
             for number, cell in enumerate(build.assemble(lesson, "solved").cells)
             if "exercise" in cell.metadata.get("tags", [])]


def names(source):
    """(the names that a cell binds for others, those that it must find bound)."""
    bound, read = set(), set()
    for line in ast.parse(source).body:
        parts = list(ast.walk(line))
        loads = {n.id for n in parts if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        stores = {n.id for n in parts if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        stores |= {n.name for n in parts if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
        stores |= {alias.asname or alias.name.split(".")[0] for n in parts
                   if isinstance(n, (ast.Import, ast.ImportFrom)) for alias in n.names}
        inner = {n.arg for n in parts if isinstance(n, ast.arg)}
        inner |= {n.id for c in parts if isinstance(c, ast.comprehension)
                  for n in ast.walk(c.target) if isinstance(n, ast.Name)}
        if not isinstance(line, (ast.Assign, ast.AugAssign)):
            inner |= stores  # a loop's own names
        read |= loads - inner - bound
        bound |= stores
    return bound, read - set(dir(builtins))


def needed(cells, number):
    """The sources of an exercise and of the last cells before it that bind what it reads."""
    chosen, wanted = [cells[number].source], names(cells[number].source)[1]
    for cell in reversed(cells[:number]):
        if cell.cell_type == "code" and "exercise" not in cell.metadata.get("tags", []):
            bound, read = names(cell.source)
            if bound & wanted:
                chosen, wanted = [cell.source, *chosen], wanted - bound | read
    return chosen


@pytest.mark.parametrize("lesson, number", EXERCISES, ids=lambda v: getattr(v, "stem", v))
def test_every_solution_says_solved(lesson, number, capsys):
    cells = build.assemble(lesson, "solved").cells
    if "needs-llm" in cells[number].metadata["tags"] and not build.has_llm():
        pytest.skip("the extra llm is not installed")
    *before, exercise = needed(cells, number)
    space = {"__name__": "__main__"}
    for source in before:
        exec(compile(source, lesson.name, "exec"), space)
    capsys.readouterr()
    exec(compile(exercise, lesson.name, "exec"), space)
    assert capsys.readouterr().out.endswith("solved\n")
