"""The most bytes held at once, against counts by hand and against the process itself."""

import gc

import pytest
import torch
from torch import nn

from lora_mini.lab.peak import peak_bytes


def test_a_peak_by_hand():
    def three():
        a = torch.zeros(1000)  # 4,000 bytes
        b = a + 1  # 8,000
        del a
        b.view(10, 100).mul_(2)  # a view, in place: none more
        return b.double()  # 4,000 and 8,000

    assert peak_bytes(three) == 12_000


@pytest.mark.parametrize("rows", [3, 50])
def test_what_was_there_counts_and_what_autograd_keeps_and_gradients_do(rows):
    layer, x = nn.Linear(6, 4, bias=False), torch.randn(rows, 6)
    y = 4 * rows * 4
    once = peak_bytes(lambda: layer(x), layer, x)
    assert once == 4 * 24 + 4 * rows * 6 + y
    most = peak_bytes(lambda: layer(x).square().sum().backward(), layer, x)
    # y and its square; on the way back y's gradient in place of the square, and that of W
    assert once + y <= most <= once + 3 * y + 4 * 24 + 8
    gc.collect()
    assert peak_bytes(lambda: None, layer, x) == 4 * 24 + 4 * rows * 6


def test_memory_that_was_freed_is_counted_again_when_it_comes_back():
    assert peak_bytes(lambda: [torch.ones(100).sum() for _ in range(5)]) <= 400 + 5 * 4
