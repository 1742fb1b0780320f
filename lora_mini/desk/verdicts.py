"""Verdicts on claims: one function words them, from what was measured and the table claims.toml.

The words are four: holds; holds when ...; misleading because ...; not decided. A verdict is
printed and never raised: on another machine it may differ, and the notebook goes on.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from lora_mini.desk.bets import STOPPED, settle, whole
from lora_mini.desk.intervals import interval
from lora_mini.desk.say import say

WORDS = ("holds", "holds when", "misleading", "not decided")
SEEN = {True: "yes", False: "no", None: "not measured"}


@dataclass(frozen=True)
class Verdict:
    """A claim's name, one of the four WORDS, and the words that follow it."""

    claim: str
    word: str
    reason: str = ""

    def __str__(self):
        glue = {"misleading": "because ", "not decided": "here: "}.get(self.word, "")
        return f"{self.claim} {self.word} {glue}{self.reason}".strip() + "."


def claims():
    """The table of claims, as a dictionary: name to what it says, its statistic and its rule."""
    return tomllib.loads(Path(__file__).with_name("claims.toml").read_text("utf-8"))


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


def weigh(claim, effects):
    """The Verdict on a claim that seeds settle: effects is {condition: one effect a seed}.

    The table says what an effect is, so that a larger one speaks for the claim, and `at_least`,
    fixed before looking. Under each condition the claim holds if the whole interval of the mean
    lies at or above it, fails if the whole interval lies below, and is open otherwise.
    All hold: holds. All fail: misleading. Some of both and none open: holds when. Else not decided.
    A condition whose effects are None (a run that was interrupted) is open.
    Raises ValueError for an unknown claim or no effects.
    """
    row = _row(claim, "measured")
    if not effects:
        raise ValueError(f"{claim} needs effects: a dictionary, condition to one number a seed")
    found = {c: None if values is None else interval(values) for c, values in effects.items()}
    holding = [c for c, i in found.items() if i and i.low >= row["at_least"]]
    failing = [c for c, i in found.items() if i and i.high < row["at_least"]]
    if still_open := [c for c in found if c not in holding + failing]:
        seeds = " and ".join(str(n) for n in sorted({i.n for i in found.values() if i}) or [0])
        return Verdict(claim, "not decided", f"at {seeds} seeds for {', '.join(still_open)}")
    if not failing:
        return Verdict(claim, "holds")
    if not holding:
        return Verdict(claim, "misleading", row["else"])
    return Verdict(claim, "holds when", f"{row['when']} {' or '.join(holding)}")


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
        lines = [f"{name.replace('_', ' ')}: {SEEN[fact]}" for name, fact in facts.items()]
        result = judge(claim, **facts)
    else:
        result = weigh(claim, effects)
        say(f"{row['effect']}; it counts from {row['at_least']:+g} up", indent=2)
        lines = [f"{c}: {'not measured' if values is None else interval(values)}"
                 for c, values in effects.items()]
    for line in lines:
        say(line, indent=2 if effects is None else 4)
    say(f"Verdict: {result}")
    settle(claim, result.word, only_if_placed=True)


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
