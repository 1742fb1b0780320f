"""Checks for notebook 07: a break-even rank, the rank that is enough, and an unequal budget."""

from lora_mini.desk.checks import answer, none_or

SHAPES = {"q_proj": (64, 64), "k_proj": (64, 64), "v_proj": (64, 64), "o_proj": (64, 64),
          "up_proj": (256, 64), "down_proj": (64, 256)}
GROUPED = {"q_proj": (48, 64), "k_proj": (16, 64), "v_proj": (16, 64), "o_proj": (64, 48),
           "gate_proj": (128, 64), "up_proj": (128, 64), "down_proj": (64, 128)}
EXCESS = {1: 0.25, 2: 0.15, 4: 0.052, 8: 0.0365, 16: 0.0345, 32: 0.033}
SLOW = {40: 0.093, 24: 0.0905, 20: 0.091, 12: 0.0932, 7: 0.0957, 5: 0.1, 3: 0.2}  # small steps add up


def check_break_even(rank):
    """The rank at which LoRA on a 64 x 64 matrix trains as many numbers as the matrix has."""
    answer(rank, lambda r: r == 32, [
        (lambda r: r == 64, "at rank 64 the two factors hold 64 * 64 + 64 * 64 numbers, twice too many"),
        (lambda r: r == 4096, "that is how many numbers the matrix has; which r gives r (64 + 64) = 4,096?"),
        (lambda r: 0 < r < 32, "the factors hold r (64 + 64) numbers, so at this r fewer than 4,096"),
    ])


def check_rank_needed(rank_needed):
    """`rank_needed(excess, floor)`: the least rank within 5 percent of the floor of the best one."""
    def first(*ranks):
        return lambda found: found[0] in ranks

    answer(lambda: none_or([rank_needed(dict(EXCESS), 0.09), rank_needed(dict(SLOW), 0.06)]),
           lambda found: found == [8, 12], [
        (first(32), "32 is the best rank; 8 is worse by 0.0035, which is less than 5 percent of the floor"),
        (first(16), "5 percent of the floor, 0.0045, not 5 percent of the best excess"),
        (first(1, 2, 4), "that rank is further from the best one than 5 percent of the floor"),
        (lambda found: isinstance(found[0], float) and found[0] < 1,
         "that is an excess; return the rank it belongs to"),
        (lambda found: found[0] == [8, 16, 32], "those are all ranks that are enough; return the least"),
        (lambda found: found == [8, 40], "the ranks come in any order: return the least, not the first"),
        (lambda found: found[0] == 8, f"8 is right for the first table. With excesses of {SLOW} and a floor of "
                                      "0.06, rank 24 is the best, and 12 the least within 0.003 of it"),
        (lambda found: True, "return one rank, a key of `excess`"),
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
