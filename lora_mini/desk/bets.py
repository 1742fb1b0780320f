"""Bets: the reader says a number first, sees the measurement, and how far off the bet was.

Each is a small file of its own in the folder `bets` of `home()`, so that two notebooks at once lose
nothing, and they are read again at the end of the course. A bet never blocks and never raises:
None is always a fine answer, and whatever can't be noted gets a sentence.
"""

import json
import math
import os
import re
import uuid
from numbers import Integral, Real
from pathlib import Path
from urllib.parse import quote, unquote

from lora_mini.desk.intervals import interval
from lora_mini.desk.say import say

STOPPED = "a run above was stopped. Run its cell again, then this one."


def home():
    """The reader's own folder: LORA_MINI_HOME, else ~/.lora_mini.

    Raises RuntimeError where no home folder can be found.
    """
    return Path(os.environ.get("LORA_MINI_HOME") or "~/.lora_mini").expanduser()


def bet(name, guess=None, *, choices=None):
    """Note the reader's guess under `name`: a number, or one of `choices`.

    None is no bet, and takes an earlier one of that name back. `name` may also be a dictionary of
    bets, name to guess, which share the choices: all are noted, or none.
    """
    placed = {}
    for key, value in name.items() if isinstance(name, dict) else [(name, guess)]:
        value, problem = _guess(value, choices)
        if not isinstance(key, str) or not key:
            problem = f"its name must be a text, got {key!r:.60}"
        if problem:
            say(f"This bet can't be noted ({key!s:.60}): {problem}. What you bet before stands.")
            return
        placed[key] = value
    back = 0
    for key, value in placed.items():
        if value is None:
            back += _take_back(key)
        elif not _write(key, {"guess": value}):
            return  # it said why
    if isinstance(name, dict):
        count = sum(value is not None for value in placed.values())
        say(f"{count} of {len(placed)} bets placed. None means no bet; you can come back.")
    elif placed[name] is not None:
        say(f"Your bet: {_text(placed[name])}. It is settled further down.")
    elif back:
        say("Your bet is taken back.")
    else:
        say("No bet yet: put your guess in place of None and run this again, or just read on.")


def settle(name, outcome, *, unit="", within=0.25, lead=None, of=None, only_if_placed=False):
    """Print the outcome beside the bet of that name, and note whether it came close.

    A number is close if it is off by at most `within` of the outcome; a choice, if it is the one.
    lead: by how much the outcome is ahead of its nearest rival, one number a seed. Where the
    interval of 95 percent around their mean reaches 0, it is too close to call, and nobody has
    won or lost. of: the runs that the outcome rests on, which know whether they are `whole`; if
    they were stopped, or the outcome is no finite number, the bet stays open.
    """
    unit = f" {unit}" if unit else ""
    outcome = str(outcome) if isinstance(outcome, str) else float(outcome)
    if not whole(of) or isinstance(outcome, float) and not math.isfinite(outcome):
        if not only_if_placed:
            say(f"Not settled: {STOPPED}")
        return
    answer = f"The answer: {_text(outcome)}{unit}"
    unsure = lead is not None and interval(lead).low <= 0
    if unsure:
        answer = (f"Too close to call over {len(lead)} runs: the means say {_text(outcome)}{unit}, "
                  "but the interval of their lead reaches 0")
    record = _read(name)
    if not record:
        if not only_if_placed:
            say(f"{answer}. You placed no bet.")
        return
    guess = record["guess"]
    if unsure:
        close, how = None, "neither won nor lost"
    elif isinstance(outcome, str) or isinstance(guess, str):
        close, how = guess == outcome, "right" if guess == outcome else "not this time"
    else:
        close = abs(guess - outcome) <= within * abs(outcome)
        how = f"off by {_text(abs(guess - outcome))}{unit}, " + ("close" if close else "not close")
    say(f"{answer}. Your bet: {_text(guess)}{unit if not isinstance(guess, str) else ''}: {how}.")
    _write(name, {"guess": guess, "outcome": outcome, "close": close})


def whole(of):
    """Whether what a judgement rests on came to its end; None is nothing that could be stopped."""
    return of is None or of.whole


def _guess(value, choices):
    """(the guess as JSON can hold it, what is wrong with it)."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()  # a scalar of NumPy or PyTorch
    if value is None:
        return None, ""
    if choices is not None:
        if isinstance(value, str) and value in choices:
            return str(value), ""
        return None, f"expected one of {', '.join(map(repr, choices))}, got {value!r:.60}"
    if not isinstance(value, Real) or isinstance(value, bool):
        return None, f"expected a number, got {value!r:.60}"
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        return None, "expected a number that is finite and below 1e308"
    return int(number) if isinstance(value, Integral) and abs(number) < 2**53 else number, ""


def _text(value):
    if isinstance(value, str):
        return value
    if abs(value) >= 1e15:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 100 or value == round(value) else f"{value:.3g}"


def noted():
    """All bets that can be read, by name: {"guess": ..., "outcome": ..., "close": ...}.

    The last two are there once a bet was settled; close is None where it was too close to call.
    """
    found = {name: _read(name) for name in kept("bets")}
    return {name: record for name, record in found.items() if record}


def score(bets):
    """{kind: (placed, settled, close)} of `noted` bets; the kinds: numbers, choices, verdicts.

    What was too close to call counts as settled, and as not close.
    """
    kinds = {"numbers": [], "choices": [], "verdicts": []}
    for name, record in bets.items():
        kind = "verdicts" if re.fullmatch(r"C\d+", name) else \
            "choices" if isinstance(record["guess"], str) else "numbers"
        kinds[kind].append(record)
    return {kind: (len(mine), sum("outcome" in each for each in mine),
                   sum(each.get("close") is True for each in mine)) for kind, mine in kinds.items()}


def furthest(bets, count=3):
    """The settled bets on numbers that were furthest off: [(name, guess, outcome, factor)].

    The factor is by how many times the guess was too large or too small, and infinite where one of
    the two is zero or they differ in sign.
    """
    found = []
    for name, record in bets.items():
        both = record["guess"], record.get("outcome")
        if any(type(x) not in (int, float) or not math.isfinite(x) for x in both):
            continue
        low, high = sorted(map(abs, both))
        apart = high / low if low and both[0] * both[1] > 0 else math.inf
        if both[0] != both[1]:
            found.append((name, *both, apart))
    return sorted(found, key=lambda each: (-each[3], each[0]))[:count]


def kept(folder):
    """The names of what is kept in a folder of `home()`, in order; [] if there is nothing."""
    try:
        return sorted(unquote(path.stem) for path in (home() / folder).glob("*.json"))
    except (OSError, RuntimeError):
        return []


def keep(folder, name, record):
    """Keep a record in a folder of `home()`: None, or the error that prevented it."""
    try:
        path = _path(name, folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{uuid.uuid4().hex}.part")  # written whole, then moved
        draft.write_text(json.dumps(record), "utf-8")
        draft.replace(path)
    except (OSError, RuntimeError) as error:
        return error


def _path(name, folder="bets"):
    return home() / folder / f"{quote(name, safe=' ')}.json"


def _read(name):
    """What is noted under a name: {"guess": ..., ...}, or {}."""
    try:
        path = _path(name)
        found = json.loads(path.read_text("utf-8"))
        kind = type(found["guess"])
        if kind is str or kind in (int, float) and math.isfinite(found["guess"]):
            return found
    except FileNotFoundError:
        return {}
    except (OSError, RuntimeError) as error:
        say(f"Your bet can't be read ({error}); the course goes on without it.")
        return {}
    except (ValueError, TypeError, LookupError, OverflowError):
        pass  # said below, for every kind of damage
    aside = path.with_suffix(".damaged")
    try:
        path.replace(aside)
        say(f"This bet's file was damaged: it is kept as {aside}; bet again if you like.")
    except OSError as error:
        say(f"This bet's file is damaged and can't be moved aside ({error}).")
    return {}


def _write(name, record):
    """Whether the record is kept; if not, says why."""
    if error := keep("bets", name, record):
        say(f"Your bet can't be kept ({error}); the course goes on without it.")
    return not error


def _take_back(name):
    """1 if there was a bet of that name, else 0."""
    try:
        _path(name).unlink()
        return 1
    except FileNotFoundError:
        return 0
    except (OSError, RuntimeError) as error:
        say(f"Your earlier bet can't be taken back ({error}).")
        return 0
