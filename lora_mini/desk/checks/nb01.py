"""Checks for notebook 01: lengths under an SVD, a power step, and peeling a layer off."""

import numpy as np

from lora_mini.desk.checks import answer, close, none_or


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


MATRICES = (np.array([[3.0, 1.0, 0.0], [1.0, 2.0, 2.0], [0.0, 1.0, 4.0], [1.0, 0.0, 1.0]]),
            np.array([[1.0, 2.0, 0.0, 1.0, 3.0], [0.0, 1.0, 4.0, 2.0, 1.0]]))  # (4, 3), (2, 5)
NOT_BOTH = (lambda found: True, "right for a (4, 3) matrix, but not for a (2, 5) one")


def check_power_step(power_step):
    """`power_step(M, v)` must be M^T M v, scaled to length 1, for matrices of two shapes."""
    starts = np.array([1.0, 0.0, 0.0]), np.array([0.0, 2.0, 0.0, 1.0, 0.0])
    back = [M.T @ M @ v for M, v in zip(MATRICES, starts, strict=True)]
    right = [w / np.linalg.norm(w) for w in back]
    there = [M @ v for M, v in zip(MATRICES, starts, strict=True)]
    scaled = [y / np.linalg.norm(y) for y in there]

    def are(values):
        return lambda found: all(map(close, found, values))

    def along(found):
        return all(close(u / np.linalg.norm(u), w) for u, w in zip(found, right, strict=True))

    answer(lambda: none_or([power_step(M.copy(), v.copy())
                            for M, v in zip(MATRICES, starts, strict=True)]), are(right), [
        (are(back), "the direction is right; scale it to length 1, or it will overflow"),
        (lambda found: are(there)(found) or are(scaled)(found),
         "that is M v, in the space of outputs; come back with M^T"),
        (lambda found: [np.shape(u) for u in found] != [(3,), (5,)],
         "for M (m, n) the result has n entries, as v has"),
        (are(starts), "v has not moved"),
        (are([-w for w in right]), "the arrow has been turned around; nothing in M^T M v does that"),
        (along, "the direction is right, the length is not 1: divide by the root of the sum of "
                "squares"),
        (lambda found: not close(found[0], right[0]),
         "for M of a single row (1, 2) and v = (1, 0) the result is (1, 2) / 2.236"),
        NOT_BOTH,
    ])


def check_peel(peel):
    """`peel(M, u, s, v)` must take the layer s u v^T off, and leave nothing in the direction v."""
    layers = []
    for M in MATRICES:
        U, S, Vt = np.linalg.svd(M, full_matrices=False)
        layers.append((M, U[:, 0], S[0], Vt[0]))

    def are(made):
        return lambda found: all(close(R, made(*layer))
                                 for R, layer in zip(found, layers, strict=True))

    answer(lambda: none_or([peel(M.copy(), u.copy(), s, v.copy()) for M, u, s, v in layers]),
           are(lambda M, u, s, v: M - s * np.outer(u, v)), [
        (are(lambda M, u, s, v: M - np.outer(u, v)),
         "the rest should send v to zero; with s = 1 it would"),
        (are(lambda M, u, s, v: M - s**2 * np.outer(u, v)),
         "the rest stretches v by s (s - 1); after peeling it should stretch v by 0"),
        (are(lambda M, u, s, v: M + s * np.outer(u, v)),
         "the rest stretches v by 2 s: the layer was added, not taken off"),
        (are(lambda M, u, s, v: s * np.outer(u, v)), "that is the layer; what is left without it?"),
        (lambda found: [np.shape(R) for R in found] != [(4, 3), (2, 5)],
         "the rest has the shape of M, here (4, 3) and (2, 5)"),
        (lambda found: not close(found[0] @ layers[0][3], np.zeros(4)),
         "the rest should send v to zero, and yours sends it elsewhere"),
        (lambda found: close(found[0], layers[0][0] - layers[0][2] * np.outer(*layers[0][1::2])),
         "right for a (4, 3) matrix, but not for a (2, 5) one"),
        (lambda found: True, "v goes to zero, as it should, but what M does to other directions "
                             "has changed too"),
    ])
