"""Checks for notebook 01: lengths under an SVD, a power step, and peeling a layer off."""

import numpy as np

from lora_mini.desk.checks import answer, close


def check_length(length):
    """The length of M x for x = 0.6 v_1 + 0.8 v_2, when the singular values are 5 and 2."""
    answer(length, lambda n: abs(n - 3.4) < 0.01, [
        (lambda n: abs(n - 4.6) < 0.01, "3 + 1.6 adds the lengths; the two pieces are perpendicular"),
        (lambda n: abs(n - 11.56) < 0.01, "that is the square of the length"),
        (lambda n: np.shape(n) == (2,), "those are its two parts; how long are they together?"),
        (lambda n: abs(n - np.sqrt(29)) < 0.01, "5 and 2 belong to vectors of length 1; x has only "
                                                "0.6 and 0.8 of them"),
        (lambda n: abs(n - 5) < 0.01, "only v_1 itself is stretched by 5"),
        (lambda n: abs(n - 1) < 0.01, "that is the length of x; M stretches its two parts"),
    ])


M = np.array([[3.0, 1.0, 0.0], [1.0, 2.0, 2.0], [0.0, 1.0, 4.0], [1.0, 0.0, 1.0]])


def check_power_step(power_step):
    """`power_step(M, v)` must be M^T M v, scaled to length 1."""
    v = np.array([1.0, 0.0, 0.0])
    w = M.T @ M @ v
    answer(lambda: power_step(M, v), lambda u: close(u, w / np.linalg.norm(w)), [
        (lambda u: close(u, w), "the direction is right; scale it to length 1, or it will overflow"),
        (lambda u: np.shape(u) == (4,), "that is M v, in the space of outputs; come back with M^T"),
        (lambda u: close(u, v), "v has not moved"),
        (lambda u: close(u, -w / np.linalg.norm(w)), "the arrow has been turned around; nothing in "
                                                     "M^T M v does that"),
        (lambda u: close(u / np.linalg.norm(u), w / np.linalg.norm(w)),
         "the direction is right, the length is not 1: divide by the root of the sum of squares"),
    ])


def check_peel(peel):
    """`peel(M, u, s, v)` must take the layer s u v^T off, and leave nothing in the direction v."""
    U, S, Vt = np.linalg.svd(M, full_matrices=False)
    right = M - S[0] * np.outer(U[:, 0], Vt[0])
    answer(lambda: peel(M.copy(), U[:, 0], S[0], Vt[0]), lambda R: close(R, right), [
        (lambda R: close(R, M - np.outer(U[:, 0], Vt[0])),
         "the rest still stretches v by s - 1; after peeling it should stretch v by 0"),
        (lambda R: close(R, M - S[0] ** 2 * np.outer(U[:, 0], Vt[0])), "s enters once, not squared"),
        (lambda R: np.shape(R) == (3, 4), "transposed: outer(u, v) has the shape of M"),
        (lambda R: close(R, M + S[0] * np.outer(U[:, 0], Vt[0])), "the layer was added, not taken off"),
    ])
