"""Verdicts on claims: worked out from what was measured, claims.toml and contrasts*.toml.

The words are four: holds; holds when ...; misleading because ...; not decided. A verdict is
printed and never raised: on another machine it may differ, and the notebook goes on.
"""

import datetime
import functools
import json
import math
import os
import platform
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from lora_mini.desk.bets import STOPPED, home, keep, kept, settle, whole
from lora_mini.desk.intervals import interval
from lora_mini.desk.say import say

HERE = Path(__file__).parent
WORDS = ("holds", "holds when", "misleading", "not decided")
SEEN = {True: "yes", False: "no", None: "not measured"}
MARGINS = {"ratio": 1.5, "share": 0.2}
RULES = ("record", "kind", "measure", "holds", "subject", "rival", "margin")  # the rest is a task


@dataclass(frozen=True)
class Verdict:
    """A claim's name, one of the four WORDS, and the words that follow it.

    conditions: what each contrast came to: better, worse, equal or open.
    """

    claim: str
    word: str
    reason: str = ""
    conditions: dict = field(default_factory=dict)

    def __str__(self):
        if self.conditions:
            return f"{self.claim} {self.reason or self.word}."
        glue = {"misleading": "because ", "not decided": "here: "}.get(self.word, "")
        return f"{self.claim} {self.word} {glue}{self.reason}".strip() + "."


@functools.cache
def claims():
    """The table of claims, as a dictionary: name to what it says, its statistic and its rule."""
    return tomllib.loads((HERE / "claims.toml").read_text("utf-8"))


@functools.cache
def planned():
    """All contrasts, by claim or prediction. What was planned later has a file of its own, so that
    older plans keep their hash."""
    files = sorted(HERE.glob("contrasts*.toml"))
    plans = [tomllib.loads(path.read_text("utf-8")) for path in files]
    return {claim: rules for plan in plans for claim, rules in plan.items()}


def contrasts(claim):
    """{name: its rules} of a claim or prediction: what was fixed before the records were made.

    A contrast's own rules go before its claim's; "task" is whatever else it names.
    Raises ValueError for a claim that has none.
    """
    plan = planned()
    if claim not in plan:
        raise ValueError(f"{claim!r} has no contrasts: {', '.join(plan)} have")
    common, found = plan[claim], {}
    for name, own in common["contrasts"].items():
        rules = {key: own.get(key, common.get(key)) for key in RULES}
        rules["margin"] = rules["margin"] or MARGINS[rules["kind"]]
        rules["task"] = {key: value for key, value in own.items() if key not in RULES}
        found[name] = rules
    return found


def judge(claim, **facts):
    """The Verdict on a claim that logic settles, from its facts: True, False, or None (not seen).

    Raises ValueError for an unknown claim, or when the facts are not just those the table names.
    """
    named = _row(claim, "logic")["facts"]
    if set(facts) != set(named):
        raise ValueError(f"{claim} is judged by {', '.join(named)}; "
                         f"got {', '.join(facts) or 'none'}")

    def failing(role):
        return [named[f]["else"] for f in named if named[f]["role"] == role and facts[f] is False]

    missing = [f for f in named if facts[f] is None]
    if broken := failing("core"):
        return Verdict(claim, "misleading", "; and ".join(broken))
    if missing:
        return Verdict(claim, "not decided", f"{', '.join(missing)} was not measured")
    if limits := failing("condition"):
        return Verdict(claim, "holds when", "; and when ".join(limits))
    return Verdict(claim, "holds")


def outcome(values, margin, many=1):
    """("better", "worse", "equal" or "open", Interval): one contrast of `many` that hold together.

    Better or worse: the whole interval lies beyond the margin; equal: it lies inside, which is a
    test of equivalence; else open. values: an effect a base, or None if it was not measured.
    """
    if values is None:
        return "open", None
    found = interval(values, 1 - 0.05 / many)
    if found.low >= margin:
        return "better", found
    if found.high <= -margin:
        return "worse", found
    return ("equal" if -margin < found.low and found.high < margin else "open"), found


def weigh(claim, effects):
    """The Verdict on a claim that bases settle: effects is {contrast: one effect a base, or None}.

    The plan names the contrasts, their margins, and under which outcomes the claim holds.
    All hold: holds. Some hold: holds when. None holds, and some fail: misleading. All are open: not
    decided. Raises ValueError for an unknown claim, or effects of other names than its contrasts.
    """
    rules = contrasts(claim)
    if set(effects) != set(rules):
        raise ValueError(f"{claim} is weighed by {'; '.join(rules)}; "
                         f"got {'; '.join(effects) or 'none'}")
    came = {name: outcome(values, reach(rules[name]), len(rules))[0]
            for name, values in effects.items()}
    holding = [n for n in came if came[n] in rules[n]["holds"]]
    still_open = [n for n in came if came[n] == "open"]
    failing = [n for n in came if n not in holding + still_open]
    word = ("not decided" if not holding + failing else "misleading" if not holding else
            "holds" if len(holding) == len(came) else "holds when")
    parts = [f"holds for {'; '.join(holding)}"] if holding else []
    parts += [f"fails for {'; '.join(f'{n} ({came[n]})' for n in failing)}"] if failing else []
    parts += [f"is open for {'; '.join(still_open)}"] if still_open else []
    return Verdict(claim, word, ". It ".join(parts), came)


def reach(rules):
    """A contrast's margin on the scale of its effect."""
    return math.log(rules["margin"]) if rules["kind"] == "ratio" else rules["margin"]


def verdict(claim, effects=None, *, of=None, **facts):
    """Print the claim, what was seen, and the verdict; settle the reader's bet on it, if any.

    A claim of logic takes facts, a measured one effects: see `judge` and `weigh`. of: the runs that
    they rest on; if they were stopped, no verdict is spoken.
    """
    row = _row(claim, "logic" if effects is None else "measured")
    say(f"{claim}: \"{row['says']}\"")
    if not whole(of):
        say(f"No verdict: {STOPPED}")
        return
    if effects is None:
        facts = {name: None if fact is None else bool(fact) for name, fact in facts.items()}
        result = judge(claim, **facts)
        for name, fact in facts.items():
            say(f"{name.replace('_', ' ')}: {SEEN[fact]}", indent=2)
    else:
        result = weigh(claim, effects)
        for name, values in effects.items():
            say(seen(values, contrasts(claim)[name], len(effects), name), indent=2)
    say(f"Verdict: {result}")
    left = {"word": result.word, "sentence": str(result), "facts": facts,
            "effects": {n: None if v is None else list(map(float, v))
                        for n, v in (effects or {}).items()},
            "date": f"{datetime.date.today()}", "by": here()}
    if error := keep("verdicts", claim, left):
        say(f"This verdict can't be kept for notebook 16 ({error}); the course goes on.")
    settle(claim, result.word, only_if_placed=True)


def here():
    """This machine in words: its GPU if PyTorch trains there, else its CPU; and the version."""
    torch = sys.modules.get("torch")  # no model is judged here, only numbers: it is not imported
    gpu = torch and torch.cuda.is_available() and os.environ.get("LORA_MINI_DEVICE") != "cpu"
    name = torch.cuda.get_device_name() if gpu else f"{platform.machine()} CPU"
    version = f"torch {torch.__version__}" if torch else "no torch"
    return f"{name}, {platform.system()}, {version}"


def spoken():
    """What `verdict` has left in the reader's own folder, by claim; damaged files are left out."""
    found = {}
    for claim in kept("verdicts"):
        try:
            left = json.loads((home() / "verdicts" / f"{claim}.json").read_text("utf-8"))
            if {"word", "sentence", "date", "by"} <= set(left) and claim in claims():
                found[claim] = left
        except (OSError, RuntimeError, ValueError, TypeError):
            pass
    return found


def seen(values, rules, many=1, name=""):
    """A contrast in words: what it came to, its mean and its interval.

    Of a ratio the factor is shown: what the rival pays over what the subject pays. Where a bound
    would print as the margin itself, it has a third decimal.
    """
    came, found = outcome(values, reach(rules), many)
    if found is None:
        return f"{name}: not measured"
    if rules["kind"] == "ratio":
        if not any(values):
            return f"{name}: equal, both learned it as well as the base knows its own styles"
        edges = rules["margin"], 1 / rules["margin"]
        low, high = (_bound(math.exp(x), edges) for x in (found.low, found.high))
        return f"{name}: {came}, factor {math.exp(found.mean):.2f} [{low}, {high}]"
    edges = rules["margin"], -rules["margin"]
    low, high = (_bound(x, edges, "+") for x in (found.low, found.high))
    return f"{name}: {came}, {found.mean:+.2f} [{low}, {high}]"


def _bound(value, edges, sign=""):
    """The end of an interval: two decimals, three where two would print an edge of the margin."""
    short = f"{value:{sign}.2f}"
    return f"{value:{sign}.3f}" if short in [f"{edge:{sign}.2f}" for edge in edges] else short


def expect(sentence, seen, *, of=None):
    """Print whether what the text leads the reader to expect was seen on this machine.

    of: the runs that it rests on; if they were stopped, nothing was seen.
    """
    if not whole(of):
        say(f"Not measured: {STOPPED}")
        return
    say(f"{'Seen here' if seen else 'NOT seen here'}: {sentence}.")


def _row(claim, kind):
    table = claims()
    if claim not in table:
        raise ValueError(f"unknown claim {claim!r}: the table has {', '.join(table)}")
    if table[claim]["kind"] != kind:
        raise ValueError(f"{claim} is of the kind {table[claim]['kind']!r}: it is judged by "
                         f"{'effects' if kind == 'logic' else 'facts'}")
    return table[claim]
