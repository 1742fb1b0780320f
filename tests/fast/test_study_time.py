"""The study time that the README and a lesson's first cell name is the one that is counted."""

import re

import pytest
import study_time

import build

README = (build.ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize("lesson", build.all_lessons(), ids=lambda p: p.stem[:2])
def test_the_time_to_study_is_counted(lesson):
    counted = 5 * round(study_time.minutes(lesson)[1] / 5)
    row = re.search(rf"^\| `{lesson.stem}` \|.*\| (\d+) min \|", README, re.M)
    said = re.search(r"About (\d+) minutes", lesson.read_text("utf-8"))
    assert int(row[1]) == int(said[1]) == counted


def test_words_lines_and_tasks_are_counted_and_a_second_reading_apart(tmp_path):
    lesson = tmp_path / "99_made_up.py"
    words = " ".join(["word"] * 448)
    lesson.write_text(f"# %% [markdown]\n# # Title\n#\n# {words}\n\n# %%\nx = 1\n\n# %%\n"
                      "bet('b', 3)\n\n# %% [markdown]\n# ## More (second reading)\n\n# %%\n"
                      + "y = 2\n" * 16 + "\n# %% [markdown]\n# ## Core again\n", "utf-8")
    core, everything = study_time.minutes(lesson)
    assert (core, everything) == (11, 13)
