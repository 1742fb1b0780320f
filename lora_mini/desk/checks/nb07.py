"""Checks for notebook 07: the rank that is enough, what a guesser pays, and an unequal budget."""

import math

from lora_mini.desk.checks import answer, none_or

SHAPES = {"q_proj": (64, 64), "k_proj": (64, 64), "v_proj": (64, 64), "o_proj": (64, 64),
          "up_proj": (256, 64), "down_proj": (64, 256)}
GROUPED = {"q_proj": (48, 64), "k_proj": (16, 64), "v_proj": (16, 64), "o_proj": (64, 48),
           "gate_proj": (128, 64), "up_proj": (128, 64), "down_proj": (64, 128)}
EXCESS = {1: 0.063, 2: 0.045, 4: 0.033, 8: 0.0235, 16: 0.0185, 32: 0.016}
SLOW = {40: 0.093, 24: 0.0905, 20: 0.091, 12: 0.0932, 7: 0.0957, 5: 0.1, 3: 0.2}  # small steps add up
GUESS = (math.log(8) + math.log(8) + math.log(4)) / 3


def check_rank_needed(rank_needed):
    """`rank_needed(excess, margin)`: the least rank that pays at most margin times the best."""
    def first(*ranks):
        return lambda found: found[0] in ranks

    answer(lambda: none_or([rank_needed(dict(EXCESS), 1.5), rank_needed(dict(SLOW), 1.05)]),
           lambda found: found == [8, 12], [
        (first(32), "32 is the best rank; 8 pays 0.0235, and 1.5 times what 32 pays is 0.024"),
        (first(16), "16 is near enough, but 8 is, too: it pays 0.0235, and 1.5 times 0.016 is 0.024"),
        (first(1, 2, 4), "that rank pays more than 1.5 times what the best one pays. The margin multiplies; "
                         "and each rank is compared with the best, not with the next"),
        (lambda found: isinstance(found[0], float) and found[0] < 1,
         "that is an excess; return the rank it belongs to"),
        (lambda found: found[0] == [8, 16, 32], "those are all ranks that are enough; return the least"),
        (lambda found: found == [8, 40], "the ranks come in any order: return the least, not the first"),
        (lambda found: found[0] == 8, f"8 is right for the first table. With excesses of {SLOW} and a margin "
                                      "of 1.05, rank 24 is the best, and 12 the least that pays at most "
                                      "1.05 times as much"),
        (lambda found: True, "return one rank, a key of `excess`"),
    ])


def check_guesser(nats):
    """Nats per word of an entry, for somebody who knows the form and no fact."""
    def near(value):
        return lambda found: abs(found - value) < 0.006

    answer(nats, near(GUESS), [
        (near(3 * GUESS), "that is the whole entry; the loss is a mean over its three words"),
        (near(8 / 3), "that is in bits; a bit is ln 2 = 0.693 nats"),
        (near(8), "that is the whole entry, in bits; the loss is a mean over words, in nats"),
        (near(math.log(8)), "right for the place and for the deed; of adjectives there are only 4"),
        (near(math.log(4)), "right for the adjective; of places and of deeds there are 8"),
        (near(math.log(20 / 3)), "take the mean of the three logarithms, not the logarithm of the mean"),
        (near(math.log(20) / 3), "the three words are not one choice out of 20: each has its own"),
        (near(math.log(20)), "the three words are not one choice out of 20: each has its own"),
        (near(-GUESS), "the number is right, the sign is not: a loss is -log p"),
        (near(math.log(150)), "that is a guess among all words of the town; this one knows the kind of word"),
    ])


def check_attention_rank(attention_rank):
    """`attention_rank(rank, shapes)`: the rank on attention that trains as many numbers as all do."""
    def first(rank):
        return lambda found: found[0] == rank

    answer(lambda: none_or([attention_rank(16, dict(SHAPES)), attention_rank(8, dict(GROUPED))]),
           lambda found: found == [36, 20], [
        (first(24), "at rank 24 attention trains 12,288 numbers; all six layers at rank 16 train 18,432"),
        (first(48), "48 counts the entries of the matrices; LoRA trains r (d_in + d_out) numbers"),
        (first(20), "20 gives attention what the MLP's two layers train; count all six"),
        (first(16), "that is the same rank: attention then trains 8,192 numbers, all six layers 18,432"),
        (first(36), "36 is right for this model at rank 16. In another one the layers have other shapes, "
                    f"{GROUPED}: at rank 8 all seven train 7,680 numbers, and attention needs rank 20"),
        (lambda found: True, "return a whole number, the rank for the attention layers"),
    ])
