"""Which record is made how: MAKERS, from a name to a function of (jobs, journal)."""

import functools

from lora_mini.lab import (
    bias,
    bits,
    forgetting,
    fresh,
    house,
    opened,
    parts,
    record,
    stability,
    sweep,
)
from lora_mini.lab.bases import REPORT

ONE = {"choose": (11,), "report": (11,)}  # a map, on one base


def swept(what, cells, runner=parts.run, report=REPORT, **options):
    """A maker of one sweep: its "cells", and what each reporting base pays on its "own" styles."""
    def make(jobs, journal):
        found = cells()
        with sweep.workers(runner, jobs, journal) as run:
            done = sweep.sweep(run, what, found, parts.rates, report=report, **options)
        return {"cells": done, "own": parts.owned(found[0], report, jobs, journal)}
    return make


def forgotten(jobs, journal):
    """See `forgetting.make`."""
    return forgetting.make(jobs, journal) | {"own": parts.owned({}, REPORT, jobs, journal)}


def mapped(jobs, journal):
    """The map over both dials, on one base; what record "arms" has of it is taken from there."""
    arms, seen, new = record.load("arms")["cells"], [], []
    for cell in parts.chart():
        known = [c for c in arms if cell.items() <= c.items()
                 and not c.keys() & {"register", "order", "targets"}]
        seen += [{key: value[:1] if isinstance(value, list) else value
                  for key, value in c.items()} for c in known]
        new += [] if known else [cell]
    with sweep.workers(parts.run, jobs, journal) as run:
        return {"cells": seen + sweep.sweep(run, "map", new, parts.rates, **ONE)}


def compared(jobs, journal):
    """LoRA and DoRA on a fine grid, over sixteen bases; the other variants over eight."""
    with sweep.workers(parts.run, jobs, journal) as run:
        done = sweep.sweep(run, "rivals", parts.rivals(), parts.rates, fine=True)
        done += sweep.sweep(run, "variants", parts.variants(), parts.rates, report=REPORT[:8])
    return {"cells": done, "own": parts.owned({}, REPORT, jobs, journal)}


def learned(jobs, journal):
    """Facts; the floor of a contrast is one fact of all."""
    with sweep.workers(parts.memorized, jobs, journal) as run:
        done = sweep.sweep(run, "facts", parts.facts(), parts.rates, report=REPORT[:8])
    return {"cells": done, "own": [{"total": 1 / parts.FACTS} for _ in REPORT[:8]]}


MAKERS = {
    "arms": swept("arms", parts.arms),
    "forgetting": forgotten,
    "gentler": forgetting.make_gentler,
    "variants": compared,
    "facts": learned,
    "narrow": swept("narrow", parts.narrow),
    "map": mapped,
    "corners": swept("corners", parts.corners),
    "longer": swept("longer", parts.longer, report=REPORT[:8]),
    "scales": swept("scales", parts.scales, report=()),
    "hot": stability.make_hot,
    "plateau": stability.make_plateau,
    "drift": stability.make_drift,
    "starved": swept("starved", parts.starved, parts.memorized, **ONE),
    "inside": opened.make,
    "bias": bias.make,
    "bits": bits.make,
    "fresh": fresh.make,
    "fresh_words": fresh.make_words,
    "house": house.make,
    "settings": swept("settings", parts.settings, report=REPORT[:8]),
    "width128": swept("width128", functools.partial(parts.width, 128), report=REPORT[:10]),
    "width256": swept("width256", functools.partial(parts.width, 256), report=REPORT[:4]),
}
