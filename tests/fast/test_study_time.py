"""The study time that the README and a lesson's first cell name is the one that is counted."""

import re

import pytest
import study_time

import build

README = (build.ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize("lesson", build.all_lessons(), ids=lambda p: p.stem[:2])
def test_the_time_to_study_is_counted(lesson):
    core, everything = (5 * round(counted / 5) for counted in study_time.minutes(lesson))
    row = re.search(rf"^\| `{lesson.stem}` \|.*\| (\d+) / (\d+) min \|", README, re.M)
    text = " ".join(lesson.read_text("utf-8").replace("\n#", "").split())
    said = re.search(r"About (\d+) minutes to study; the core path about (\d+)", text)
    assert [int(n) for n in row.groups()] == [core, everything]
    assert [int(n) for n in said.groups()] == [everything, core]
    assert core <= 45


def test_words_lines_and_tasks_are_counted_and_a_second_reading_apart(tmp_path):
    lesson = tmp_path / "99_made_up.py"
    words = " ".join(["word"] * 448)
    lesson.write_text(f"# %% [markdown]\n# # Title\n#\n# {words}\n\n# %%\nx = 1\n\n# %%\n"
                      "bet('b', 3)\n\n# %% [markdown]\n# ## More (second reading)\n\n# %%\n"
                      + "y = 2\n" * 16 + "\n# %% [markdown]\n# ## Core again\n", "utf-8")
    core, everything = study_time.minutes(lesson)
    assert (core, everything) == (11, 13)
