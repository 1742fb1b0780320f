"""What the records say to each contrast of `contrasts.toml`: one effect a base."""

import functools
import math
import tomllib
from pathlib import Path

from lora_mini.lab import record

PLAN = Path(__file__).parents[1] / "desk/contrasts.toml"
SPLIT = ("register", "order", "targets", "clip", "styles", "replay", "times")  # None if not named
RULES = ("record", "kind", "measure", "holds", "subject", "rival", "margin")  # the rest is a task


@functools.cache
def plan():
    """The file as a dictionary: a claim's name to its rules and contrasts."""
    return tomllib.loads(PLAN.read_text("utf-8"))


def contrasts(claim):
    """{name: its rules}: those of the claim, with its own put over them; "task" is the rest."""
    common, found = plan()[claim], {}
    for name, own in common["contrasts"].items():
        rules = {key: own.get(key, common.get(key)) for key in RULES}
        rules["task"] = {key: value for key, value in own.items() if key not in RULES}
        found[name] = rules
    return found


def effects(claim):
    """{name: one effect a base} for each contrast that rests on a record that there is."""
    there = {name: rules for name, rules in contrasts(claim).items()
             if rules["record"] in record.names()}
    return {name: effect(**rules) for name, rules in there.items()}


def effect(record, measure, kind, subject, rival, task, **_):  # noqa: A002
    """One number a base: see the head of the file for the two kinds."""
    mine, theirs = (None if who == {} or who is None else cell(record, **task, **who)[measure]
                    for who in (subject, rival))
    if kind == "share":
        return [a - b for a, b in zip(mine, theirs or [1.0] * len(mine), strict=True)]
    floors = [own[measure] for own in load(record)["own"][:len(mine)]]
    return [math.log(max(b, f) / max(a, f)) for a, b, f in zip(mine, theirs, floors, strict=True)]


def cell(name, **where):
    """The one cell of a record; what SPLIT names and `where` doesn't is at its default."""
    cells = load(name)["cells"]
    if name in ("forgetting",):
        where = {"asked": "any"} | where
    return record.find(cells, **dict.fromkeys(SPLIT) | where)


load = functools.cache(record.load)
