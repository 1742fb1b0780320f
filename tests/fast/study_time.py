"""How long a notebook takes to study, from what is in it: words, lines of code, exercises, bets.

    python tests/fast/study_time.py        prints it for every lesson

150 words and 8 lines of code a minute, 8 minutes an exercise or bet; a hidden cell costs nothing.
What stands under a heading that ends in "(second reading)" is not part of the core.
"""

import ast
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import build  # noqa: E402

WORDS, LINES, TASK = 150, 8, 8
LATER = "(second reading)"


def minutes(lesson):
    """(core, all), in whole minutes, of the learner's edition without its folded solutions."""
    core, later, outer = 0.0, 0.0, 0
    for cell in build.assemble(lesson).cells:
        for level, title in headings(cell):
            if outer and level <= outer:
                outer = 0
            if not outer and title.endswith(LATER):
                outer = level
        if outer:
            later += cost(cell)
        else:
            core += cost(cell)
    return round(core), round(core + later)


def headings(cell):
    if cell.cell_type != "markdown":
        return []
    return [(len(marks), title.strip())
            for marks, title in re.findall(r"^(#+) (.+)$", cell.source, re.M)]


def cost(cell):
    """The minutes of one cell."""
    if cell.cell_type == "markdown":
        shown = re.sub(r"<details>.*?</details>", "", cell.source, flags=re.S)
        return len(shown.split()) / WORDS
    if cell.metadata.get("jupyter", {}).get("source_hidden"):
        return 0
    calls = [getattr(n.func, "id", "") for n in ast.walk(ast.parse(cell.source))
             if isinstance(n, ast.Call)]
    if "exercise" in cell.metadata.get("tags", []) or "bet" in calls:
        return TASK
    return sum(bool(line.strip()) for line in cell.source.splitlines()) / LINES


if __name__ == "__main__":
    for path in build.all_lessons():
        print("{:30s} core {} min, all {} min".format(path.stem, *minutes(path)))
