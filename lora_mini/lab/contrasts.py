"""What the records say to each contrast of `contrasts.toml`: one effect a base."""

import functools
import math

from lora_mini.desk import verdicts
from lora_mini.lab import record

SPLIT = ("register", "order", "targets", "clip", "styles", "replay")  # None if not named


def effects(claim):
    """{contrast: one effect a base}, for all contrasts of a claim that rest on a record."""
    return {name: effect(**rules) for name, rules in verdicts.contrasts(claim).items()
            if rules["record"] != "live"}


def effect(record, measure, kind, subject, rival, task, **_):
    """One number a base: see the head of `contrasts.toml` for the two kinds."""
    mine = cell(record, **task, **subject)[measure]
    theirs = cell(record, **task, **rival)[measure] if rival else [1.0] * len(mine)
    if kind == "share":
        return [a - b for a, b in zip(mine, theirs, strict=True)]
    floors = [own.get(measure, 0) for own in load(record)["own"]]
    return ratios(mine, theirs, floors)


def foretold(*names):
    """A line for each contrast of these predictions of ours: what they said, and what it came to.
    Those that did not come true, or stayed open, stand first."""
    lines = []
    for name in names:
        found, rules = effects(name), verdicts.contrasts(name)
        came = verdicts.weigh(name, found).conditions
        lines += [(came[c] in rules[c]["holds"], f"{name} said {rules[c]['holds'][0]}; "
                   + verdicts.seen(found[c], rules[c], len(found), c)) for c in found]
    return [words for _, words in sorted(lines)]


def ratios(mine, theirs, floors):
    """ln(max(theirs, f) / max(mine, f)), base by base: positive where `mine` is the smaller."""
    return [math.log(max(b, f) / max(a, f)) for a, b, f in zip(mine, theirs, floors, strict=True)]


def cell(name, **where):
    """The one cell of a record in which every key has that value; what SPLIT names and `where`
    doesn't is at its default."""
    default = dict.fromkeys(SPLIT) | ({"clip": 1.0} if name == "facts" else {})
    return record.find(load(name)["cells"], **default | where)


load = functools.cache(record.load)
