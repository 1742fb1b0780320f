"""Checks for notebook 03: a count, a gradient, and a strength that depends on the rank."""

import numpy as np

from lora_mini.desk.checks import answer, close, none_or

A = np.array([[1.0, 0, 2], [0, 1, 1]])  # the fixture for paper: r 2, d_in 3, d_out 2
B = np.array([[1.0, 2], [3, 4]])


def check_count(numbers):
    """How many numbers LoRA of rank 8 trains beside a matrix of 64 x 96."""
    answer(numbers, lambda n: n == 8 * (64 + 96), [
        (lambda n: n == 64 * 96, "that is the whole matrix; LoRA trains two thin factors"),
        (lambda n: n == 8 * 64 * 96, "multiplying all three counts nothing: add the two factors up"),
        (lambda n: n in (8 * 64, 8 * 96), "that is one of the two factors"),
        (lambda n: n == 64 + 96, "that is rank 1; how many such pairs are there at rank 8?"),
        (lambda n: n == 2 * 8 * 64 or n == 2 * 8 * 96, "the two factors have different lengths"),
    ])


def check_grad_B(grad_B):
    """`grad_B(G, x, A, scale)` must be dL/dB, (d_out, r), for G = dL/dy (n, d_out)."""
    rng = np.random.default_rng(3)
    G, x, scale = rng.standard_normal((5, 4)), rng.standard_normal((5, 3)), 3.0  # alpha 6, r 2
    right = scale * G.T @ (x @ A.T)
    answer(lambda: grad_B(G, x, A, scale), lambda g: close(g, right), [
        (lambda g: close(g, right / scale), "the scale is missing: y holds scale * x A^T B^T"),
        (lambda g: close(g, right * scale), "the scale enters once"),
        (lambda g: close(g, right.T), "transposed: a gradient has the shape of its parameter, "
                                      "here (d_out, r)"),
        (lambda g: close(g, scale * G.T @ x), "that is the gradient of the whole update, "
                                              "(d_out, d_in); B meets x only through A"),
        (lambda g: close(g, right / 5), "don't average again: the loss did, and G carries it"),
        (lambda g: np.shape(g) != right.shape, "expected the shape of B, here (4, 2)"),
    ])


def check_update(update):
    """`update(A, B, alpha)` must be (alpha / r) B A, on the paper fixture and at another rank."""
    twice = np.vstack([A, A]), np.hstack([B, B])  # rank 4; its product is 2 BA, and 1/r is halved
    right = 3.0 * B @ A
    answer(lambda: none_or([update(A, B, 6.0), update(*twice, 6.0)]),
           lambda f: close(f[0], right) and close(f[1], right), [
        (lambda f: close(f[0], 2 * right), "with r 2 and alpha 6 the scale should be 3, yours is 6. "
                                           "A learner who doubles r gets twice the update for it"),
        (lambda f: close(f[0], right / 3), "alpha has no effect any more"),
        (lambda f: close(f[0], 2 * right / 3), "divide by the rank, not by d_in: A is (r, d_in)"),
        (lambda f: close(f[0], right * 2**0.5), "that is alpha / sqrt(r), the scale of rsLoRA; here we "
                                                "want alpha / r"),
        (lambda f: close(f[0], right), "right at r 2, but at r 4 the scale is off"),
    ])
