"""Checks for notebook 09: DoRA's extra numbers, its weight, and a comparison at a borrowed rate."""

import numpy as np

from lora_mini.desk.checks import answer, close


def check_extra(number):
    """How many percent more than LoRA DoRA trains at rank 4, with d_out = 256 and d_in = 64."""
    answer(number, lambda n: close(n, 20), [
        (lambda n: close(n, 5), "64 is d_in: a magnitude belongs to a row of W, and W is (d_out, d_in)"),
        (lambda n: close(n, 256), "256 more numbers, yes; in percent of LoRA's r (d_out + d_in)?"),
        (lambda n: close(n, 0.2), "that is the share; in percent?"),
        (lambda n: close(n, 120), "120 percent in all, yes; how many more?"),
        (lambda n: close(n, 80), "in percent of LoRA's at rank 4: r is missing in r (d_out + d_in)"),
        (lambda n: close(n, 100 / 1280), "one magnitude for each row of W, not one for the layer"),
    ])


def check_dora_weight(dora_weight):
    """`dora_weight(W, A, B, magnitude, scale)`: rows of W + scale B A, brought to their magnitudes."""
    rng = np.random.default_rng(0)
    W, A, B = rng.normal(size=(3, 5)), rng.normal(size=(2, 5)), rng.normal(size=(3, 2))
    magnitude, scale = np.array([1.0, 2.0, 3.0]), 0.7
    V = W + scale * B @ A
    norms = np.linalg.norm(V, axis=1, keepdims=True)
    answer(lambda: dora_weight(W.copy(), A.copy(), B.copy(), magnitude.copy(), scale),
           lambda X: close(X, magnitude[:, None] * V / norms), [
        (lambda X: close(X, V / norms), "every row has length 1: bring each to its magnitude"),
        (lambda X: close(X, magnitude[:, None] * V), "divide by the length of the row first"),
        (lambda X: close(X, magnitude[:, None] * V / np.linalg.norm(W, axis=1, keepdims=True)),
         "divide by the length of the row of W + scale B A, not of W"),
        (lambda X: close(X, magnitude[:, None] * V / np.linalg.norm(V, axis=0)),
         "the lengths are those of the columns: each output has one row, (d_out, d_in)"),
        (lambda X: close(X, magnitude[:, None] * (W + B @ A) /
                         np.linalg.norm(W + B @ A, axis=1, keepdims=True)), "the scale is missing"),
        (lambda X: close(X, magnitude[:, None] * V / np.linalg.norm(V)),
         "that is one length for the whole matrix; each row has its own"),
    ])


def check_ahead(ahead):
    """`ahead(variant, lora)`: excess of LoRA minus the variant's, each at the rate that suits it."""
    variant = {0.001: {0: 0.09, 1: 0.09, 2: 0.09, 10: 0.10, 11: 0.10},
               0.01: {0: 0.05, 1: 0.05, 2: 0.05, 10: 0.06, 11: 0.06}}
    lora = {0.001: {0: 0.02, 1: 0.02, 2: 0.02, 10: 0.04, 11: 0.04},
            0.01: {0: 0.09, 1: 0.09, 2: 0.09, 10: 0.09, 11: 0.09}}
    answer(lambda: ahead(variant, lora), lambda x: close(x, -0.02), [
        (lambda x: close(x, 0.03), "it says that the variant is ahead by 0.03; by a fair count it is behind "
                                   "by 0.02"),
        (lambda x: close(x, 0.02), "the sign: positive means that the variant's excess is the smaller one"),
        (lambda x: close(x, -0.06), "now LoRA's rate is borrowed: each at the rate that suits it"),
        (lambda x: close(x, -0.03), "those are the seeds on which the rates were chosen"),
        (lambda x: close(x, -0.026), "leave out seeds 0, 1 and 2: they chose the rates"),
    ])
