"""The fair sweep: where it looks for a rate, on which seeds, and what a run that blows up does."""

import math

import pytest

from lora_mini.lab import sweep


def bowl(best, asked=None, broken=()):
    """A runner whose target is least at `best`, and which notes what it was asked."""
    def run(what, plans):
        if asked is not None:
            asked.extend(plans)
        return [{"target": None if rate in broken else abs(math.log(rate / best)) + seed / 1000}
                for _, rate, seed in plans]
    return run


def rates(cell):
    return (3e-3, 1e-2, 3e-2)


def swept(best, widen=True, **options):
    return sweep.sweep(bowl(best, **options), "test", [{"method": "x"}], rates, widen)[0]


@pytest.mark.parametrize("best", [1e-3, 1e-2, 1e-1])
def test_the_search_walks_until_the_best_rate_lies_inside(best):
    found = swept(best)
    tried = [float(rate) for rate in found["tried"]]
    assert found["best"] == best and min(tried) < best < max(tried)
    assert tried == sorted(tried)


def test_it_tries_three_rates_and_then_one_more_at_a_time():
    assert list(swept(1e-2)["tried"]) == ["0.003", "0.01", "0.03"]
    assert list(swept(3e-2)["tried"]) == ["0.003", "0.01", "0.03", "0.1"]
    assert list(swept(3e-2, widen=False)["tried"]) == ["0.003", "0.01", "0.03"]


@pytest.mark.parametrize("best", [1e-5, 1e3])
def test_it_ends_with_the_grid(best):
    assert swept(best)["best"] in (sweep.GRID[0], sweep.GRID[-1])


def test_the_seeds_that_choose_are_not_those_that_are_reported():
    asked = []
    found = swept(1e-2, asked=asked)
    assert [seed for *_, seed in asked[:9]] == [0, 1, 2] * 3
    assert [(rate, seed) for _, rate, seed in asked[9:]] == [(1e-2, s) for s in range(10, 18)]
    assert found["target"] == [s / 1000 for s in range(10, 18)]


def test_a_rate_at_which_a_run_blew_up_is_never_the_best():
    assert swept(3e-2, broken=(3e-2,))["best"] == 1e-2


def test_each_cell_finds_its_own_rate_and_keeps_its_order():
    def run(what, plans):
        return [{"target": abs(math.log(rate / cell["best at"]))} for cell, rate, _ in plans]
    cells = [{"best at": 1e-1}, {"best at": 1e-3}, {"best at": 1e-2}]
    found = sweep.sweep(run, "test", cells, rates)
    assert [f["best"] for f in found] == [1e-1, 1e-3, 1e-2]


def test_numbers_are_cut_to_five_digits_and_no_infinity_is_written():
    assert sweep.short({"a": [1.23456789, 7], "b": math.inf}) == {"a": [1.2346, 7], "b": None}
