"""The record behind notebook 08: what is inside the updates of full fine-tuning and of LoRA.

One run a method, task and seed of `sweep.REPORT`, at the rates of RATES; then training in random
subspaces of d dimensions, from the base and from random weights, each d at its best rate.
"""

import math
import random

import numpy as np
import torch

from lora_mini.lab import inside, nb07, sweep, trials
from lora_mini.lab.nb06 import STRENGTHS
from lora_mini.svd import energy_kept, rank_for_error
from lora_mini.world import base, measure, text, town, train
from lora_mini.world.gpt import GPT

TASKS = {task: nb07.TASKS[task] for task in ("0 new words", "24 new words")}
RATES = {  # the best ones of record 07; for r=64 at 0 new words, those of r=16
    "0 new words": {"full": 3e-3, "LoRA r=1": 1e-2, "LoRA r=8": 1e-2, "LoRA r=64": 1e-2},
    "24 new words": {"full": 1e-2, "LoRA r=1": 1e-2, "LoRA r=8": 3e-2, "LoRA r=64": 3e-2},
}
METHODS = ("full", "LoRA r=1", "LoRA r=8")
RANKS = (0, 1, 2, 4, 8, 16, 32, 64)
FACTORS = (1.0, 0.9, 0.7, 0.5, 0.3, 0.0)  # what intruders are shrunk by
NORMS = (0.05, 0.1, 0.2, 0.4, 0.8)  # of an update over W's, at which intruders are counted
TOP = 8  # directions that an update is asked about
ONE_START = "LoRA r=8, one start"  # every seed draws the same A, and data of its own
SHARED = {  # whose directions are compared: (what, method, method)
    "A, r=8 and r=64": ("A", "LoRA r=8", "LoRA r=64"),
    "A, r=8 and r=8": ("A", "LoRA r=8", "LoRA r=8"),
    "update, r=8 and r=8": ("update", "LoRA r=8", "LoRA r=8"),
    "update, r=8, one start": ("update", ONE_START, ONE_START),
    "update, full and full": ("update", "full", "full"),
    "update, full and r=8": ("update", "full", "LoRA r=8"),
}
DIMENSIONS = {"base": (64, 256, 1024, 4096, 16384), "random": (1024, 4096, 16384)}


def make(jobs=2, only=None):
    """The whole record, as a dictionary, or only one part of it: "inside" or "subspaces"."""
    parts = {"inside": make_inside, "subspaces": make_subspaces}
    done = {}
    for part, maker in parts.items():
        if only in (part, None):
            done |= maker(jobs)
    return done | {"base": base.describe()["digest"]}


def make_inside(jobs):
    """"runs": one dictionary a method and task, lists by seed; "phi": curves by pair of seeds."""
    methods = (*METHODS, "LoRA r=64", ONE_START)
    cells = [{"method": m, "task": t} for t in TASKS for m in methods]
    with sweep.workers(run, jobs) as runner:
        pairs = [(cell, RATES[cell["task"]][cell["method"].removesuffix(", one start")])
                 for cell in cells]
        found = sweep.by_seed(runner, "inside", pairs, sweep.REPORT)
        done = {(c["task"], c["method"]): results
                for c, results in zip(cells, found, strict=True)}
    seen = {key: [result.pop("directions") for result in results] for key, results in done.items()}
    phi = {f"{name}, {task}": shared({m: seen[task, m] for m in methods}, *what)
           for task in TASKS for name, what in SHARED.items()}
    return {"runs": [{"task": t, "method": m, "seeds": list(sweep.REPORT)} | sweep.columns(results)
                     for (t, m), results in done.items()], "phi": phi}


def make_subspaces(jobs):
    """"subspaces": one dictionary a start and d, with its rates tried and what came of the best."""
    cells = [{"start": start, "d": d} for start, found in DIMENSIONS.items() for d in found]
    with sweep.workers(run_subspace, jobs) as runner:
        return {"subspaces": sweep.sweep(runner, "subspaces", cells, subspace_rates)}


def run(cell, rate, seed):
    """One run, opened: numbers, and under "directions" what `shared` needs of it."""
    style, method, before = TASKS[cell["task"]], cell["method"], base.shipped()
    model, done = trials.tune(before, method.removesuffix(", one start"), style, rate, seed,
                              init=0 if method == ONE_START else None, checkpoints=(200,))
    look = {"target": done.target, "others": done.others, "exact": done.exact,
            "directions": directions(before, model)}
    if method in METHODS:
        probe, rng = trials.Probe(style, seed), np.random.default_rng(seed)
        look |= spectra(before, model, rng) | amplified(before, model, rng)
        look |= truncated(before, model, probe, rng) | healed(before, model, probe, rng)
        look |= counted(before, model, np.random.default_rng(seed))
    return look


def directions(before, after):
    """{"A" and "update": {name: right singular vectors as rows}} for matrices with d_in = 64."""
    found = {"update": {n: inside.directions(X, TOP) for n, X in
                        inside.updates(before, after).items() if X.shape[1] == 64}}
    found["A"] = {n: inside.directions(layer.lora_A.detach().cpu().double().numpy(), 64)
                  for n, layer in after.named_modules()
                  if hasattr(layer, "lora_A") and layer.in_features == 64}
    return found


def shared(seen, what, one, two):
    """{i: a list by pair of seeds of phi(i, j) for j in RANKS, mean over the matrices}.

    Each seed is paired with the next, also for one method: with the same seed two ranks would
    start from the same random A.
    """
    curves = {}
    for i in (1, 8):
        curves[str(i)] = []
        for k, first in enumerate(seen[one]):
            a, b = first[what], seen[two][(k + 1) % len(seen[two])][what]
            most = min(len(V) for V in b.values())
            curves[str(i)].append([float(np.mean([inside.phi(a[n][:i], b[n][:j]) for n in a]))
                                   for j in RANKS if 1 <= j <= most])
    return sweep.short(curves)


def spectra(before, after, rng):
    """How much of each matrix's update its strongest directions hold, beside noise's.

    "share", "noise_share": of the first 8, by matrix; "ninety", "noise_ninety": ranks for 90 % of
    the energy, by matrix; "kept", "noise_kept": mean share at each of RANKS.
    """
    found = {}
    for prefix, matrices in (("", inside.updates(before, after)),
                             ("noise_", _noise(before, after, rng))):
        S = [np.linalg.svd(X, compute_uv=False) for X in matrices.values()]
        found |= {f"{prefix}share": [energy_kept(s, TOP) for s in S],
                  f"{prefix}ninety": [rank_for_error(s, 0.1**0.5) for s in S],
                  f"{prefix}kept": [float(np.mean([energy_kept(s, r) for s in S])) for r in RANKS]}
    return found


def amplified(before, after, rng):
    """{"amplified": by matrix, [norm of dW, W within dW's, within its own, within random]}."""
    old, rows = inside.matrices(before), []
    for name, X in inside.updates(before, after).items():
        W, row = old[name], [float(np.linalg.norm(X))]
        k = min(TOP, int(np.linalg.matrix_rank(X, tol=1e-5 * row[0])))  # an adapter may have fewer
        for M in (X, W, rng.standard_normal(W.shape)):
            U, _, Vt = np.linalg.svd(M, full_matrices=False)
            row.append(float(inside.strength_within(W, U[:, :k], Vt[:k])))
        rows.append(row)
    return {"amplified": rows}


def truncated(before, after, probe, rng):
    """Excess on the target with `rank` directions of each update kept: the strongest, or random."""
    old, new = inside.matrices(before), inside.updates(before, after)
    found = {"strongest": [], "random": []}
    for rank in RANKS:
        parts = {"strongest": lambda X, r=rank: inside.strongest(X, r),
                 "random": lambda X, r=rank: inside.random_part(X, r, rng)}
        for how, part in parts.items():
            model = inside.placed(after, {n: old[n] + part(X) for n, X in new.items()})
            found[how].append(measure.excess(model, probe.target))
    return found


def healed(before, after, probe, rng):
    """Intruders counted, beside noise's; and (target, others) as they or all else is turned down.

    "shrunk": the intruders; "shrunk_top": the first one of each matrix; "shrunk_rest": as many of
    the top ten that are no intruders; each at FACTORS. "scaled": the whole update, at STRENGTHS.
    """
    old, new, tuned = (inside.matrices(before), inside.updates(before, after),
                       inside.matrices(after))
    who = {n: inside.intruders(old[n], tuned[n]) for n in old}
    noisy = {n: len(inside.intruders(old[n], old[n] + X))
             for n, X in _noise(before, after, rng).items()}
    rest = {n: [j for j in range(10) if j not in js][:len(js)] for n, js in who.items()}

    def seen(weights):
        return probe(inside.placed(after, weights))

    def curve(which):
        return [seen({n: inside.shrunk(tuned[n], js, f) for n, js in which.items()})
                for f in FACTORS]
    return {"intruders": sum(map(len, who.values())), "noise_intruders": sum(noisy.values()),
            "relative_norm": float(np.mean([np.linalg.norm(X) / np.linalg.norm(old[n])
                                            for n, X in new.items()])),
            "shrunk": curve(who), "shrunk_top": curve({n: js[:1] for n, js in who.items()}),
            "shrunk_rest": curve(rest),
            "scaled": [seen({n: old[n] + s * X for n, X in new.items()}) for s in STRENGTHS]}


def counted(before, after, rng):
    """Intruders with each matrix's update, or noise, scaled to each of NORMS times W_0's norm."""
    old = inside.matrices(before)
    found = {"at_norm": inside.updates(before, after), "noise_at_norm": _noise(before, after, rng)}
    return {what: [sum(len(inside.intruders(W, W + X[n] * norm * np.linalg.norm(W)
                                            / np.linalg.norm(X[n]))) for n, W in old.items())
                   for norm in NORMS] for what, X in found.items()}


def subspace_rates(cell):
    """Where the search for the rate begins."""
    first = {64: 3e-2, 256: 1e-2, 1024: 1e-2, 4096: 3e-3, 16384: 3e-3}[cell["d"]]
    i = sweep.GRID.index(first)
    return sweep.GRID[i:i + 2]


def run_subspace(cell, rate, seed):
    """Train z alone on the task of 0 new words: excess, exact match."""
    style, rng = TASKS["0 new words"], random.Random(seed)
    data = text.batch(town.sample_frames(1024, rng), style, rng)
    start = base.shipped()  # before the seed: reading it in draws numbers
    torch.manual_seed(seed)
    if cell["start"] == "random":
        start = GPT(start.config).eval()
    model = inside.Subspace(start, cell["d"], seed)
    try:
        done = train.fit(model, train.rows(data), steps=200, rate=rate, seed=seed, progress=False)
    except FloatingPointError:
        return {"target": None, "exact": 0.0}
    if not done.whole:
        return {"target": math.nan, "exact": math.nan}
    tuned = model.settled()
    return {"target": measure.excess(tuned, trials.Probe(style, seed).target),
            "exact": measure.evaluate(tuned, style, n=200, seed=seed + 1000).exact}


def _noise(before, after, rng):
    return {n: inside.noise_like(X, rng) for n, X in inside.updates(before, after).items()}
