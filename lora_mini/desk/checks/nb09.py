"""Checks for notebook 09: DoRA's extra numbers, its weight, and a comparison at a borrowed rate."""

import numpy as np

from lora_mini.desk.checks import answer, close, none_or


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
    cases = [_layer(3, 5, 2, 0.7), _layer(6, 4, 3, 1.5)]
    W, A, B, magnitude, scale = cases[0]
    V = W + scale * B @ A
    plain = W + B @ A

    def rows(X):
        return np.linalg.norm(X, axis=1, keepdims=True)

    def first(weight):
        return lambda found: close(found[0], weight)

    def both():
        try:
            return none_or([dora_weight(*(np.copy(x) for x in case)) for case in cases])
        except ValueError as error:  # NumPy's, about shapes that don't go together
            if "broadcast" in str(error) or "matmul" in str(error):
                return str(error)
            raise

    answer(both, lambda found: all(close(X, m[:, None] * (W + s * B @ A) / rows(W + s * B @ A))
                                   for X, (W, A, B, m, s) in zip(found, cases, strict=True)), [
        (lambda found: isinstance(found, str) and "matmul" in found,
         "two shapes don't go together in a product: W is (d_out, d_in), B (d_out, r), A (r, d_in)"),
        (lambda found: isinstance(found, str),
         "two shapes don't go together: numbers that belong to the rows of a (d_out, d_in) matrix have to stand "
         "as a column, (d_out, 1)"),
        (first(V / rows(V)), "every row has length 1: bring each to its magnitude"),
        (first(magnitude[:, None] * V), "divide by the length of the row first"),
        (first(magnitude[:, None] * V / rows(W)), "divide by the length of the row of W + scale B A, not of W"),
        (first(magnitude[:, None] * V / np.linalg.norm(V, axis=0)),
         "the lengths are those of the columns: each output has one row, (d_out, d_in)"),
        (first(magnitude[:, None] * plain / rows(plain)), "the scale is missing"),
        (first(magnitude[:, None] * V / np.linalg.norm(V)),
         "that is one length for the whole matrix; each row has its own"),
        (first(magnitude[:, None] * V / rows(V)), "right for a layer of shape (3, 5) at rank 2, but not for one "
                                                  "of (6, 4) at rank 3"),
        (lambda found: True, "each row should have the direction of the row of W + scale B A, and its magnitude "
                             "as its length"),
    ])


def _layer(d_out, d_in, rank, scale):
    """W, A, B, magnitude and scale of a layer."""
    rng = np.random.default_rng(0)
    W, A, B = (rng.normal(size=shape) for shape in ((d_out, d_in), (rank, d_in), (d_out, rank)))
    return W, A, B, np.arange(1.0, d_out + 1), scale


def check_ahead(ahead):
    """`ahead(variant, lora)`: excess of LoRA minus the variant's, each at the rate that suits it."""
    variant = {0.001: {1: 0.09, 2: 0.09, 3: 0.09, 11: 0.10, 12: 0.10},
               0.01: {1: 0.05, 2: 0.05, 3: 0.05, 11: 0.06, 12: 0.06}}
    lora = {0.001: {1: 0.02, 2: 0.02, 3: 0.02, 11: 0.04, 12: 0.04},
            0.01: {1: 0.09, 2: 0.09, 3: 0.09, 11: 0.09, 12: 0.09}}
    third = {0.1: {1: 0.3, 2: 0.2, 3: 0.1, 7: 0.5, 8: 0.6, 9: 0.4},
             0.03: {1: 0.5, 2: 0.5, 3: 0.5, 7: 0.1, 8: 0.1, 9: 0.1},
             0.3: {1: 0.9, 2: 0.8, 3: 0.7, 7: 0.3, 8: 0.3, 9: 0.3}}
    other = {0.1: {1: 0.8, 2: 0.8, 3: 0.8, 7: 0.6, 8: 0.6, 9: 0.6},
             0.03: {1: 0.9, 2: 0.9, 3: 0.9, 7: 0.2, 8: 0.2, 9: 0.2},
             0.3: {1: 0.6, 2: 0.5, 3: 0.4, 7: 0.7, 8: 0.8, 9: 0.9}}

    def first(value):
        return lambda found: close(found[0], value)

    answer(lambda: none_or([ahead(dict(variant), dict(lora)), ahead(dict(third), dict(other))]),
           lambda found: close(found[0], -0.02) and close(found[1], 0.3), [
        (first(0.03), "it says that the variant is ahead by 0.03; by a fair count it is behind by 0.02"),
        (first(0.02), "the sign: positive means that the variant's excess is the smaller one"),
        (first(-0.06), "now LoRA's rate is borrowed: each at the rate that suits it"),
        (first(-0.03), "those are the bases on which the rates were chosen"),
        (first(-0.026), "leave out bases 1, 2 and 3: they chose the rates"),
        (first(-0.02), "right for two rates and five bases, but not for three rates and six, where the variant "
                       "is ahead by 0.3"),
        (lambda found: True, "return one number: LoRA's mean excess minus the variant's, on the bases that "
                             "report"),
    ])
