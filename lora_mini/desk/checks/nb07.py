"""Checks for notebook 07: a break-even rank, the rank that is enough, and an unequal budget."""

from lora_mini.desk.checks import answer

SHAPES = {"q_proj": (64, 64), "k_proj": (64, 64), "v_proj": (64, 64), "o_proj": (64, 64),
          "up_proj": (256, 64), "down_proj": (64, 256)}
EXCESS = {1: 0.25, 2: 0.15, 4: 0.052, 8: 0.0365, 16: 0.0345, 32: 0.033}


def check_break_even(rank):
    """The rank at which LoRA on a 64 x 64 matrix trains as many numbers as the matrix has."""
    answer(rank, lambda r: r == 32, [
        (lambda r: r == 64, "at rank 64 the two factors hold 64 * 64 + 64 * 64 numbers, twice too many"),
        (lambda r: r == 4096, "that is how many numbers the matrix has; which r gives r (64 + 64) = 4,096?"),
        (lambda r: 0 < r < 32, "the factors hold r (64 + 64) numbers, so at this r fewer than 4,096"),
    ])


def check_rank_needed(rank_needed):
    """`rank_needed(excess, floor)`: the least rank within 5 percent of the floor of the best one."""
    answer(lambda: rank_needed(dict(EXCESS), 0.09), lambda r: r == 8, [
        (lambda r: r == 32, "32 is the best rank; 8 is worse by 0.0035, which is less than 5 percent of "
                            "the floor"),
        (lambda r: r == 16, "5 percent of the floor, 0.0045, not 5 percent of the best excess"),
        (lambda r: r in (1, 2, 4), "that rank is further from the best one than 5 percent of the floor"),
        (lambda r: isinstance(r, float) and r < 1, "that is an excess; return the rank it belongs to"),
        (lambda r: r == [8, 16, 32], "those are all ranks that are enough; return the least"),
    ])


def check_attention_rank(attention_rank):
    """`attention_rank(rank, shapes)`: the rank on attention that trains as many numbers as all do."""
    answer(lambda: attention_rank(16, dict(SHAPES)), lambda r: r == 36, [
        (lambda r: r == 24, "at rank 24 attention trains 12,288 numbers; all six layers at rank 16 train "
                            "18,432"),
        (lambda r: r == 48, "48 counts the entries of the matrices; LoRA trains r (d_in + d_out) numbers"),
        (lambda r: r == 20, "20 gives attention what the MLP's two layers train; count all six"),
        (lambda r: r == 16, "that is the same rank: attention then trains 8,192 numbers, all six layers 18,432"),
    ])
