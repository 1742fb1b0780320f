"""The solved edition: every solution, in place and executed, must satisfy its check."""

import pytest

import build


@pytest.mark.parametrize("lesson", build.all_lessons(), ids=lambda path: path.stem)
def test_every_solution_says_solved(lesson):
    build.build(lesson, "solved", force=True)
