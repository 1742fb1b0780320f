"""Checks of the exercises, one file a notebook. Each prints one line and raises nothing:

"not attempted yet", "not yet: ..." with what to look at, or "solved".
"""

import re

import numpy as np

from lora_mini.desk.say import say

SHAPES = re.compile(  # what NumPy and PyTorch say when two arrays don't fit together
    r"\(size (\d+) is different from (\d+)\)|shapes (\([\d,]*\)) (?:and )?(\([\d,]*\))"
    r"|\((\d+x\d+) and (\d+x\d+)\)|tensor a \((\d+)\) .* tensor b \((\d+)\)")
UNTOUCHED = (None, ...)  # what a stub returns before the reader has written anything


def answer(attempt, right, hints=()):
    """Print where an attempt stands. `right(attempt)` says whether it is solved.

    attempt: a value, or a function without arguments that makes it; what it raises is reported.
    hints: pairs (looks_like, words), tried in order; the first whose looks_like(attempt) is true
    names the mistake. The last resort is a general line.
    """
    function = callable(attempt)
    if function:
        try:
            attempt = attempt()
        except Exception as error:
            say(f"not yet: {_raised(error)}")
            return
    if any(attempt is empty for empty in UNTOUCHED):
        print("not attempted yet" + (" (nothing was returned)" if function else ""))
        return
    if _holds(right, attempt):
        print("solved")
        return
    for looks_like, words in hints:
        if _holds(looks_like, attempt):
            say(f"not yet: {words}")
            return
    say(f"not yet: got {_describe(attempt)}; compare it with a case small enough for paper")


def close(attempt, value):
    """Whether two arrays have one shape and agree to rounding."""
    same_shape = np.shape(attempt) == np.shape(value)
    return same_shape and np.allclose(attempt, value, rtol=1e-4, atol=1e-6)


def none_or(attempts):
    """None if one of several attempts is None (a stub's answer), else the attempts."""
    return None if any(attempt is None for attempt in attempts) else attempts


def _raised(error):
    if found := SHAPES.search(str(error)):
        one, other = filter(None, found.groups())
        return (f"two shapes don't fit together, {one} and {other}. Write the shape of each array "
                "beside it: in a product the inner two sizes must be equal, in a sum both shapes. "
                "Which one should be transposed, or stand on the other side?")
    return f"your code raised {type(error).__name__}: {error}"


def _holds(test, attempt):
    try:
        with np.errstate(all="ignore"):
            return bool(test(attempt))
    except Exception:  # a wrong type or shape is a wrong answer, not the reader's crash
        return False


def _describe(attempt):
    if hasattr(attempt, "shape") and len(attempt.shape):
        return f"an array of shape {tuple(attempt.shape)}"
    return f"{attempt!r}"[:60]
