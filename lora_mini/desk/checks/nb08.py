"""Checks for notebook 08: the overlap of two subspaces, its chance level, and false intruders."""

import numpy as np

from lora_mini.desk.checks import answer, close, none_or


def _rows(count, seed, dimensions=6):
    """`count` orthonormal rows in so many dimensions."""
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((dimensions, count)))[0].T


def check_phi(phi):
    """`phi(V1, V2)` is ||V1 V2^T||_F^2 / min(i, j) for orthonormal rows."""
    V1, V2 = _rows(2, 0), _rows(3, 1)
    W1, W2 = _rows(4, 2, 7), _rows(2, 3, 7)
    square, other = np.sum((V1 @ V2.T) ** 2), np.sum((W1 @ W2.T) ** 2)

    def first(value):
        return lambda found: close(found[0], value)

    answer(lambda: none_or([phi(V1.copy(), V2.copy()), phi(W1.copy(), W2.copy())]),
           lambda found: close(found[0], square / 2) and close(found[1], other / 2), [
        (first(square), "divide by the smaller of the two numbers of directions"),
        (first(square / 3), "divide by min(i, j), not by max(i, j): a line that lies in a plane is shared "
                            "in full"),
        (first(np.sqrt(square) / 2), "the norm has to be squared"),
        (first(np.abs(V1 @ V2.T).sum() / 2), "square the cosines before you add them up"),
        (first(np.sum(V1 @ V2.T) ** 2 / 2), "square each cosine, then add"),
        (first(square / 2), "right where V1 has fewer rows than V2, but not where it has more: divide by the "
                            "smaller number"),
        (lambda found: np.shape(found[0]) != (), "phi is a single number"),
        (lambda found: True, "phi of a subspace with itself is 1, and with one at right angles 0"),
    ])


def check_chance(number):
    """phi of 4 against 32 random directions among 64: 1/2."""
    answer(number, lambda n: close(n, 0.5), [
        (lambda n: close(n, 4 / 64), "that is the share of one of the 32; add up all of them, and "
                                     "divide by min(i, j)"),
        (lambda n: close(n, 1 / 64), "that is the share for a single direction on each side"),
        (lambda n: close(n, 4 / 32), "d is 64: each of the 32 lies in 4 of 64 dimensions"),
        (lambda n: close(n, 2.0), "2 is right for the sum of the shares; phi divides it by min(i, j)"),
        (lambda n: close(n, 50), "phi is a share, between 0 and 1"),
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
