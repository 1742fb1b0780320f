"""Checks for notebook 02: the break-even rank, truncation, and a bug in the energy."""

import numpy as np

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
    """`truncate(X, rank)` must give the nearest matrix of that rank, for two shapes and ranks."""
    rng = np.random.default_rng(2)
    cases = (rng.standard_normal((5, 4)), 2), (rng.standard_normal((3, 6)), 1)
    taken = [(*np.linalg.svd(X, full_matrices=False), r) for X, r in cases]

    def are(made):
        return lambda found: all(close(Y, made(*parts))
                                 for Y, parts in zip(found, taken, strict=True))

    def first(made):
        return lambda found: close(found[0], made(*taken[0]))

    right = are(lambda U, S, Vt, r: (U[:, :r] * S[:r]) @ Vt[:r])
    answer(lambda: none_or([truncate(X.copy(), r) for X, r in cases]), right, [
        (are(lambda U, S, Vt, r: U[:, :r] @ Vt[:r]),
         "the singular values are missing: U and Vt have length 1 and carry no size"),
        (are(lambda U, S, Vt, r: (U[:, -r:] * S[-r:]) @ Vt[-r:]),
         "you kept the smallest layers; NumPy lists the heaviest first"),
        (are(lambda U, S, Vt, r: (U[:, :r] * S[:r] ** 2) @ Vt[:r]),
         "each singular value enters once, not squared"),
        (first(lambda U, S, Vt, r: (U[:, :r] * S[:r]) @ Vt[:, :r].T),
         "NumPy returns V already transposed: take its first rows, not columns"),
        (lambda found: [np.shape(Y) for Y in found] != [X.shape for X, _ in cases],
         "the result must have the shape of the X that came in, here (5, 4) at rank 2, then (3, 6) "
         "at rank 1"),
        (lambda found: np.linalg.matrix_rank(found[0]) != 2,
         "asked for rank 2, your matrix has another rank: count the layers that you keep"),
        (first(lambda U, S, Vt, r: (U[:, :r] * S[:r]) @ Vt[:r]),
         "right for a (5, 4) matrix at rank 2, but not for a (3, 6) one at rank 1"),
        (lambda found: True, "shape and rank are right, but the first (5, 4) matrix has a nearer one of "
                             "rank 2"),
    ])


def check_rank_for_error(rank_for_error):
    """`rank_for_error(S, error)` on singular values whose answers are easy on paper."""
    S, ones = np.array([4.0, 3.0]), np.ones(4)
    cases = [(S, 0.61), (S, 0.59), (S, 0.4), (ones, 0.5), (ones, 0.0)]
    answer(lambda: none_or([rank_for_error(s.copy(), error) for s, error in cases]),
           lambda f: f == [1, 2, 2, 3, 4], [
        (lambda f: f == [0, 1, 1, 2, 3], "yours is one short: what does position 0 stand for?"),
        (lambda f: f == [2, 3, 3, 4, 5], "yours is one more than needed, every time"),
        (lambda f: f == [1, 1, 2, 2, 4], "for S = 4, 3 rank 1 has a relative error of 0.6. Asked for "
                                         "at most 0.59, yours still says rank 1"),
        (lambda f: f == [1, 1, 1, 2, 4], "for S = 4, 3 rank 1 has a relative error of 0.6. Asked for "
                                         "at most 0.4, yours still says rank 1"),
        (lambda f: f == [2, 2, 2, 3, 4], "for S = 4, 3 rank 1 has a relative error of 0.6. Asked for "
                                         "at most 0.61, yours says rank 2"),
        (lambda f: f[3] == 4, "four equal values, error 0.5: rank 3 leaves exactly 0.5, and "
                              "'at most' allows that"),
        (lambda f: f[4] != 4, "four equal values, error 0: nothing may be dropped, so rank 4"),
        (lambda f: f[0] != 1, "for S = 4, 3 rank 1 leaves 0.6, which is less than 0.61"),
        (lambda f: f[3] != 3, "four equal values, error 0.5: the smallest rank that does it is 3"),
        (lambda f: True, "for S = 4, 3 rank 1 leaves 0.6, which is more than 0.59 or 0.4"),
    ])
