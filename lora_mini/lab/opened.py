"""The record behind notebook 08: updates of full fine-tuning and of LoRA, opened base by base.

On each base that reports: two tunings that differ in their examples, one more LoRA from the first
one's start of A, and both arms on the medical register; each at the rate that record "arms" chose,
at its best checkpoint. One function looks at all updates of a base, and gives back numbers.
"""

import numpy as np
import torch

import lora_mini as lm
from lora_mini.lab import bases, inside, parts, record, sweep, trials
from lora_mini.svd import energy_kept, rank_for_error
from lora_mini.world import measure

NEW = (0, 12)
RANKS = (0, 1, 2, 4, 8, 16, 32, 64)  # directions kept
JUDGED = (8, 16)
TOP = 8  # directions that are compared
FACTORS = (0.9, 0.7, 0.5, 0.3, 0.0)  # what intruders are shrunk by
STRENGTHS = (0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.2)  # what the whole update is shrunk by
NORMS = (0.05, 0.1, 0.2, 0.4, 0.8)  # of an update over W's, at which intruders are counted
THRESHOLDS = (0.5, 0.6, 0.7)
OTHER = 100  # what is added to a seed for other examples
ONE_START = "LoRA r=8, one start"  # other examples than "LoRA r=8", the same start of A
ARMS = ("full", "LoRA r=8", "LoRA r=1", "blocks")
HOT = "full, three times the rate"
SHARED = {  # whose directions are compared: names of runs
    "full and full": ("full", "full, again"),
    "LoRA and LoRA": ("LoRA r=8", "LoRA r=8, again"),
    "LoRA and LoRA, one start": ("LoRA r=8", ONE_START),
    "full and LoRA": ("full", "LoRA r=8, again"),
    "full, legal and medical": ("full", "full, medical"),
    "LoRA, legal and medical, one start": ("LoRA r=8", "LoRA r=8, medical"),
    "LoRA and its own start of A": ("LoRA r=8", "start"),
    "full and W_0 itself": ("full", "W_0"),
    "noise and noise": ("noise", "noise, again"),
}


def make(jobs, journal):
    """"cells": totals and contents by what was cut; "own"; and, from `look`, a list a base each of
    "spectra", "shared", "amplified", "intruders", "healed", "start"."""
    with sweep.workers(look, jobs, journal) as run:
        found = run("bases opened", [(seed,) for seed in bases.REPORT])
    cells = [{"what": what, "new": new, "rank": rank,
              "content": [base["cut"][f"{what}, {new}"][i][0] for base in found],
              "total": [base["cut"][f"{what}, {new}"][i][1] for base in found]}
             for new in NEW for what in ("cut", "random", "only", "hot", "blocks")
             for i, rank in enumerate(RANKS)]
    cells += [{"what": "whole", "new": new, "rank": rank} | {
        key: [base["cut"][f"whole, {new}"][i] for base in found]
        for i, key in enumerate(("content", "total"))} for new in NEW for rank in JUDGED]
    return {"cells": cells, "own": parts.owned({}, bases.REPORT, jobs, journal)} | {
        what: gathered([base[what] for base in found])
        for what in ("spectra", "shared", "amplified", "intruders", "healed", "start")}


def gathered(found):
    """[{where: {key: value}}, ...], one a base -> {where: {key: [values]}}."""
    return {where: sweep.columns([base[where] for base in found]) for where in found[0]}


def look(seed):
    """All that the record says of one base."""
    before, rng = bases.base_of(seed), np.random.default_rng(seed)
    old, found = inside.matrices(before), {"cut": {}, "spectra": {}, "shared": {}, "amplified": {},
                                           "intruders": {}, "healed": {}, "start": {}}
    medical = {f"{arm}, medical": tuned(before, arm, 0, seed, register="medical")
               for arm in ("full", "LoRA r=8")}
    start = start_of(before, "LoRA r=8", seed)
    for new in NEW:
        runs = {arm: tuned(before, arm, new, seed) for arm in ARMS} | medical
        runs |= {f"{arm}, again": tuned(before, arm, new, seed + OTHER)
                 for arm in ("full", "LoRA r=8")}
        runs[HOT] = tuned(before, "full", new, seed, up=1)
        runs[ONE_START] = tuned(before, "LoRA r=8", new, seed + OTHER, init=seed)
        updates = {name: inside.updates(before, after) for name, after in runs.items()}
        updates |= {name: noisy(updates["full"], rng) for name in ("noise", "noise, again")}
        updates |= {"W_0": old, "start": start}
        test = trials.frames(task(new), 128, seed, "test")
        found["cut"] |= {f"{what}, {new}": curve
                         for what, curve in cut(before, runs, test, rng).items()}
        for name in (*ARMS, HOT, "noise"):
            found["spectra"][f"{name}, {new}"] = spectrum(updates[name])
            found["amplified"][f"{name}, {new}"] = amplified(old, updates[name])
            found["intruders"][f"{name}, {new}"] = counted(old, updates[name], rng)
        found["start"][f"LoRA r=8, {new}"] = moved(runs["LoRA r=8"], start)
        found["shared"] |= {f"{name}, {new}": shared(updates[one], updates[two])
                            for name, (one, two) in SHARED.items()}
        if not new:
            found["healed"] = {f"{arm}, 0": healed(before, runs[arm], test, seed)
                               for arm in ("LoRA r=8", "LoRA r=1")}
    return sweep.short(found)


def task(new):
    """The Style that is learned, where it is the legal register."""
    return parts.task({"new": new})


def tuned(before, arm, new, seed, register=None, init=None, up=0):
    """The model of one run at its best checkpoint, at the rate that record "arms" chose; up: so
    many steps of the grid above it."""
    cell = record.find(record.load("arms")["cells"], arm=arm, new=new, examples=256,
                       register=register, order=None, targets=None)
    rate = sweep.GRID[sweep.GRID.index(cell["best"]) + up]
    style = parts.task({"new": new, "register": register or "legal"})
    after, done = trials.tune(before, arm, style, rate, seed, init=init, report=False)
    if not done.whole:
        raise KeyboardInterrupt
    return after


def start_of(before, arm, seed):
    """The start of A by matrix, as a run with that seed, or that `init`, draws it."""
    torch.manual_seed(seed)
    return factors(trials.prepare(before, arm))


def factors(model):
    """The A of each adapted matrix, by the matrix's name, as float64 (r, d_in)."""
    return {name: layer.lora_A.detach().cpu().double().numpy()
            for name, layer in model.named_modules() if isinstance(layer, lm.LoRALinear)}


def noisy(updates, rng):
    """Noise of the shape and norm of each update."""
    return {name: inside.noise_like(X, rng) for name, X in updates.items()}


def cut(before, runs, test, rng):
    """[content, total] by how many directions of the matrices' updates are kept: {what: [...]}.

    Of full fine-tuning "cut" keeps the strongest; "random" as many random ones; in "only" all else
    is the base's; "whole" is the model itself. "hot" and "blocks": "cut" of those arms.
    """
    old, models = inside.matrices(before), [runs[name] for name in ("full", HOT, "blocks")]
    X, Y, Z = (inside.updates(before, after) for after in models)
    full, hot, blocks = models

    def pays(model, part, taken, rank):
        return seen(inside.placed(model, {n: old[n] + part(update, rank)
                                          for n, update in taken.items()}))

    def seen(model):
        score = measure.excess(model, test)
        return score.content, score.total

    def some(update, rank):
        return inside.random_part(update, rank, rng)
    ways = {"cut": (full, inside.strongest, X), "random": (full, some, X),
            "only": (before, inside.strongest, X), "hot": (hot, inside.strongest, Y),
            "blocks": (blocks, inside.strongest, Z)}
    return {"whole": seen(full)} | {
        what: [pays(model, part, taken, rank) for rank in RANKS]
        for what, (model, part, taken) in ways.items()}


def spectrum(updates):
    """How much of each update its strongest directions hold, mean over the matrices: "kept" at each
    of RANKS; "ninety": how many hold 90 percent of the energy."""
    S = [np.linalg.svd(X, compute_uv=False) for X in updates.values()]
    return {"kept": [float(np.mean([energy_kept(s, rank) for s in S])) for rank in RANKS],
            "ninety": float(np.mean([rank_for_error(s, 0.1**0.5) for s in S]))}


def shared(one, two):
    """phi of the first direction and of the first TOP, by side, mean over the matrices that have 64
    dimensions on that side: {"left 1", "left 8", "right 1", "right 8"}; a start has no left."""
    found = {}
    for side, axis in (("left", 0), ("right", 1)):
        names = [n for n, X in one.items() if X.shape[axis] == two[n].shape[axis] == 64]
        pairs = [[inside.directions(X if axis else X.T, TOP) for X in (one[n], two[n])]
                 for n in names]
        if names:
            found |= {f"{side} {k}": float(np.mean([inside.phi(V1[:k], V2[:k])
                                                    for V1, V2 in pairs])) for k in (1, TOP)}
    return found


def moved(after, start):
    """How far each A of an adapter went: the norm of its change over that of its start, mean."""
    now = factors(after)
    return {"change": float(np.mean([np.linalg.norm(now[n] - A) / np.linalg.norm(A)
                                     for n, A in start.items()]))}


def amplified(old, updates):
    """Means over the matrices: "norm" of the update; how strongly W_0 acts along the "update",
    along its "own" directions, along "random" ones; "ratio", update to random; "bound", own to it.
    """
    rows = np.array([[np.linalg.norm(X), *inside.strengths(old[n], X, TOP)]
                     for n, X in updates.items()])
    norm, within, own, chance = rows.mean(axis=0)
    return {"norm": norm, "update": within, "own": own, "random": chance,
            "ratio": np.mean(rows[:, 1] / rows[:, 3]), "bound": np.mean(rows[:, 2] / rows[:, 3])}


def counted(old, updates, rng):
    """Intruders of all matrices at THRESHOLDS: "count", and "noise", with noise of its norm;
    "norm" of the update over W_0's, mean; "at_norm": scaled to each of NORMS."""
    noise = noisy(updates, rng)

    def count(parts, threshold=0.6):
        return sum(len(inside.intruders(old[n], old[n] + X, threshold=threshold))
                   for n, X in parts.items())

    def scaled(norm):
        return {n: X * norm * np.linalg.norm(old[n]) / np.linalg.norm(X)
                for n, X in updates.items()}
    return {"count": [count(updates, t) for t in THRESHOLDS],
            "noise": [count(noise, t) for t in THRESHOLDS],
            "norm": float(np.mean([np.linalg.norm(X) / np.linalg.norm(old[n])
                                   for n, X in updates.items()])),
            "at_norm": [count(scaled(norm)) for norm in NORMS]}


def healed(before, after, test, seed):
    """What is gained and forgotten as something is turned down: rows of [total on the register, old
    nats, old share valid], the first of each as trained.

    At FACTORS: "all" intruders; the "top" one of each matrix; as many of the "rest" of the ten
    strongest. At STRENGTHS: the whole update, "scaled".
    """
    old, new = inside.matrices(before), inside.matrices(after)
    who = {n: inside.intruders(old[n], new[n]) for n in old}
    rest = {n: [j for j in range(10) if j not in js][:len(js)] for n, js in who.items()}

    def seen(weights):
        model = inside.placed(after, weights)
        kept = trials.old_styles(model, seed)
        return measure.excess(model, test).total, kept.total, kept.valid

    def curve(which):
        return [first, *(seen({n: inside.shrunk(new[n], js, f) for n, js in which.items()})
                         for f in FACTORS)]
    first = seen(new)
    return {"all": curve(who), "top": curve({n: js[:1] for n, js in who.items()}),
            "rest": curve(rest),
            "scaled": [first, *(seen({n: old[n] + s * (new[n] - old[n]) for n in old})
                                for s in STRENGTHS)]}
