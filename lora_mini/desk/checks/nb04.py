"""Checks for notebook 04: Adam's memory, a merged weight, a merged forward, a sound set-up."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from lora_mini import LoRALinear
from lora_mini.audit import smoke_test
from lora_mini.desk.checks import answer, close, none_or


def check_adam_numbers(numbers):
    """The extra numbers that Adam keeps for a rank-4 adapter of a 48 x 64 layer."""
    answer(numbers, lambda n: n == 2 * 4 * (48 + 64), [
        (lambda n: n == 4 * (48 + 64), "those are the trained numbers; Adam keeps two more for each"),
        (lambda n: n == 3 * 4 * (48 + 64), "that counts the trained numbers in; how many are extra?"),
        (lambda n: n in (2 * 48 * 64, 2 * (48 * 64 + 48)), "that would be for the frozen matrix; "
                                                          "Adam keeps nothing for what is frozen"),
        (lambda n: n == 2 * 4 * 48 * 64, "the factors add up, they don't multiply"),
    ])


def _layers():
    """Two layers that differ in shape, rank and scale: 6 to 4 at 5/2, and 3 to 7 at 4/3."""
    torch.manual_seed(4)
    made = [LoRALinear(nn.Linear(6, 4), rank=2, alpha=5.0),
            LoRALinear(nn.Linear(3, 7), rank=3, alpha=4.0)]
    for layer in made:
        layer.eval().requires_grad_(False).lora_B.normal_()
    return made


def check_merged_weight(merged_weight):
    """`merged_weight(layer)` must return W + scaling B A, (d_out, d_in), and leave W alone."""
    layers = _layers()
    frozen = [layer.base.weight.clone() for layer in layers]
    (W, BA), (W2, BA2) = ((layer.base.weight.clone().numpy(), (layer.lora_B @ layer.lora_A).numpy())
                          for layer in layers)

    def touched():
        return not all(map(torch.equal, frozen, (layer.base.weight for layer in layers)))

    def right(M):
        return close(M[0], W + 2.5 * BA) and close(M[1], W2 + 4 / 3 * BA2) and not touched()

    answer(lambda: none_or([merged_weight(layer) for layer in layers]), right, [
        (lambda M: touched(), "your function wrote into the frozen weight (+= does): form a new matrix"),
        (lambda M: close(M[0], W + 2 * BA), "that is alpha // rank, a whole number; the scale is 2.5"),
        (lambda M: close(M[0], W + 5 / 2**0.5 * BA), "that is the scale of rsLoRA, alpha / sqrt(rank)"),
        (lambda M: close(M[0], W + BA), "the scale is missing: alpha / rank is 2.5 here"),
        (lambda M: close(M[0], 2.5 * BA), "that is the update alone; add it to the frozen weight"),
        (lambda M: close(M[0], W + 5 * BA), "that is scaled by alpha, not by alpha / rank"),
        (lambda M: np.shape(M[0]) != W.shape, "expected the shape of W, (d_out, d_in) = (4, 6)"),
        (lambda M: close(M[0], W + 2.5 * BA), "right for the layer from 6 to 4, but not for one from "
                                              "3 to 7 with rank 3 and alpha 4"),
    ])


def check_merged_forward(merged_forward):
    """`merged_forward(x, merged, layer)` must give the outputs of the merged weight it is given.

    A bug hunt: what a wrong answer is told is the symptom, never the cause.
    """
    layers = _layers()
    inputs = torch.linspace(-1, 1, 18).reshape(3, 6), torch.linspace(-1, 2, 15).reshape(5, 3)
    cases = [(x, layer.weight * 2, layer)  # not the layer's own: what comes in must be used
             for x, layer in zip(inputs, layers, strict=True)]
    right = [F.linear(x, merged, layer.base.bias).numpy() for x, merged, layer in cases]
    branch = [(layer.scaling * F.linear(F.linear(x, layer.lora_A), layer.lora_B)).numpy()
              for x, _, layer in cases]
    x, _, layer = cases[0]
    bias = layer.base.bias.numpy()
    answer(lambda: none_or([merged_forward(*case) for case in cases]),
           lambda y: all(map(close, y, right)), [
        (lambda y: close(y[0], right[0] + branch[0]), "compared with the outputs before the merge, "
                                                      "yours are off by exactly one more update"),
        (lambda y: close(y[0], right[0] - bias), "the bias has gone from the outputs"),
        (lambda y: close(y[0], layer(x).numpy()), "another merged weight comes in, and the outputs "
                                                  "stay the same"),
        (lambda y: close(y[0], layer.base(x).numpy()), "these are the outputs of the base without "
                                                       "its adapter"),
        (lambda y: np.shape(y[0]) != right[0].shape, "expected outputs of shape (3, 4), for a batch "
                                                     "of 3"),
        (lambda y: close(y[0], right[0]), "right for the layer from 6 to 4, but not for one from 3 "
                                          "to 7"),
    ])


def check_set_up(make_model, step):
    """The smoke test, as an exercise: every point must pass.

    A bug hunt: what a wrong answer is told is the symptom, never the cause.
    """
    def failing():
        made = make_model()
        if made is None:
            return None
        return [point.sentence for point in smoke_test(lambda: made, step) if not point.ok]

    def says(part):
        return lambda f: any(part in sentence for sentence in f)

    answer(failing, lambda f: not f, [
        (says("every B"), "the smoke test says: after three training steps not every A and B has "
                          "moved"),
        (says("parameters train"), "the smoke test says: more numbers train than the factors hold"),
        (says("0 layers"), "the smoke test says: no layer is adapted"),
        (says("the base's, bit for bit"), "the smoke test says: the untrained model's outputs are "
                                          "not those of its base"),
        (says("every byte"), "the smoke test says: training moved the base"),
    ])
