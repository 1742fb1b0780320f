"""Checks for notebook 12: what LoRA trains, where it breaks even, the thin brackets."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from lora_mini.desk.checks import answer, close, none_or


def check_trained(trained):
    """`trained(linear, layers, targets, rank)` adds rank (d_in + d_out) over targets and blocks."""
    one = {"q_proj": (6, 6), "v_proj": (2, 6), "up_proj": (14, 6)}
    two = {"fc": (5, 9), "out": (9, 5)}

    def right(linear, layers, targets, rank):
        return layers * sum(rank * sum(linear[name]) for name in targets)

    def like(count):
        return lambda seen: seen == [count(one, 3, ["q_proj", "v_proj"], 4), count(two, 7, ["fc", "out"], 2)]

    def found():
        return none_or([trained(dict(one), 3, ["q_proj", "v_proj"], 4), trained(dict(two), 7, ["fc", "out"], 2)])

    answer(found, like(right), [
        (like(lambda linear, layers, targets, rank: right(linear, 1, targets, rank)),
         "that is one block: there are `layers` of them"),
        (like(lambda linear, layers, targets, rank: right(linear, layers, linear, rank)),
         "only the layers in `targets` are adapted"),
        (like(lambda linear, layers, targets, rank: layers * sum(
            linear[name][0] * linear[name][1] for name in targets)), "that is W itself, not the factors"),
        (like(lambda linear, layers, targets, rank: layers * sum(
            2 * rank * linear[name][1] for name in targets)), "not all layers are square: A has d_in, B d_out"),
        (lambda seen: True, "a layer has rank * d_in numbers in A and d_out * rank in B"),
    ])


def check_break_even(rank):
    """2 N^2 + 6 N R reaches 3 N^2 at R = N / 6, or 171 whole ones."""
    answer(lambda: rank, lambda r: r == 171, [
        (lambda r: 170 <= r < 171, "at 170 it still needs a little less"),
        (lambda r: abs(r - 512) < 1, "that is where the adapter has as many numbers as W; count multiply-adds"),
        (lambda r: abs(r - 1024 / 3) < 1, "N^2 are saved, and 6 N R are spent"),
        (lambda r: r > 1024, "it can't be larger than N: divide N^2 by 6 N"),
        (lambda r: True, "set 2 N^2 + 6 N R equal to 3 N^2, and solve for R"),
    ])


def check_factor_gradients(factor_gradients):
    """The gradients of A and of B, by their thin brackets: 2 n r (d_in + d_out) multiply-adds."""
    torch.manual_seed(0)
    n, d_out, d_in, r, s = 12, 10, 8, 2, 1.5
    G, X, A, B = (torch.randn(*shape) for shape in ((n, d_out), (n, d_in), (r, d_in), (d_out, r)))
    D = G.T @ X
    right = (s * B.T @ D, s * D @ A.T)

    def found():
        with FlopCounterMode(display=False) as counter:
            both = factor_gradients(G, X, A, B, s)
        if both is None or both is ...:
            return both
        both = none_or(list(both))
        return both and [*both, counter.get_total_flops() // 2]
    thin = n * r * (d_in + d_out)  # G B, then (G B)^T X; for B as many

    def equal(seen, i, value):
        return close(seen[i].detach().numpy(), value.numpy())

    answer(found, lambda seen: equal(seen, 0, right[0]) and equal(seen, 1, right[1]) and seen[2] <= 2 * thin, [
        (lambda seen: equal(seen, 0, right[1]), "the gradient for A first, then that for B"),
        (lambda seen: not equal(seen, 0, right[0]), "A's gradient is s B^T G^T X, of A's shape (r, d_in)"),
        (lambda seen: not equal(seen, 1, right[1]), "B's gradient is s G^T X A^T, of B's shape (d_out, r)"),
        (lambda seen: seen[2] >= n * d_in * d_out, "right; but somewhere a whole (d_out, d_in) is formed, which "
                                                   "is the weight gradient that LoRA saves"),
        (lambda seen: True, "right; but one of the two brackets is still the wide one"),
    ])
