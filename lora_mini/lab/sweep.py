"""A fair sweep: every cell gets the rate that suits it, then is judged on bases that chose nothing.

A *cell* is a dictionary that says what is trained, for instance {"arm": "LoRA r=8", "new": 12,
"examples": 256}. A runner turns (cell, rate, seed, report) into a dictionary of numbers, in which
"chooses" is what a rate is chosen for: smaller is better, and None means that the run blew up. The
seed names a base and draws the examples. What was run stands in a journal: a sweep that was
stopped goes on where it was.
"""

import json
import math
import multiprocessing
import os
import platform
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from statistics import fmean

import torch
from tqdm import tqdm

from lora_mini.lab.bases import CHOOSE, REPORT, folder

STEPS = (1, 1.75, 3, 5.5)  # a quarter of a decade apart
FINE = tuple(round(step * 10.0**k, 9) for k in range(-5, 1) for step in STEPS)
GRID = FINE[::2]  # half a decade apart, 1e-5 to 3
NEAR = 1.1  # among rates this near to the best, the gentlest reports


class Journal:
    """Results by what was asked for, one line of JSON each, in the lab's folder."""

    def __init__(self, name, code):
        self.path, self.code = folder() / f"{name}.jsonl", code
        self.found, self.by = {}, set()  # results; the machines that they come from
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for line in self.path.read_text("utf-8").splitlines() if self.path.exists() else ():
            if line.endswith("}"):  # a line that a kill cut short is not read
                entry = json.loads(line)
                if entry["code"] == code:
                    self.found[entry["asked"]] = entry["result"]
                    self.by.add(entry["by"])

    def add(self, asked, result):
        """Note a result, at once on the disk."""
        by = f"{platform.machine()} CPU, {platform.system()}, one thread a run, torch " \
             f"{torch.__version__}"
        if '"device": "cuda"' in asked:
            by = f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
        self.found[asked] = result
        self.by.add(by)
        with self.path.open("a", encoding="utf-8") as file:
            entry = {"code": self.code, "by": by, "asked": asked, "result": result}
            file.write(json.dumps(entry) + "\n")


@contextmanager
def workers(runner, jobs=2, journal=None):
    """A function from (what, plans) to results in order, `jobs` processes at once, with a bar."""
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _one_thread) as pool:
        def run(what, plans):
            asked = [json.dumps([f"{runner.__module__}.{runner.__name__}", *plan])
                     for plan in plans]
            found = journal.found if journal else {}
            going = {pool.submit(runner, *plan): key for plan, key in zip(plans, asked, strict=True)
                     if key not in found}
            for done in tqdm(as_completed(going), total=len(going), desc=what, unit="run"):
                result = short(done.result())
                if journal:
                    journal.add(going[done], result)
                found[going[done]] = result
            return [found[key] for key in asked]
        yield run


def sweep(run, what, cells, rates, *, fine=False, choose=CHOOSE, report=REPORT):
    """Each cell with "tried", "best" and what came of it: a list of dictionaries.

    The rates that `rates(cell)` names are tried on the seeds of `choose`; then one more beyond the
    best, until the best lies inside what was tried or GRID ends; with fine=True then also the rates
    between it and its neighbours. "tried" maps a rate to its results, in lists by seed; the
    results at the rate that was chosen, on the seeds of `report`, follow. See `chosen`.
    """
    tried, ahead = [{} for _ in cells], [rates(cell) for cell in cells]
    while any(ahead):
        plans = [(i, rate) for i, rates in enumerate(ahead) for rate in rates]
        found = by_seed(run, f"{what}: rates", [(cells[i], rate) for i, rate in plans], choose,
                        False)
        for (i, rate), results in zip(plans, found, strict=True):
            tried[i][rate] = columns(results)
        ahead = [_beyond(found) or (_between(found) if fine else []) for found in tried]
    best = [chosen(found) for found in tried]
    found = by_seed(run, f"{what}: best rates", list(zip(cells, best, strict=True)), report, True)
    return [cell | {"tried": {f"{r:g}": seen[r] for r in sorted(seen)}, "best": rate}
            | columns(results)
            for cell, seen, rate, results in zip(cells, tried, best, found, strict=True)]


def by_seed(run, what, pairs, seeds, report=True):
    """Each (cell, rate) on each of the seeds: a list of results by seed for every pair."""
    found = iter(run(what, [(cell, rate, seed, report) for cell, rate in pairs for seed in seeds]))
    return [[next(found) for _ in seeds] for _ in pairs]


def chosen(tried):
    """The smallest rate whose mean is within NEAR times the least."""
    means = {rate: _mean(tried[rate]["chooses"]) for rate in tried}
    return min(rate for rate, mean in means.items() if mean <= NEAR * min(means.values()))


def columns(results):
    """A list of dictionaries with the same keys, as one dictionary of lists."""
    return {key: [result[key] for result in results] for key in results[0]} if results else {}


def short(value):
    """Numbers to four digits: a record is read by people, too."""
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: short(v) for key, v in value.items()}
    return [short(v) for v in value] if isinstance(value, (list, tuple)) else value


def _best(tried):
    return min(sorted(tried), key=lambda rate: _mean(tried[rate]["chooses"]))


def _beyond(tried):
    """The next rate to try: a list of one, or none if the best is inside or GRID has ended."""
    rates, best = sorted(tried), _best(tried)
    step = 2 * ((best == rates[-1]) - (best == rates[0]))
    i = FINE.index(best) + step
    return [FINE[i]] if step and 0 <= i < len(FINE) else []


def _between(tried):
    """The rates halfway to the best one's neighbours that were not tried yet."""
    i = FINE.index(_best(tried))
    coarse = FINE[i] in GRID
    return [FINE[j] for j in (i - 1, i + 1) if coarse and FINE[j] not in tried]


def _mean(values):
    return math.inf if None in values else fmean(values)


def _one_thread():
    torch.set_num_threads(1)
    os.environ["LORA_MINI_PRESET"] = "laptop"  # records are in full precision everywhere
