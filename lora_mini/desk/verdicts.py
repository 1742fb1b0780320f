"""Verdicts on claims: one function words them, from facts and the table claims.toml.

The words are four: holds; holds when ...; misleading because ...; not decided. A verdict is
printed and never raised: on another machine it may differ, and the notebook goes on.
"""

import textwrap
import tomllib
from dataclasses import dataclass
from pathlib import Path

from lora_mini.desk.bets import settle

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
    """The table of claims, as a dictionary: name to what it says, its statistic and its facts."""
    return tomllib.loads(Path(__file__).with_name("claims.toml").read_text("utf-8"))


def judge(claim, **facts):
    """The Verdict on a claim that logic settles, from its facts: True, False, or None (not seen).

    Raises ValueError for an unknown claim, or when the facts are not just those the table names.
    """
    table = claims()
    if claim not in table:
        raise ValueError(f"unknown claim {claim!r}: the table has {', '.join(table)}")
    named = table[claim]["facts"]
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


def verdict(claim, **facts):
    """Print the claim, what was seen, and the verdict; settle the reader's bet on it, if any."""
    facts = {name: None if fact is None else bool(fact) for name, fact in facts.items()}
    result = judge(claim, **facts)
    print(textwrap.fill(f"{claim}: \"{claims()[claim]['says']}\"", 95))
    for name, fact in facts.items():
        print(f"  {name.replace('_', ' ')}: {SEEN[fact]}")
    print(textwrap.fill(f"Verdict: {result}", 95))
    settle(claim, result.word, only_if_placed=True)


def expect(sentence, seen):
    """Print whether what the text leads the reader to expect was seen on this machine."""
    print(f"{'Seen here' if seen else 'NOT seen here'}: {sentence}.")
