"""Checks for notebook 16: intervals by hand, a claim's word, the bases that a decision takes."""

import math
from itertools import product

from lora_mini.desk.checks import answer, none_or

BY_HAND = {"factor 1.80 [1.55, 2.09]": "better", "factor 1.22 [1.02, 1.45]": "equal",
           "factor 0.59 [0.48, 0.71]": "open", "factor 0.55 [0.47, 0.64]": "worse",
           "share +0.15 [+0.04, +0.26]": "open"}
OUTCOMES = ("better", "worse", "equal", "open")


def check_by_hand(words):
    """A word for each of five intervals."""
    given = list(words.values()) if isinstance(words, dict) else [words]
    one, two, three, four, five = BY_HAND
    answer(None if all(each is None for each in given) else words, lambda found: found == BY_HAND, [
        (lambda found: not isinstance(found, dict), "keep the dictionary, and put a word behind each interval"),
        (lambda found: set(found) != set(BY_HAND), "keep the five intervals as they are, and give each a word"),
        (lambda found: not set(found.values()) <= {*OUTCOMES, None}, "the words are better, worse, equal and open"),
        (lambda found: None in found.values(), f"{given.count(None)} of five have no word yet"),
        (lambda found: found[one] != "better", "from 1.55 to 2.09: where does all of it lie?"),
        (lambda found: found[two] == "better", "from 1.02 to 1.45: that is more than 1, and too little to count"),
        (lambda found: found[two] == "open", "from 1.02 to 1.45: all of it lies within 1.5. That is a finding"),
        (lambda found: found[three] != "open", "1/1.5 is 0.67: on which side of it is 0.71, on which 0.48?"),
        (lambda found: found[four] != "worse", "1/1.5 is 0.67: all of 0.47 to 0.64 lies on one side"),
        (lambda found: found[five] != "open", "a share counts from 0.2, and +0.26 lies beyond, +0.04 does not"),
        (lambda found: True, "one of them is not right yet: look at both ends of each interval"),
    ])


def check_word(word):
    """`word(came, holds)` is one of the four words, whatever is open beside what is decided."""
    def right(came, holds):
        holding = sum(each in holds for each in came)
        failing = sum(each not in (*holds, "open") for each in came)
        return ("holds" if holding == len(came) else "holds when" if holding else
                "misleading" if failing else "not decided")

    cases = [(came, holds) for holds in (("better",), ("better", "equal"), ("worse",), ("equal",))
             for n in (1, 2, 3) for came in product(OUTCOMES, repeat=n)]
    expected = {case: right(*case) for case in cases}

    def says(came, holds, wrong=None):
        case = came, holds
        return lambda found: found[case] != expected[case] and wrong in (None, found[case])

    answer(lambda: none_or([word(dict(zip("abc", came, strict=False)), list(holds)) for came, holds in cases])
           and {case: word(dict(zip("abc", case[0], strict=False)), list(case[1])) for case in cases},
           lambda found: found == expected, [
        (lambda found: not set(found.values()) <= set(expected.values()),
         "return one of four words: holds, holds when, misleading, not decided"),
        (says(("better", "open"), ("better",), "not decided"),
         "one contrast holds and one is open. What is known of the first?"),
        (says(("equal", "open"), ("better",), "not decided"),
         "one contrast fails and one is open. What is known of the first?"),
        (says(("better", "worse"), ("better",)), "one holds, one fails: the claim holds in some conditions"),
        (says(("better", "worse", "open"), ("better",)), "one holds, one fails, one is open: which word says 'in some'?"),
        (says(("open", "open"), ("better",)), "where all are open, nothing is decided"),
        (says(("better", "better"), ("better",)), "where all hold, the claim holds"),
        (says(("worse", "worse"), ("worse",)), "here the claim holds where the outcome is 'worse': ask `holds`"),
        (says(("equal", "equal"), ("better",)), "none holds, some fail: that is misleading"),
        (lambda found: True, "right for some cases, not for all: count what holds, what fails and what is open"),
    ])


def check_bases_needed(bases_needed):
    """`bases_needed(mean, s, margin, t)`: the smallest n whose interval stays off the margin."""
    cases = ((0.35, 0.24, 0.4055, 3.0), (-0.55, 0.24, 0.4055, 3.0), (0.14, 0.15, 0.2, 2.8), (0.0, 0.5, 0.2, 2.0))
    expected = [math.floor((t * s / abs(abs(mean) - margin)) ** 2) + 1 for mean, s, margin, t in cases]

    def near(values, slack=1):
        return lambda found: all(abs(a - b) <= slack for a, b in zip(found, values, strict=True))

    answer(lambda: none_or([bases_needed(*case) for case in cases]), lambda found: found == expected, [
        (near([math.floor((t * s / abs(mean - margin)) ** 2) + 1 for mean, s, margin, t in cases]),
         "right for means above 0; a mean of -0.55 is near the other edge, -margin"),
        (near([math.floor((t * s / margin) ** 2) + 1 for _, s, margin, t in cases]),
         "the interval starts from the mean, not from 0: how far is it to the nearest edge?"),
        (near([t * s / abs(abs(mean) - margin) for mean, s, margin, t in cases]),
         "that is the root of n"),
        (near(expected), "nearly: a whole number of bases, and the interval must stay clear of the edge"),
        (lambda found: True, "t s / sqrt(n) must be smaller than the way from the mean to the nearest edge of the margin"),
    ])
