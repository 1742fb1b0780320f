"""Bets: the reader says a number first, sees the measurement, and how far off the bet was.

They are kept in bets.json, in the folder that LORA_MINI_HOME names (else ~/.lora_mini), and are
read again at the end of the course. A bet never blocks: None is always a fine answer.
"""

import json
import os
from numbers import Real
from pathlib import Path


def home():
    """The reader's own folder for bets: LORA_MINI_HOME, else ~/.lora_mini."""
    return Path(os.environ.get("LORA_MINI_HOME") or Path.home() / ".lora_mini")


def bet(name, guess=None, *, choices=None):
    """Note the reader's guess under `name`: a number, or one of `choices`; None is no bet yet.

    `name` may also be a dictionary of bets, name to guess, which share the choices.
    """
    guesses = dict(name) if isinstance(name, dict) else {name: guess}
    placed = {key: value for key, value in guesses.items() if value is not None}
    for key, value in placed.items():
        if problem := _problem(value, choices):
            print(f"This bet can't be noted ({key}): {problem}")
            return
    if placed:
        _write(_read() | {key: {"guess": value} for key, value in placed.items()})
    if isinstance(name, dict):
        print(f"{len(placed)} of {len(guesses)} bets placed. None means no bet; you can come back.")
    elif guess is None:
        print("No bet yet: put your guess in place of None and run this again, or just read on.")
    else:
        print(f"Your bet: {_text(guess)}. It is settled further down.")


def settle(name, outcome, *, unit="", within=0.25, only_if_placed=False):
    """Print the outcome beside the bet of that name, and note whether it came close.

    A number is close if it is off by at most `within` of the outcome; a choice, if it is the one.
    """
    unit = f" {unit}" if unit else ""
    outcome = outcome if isinstance(outcome, str) else float(outcome)
    record = _read().get(name)
    if not record:
        if only_if_placed:
            return
        print(f"The answer: {_text(outcome)}{unit}. You placed no bet.")
        return
    guess = record["guess"]
    if isinstance(outcome, str) or isinstance(guess, str):
        close, how = guess == outcome, "right" if guess == outcome else "not this time"
    else:
        close = abs(guess - outcome) <= within * abs(outcome)
        how = f"off by {_text(abs(guess - outcome))}{unit}, " + ("close" if close else "not close")
    print(f"The answer: {_text(outcome)}{unit}. Your bet: {_text(guess)}{unit}: {how}.")
    _write(_read() | {name: {"guess": guess, "outcome": outcome, "close": close}})


def _problem(guess, choices):
    if choices is not None:
        return "" if guess in choices else f"expected one of {', '.join(choices)}, got {guess!r}"
    number = isinstance(guess, Real) and not isinstance(guess, bool)
    return "" if number else f"expected a number, got {guess!r}"


def _text(value):
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 100 or value == round(value) else f"{value:.3g}"


def _read():
    path = home() / "bets.json"
    try:
        found = json.loads(path.read_text("utf-8"))
        if isinstance(found, dict) and all("guess" in record for record in found.values()):
            return found
    except FileNotFoundError:
        return {}
    except OSError as error:
        print(f"Your bets can't be read ({error}); the course goes on without them.")
        return {}
    except (ValueError, TypeError):
        pass  # said below, once for both kinds of damage
    aside = path.with_name("bets.damaged.json")
    try:
        path.replace(aside)
        print(f"Your bets were damaged: they are kept as {aside}, and a new page begins.")
    except OSError as error:
        print(f"Your bets are damaged and can't be moved aside ({error}).")
    return {}


def _write(bets):
    path = home() / "bets.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name("bets.json.new")  # written whole, then moved: never half a file
        draft.write_text(json.dumps(bets, indent=1, sort_keys=True), "utf-8")
        draft.replace(path)
    except OSError as error:
        print(f"Your bet can't be kept ({error}); the course goes on without it.")
