"""The record behind notebook 06: every method, register and rate, over seeds.

Rates are chosen on seeds 0 to 2 and reported on eight others, 10 to 17.
"""

import functools
import itertools
from dataclasses import asdict
from statistics import fmean

import lora_mini as lm
from lora_mini.lab import trials
from lora_mini.lab.sweep import CHOOSE, REPORT, workers
from lora_mini.world import base, make_base
from lora_mini.world.styles import REGISTERS

FIT = 0.02  # nats over the target's own: what counts as "fits" when forgetting is compared
RIVALS = ("full", "LoRA r=8")  # whose forgetting is compared at equal fit, each at its gentlest
STRENGTHS = [round(0.1 * i, 1) for i in range(11)]
ARMS = ("full", "LoRA r=8", "LoRA r=64", "LoRA r=8+words")  # on the base that read one style


def make(jobs=2):
    """The whole record, as a dictionary of lists."""
    with workers(_run, jobs) as run:
        names = list(itertools.product(trials.METHODS, REGISTERS))
        sweep = run("rates", [("wide", m, r, rate, seed) for m, r in names
                              for rate in trials.rates(m) for seed in CHOOSE])
        best = {f"{m}, {r}": best_rate(sweep, m, r) for m, r in names}
        runs = run("best rates", [("wide", m, r, best[f"{m}, {r}"], seed)
                                  for m, r in names for seed in REPORT])
        rivals = list(itertools.product(RIVALS, REGISTERS))
        gentle = {f"{m}, {r}": gentlest(sweep, m, r) for m, r in rivals}
        calm = run("gentlest", [("wide", m, r, gentle[f"{m}, {r}"][0], seed)
                                for m, r in rivals for seed in REPORT])
        rate = best["LoRA r=8, medical"]
        replayed = run("replay", [("wide", "LoRA r=8", "medical", rate, seed, 64)
                                  for seed in REPORT])
        narrow_sweep = run("narrow rates", [("narrow", m, "medical", rate, 0) for m in ARMS
                                            for rate in trials.rates(m)])
        narrow_best = {m: best_rate(narrow_sweep, m, "medical") for m in ARMS}
        narrow = run("narrow", [("narrow", m, "medical", narrow_best[m], seed)
                                for m in ARMS for seed in REPORT])
    with workers(_strengths, jobs) as run:
        strength = run("strength", [(rate, seed) for seed in REPORT])
    return {"sweep": sweep, "best": best, "runs": runs, "gentle": gentle, "calm": calm,
            "strengths": STRENGTHS, "strength": strength, "replayed": replayed,
            "narrow_best": narrow_best, "narrow": narrow, "base": base.describe()["digest"]}


def best_rate(sweep, method, register):
    """The rate with the least mean excess on the target."""
    found = [t for t in sweep if (t["method"], t["style"]) == (method, register)]
    return min({t["rate"] for t in found},
               key=lambda rate: fmean(t["target"] for t in found if t["rate"] == rate))


def gentlest(sweep, method, register):
    """(rate, step) that forgets least among those that fit on average, or that fits best."""
    found = [t for t in sweep if (t["method"], t["style"]) == (method, register)]
    points = {}
    for trial in found:
        for step, target, others in trial["path"]:
            points.setdefault((trial["rate"], step), []).append((target, others))
    mean = {p: [fmean(column) for column in zip(*seen, strict=True)] for p, seen in points.items()}
    fitting = [p for p, (target, _) in mean.items() if target <= FIT]
    return min(fitting, key=lambda p: mean[p][1]) if fitting else min(mean, key=mean.get)


@functools.cache
def _narrow():
    """The base that has read one style only."""
    return make_base.make_base(styles=["plain"], device="cpu", steps=400)[0]


def _run(kind, method, register, rate, seed, replay=0):
    start = base.shipped() if kind == "wide" else _narrow()
    _, done = trials.tune(start, method, REGISTERS[register], rate, seed, replay=replay)
    return asdict(done)


def _strengths(rate, seed):
    """(excess on the target, on the others) at each strength, of one tuned LoRA r=8."""
    model, _ = trials.tune(base.shipped(), "LoRA r=8", REGISTERS["medical"], rate, seed)
    probe, found = trials.Probe(REGISTERS["medical"], seed), []
    for strength in STRENGTHS:
        lm.set_strength(model, strength)
        found.append(probe(model))
    return found
