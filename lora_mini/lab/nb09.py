"""The record behind notebook 09: six variants under one sweep, each with the same seven rates."""

import random

import torch

from lora_mini.lab import nb07, sweep, trials
from lora_mini.variants import magnitude_direction
from lora_mini.world import base, text, town, train

VARIANTS = tuple(f"{kind} r=4" for kind in trials.KINDS)
TASKS = ("0 new words", "24 new words")  # the quiet and the loud end of the dial
CLIPPED = ("LoRA r=4", "DoRA r=4")
DRIFTS = ("full", "LoRA r=4", "DoRA r=4")  # whose magnitudes and directions are followed
CHECKPOINTS = (25, 50, 100, 200)


def cells():
    """The sweep's cells: all variants and full fine-tuning, and two once more with clipping."""
    plain = [{"method": m, "task": t} for t in TASKS for m in ("full", *VARIANTS)]
    return plain + [{"method": m, "task": TASKS[1], "clip": 1.0} for m in CLIPPED]


def rates(cell):
    """Seven rates, half a decade apart; those of full fine-tuning lie half a decade lower."""
    return sweep.GRID[:7] if cell["method"] == "full" else sweep.GRID[1:8]


def make(jobs=2):
    """The whole record, as a dictionary."""
    with sweep.workers(run, jobs) as runner:
        swept = sweep.sweep(runner, "variants", cells(), rates, widen=False)
        loud = [cell for cell in swept if cell["task"] == TASKS[1] and cell["method"] != "full"]
        pairs = [({key: cell[key] for key in ("method", "task", "clip") if key in cell},
                  10 * cell["best"]) for cell in loud]
        found = sweep.by_seed(runner, "ten times the rate", pairs, sweep.REPORT)
        hot = [cell | {"rate": rate} | sweep.columns(results)
               for (cell, rate), results in zip(pairs, found, strict=True)]
    best = {cell["method"]: cell["best"] for cell in loud if "clip" not in cell}
    best["full"] = next(c["best"] for c in swept if (c["method"], c["task"]) == ("full", TASKS[1]))
    with sweep.workers(drift, jobs) as runner:
        pairs = [({"method": m}, best[m]) for m in DRIFTS]
        found = sweep.by_seed(runner, "drift", pairs, sweep.REPORT)
        drifts = [cell | sweep.columns(results)
                  for (cell, _), results in zip(pairs, found, strict=True)]
    return {"cells": swept, "hot": hot, "drift": drifts, "base": base.describe()["digest"]}


def run(cell, rate, seed):
    """One run: excess, exact match, what is kept for the backward pass, time."""
    try:
        _, done = trials.tune(base.shipped(), cell["method"], nb07.TASKS[cell["task"]], rate,
                              seed, clip=cell.get("clip"), checkpoints=(200,))
    except FloatingPointError:
        return {"target": None, "exact": 0.0, "kept": None, "ms": None}
    return {"target": done.target, "exact": done.exact, "kept": done.saved_bytes,
            "ms": 1000 * done.seconds_per_step}


def drift(cell, rate, seed):
    """How far magnitudes and directions went, matrix by matrix: {"points": [...]}.

    A point is (change in magnitude, in direction), as `variants.magnitude_direction` gives it, for
    each adapted matrix at each of CHECKPOINTS.
    """
    before = base.shipped()  # before the seed: reading it in draws numbers
    torch.manual_seed(seed)
    model, rng = trials.prepare(before, cell["method"]), random.Random(seed)
    style, points = nb07.TASKS[TASKS[1]], []
    data = text.batch(town.sample_frames(1024, rng), style, rng)
    history = train.fit(model, train.rows(data), steps=200, rate=rate, seed=seed, progress=False,
                        every=25, evaluate=lambda m: moved(before, m))
    for step, seen in history.evaluations:
        points += seen if step in CHECKPOINTS else []
    return {"points": points}


@torch.no_grad()
def moved(before, after):
    """(change in magnitude, in direction) of each matrix of the blocks, a list of pairs."""
    return [magnitude_direction(layer.weight, after.get_submodule(name).weight)
            for name, layer in before.named_modules() if name.endswith("_proj")]
