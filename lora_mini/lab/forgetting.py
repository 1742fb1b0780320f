"""The record of what is forgotten: each arm at the gentlest rate that still fits.

An arm fits at a rate if its total on validation frames, at its best checkpoint, is at most BAR on
average over the bases that choose. The search starts from the rates of the sweep and goes down
until a rate no longer fits, so the gentlest is never the end of a grid. "asked" is the tag under
which the register is asked for: ANY, which every style was read under, or the tag of one style.
"""

import math
from statistics import fmean

import lora_mini as lm
from lora_mini.lab import bases, parts, record, sweep, trials
from lora_mini.lab.parts import BAR, STRENGTHS
from lora_mini.world import measure
from lora_mini.world.styles import ANY

ARMS = ("full", "LoRA r=8", "LoRA r=1", "LoRA r=64", "blocks", "words")
RIVALS = ("full", "LoRA r=8")  # under both prompts, and with replay


def make(jobs, journal):
    """"cells": at the gentlest rate; "replay": at the best rate, with 64 old sentences; "strength":
    (total, nats and share valid of old sentences) at each of STRENGTHS, LoRA r=8."""
    cells = [*parts.cells_of(ARMS, asked=ANY, watch=True),
             *parts.cells_of(RIVALS, asked="plain", watch=True)]
    with sweep.workers(parts.run, jobs, journal) as run:
        swept = sweep.sweep(run, "forgetting", cells, parts.rates, report=())
        tried = [_down(run, cell, found["tried"]) for cell, found in zip(cells, swept, strict=True)]
        gentle = [gentlest(seen) for seen in tried]
        found = sweep.by_seed(run, "gentlest", list(zip(cells, gentle, strict=True)), bases.REPORT)
        best = {cell["arm"]: cell["best"] for cell in swept if cell["asked"] == ANY}
        pairs = [(cell | {"replay": replay}, best[cell["arm"]])
                 for cell in parts.cells_of(RIVALS) for replay in (0, 64)]
        replayed = sweep.by_seed(run, "replay", pairs, bases.REPORT)
    with sweep.workers(strengths, jobs, journal) as run:
        weaker = run("strength", [(best["LoRA r=8"], seed) for seed in bases.REPORT])
    return {"cells": [cell | {"tried": seen, "gentlest": rate, "fits": fits(seen[f"{rate:g}"])}
                      | sweep.columns(results) for cell, seen, rate, results
                      in zip(cells, tried, gentle, found, strict=True)],
            "replay": [cell | {"rate": rate} | sweep.columns(results)
                       for (cell, rate), results in zip(pairs, replayed, strict=True)],
            "strength": weaker, "strengths": list(STRENGTHS), "bar": BAR}


def make_gentler(jobs, journal):
    """"cells": full fine-tuning, asked under ANY, at the rate below its gentlest.

    Added after record "forgetting" was seen: on the bases that choose that rate misses BAR by
    0.0005 nats. No verdict rests on it.
    """
    cells = record.load("forgetting")["cells"]
    known = record.find(cells, arm="full", asked=ANY)
    cell, = parts.cells_of(["full"], asked=ANY, watch=True)
    rate = max(rate for rate in map(float, known["tried"]) if rate < known["gentlest"])
    with sweep.workers(parts.run, jobs, journal) as run:
        results, = sweep.by_seed(run, "one rate gentler", [(cell, rate)], bases.REPORT)
    return {"cells": [cell | {"rate": rate} | sweep.columns(results)]}


def fits(results):
    """Is the mean total at the best checkpoint at most BAR?"""
    return None not in results["chooses"] and fmean(results["chooses"]) <= BAR


def gentlest(tried):
    """The smallest rate that fits, or the one that comes nearest."""
    fitting = [float(rate) for rate, results in tried.items() if fits(results)]
    return min(fitting) if fitting else sweep.chosen(
        {float(rate): results for rate, results in tried.items()})


def _down(run, cell, tried):
    """The rates tried, and more below them until one no longer fits."""
    while fits(tried[min(tried, key=float)]):
        least = min(map(float, tried))
        lower = sweep.FINE[sweep.FINE.index(least) - 2]
        if lower >= least:
            break
        found, = sweep.by_seed(run, "lower rates", [(cell, lower)], bases.CHOOSE, False)
        tried = {f"{lower:g}": sweep.columns(found)} | tried
    return tried


def strengths(rate, seed):
    """A tuned LoRA r=8 at each strength: [total on test frames, old nats, old share valid]."""
    cell, = parts.cells_of(["LoRA r=8"])
    style = parts.task(cell)
    model, done = trials.tune(bases.base_of(seed), "LoRA r=8", style, rate, seed, report=False)
    if not done.whole:
        raise KeyboardInterrupt
    found, test = [], trials.frames(style, 128, seed, "test")
    for strength in STRENGTHS:
        lm.set_strength(model, strength)
        old = trials.old_styles(model, seed)
        found.append([measure.excess(model, test).total, old.total, old.valid])
    return found if all(math.isfinite(x) for row in found for x in row) else None
