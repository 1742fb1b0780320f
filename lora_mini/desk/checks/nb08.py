"""Checks for notebook 08: the overlap of two subspaces, its chance level, and false intruders."""

import numpy as np

from lora_mini.desk.checks import answer, close


def _rows(count, seed):
    """`count` orthonormal rows in R^6."""
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((6, count)))[0].T


def check_phi(phi):
    """`phi(V1, V2)` is ||V1 V2^T||_F^2 / min(i, j) for orthonormal rows."""
    V1, V2 = _rows(2, 0), _rows(3, 1)
    square = np.sum((V1 @ V2.T) ** 2)
    answer(lambda: phi(V1.copy(), V2.copy()), lambda p: close(p, square / 2), [
        (lambda p: close(p, square), "divide by the smaller of the two numbers of directions"),
        (lambda p: close(p, square / 3), "divide by min(i, j), not by max(i, j): a line that lies in "
                                         "a plane is shared in full"),
        (lambda p: close(p, np.sqrt(square) / 2), "the norm has to be squared"),
        (lambda p: close(p, np.abs(V1 @ V2.T).sum() / 2), "square the cosines before you add them up"),
        (lambda p: close(p, np.sum(V1 @ V2.T) ** 2 / 2), "square each cosine, then add"),
        (lambda p: np.shape(p) != (), "phi is a single number"),
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
    U0 = np.eye(6)[:, :5]
    mixed = np.array([0.5, 0.5, 0.5, 0.0, 0.0, 0.5])
    U = np.stack([U0[:, 0], U0[:, 3], mixed, -U0[:, 1], U0[:, 4]], axis=1)

    def found():
        which = newcomers(U0.copy(), U.copy(), 0.6)
        return None if which is None else [int(j) for j in which]

    answer(found, lambda js: js == [2], [
        (lambda js: js == [1, 2, 3], "columns 1 and 3 are reported as well, but U0 holds both of them"),
        (lambda js: js == [2, 3], "column 3 is an old direction with the other sign; a singular "
                                  "vector's sign means nothing"),
        (lambda js: js == [0, 1, 3, 4], "those are the old ones"),
        (lambda js: js == [], "column 2 has a cosine of at most 0.5 with every old one"),
        (lambda js: js == [0, 1, 2, 3, 4], "column 0 is U0's column 0: what counts is the LARGEST "
                                           "cosine over U0's columns"),
    ])
