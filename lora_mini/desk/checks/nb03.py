"""Checks for notebook 03: a rank, a gradient, and a strength that depends on the rank."""

import tracemalloc

import numpy as np

from lora_mini.desk.checks import answer, close, none_or

A = np.array([[1.0, 0, 2], [0, 1, 1]])  # the fixture for paper: r 2, d_in 3, d_out 2
B = np.array([[1.0, 2], [3, 4]])


def check_most_rank(rank):
    """The largest rank at which LoRA trains fewer numbers than a matrix of 64 x 96 has."""
    answer(rank, lambda n: n == 38, [
        (lambda n: n == 64 * 96, "that is the whole matrix; how much of it does one rank cost?"),
        (lambda n: n == 64 + 96, "that is what one rank costs; how many of those are fewer than "
                                 "6,144?"),
        (lambda n: 38 < n < 39, "a rank is a whole number"),
        (lambda n: n == 39, "39 x 160 = 6,240 are more than 6,144"),
        (lambda n: n in (64, 96), "a rank of 64 gives all matrices, and trains 10,240 numbers"),
        (lambda n: n < 38, "at the next rank there are still fewer than 6,144"),
        (lambda n: n > 39, "a rank costs a column of 64 and a row of 96: that many ranks are more "
                           "numbers than 6,144"),
    ])


def check_grad_B(grad_B):
    """`grad_B(G, x, A, scale)` must be dL/dB, (d_out, r), for G = dL/dy (n, d_out), without D.

    Looks at two sizes. At the second, D would be by far the largest array, and the memory in use
    while `grad_B` runs shows whether it, or as much, was ever formed.
    """
    rng = np.random.default_rng(3)
    small = rng.standard_normal((5, 4)), rng.standard_normal((5, 3)), A, 3.0  # alpha 6, r 2
    wide = *(rng.standard_normal(size) for size in ((2, 400), (2, 500), (3, 500))), 2.5
    (G, x, _, scale), size_of_D = small, 400 * 500 * 8  # bytes
    right, right_wide = (s * G.T @ (x @ A.T) for G, x, A, s in (small, wide))

    def attempt():
        found = grad_B(*small)
        return none_or([found, *_with_peak(grad_B, wide)]) if np.shape(found) else found

    def solved(f):
        return close(f[0], right) and close(f[1], right_wide) and f[2] < size_of_D / 4

    answer(attempt, solved, [
        (lambda f: close(f[0], right / scale), "the scale is missing: y holds scale * x A^T B^T"),
        (lambda f: close(f[0], right * scale), "the scale enters once"),
        (lambda f: close(f[0], right.T), "transposed: a gradient has the shape of its parameter, "
                                         "here (d_out, r)"),
        (lambda f: close(f[0], scale * G.T @ x), "that is the gradient of the whole update, "
                                                 "(d_out, d_in); B meets x only through A"),
        (lambda f: close(f[0], right / 5), "don't average again: the loss did, and G carries it"),
        (lambda f: np.shape(f[0]) != right.shape, "expected the shape of B, here (4, 2)"),
        (lambda f: close(f[0], right) and not close(f[1], right_wide),
         "right for d_out 4, d_in 3 and r 2, but not for 400, 500 and 3"),
        (lambda f: close(f[0], right), "the numbers are right, but on the way there your function "
                                       "held as many numbers as D has. In which order do you "
                                       "multiply?"),
    ])


def _with_peak(function, arguments):
    """(what the function returns, the most bytes that were in use at once while it ran)."""
    outer = tracemalloc.is_tracing()
    if not outer:
        tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        found = function(*arguments)
        return found, tracemalloc.get_traced_memory()[1] - before
    finally:
        if not outer:
            tracemalloc.stop()


def check_update(update):
    """`update(A, B, alpha)` must be (alpha / r) B A, at two ranks and shapes, for two alphas."""
    rng = np.random.default_rng(5)
    A4, B4 = rng.standard_normal((4, 5)), rng.standard_normal((3, 4))
    right, right4 = 3.0 * B @ A, 1.5 * B4 @ A4

    def times(f):
        """By what factor every entry is off at r 2, alpha 6; NaN if there is no such factor."""
        ratio = f[0][right != 0] / right[right != 0]
        return ratio.mean() if close(f[0], ratio.mean() * right) else np.nan

    def off_by(low, high):
        return lambda f: low < times(f) < high

    answer(lambda: none_or([update(A, B, 6.0), update(A4, B4, 6.0), update(A, B, 12.0)]),
           lambda f: close(f[0], right) and close(f[1], right4) and close(f[2], 2 * right), [
        (lambda f: np.shape(f[0]) != right.shape or np.shape(f[1]) != right4.shape,
         "expected the shape of W, (d_out, d_in): (2, 3) for the small example"),
        (lambda f: close(f[0], f[2]), "alpha has no effect: at 6 and at 12 the update is the same"),
        (off_by(1.99, 2.01), "for the small example (r 2, alpha 6) the top right entry should be "
                             "12, and is 24; all the others are twice too large as well"),
        (off_by(1.01, np.inf), "for the small example (r 2, alpha 6) every entry is too large, "
                               "all by the same factor"),
        (off_by(0, 0.99), "for the small example (r 2, alpha 6) every entry is too small, all "
                          "by the same factor"),
        (lambda f: close(f[0], right), "right at r 2, but at r 4 the scale is off"),
    ])
