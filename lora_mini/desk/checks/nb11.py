"""Checks for notebook 11: a block rounded to levels, the bits of a weight, two codes in a byte."""

import numpy as np

from lora_mini.desk.checks import answer, close, none_or


def check_round_block(round_block):
    """`round_block(w, levels)` is each weight's nearest level, times the block's largest weight."""
    draw = np.random.default_rng(0)
    w, levels = draw.normal(size=9) * 3, np.array([-1, -0.4, 0.0, 0.3, 0.6, 1])
    v, few = np.array([0.2, -5.0, 2.6, 0.0]), np.array([-1.0, 0.0, 0.5])

    def right(w, levels, scale=None):
        c = np.abs(w).max() if scale is None else scale
        return c * levels[np.abs(w[:, None] / c - levels).argmin(axis=1)]

    def found():
        return none_or([round_block(w.copy(), levels.copy()), round_block(v.copy(), few.copy())])

    def both(make):
        return lambda seen: close(seen[0], make(w, levels)) and close(seen[1], make(v, few))

    answer(found, both(right), [
        (lambda seen: np.shape(seen[0]) != w.shape, "the block comes back in its shape, (n,)"),
        (both(lambda w, levels: right(w, levels) / np.abs(w).max()),
         "these are the levels: multiply by the scale again"),
        (both(lambda w, levels: right(w, levels, w.max())),
         "the scale is the largest *absolute* value: in the second block that is 5"),
        (both(lambda w, levels: right(w, levels, 1.0)), "divide by the block's scale first"),
        (lambda seen: not set(np.round(np.asarray(seen[0]) / np.abs(w).max(), 9)) <= set(levels),
         "each weight must come back as the scale times one of the levels"),
        (lambda seen: True, "take the level with the least distance from w / c"),
    ])


def check_bits(bits):
    """4 bits of code; a scale and a smallest value of 16 bits for 32 weights."""
    answer(lambda: bits, lambda b: abs(b - 5) < 1e-6, [
        (lambda b: abs(b - 4.5) < 1e-6, "a block has two numbers of 16 bits, not one"),
        (lambda b: abs(b - 1) < 1e-6, "that is for scale and smallest value; the code has 4 more"),
        (lambda b: abs(b - 4) < 1e-6, "that is the code alone"),
        (lambda b: abs(b - 4.25) < 1e-6, "16 bits are two bytes; count bits"),
        (lambda b: True, "a code for each weight, and 2 * 16 bits for 32 weights"),
    ])


def check_unpack(unpack):
    """`unpack` undoes `codes[::2] << 4 | codes[1::2]`."""
    codes = np.array([3, 15, 0, 7, 12, 12, 9, 1, 5, 0], dtype=np.uint8)
    packed = codes[::2] << 4 | codes[1::2]

    def found():
        return unpack(packed.copy())

    answer(found, lambda seen: close(np.asarray(seen), codes), [
        (lambda seen: close(np.asarray(seen), codes.reshape(-1, 2)[:, ::-1].ravel()),
         "the codes 3, 15, 0, 7 come back as 15, 3, 7, 0"),
        (lambda seen: close(np.asarray(seen), np.concatenate([codes[::2], codes[1::2]])),
         "all codes with even numbers come first: set each byte's two side by side, then flatten"),
        (lambda seen: np.size(seen) != codes.size, "a byte holds two codes: twice as many come back"),
        (lambda seen: np.max(seen) > 15, "a code is at most 15: what does & 15 keep?"),
        (lambda seen: True, "byte >> 4 is the first of the two, byte & 15 the second"),
    ])
