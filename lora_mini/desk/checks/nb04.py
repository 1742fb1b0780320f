"""Checks for notebook 04: Adam's memory, a merged weight, a merged forward, a sound set-up."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from lora_mini import LoRALinear
from lora_mini.audit import smoke_test
from lora_mini.desk.checks import answer, close


def check_adam_numbers(numbers):
    """The extra numbers that Adam keeps for a rank-4 adapter of a 48 x 64 layer."""
    answer(numbers, lambda n: n == 2 * 4 * (48 + 64), [
        (lambda n: n == 4 * (48 + 64), "those are the trained numbers; Adam keeps two more for each"),
        (lambda n: n == 3 * 4 * (48 + 64), "that counts the trained numbers in; how many are extra?"),
        (lambda n: n in (2 * 48 * 64, 2 * (48 * 64 + 48)), "that would be for the frozen matrix; "
                                                          "Adam keeps nothing for what is frozen"),
        (lambda n: n == 2 * 4 * 48 * 64, "the factors add up, they don't multiply"),
    ])


def _layer():
    torch.manual_seed(4)
    layer = LoRALinear(nn.Linear(6, 4), rank=2, alpha=5.0).eval().requires_grad_(False)
    layer.lora_B.normal_()
    return layer


def check_merged_weight(merged_weight):
    """`merged_weight(layer)` must return W + scaling B A, (4, 6), and leave W alone."""
    layer = _layer()
    W, BA = layer.base.weight.clone(), layer.lora_B @ layer.lora_A
    W0, BA = W.numpy(), BA.numpy()

    def touched():
        return not torch.equal(layer.base.weight, W)

    answer(lambda: merged_weight(layer), lambda M: close(M, W0 + 2.5 * BA) and not touched(), [
        (lambda M: touched(), "your function wrote into the frozen weight (+= does): form a new matrix"),
        (lambda M: close(M, W0 + 2 * BA), "that is alpha // rank, a whole number; the scale is 2.5"),
        (lambda M: close(M, W0 + 5 / 2**0.5 * BA), "that is the scale of rsLoRA, alpha / sqrt(rank)"),
        (lambda M: close(M, W0 + BA), "the scale is missing: alpha / rank is 2.5 here"),
        (lambda M: close(M, 2.5 * BA), "that is the update alone; add it to the frozen weight"),
        (lambda M: close(M, W0 + 5 * BA), "that is scaled by alpha, not by alpha / rank"),
        (lambda M: np.shape(M) != W0.shape, "expected the shape of W, (d_out, d_in) = (4, 6)"),
    ])


def check_merged_forward(merged_forward):
    """`merged_forward(x, merged, layer)` must give the outputs of the merged weight it is given."""
    layer, x = _layer(), torch.linspace(-1, 1, 18).reshape(3, 6)
    merged = layer.weight * 2  # not this layer's own: what comes in must be used
    right, bias = F.linear(x, merged, layer.base.bias).numpy(), layer.base.bias.numpy()
    branch = 2.5 * F.linear(F.linear(x, layer.lora_A), layer.lora_B)
    answer(lambda: merged_forward(x, merged, layer), lambda y: close(y, right), [
        (lambda y: close(y, right + branch.numpy()), "the outputs are off by exactly one more "
                                                     "update: what does the merged weight hold?"),
        (lambda y: close(y, right - bias), "the bias has gone; merging concerns the weight alone"),
        (lambda y: close(y, layer(x).numpy()), "use the merged weight that comes in; that it can "
                                               "stand for base and update is the point"),
        (lambda y: close(y, layer.base(x).numpy()), "that is the base without its adapter"),
    ])


def check_set_up(make_model, step):
    """The smoke test, as an exercise: every point must pass."""
    def failing():
        made = make_model()
        if made is None:
            return None
        return [point.sentence for point in smoke_test(lambda: made, step) if not point.ok]

    answer(failing, lambda f: not f, [
        (lambda f: any("every B" in sentence for sentence in f),
         "the smoke test says: after three steps not every A and B has moved. Whose tensors does "
         "the optimiser hold?"),
        (lambda f: any("parameters train" in sentence for sentence in f),
         "the smoke test says: more trains than the factors. What did attach freeze, and when?"),
    ])
