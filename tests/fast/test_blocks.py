"""llama.cpp's blocks of four bits: one on paper, levels, and a frozen layer that is its own W."""

import copy
import struct

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import lora_mini as lm
from lora_mini import adapters, blocks
from lora_mini.blocks import Q41Linear
from lora_mini.variants import DoRALinear, PiSSALinear
from tests.fixtures import four_bits as nets
from tests.fixtures.four_bits import dense


def linear(d_in=64, d_out=40, bias=True, seed=0):
    torch.manual_seed(seed)
    return nn.Linear(d_in, d_out, bias)


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(blocks, "PIECE", 64 * 7)  # 40 rows of 64: five pieces of 7 and one of 5


def test_a_block_on_paper():
    numbers = [(low, 15 - low) for low in range(16)]  # of weights j and j + 16
    data = struct.pack("<ee", 0.5, -2) + bytes(low | high << 4 for low, high in numbers)
    found = blocks.decode(torch.tensor(list(data), dtype=torch.uint8)[None])
    assert found.shape == (1, 32)
    assert found[0].tolist() == [j / 2 - 2 for j in range(16)] + [5.5 - j / 2 for j in range(16)]


def test_sixteen_even_levels_from_the_least_weight_to_the_largest():
    W = torch.randn(6, 96, generator=torch.Generator().manual_seed(1))
    found = blocks.decode(blocks.encode(W))
    for row, back in zip(W.view(-1, 32), found.view(-1, 32), strict=True):
        step = (row.max() - row.min()) / 15
        assert (back - row).abs().max() <= step / 2 + 2e-3  # its ends are float16
        assert len(back.unique()) <= 16
        torch.testing.assert_close(back.min(), row.min(), rtol=1e-3, atol=0)
        torch.testing.assert_close(back.max(), row.max(), rtol=3e-3, atol=0)


def test_a_constant_block_stays_and_coded_weights_are_coded_the_same_again():
    W = torch.full((2, 32), -0.75)
    assert torch.equal(blocks.decode(blocks.encode(W)), W)
    once = blocks.decode(blocks.encode(torch.randn(4, 64)))
    torch.testing.assert_close(blocks.decode(blocks.encode(once)), once, rtol=0, atol=2e-3)


@pytest.mark.parametrize("W, said", [
    (torch.zeros(3, 48), "multiple of 32 weights long, got 48.*FourBitLinear"),
    (torch.full((3, 32), torch.nan), "NaN or infinite")])
def test_what_can_not_be_coded_is_refused(W, said):
    with pytest.raises(ValueError, match=said):
        blocks.encode(W)


def test_blocks_of_a_wrong_size_or_kind_and_other_modules_are_refused():
    with pytest.raises(ValueError, match="multiple of 32 weights long, got 40"):
        Q41Linear(40, 8)
    for wrong in (torch.zeros(3, 30, dtype=torch.uint8), torch.zeros(3, 40)):
        with pytest.raises(ValueError, match="uint8 and rows of whole blocks of 20 bytes, got"):
            Q41Linear.from_blocks(wrong)
    with pytest.raises(TypeError, match="expected an nn.Linear, got a Q41Linear"):
        Q41Linear.from_linear(Q41Linear(32, 8))


def test_five_bits_a_weight_and_no_more():
    four = Q41Linear.from_linear(linear(512, 96))
    assert four.bits() == (32 * 4 + 16 + 16) / 32 == 5
    assert sum(t.numel() * t.element_size() for t in four.buffers()) == 512 * 96 * 5 / 8
    assert "5.000 bits a weight" in repr(four)


@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_is_its_rounded_weight_in_output_and_gradient(bias, small_pieces):
    plain = linear(bias=bias)
    four = Q41Linear.from_linear(plain)
    assert torch.equal(four.weight, blocks.decode(blocks.encode(plain.weight)))
    again, x = dense(four), torch.randn(2, 5, 64)
    ours, theirs = (x.clone().requires_grad_() for _ in range(2))
    torch.testing.assert_close(four(ours), again(theirs))
    four(ours).square().sum().backward()
    again(theirs).square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert all(not p.requires_grad for p in four.parameters())


def test_the_input_gradient_survives_finite_differences_twice(monkeypatch):
    monkeypatch.setattr(blocks, "PIECE", 64)
    four = Q41Linear.from_linear(linear(32, 5).double())
    x = torch.randn(3, 32, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(four, x) and torch.autograd.gradgradcheck(four, x)


class Largest(TorchDispatchMode):
    """How many numbers the largest tensor holds that comes into being."""

    numbers = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        out = operation(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.is_floating_point():
            self.numbers = max(self.numbers, out.numel())
        return out


def test_forward_and_backward_never_hold_the_whole_weight(small_pieces):
    four, x = Q41Linear.from_linear(linear()), torch.randn(2, 64, requires_grad=True)
    with Largest() as seen:
        four(x).sum().backward()
    assert seen.numbers == 7 * 64
    with Largest() as seen:
        dense(four)(x).sum().backward()
    assert seen.numbers >= 40 * 64  # the watch sees a whole weight where there is one


def test_conversions_leave_the_blocks_alone_and_follow_the_dtype():
    four = Q41Linear.from_linear(linear())
    half = copy.deepcopy(four).to(torch.bfloat16)
    assert half.weight.dtype == half(torch.randn(2, 64).bfloat16()).dtype == torch.bfloat16
    assert torch.equal(half.blocks, four.blocks)
    assert torch.equal(half.float().dequantize(), four.dequantize())
    meta = copy.deepcopy(four).to("meta")
    assert meta.weight.shape == (40, 64) and meta.weight.is_meta


def test_it_is_saved_and_loaded_as_a_state_dict():
    four, other = Q41Linear.from_linear(linear()), Q41Linear(64, 40)
    other.load_state_dict(four.state_dict())
    assert torch.equal(other.weight, four.weight) and torch.equal(other.bias, four.bias)


def four_and_dense():
    return nets.four_and_dense(32, 96, Q41Linear)


@pytest.mark.parametrize("layer", [lm.LoRALinear, DoRALinear, PiSSALinear])
def test_an_adapter_on_blocks_trains_as_on_the_rounded_weight(layer):
    nets.trains_alike(*four_and_dense(), layer, "blocks")


def test_an_adapter_of_such_a_base_is_saved_and_knows_its_base(tmp_path):
    four, _ = four_and_dense()
    lm.attach(four, ["up", "down"], 2, 5)
    nn.init.normal_(four.up.lora_B)
    adapters.save(four, tmp_path)
    other, x = four_and_dense()[0], torch.randn(5, 32)
    assert adapters.load(other, tmp_path).checked and torch.equal(other(x), four(x))
    wrong = four_and_dense()[0]
    wrong.up.blocks[0, 4] ^= 8  # one weight, another level
    with pytest.raises(ValueError, match="trained on another base"):
        adapters.load(wrong, tmp_path)
