"""Checks for notebook 08: an update cut to its strongest directions, and false intruders."""

import numpy as np

from lora_mini.desk.checks import answer, close, none_or


def _cut(W0, W, k):
    U, S, Vt = np.linalg.svd(W - W0, full_matrices=False)
    return W0 + (U[:, :k] * S[:k]) @ Vt[:k]


def check_cut(cut):
    """`cut(W0, W, k)` is W0 plus the k strongest directions of W - W0."""
    draw = np.random.default_rng(0)
    W0, W, tall, other = (draw.standard_normal(shape) for shape in ((4, 6), (4, 6), (7, 3), (7, 3)))
    nothing, weakest = 0 * W, W - _cut(W0, W, 2)  # what the two strongest leave over

    def like(M):
        return lambda found: close(found[0], M)

    answer(lambda: none_or([cut(W0.copy(), W.copy(), 2), cut(tall.copy(), other.copy(), 1)]),
           lambda found: close(found[0], _cut(W0, W, 2)) and close(found[1], _cut(tall, other, 1)), [
        (like(_cut(W0, W, 2)), "right for k = 2 of a (4, 6), but not for k = 1 of a (7, 3)"),
        (like(_cut(W0, W, 2) - W0), "that is the update alone: add it to W0"),
        (like(_cut(nothing, W, 2)), "that cuts W itself; what is cut is the update, W - W0"),
        (like(W0 + _cut(nothing, W, 2)), "that cuts W itself; what is cut is the update, W - W0"),
        (like(W0 + weakest), "those are the directions to drop: keep the strongest, the first columns"),
        (like(2 * W0 - _cut(W0, W, 2)), "the update is W - W0, not W0 - W"),
        (like(W), "nothing was dropped: keep k columns of U, k values of S and k rows of V^T"),
        (lambda found: np.shape(found[0]) != (4, 6), "the result has the shape of W0"),
        (lambda found: True, "with all directions kept it is W, and with none W0"),
    ])


def check_newcomers(newcomers):
    """`newcomers(U0, U, threshold)` numbers U's columns that are near no column of U0."""
    U0, V0 = np.eye(6)[:, :5], np.eye(7)[:, :6]
    mixed = np.array([0.5, 0.5, 0.5, 0.0, 0.0, 0.5])
    U = np.stack([U0[:, 0], mixed, U0[:, 3], -U0[:, 1], U0[:, 4]], axis=1)
    leaning = 0.8 * np.eye(7)[1] + 0.6 * np.eye(7)[6]
    V = np.stack([V0[:, 5], -V0[:, 0], V0[:, 2], leaning], axis=1)  # fewer columns than V0

    def found():
        both = none_or([newcomers(U0.copy(), U.copy(), 0.6), newcomers(V0.copy(), V.copy(), 0.9)])
        return both and [[int(j) for j in which] for which in both]

    def first(*columns):
        return lambda both: both[0] == list(columns)

    answer(found, lambda both: both == [[1], [3]], [
        (first(1, 2, 3), "columns 2 and 3 are reported as well, but U0 holds both of them"),
        (first(2), "column 2 of U is U0's column 3, so it is not new. Are you looking at the columns of U, or "
                   "at those of U0?"),
        (first(1, 3), "column 3 is an old direction with the other sign; a singular vector's sign means "
                      "nothing"),
        (first(0, 2, 3, 4), "those are the old ones"),
        (first(), "column 1 has a cosine of at most 0.5 with every old one"),
        (first(0, 1, 2, 3, 4), "column 0 is U0's column 0: what counts is the LARGEST cosine over U0's "
                               "columns"),
        (first(1), "right at a threshold of 0.6. At 0.9, a column with a cosine of 0.8 is new as well; and U "
                   "may have fewer columns than U0"),
        (lambda both: True, "return the numbers of the columns of U that are new"),
    ])
