"""Checks for notebook 02: truncation, the break-even rank, and a bug in the energy."""

import numpy as np

from lora_mini import svd
from lora_mini.desk.checks import answer, close, none_or


def check_break_even(rank):
    """The most columns and rows of a 600 x 400 picture that hold no more numbers than it."""
    answer(rank, lambda r: r == 240, [
        (lambda r: r == 241, "at 241 the factors hold 241,000 numbers, and the picture 240,000"),
        (lambda r: r == 200, "200 is half the smaller side; a rank costs a column AND a row"),
        (lambda r: r == 400, "400 is the full rank: there the factors hold 400,000 numbers"),
        (lambda r: 239 < r < 241, "a rank is a whole number"),
        (lambda r: r < 240, "one more rank would still be shorter than the picture"),
        (lambda r: r > 241, "with that many the factors are longer than the picture's 240,000"),
    ])


def check_truncate(truncate):
    """`truncate(X, rank)` must give the nearest matrix of that rank, of X's shape (5, 4)."""
    X = np.random.default_rng(2).standard_normal((5, 4))
    U, S, Vt = np.linalg.svd(X, full_matrices=False)
    answer(lambda: truncate(X.copy(), 2), lambda Y: close(Y, svd.low_rank(X, 2)), [
        (lambda Y: np.shape(Y) != X.shape, "the result must have the shape of the X that came in, "
                                           "here (5, 4); did you take its own SVD?"),
        (lambda Y: close(Y, U[:, :2] @ Vt[:2]), "the singular values are missing: U and Vt have "
                                                "length 1 and carry no size"),
        (lambda Y: close(Y, (U[:, -2:] * S[-2:]) @ Vt[-2:]), "you kept the smallest layers; NumPy "
                                                             "lists the heaviest first"),
        (lambda Y: close(Y, (U[:, :2] * S[:2] ** 2) @ Vt[:2]), "each singular value enters once, "
                                                               "not squared"),
        (lambda Y: close(Y, (U[:, :2] * S[:2]) @ Vt[:, :2].T), "NumPy returns V already transposed: "
                                                               "take its first rows, not columns"),
        (lambda Y: np.linalg.matrix_rank(Y) != 2, "asked for rank 2, your matrix has another rank: "
                                                  "count the layers that you keep"),
    ])


def check_rank_for_error(rank_for_error):
    """`rank_for_error(S, error)` on singular values whose answers are easy on paper."""
    S, ones = np.array([4.0, 3.0]), np.ones(4)
    cases = [(S, 0.61), (S, 0.59), (ones, 0.5), (ones, 0.0)]
    answer(lambda: none_or([rank_for_error(*case) for case in cases]), lambda f: f == [1, 2, 3, 4], [
        (lambda f: f == [0, 1, 2, 3], "yours is one short: what does position 0 stand for?"),
        (lambda f: f[1] == 1, "for S = 4, 3 rank 1 drops the 3 and leaves 3/5 = 0.6 of the norm. "
                              "Asked for at most 0.59, yours still says rank 1. What adds up?"),
        (lambda f: f[2] == 4, "four equal values, error 0.5: rank 3 leaves exactly 0.5, and "
                              "'at most' allows that"),
        (lambda f: f[3] != 4, "four equal values, error 0: nothing may be dropped, so rank 4"),
        (lambda f: f[0] == 2, "for S = 4, 3 rank 1 leaves 0.6, which is less than 0.61"),
    ])
