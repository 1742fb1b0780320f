"""A fair sweep: every cell gets the rate that suits it, then is judged on seeds that chose nothing.

A *cell* is a dictionary that says what is trained, for instance {"method": "LoRA r=8", "task":
"24 new words"}. A runner turns (cell, rate, seed) into a dictionary of numbers, in which "target"
is what a rate is chosen for: smaller is better, and None means that the run blew up.
"""

import math
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from statistics import fmean

import torch
from tqdm import tqdm

CHOOSE, REPORT = range(3), range(10, 18)
GRID = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)  # half a decade apart


@contextmanager
def workers(runner, jobs=2):
    """A function from (what, plans) to results in order, `jobs` processes at once, with a bar."""
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _one_thread) as pool:
        def run(what, plans):
            done = pool.map(runner, *zip(*plans, strict=True))
            return [short(each) for each in tqdm(done, total=len(plans), desc=what, unit="run")]
        yield run


def sweep(run, what, cells, rates, widen=True):
    """Each cell with "tried", "best" and what came of it: a list of dictionaries.

    The rates of GRID that `rates(cell)` names are tried on the seeds of CHOOSE; then, unless widen
    is False, one more beyond the best, until the best lies inside what was tried or GRID ends.
    "tried" maps a rate to its results, in lists by seed; the results at the best rate, on the
    seeds of REPORT, follow.
    """
    tried, ahead = [{} for _ in cells], [rates(cell) for cell in cells]
    while any(ahead):
        plans = [(i, rate) for i, rates in enumerate(ahead) for rate in rates]
        found = by_seed(run, f"{what}: rates", [(cells[i], rate) for i, rate in plans], CHOOSE)
        for (i, rate), results in zip(plans, found, strict=True):
            tried[i][rate] = columns(results)
        ahead = [_beyond(found) if widen else [] for found in tried]
    best = [best_rate(found) for found in tried]
    found = by_seed(run, f"{what}: best rates", list(zip(cells, best, strict=True)), REPORT)
    return [cell | {"tried": {f"{r:g}": seen[r] for r in sorted(seen)}, "best": rate}
            | columns(results)
            for cell, seen, rate, results in zip(cells, tried, best, found, strict=True)]


def by_seed(run, what, pairs, seeds):
    """Each (cell, rate) on each of the seeds: a list of results by seed for every pair."""
    found = iter(run(what, [(cell, rate, seed) for cell, rate in pairs for seed in seeds]))
    return [[next(found) for _ in seeds] for _ in pairs]


def best_rate(tried):
    """The rate with the least mean target, and the smaller of two equal ones."""
    return min(sorted(tried), key=lambda rate: _mean(tried[rate]["target"]))


def columns(results):
    """A list of dictionaries with the same keys, as one dictionary of lists."""
    return {key: [result[key] for result in results] for key in results[0]}


def short(value):
    """Numbers to five digits: a record is read by people, too."""
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: short(v) for key, v in value.items()}
    return [short(v) for v in value] if isinstance(value, (list, tuple)) else value


def _beyond(tried):
    """The next rate to try: a list of one, or none if the best is inside or GRID has ended."""
    rates, best = sorted(tried), best_rate(tried)
    step = (best == rates[-1]) - (best == rates[0])
    i = GRID.index(best) + step
    return [GRID[i]] if step and 0 <= i < len(GRID) else []


def _mean(values):
    return math.inf if None in values else fmean(values)


def _one_thread():
    torch.set_num_threads(1)
