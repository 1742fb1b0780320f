"""The fair sweep: where it looks for a rate, on which bases, and what a run that blows up does."""

import json
import math

import pytest

from lora_mini.lab import bases, contrasts, forgetting, parts, sweep


def bowl(best, asked=None, broken=(), flat=1.0):
    """A runner whose target is least at `best`, and which notes what it was asked. flat: so many
    decades to either side of the best are as good as it."""
    def run(what, plans):
        if asked is not None:
            asked.extend(plans)
        return [{"chooses": None if rate in broken else
                 1 + max(0, abs(math.log10(rate / best)) - flat + 1) + seed / 1000}
                for _, rate, seed, _ in plans]
    return run


def rates(cell):
    return (3e-3, 1e-2, 3e-2)


def swept(best, fine=False, **options):
    return sweep.sweep(bowl(best, **options), "test", [{"arm": "x"}], rates, fine=fine)[0]


@pytest.mark.parametrize("best", [1e-3, 1e-2, 1e-1])
def test_the_search_walks_until_the_best_rate_lies_inside(best):
    found = swept(best)
    tried = [float(rate) for rate in found["tried"]]
    assert found["best"] == best and min(tried) < best < max(tried)
    assert tried == sorted(tried)


def test_it_tries_three_rates_and_then_one_more_at_a_time():
    assert list(swept(1e-2)["tried"]) == ["0.003", "0.01", "0.03"]
    assert list(swept(3e-2)["tried"]) == ["0.003", "0.01", "0.03", "0.1"]


def test_a_fine_search_ends_between_the_coarse_rates():
    assert list(swept(1e-2, fine=True)["tried"]) == ["0.003", "0.0055", "0.01", "0.0175", "0.03"]
    assert swept(5.5e-3, fine=True)["best"] == 5.5e-3


@pytest.mark.parametrize("best", [1e-7, 1e3])
def test_it_ends_with_the_grid(best):
    assert swept(best)["best"] in (sweep.GRID[0], sweep.GRID[-1])


def test_among_rates_that_are_as_good_the_gentlest_is_chosen():
    def tried(**means):
        return {float(rate): {"chooses": [mean]} for rate, mean in means.items()}
    assert sweep.chosen(tried(**{"0.1": 1.0, "0.03": 1.09, "0.01": 1.11})) == 0.03


def test_the_bases_that_choose_are_not_those_that_report():
    asked = []
    found = swept(1e-2, asked=asked)
    assert not set(bases.CHOOSE) & set(bases.REPORT) and len(bases.REPORT) == 16
    assert [(seed, report) for *_, seed, report in asked[:9]] == [
        (seed, False) for seed in bases.CHOOSE] * 3
    assert [(rate, seed, report) for _, rate, seed, report in asked[9:]] == [
        (1e-2, seed, True) for seed in bases.REPORT]
    assert len(found["chooses"]) == 16


def test_a_rate_at_which_a_run_blew_up_is_never_the_best():
    assert swept(3e-2, broken=(3e-2,))["best"] == 1e-2


def test_each_cell_finds_its_own_rate_and_keeps_its_order():
    def run(what, plans):
        return [{"chooses": 1 + abs(math.log(rate / cell["best at"]))} for cell, rate, *_ in plans]
    cells = [{"best at": 1e-1}, {"best at": 1e-3}, {"best at": 1e-2}]
    found = sweep.sweep(run, "test", cells, rates)
    assert [f["best"] for f in found] == [1e-1, 1e-3, 1e-2]


def test_numbers_are_cut_to_four_digits_and_no_infinity_is_written():
    assert sweep.short({"a": [1.23456789, 7], "b": math.inf}) == {"a": [1.235, 7], "b": None}


def test_a_journal_is_read_again_but_for_other_code_and_half_a_line(tmp_path, monkeypatch):
    monkeypatch.setenv("LORA_MINI_HOME", str(tmp_path))
    journal = sweep.Journal("arms", "code")
    journal.add("a question", {"chooses": 1.0})
    with journal.path.open("a") as file:
        file.write(json.dumps({"code": "other", "by": "x", "asked": "b", "result": {}}) + "\n")
        file.write('{"code": "code", "asked": "c", "res')
    again = sweep.Journal("arms", "code")
    assert again.found == {"a question": {"chooses": 1.0}} and again.by == journal.by
    assert "one thread" in next(iter(again.by))


def test_no_cell_is_asked_twice_and_every_cell_has_a_grid():
    for make in (parts.arms, parts.chart, parts.facts, parts.starved, parts.scales, parts.variants,
                 parts.rivals, parts.narrow, parts.settings, lambda: parts.width(128)):
        cells = make()
        assert len({json.dumps(cell, sort_keys=True) for cell in cells}) == len(cells)
        assert all(set(parts.rates(cell)) <= set(sweep.GRID) for cell in cells)
        assert all(len(parts.rates(cell)) >= 3 for cell in cells)


def test_the_search_for_the_gentlest_rate_ends_where_nothing_fits():
    asked = []

    def run(what, plans):
        asked.extend(rate for _, rate, *_ in plans)
        return [{"chooses": 0.02 if rate < 1e-4 else 0.005} for _, rate, *_ in plans]
    tried = forgetting._down(run, {"arm": "full"}, {"0.001": {"chooses": [0.005] * 3}})
    assert list(tried) == ["3e-05", "0.0001", "0.0003", "0.001"]
    assert forgetting.gentlest(tried) == 1e-4
    assert forgetting.gentlest({"0.1": {"chooses": [0.3]}, "0.01": {"chooses": [0.2]}}) == 0.01


def test_an_effect_is_the_log_of_a_ratio_over_a_floor_and_turns_with_its_sides():
    mine, theirs, floors = [0.01, 0.001, 0.02], [0.02, 0.0005, 0.01], [0.001, 0.002, 0.001]
    found = contrasts.ratios(mine, theirs, floors)
    assert found == pytest.approx([math.log(2), 0, -math.log(2)])  # the second: both under f
    assert contrasts.ratios(theirs, mine, floors) == pytest.approx([-x for x in found])
