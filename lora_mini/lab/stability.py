"""The records beside a sweep of variants: too high rates, the range of good ones, drift."""

import numpy as np

from lora_mini.lab import bases, inside, parts, record, sweep, trials
from lora_mini.variants import magnitude_direction

TIMES = 10  # how many times the best rate
RUINED = 0.5  # nats over the sentences' own, at the best checkpoint: then a run is lost
DRIFTS = ("full", "LoRA r=8", "DoRA r=8")
WIDE = tuple(rate for rate in sweep.FINE if 1e-3 <= rate <= 0.175)


def make_hot(jobs, journal):
    """"cells": LoRA and DoRA at ten times the rate that record "variants" chose, 12 new words.

    "sound" is 1 for a run whose total stays below RUINED, else 0.
    """
    known = record.load("variants")["cells"]
    pairs = []
    for cell in known:
        if cell["new"] == 12 and cell["arm"] in DRIFTS:
            plain = {key: cell[key] for key in ("arm", "new", "examples", "clip")}
            pairs.append((plain | {"times": TIMES}, TIMES * cell["best"]))
    with sweep.workers(hot, jobs, journal) as run:
        found = sweep.by_seed(run, "too high a rate", pairs, bases.REPORT)
    return {"cells": [cell | {"rate": rate} | sweep.columns(results)
                      for (cell, rate), results in zip(pairs, found, strict=True)]}


def hot(cell, rate, seed, report=True):
    """One run, sound or not."""
    found = parts.run(cell, rate, seed, report)
    total = found.get("total")
    return {"total": total, "valid": found.get("valid"),
            "sound": float(total is not None and total < RUINED)}


def make_plateau(jobs, journal):
    """"cells": LoRA and DoRA at all rates of WIDE, those that record "variants" has tried among
    them, on the three bases that choose: a map, of how wide the range of good rates is."""
    known = [cell for cell in record.load("variants")["cells"] if cell["arm"] in DRIFTS]
    cells = [{key: cell[key] for key in ("arm", "new", "examples", "clip")} for cell in known]
    new = [(i, rate) for i, cell in enumerate(known) for rate in WIDE
           if f"{rate:g}" not in cell["tried"]]
    with sweep.workers(parts.run, jobs, journal) as run:
        found = sweep.by_seed(run, "plateau", [(cells[i], rate) for i, rate in new], bases.CHOOSE,
                              False)
    tried = [{rate: {"chooses": seen["chooses"]} for rate, seen in cell["tried"].items()}
             for cell in known]
    for (i, rate), results in zip(new, found, strict=True):
        tried[i][f"{rate:g}"] = {"chooses": [result["chooses"] for result in results]}
    return {"cells": [cell | {"tried": {rate: seen[rate] for rate in sorted(seen, key=float)}}
                      for cell, seen in zip(cells, tried, strict=True)]}


def make_drift(jobs, journal):
    """"cells": how far lengths and directions went, 12 new words, with noise beside them."""
    best = {c["arm"]: c["best"] for c in record.load("variants")["cells"]
            if c["new"] == 12 and c["clip"]}
    best["full"] = record.find(record.load("arms")["cells"], arm="full", new=12, examples=256,
                               order=None)["best"]
    pairs = [({"arm": arm}, best[arm]) for arm in DRIFTS]
    with sweep.workers(drift, jobs, journal) as run:
        found = sweep.by_seed(run, "drift", pairs, bases.REPORT)
    return {"cells": [cell | {"rate": rate} | sweep.columns(results)
                      for (cell, rate), results in zip(pairs, found, strict=True)]}


def drift(cell, rate, seed, report=True):
    """{"points", "noise"}: (change in length, in direction) of each matrix at each checkpoint; for
    noise, of an update of the same shape and norm."""
    before, rng = bases.base_of(seed), np.random.default_rng(seed)
    found, old = {"points": [], "noise": []}, inside.matrices(before)

    def look(after):
        for name, W in inside.matrices(after).items():
            noise = inside.noise_like(W - old[name], rng)
            found["points"].append(magnitude_direction(old[name], W))
            found["noise"].append(magnitude_direction(old[name], old[name] + noise))
    _, done = trials.tune(before, cell["arm"], parts.task({"new": 12}), rate, seed, each=look,
                          report=False)
    if not done.whole:
        raise KeyboardInterrupt
    return found
