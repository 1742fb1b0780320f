"""Checks for notebook 10: an update rebuilt from its files, an exact blend, versions apart."""

import numpy as np

from lora_mini.desk.checks import answer, close, none_or


def check_update(update):
    """`update(A, B, config)` is B A times alpha over the rank, or over its root for rsLoRA."""
    draw = np.random.default_rng(0)
    A, B, C, D = (draw.standard_normal(shape) for shape in ((4, 6), (5, 4), (9, 10), (12, 9)))
    one = {"r": 4, "lora_alpha": 6, "use_rslora": False}
    two = {"r": 9, "lora_alpha": 3, "use_rslora": True}

    def found():
        return none_or([update(A.copy(), B.copy(), dict(one)), update(C.copy(), D.copy(), dict(two))])

    def first(scale):
        return lambda both: close(both[0], scale * B @ A)

    answer(found, lambda both: close(both[0], 1.5 * B @ A) and close(both[1], D @ C), [
        (first(2), "with alpha 6 and rank 4 it comes out a third too large: where does the 2 come from?"),
        (first(1), "that is B A without any scale"),
        (first(6), "alpha was not divided by the rank"),
        (first(3), "with alpha 6 and rank 4 that divides by the root of the rank: only rsLoRA does"),
        (first(1.5), "right for LoRA; with use_rslora, alpha 3 and rank 9 it comes out too small"),
        (lambda both: np.shape(both[0]) != (5, 6), "the update has the shape (d_out, d_in): B times A"),
        (lambda both: True, "the scale is lora_alpha over the rank, which is the number of A's rows"),
    ])


def check_concat(concat):
    """`concat` gives one pair of factors, with a scale of 1, whose product is the weighted sum."""
    draw = np.random.default_rng(0)
    A1, B1, A2, B2 = (draw.standard_normal(s) for s in ((2, 6), (5, 2), (3, 6), (5, 3)))
    total = 0.7 * 1.5 * B1 @ A1 - 0.4 * 2.0 * B2 @ A2

    def product(both):
        return np.asarray(both[1]) @ np.asarray(both[0])

    def like(X):
        return lambda both: close(product(both), X)

    def found():
        both = concat(A1, B1, 1.5, 0.7, A2, B2, 2.0, -0.4)
        return both if both is None or both is ... else none_or(list(both))

    answer(found, like(total), [
        (like(B1 @ A1 + B2 @ A2), "the weights and the scales are missing: put them into B's parts"),
        (like(0.7 * B1 @ A1 - 0.4 * B2 @ A2), "the weights are in, the scales s1 and s2 are not"),
        (like(1.5 * B1 @ A1 + 2.0 * B2 @ A2), "the scales are in, the weights w1 and w2 are not"),
        (like((0.7 * 1.5) ** 2 * B1 @ A1 + (0.4 * 2.0) ** 2 * B2 @ A2),
         "weight and scale went into both factors: they count twice"),
        (lambda both: len(both) != 2, "return two arrays: A, then B"),
        (lambda both: np.shape(both[0]) == (5, 5) and np.shape(both[1]) == (5, 6), "A first, then B"),
        (lambda both: np.shape(both[0]) != (5, 6) or np.shape(both[1]) != (5, 5),
         "A gets the rows of both, (5, 6) here; B the columns of both, (5, 5)"),
        (lambda both: True, "B A must be w1 s1 B1 A1 + w2 s2 B2 A2"),
    ])


def check_apart(apart):
    """`apart` compares updates, not factors: 0 for the same one in other factors."""
    draw = np.random.default_rng(0)
    A, B, M, C, D, E, F = (draw.standard_normal(s) for s in (
        (3, 7), (5, 3), (3, 3), (3, 7), (5, 3), (2, 7), (5, 2)))
    X, Y, Z = 2.0 * B @ A, 0.5 * D @ C, F @ E

    def found():
        three = none_or([apart(A, B, 2.0, np.linalg.solve(M, A), B @ M, 2.0),
                         apart(A, B, 2.0, C, D, 0.5), apart(A, B, 2.0, A, B, 1.0)])
        if three and all(map(close, three, right)):
            three.append(apart(A, B, 2.0, E, F, 1.0))  # of another rank
        return three
    norm = np.linalg.norm(X)
    right = [0, np.linalg.norm(X - Y) / norm, 0.5, np.linalg.norm(X - Z) / norm]

    answer(found, lambda seen: len(seen) == 4 and all(map(close, seen, right)), [
        (lambda three: not close(three[0], 0), "the same update in other factors (M inside) is not apart at "
                                               "all: compare the products, not the factors"),
        (lambda three: close(three[2], 0), "a scale of 2 and one of 1 are not the same adapter"),
        (lambda three: close(three[1], np.linalg.norm(X - Y) / np.linalg.norm(Y)),
         "divide by the norm of the first update"),
        (lambda three: close(three[1], np.linalg.norm(X - Y)), "that is the distance: divide it by the norm"),
        (lambda three: True, "the norm of the difference of the updates, over the norm of the first one"),
    ])
