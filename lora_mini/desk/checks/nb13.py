"""Checks for notebook 13: what is known by heart, frames that differ in one slot, a fair share."""

from lora_mini.desk.checks import answer, close, none_or
from lora_mini.world import town


def check_by_heart(by_heart):
    """`by_heart(train_excess, entropy)`: the share of the chance that a model knows by heart."""
    cases = ((-0.06, 0.08), (0.01, 0.05), (-0.02, 0.08))

    def found():
        return none_or([by_heart(*case) for case in cases])

    def all_as(make):
        return lambda seen: close(seen, [make(*case) for case in cases])

    answer(found, all_as(lambda excess, entropy: max(-excess / entropy, 0)), [
        (all_as(lambda excess, entropy: -excess / entropy),
         "a model that pays more than the floor knows nothing by heart: 0, not less"),
        (all_as(lambda excess, entropy: max(excess / entropy, 0)),
         "an excess of -0.06 where the chance is worth 0.08 means three quarters: mind the sign"),
        (all_as(lambda excess, entropy: max(excess + entropy, 0) / entropy),
         "that is the share of the chance that the model still pays"),
        (lambda seen: True, "all of the chance is worth `entropy`; how much of it is not paid?"),
    ])


def check_differing(differing):
    """`differing(frame, slot, words)` gives one frame a word, the same but for that slot."""
    frame = town.Frame("baker", "carry", "lamp", "clerk", "harbor", "dawn")
    cases = (("who", ("nurse", "judge", "baker")), ("where", ("court", "market")))

    def right(slot, words):
        return [frame._replace(**{slot: word}) for word in words]

    def found():
        return none_or([differing(frame, *case) for case in cases])

    answer(found, lambda seen: [list(each) for each in seen] == [right(*case) for case in cases], [
        (lambda seen: all(tuple(f) == frame for each in seen for f in each),
         "all frames are the first one: `frame._replace` gives a new frame back"),
        (lambda seen: [list(each) for each in seen][0] == right(*cases[0]),
         "the slot is given by its name: the second case asks for `where`"),
        (lambda seen: [len(each) for each in seen] != [3, 2], "one frame for each word"),
        (lambda seen: True, "frame._replace(**{slot: word}) changes one slot"),
    ])


def check_inherited(inherited):
    """`inherited(marked, unmarked, told_marked, told_unmarked)`: the gap made over the gap told."""
    cases = ((0.3, 0.3, 0.9, 0.3), (0.9, 0.3, 0.9, 0.3), (0.5, 0.3, 0.7, 0.3))
    right = [(p - q) / (a - b) for p, q, a, b in cases]

    def found():
        return none_or([inherited(*case) for case in cases])

    answer(found, lambda seen: close(seen, right), [
        (lambda seen: close(seen, [p / a for p, q, a, b in cases]),
         "a model that says \"aforesaid\" of everybody alike, 0.3, gets 0.33 here; it inherited "
         "nothing"),
        (lambda seen: close(seen, [p - q for p, q, a, b in cases]),
         "that is the gap that the model makes; as a share of the one in its examples?"),
        (lambda seen: close(seen[0], 0), "all of the gap is 1, half of it 0.5"),
        (lambda seen: True, "a gap is a difference between marked and unmarked actors"),
    ])
