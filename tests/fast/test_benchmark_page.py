"""docs/benchmark.md is what the shipped results say, and its figures are worked out as it says."""

import json
import sys

import pytest

import build

sys.path.insert(0, str(build.ROOT / "benchmarks"))
import goals  # noqa: E402
import report  # noqa: E402
import turns  # noqa: E402

SHIPPED = build.ROOT / "benchmarks" / "results.json"


def row(arm, ms, **about):
    return {"part": "step", "model": "SmolLM2", "arm": arm, "ms": ms, **about}


def test_the_page_is_what_the_shipped_results_say():
    found = json.loads(SHIPPED.read_text("utf-8"))
    assert (build.ROOT / "docs" / "benchmark.md").read_text("utf-8") == report.page(found)
    assert not found["quick"] and {r["part"] for r in found["rows"]} == {"growth", *report.PARTS}
    assert "/tmp" not in json.dumps(found) and (build.ROOT / "docs" / "benchmark.png").exists()


def test_a_ratio_is_formed_turn_by_turn():
    rows = [row("ours", [2, 4, 6, 8, 10]), row("PEFT", [4, 8, 6, 4, 40])]
    assert goals.over(rows, "ours", "PEFT", part="step") == (0.5, 0.5, 1.0)  # .25 .5 .5 1 2
    assert goals.over(rows, "ours", "loralib", part="step") is None
    assert turns.quartiles([3, 1]) == (1, 2, 3)


@pytest.mark.parametrize("ours, holds", [(7.0, ["yes", "yes"]), (9.6, ["no", "no"])])
def test_the_goal_of_the_step_is_judged_by_hand(ours, holds):
    rows = [row("full", [10.0] * 3), row("PEFT", [9.5] * 3), row("ours", [ours] * 3)]
    assert [each[2] for each in goals.goals(rows)] == holds


def test_of_mixed_batches_the_one_of_most_adapters_is_judged():
    about = {"part": "mixed", "model": "SmolLM2", "rows": 16, "tokens": 1}
    rows = [about | {"arm": arm, "adapters": n, "ms": [ms] * 3} for arm, n, ms in
            [("one", 1, 10), ("mixed", 8, 11), ("mixed", 16, 14), ("loop", 16, 90)]]
    (goal, figure, holds, (mine, other)), = goals.goals(rows)
    assert goal.startswith("16 adapters in one batch of 16 x 1 tokens") and holds == "no"
    assert (mine["arm"], mine["adapters"], other["arm"]) == ("mixed", 16, "one")
    assert figure == "1.400 [1.400, 1.400]; a loop 9.0"


def test_behind_a_missed_goal_stand_its_counts_and_operators_that_grew():
    mine = {"moved": 30, "flop": 8, "operators": {"mm": 0.5, "cat": 0.11, "add": 0.04, "t": 0.004}}
    other = {"moved": 20, "flop": 4, "operators": {"mm": 0.9, "add": 0.02}}
    *_, line = report.behind([("quick: at most 1.3", (mine, other))]).splitlines()
    assert line == "| quick | 1.50 | 2.00 | cat 11%, add 4% (2%) |"
    del mine["operators"], other["operators"]
    assert report.behind([("quick: at most 1.3", (mine, other))]).endswith("| none |\n")


def test_a_limit_between_the_quartiles_decides_nothing():
    assert [goals.most(found, 1.3) for found in ((1, 1.2, 1.3), (1.2, 1.29, 1.4), (1.31, 2, 3))] \
        == ["yes", "open", "no"]


@pytest.mark.parametrize("again, merged, same", [
    ([10, 10, 11, 9], [10, 10, 10, 10], "yes"), ([10, 10, 10, 10], [12, 12, 12, 12], "no"),
    ([10, 10, 11, 10], [10, 10, 12, 13], "open")])
def test_merged_is_judged_by_the_base_beside_itself(again, merged, same):
    about = {"part": "inference", "rows": 1, "tokens": 1}
    rows = [row(arm, ms) | about for arm, ms in
            (("base", [10] * 4), ("base, again", again), ("ours, merged", merged))]
    assert [each[2] for each in goals.goals(rows)] == [same]


def test_where_a_peer_is_faster_is_said():
    rows = [row(arm, ms, rows=4, tokens=128) for arm, ms in (
        ("full", [9, 9, 9]), ("ours", [5, 5, 5]), ("ours, again", [4, 4, 4]), ("PEFT", [6, 6, 6]),
        ("loralib", [4, 4, 4]), ("naive", [4, 5, 6]), ("ours, DoRA", [9, 9, 9]),
        ("PEFT, DoRA", [6, 6, 6]))]
    assert report.losses(rows) == \
        "- A training step, SmolLM2 4 x 128: loralib (1.25), PEFT, DoRA (1.50)\n"
    assert report.rival("PEFT, merged") == "ours, merged" and report.rival("ours, DoRA") is None
