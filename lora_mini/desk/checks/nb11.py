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
    """4 bits of code, 8 of scale for 64 weights, 32 for 64 * 256."""
    answer(lambda: bits, lambda b: abs(b - (4 + 8 / 64 + 32 / (64 * 256))) < 6e-4, [
        (lambda b: abs(b - (4 + 8 / 64)) < 6e-4, "the scales' own scales are missing: 32 bits for 64 * 256"),
        (lambda b: abs(b - (8 / 64 + 32 / (64 * 256))) < 6e-4, "that is for the scales; the code has 4 more"),
        (lambda b: abs(b - 4.5) < 6e-4, "that is with scales in float32"),
        (lambda b: abs(b - (4 + 8 / 64 + 32 / 256)) < 6e-4, "a scale of scales serves 256 scales, and each of "
                                                            "them 64 weights"),
        (lambda b: True, "a code for each weight; 8 bits for 64 weights; 32 bits for 64 * 256 weights"),
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
