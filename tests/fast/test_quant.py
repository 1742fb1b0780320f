"""Four bits: the levels, the nearest one, the bytes, and a frozen layer with exact gradients."""

import copy
import math
from statistics import NormalDist

import pytest
import torch
from torch import nn

import lora_mini as lm
from lora_mini import adapters, quant
from lora_mini.quant import NF4, FourBitLinear, to_four_bits
from lora_mini.variants import DoRALinear, PiSSALinear
from tests.fixtures import four_bits as nets
from tests.fixtures.four_bits import dense

PUBLISHED = [  # QLoRA, appendix E
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0]


def linear(d_in=48, d_out=40, bias=True, seed=0):
    torch.manual_seed(seed)
    return nn.Linear(d_in, d_out, bias)


def test_nf4_has_the_published_levels():
    torch.testing.assert_close(NF4, torch.tensor(PUBLISHED), rtol=0, atol=1e-6)
    assert NF4.tolist() == sorted(NF4.tolist()) and 0.0 in NF4.tolist()


def test_the_papers_own_formula_gives_other_levels():
    """Formula 4: the mean of two neighbouring quantiles of 2^4 + 1; the outer ones are infinite."""
    q = NormalDist().inv_cdf
    inner = [(q(i / 17) + q((i + 1) / 17)) / 2 for i in range(1, 16)]
    assert len(inner) == 15 and math.isclose(inner[7], 0, abs_tol=1e-9)
    scaled = torch.tensor(inner) / max(inner)
    assert min((scaled - level).abs().min() for level in NF4) < 0.01  # some agree, by zero and one
    assert max((scaled - level).abs().min() for level in NF4) > 0.01


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_levels_of_other_bits_follow_the_same_recipe(bits):
    """By another path: shares of a million sorted draws instead of the quantile function."""
    levels, n = quant.normal_float(bits), 2**bits
    assert len(levels.unique()) == n and levels[0] == -1 and levels[-1] == 1
    assert (levels > 0).sum() == n / 2 and 0.0 in levels.tolist()
    far = (1 - 1 / (2 * (n - 1)) + 1 - 1 / (2 * n)) / 2
    draws = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0)).sort().values
    shares = torch.linspace(far, 0.5, n // 2 + 1)[:-1]
    above = draws[(shares * len(draws)).long()]
    torch.testing.assert_close(levels[levels > 0].flip(0), above / above[0], rtol=0.02, atol=0.02)
    with pytest.raises(ValueError, match="from 2 to 8, got 9"):
        quant.normal_float(9)


@pytest.mark.parametrize("shape", [(48, 40), (7, 9), (65, 3), (64, 256)])
def test_a_layers_weight_is_what_codes_and_scales_stand_for(shape):
    plain = linear(*shape)
    four = FourBitLinear.from_linear(plain)
    assert torch.equal(four.weight, quant.rounded(plain.weight))
    meta = copy.deepcopy(four).to("meta")
    assert meta.weight.shape == plain.weight.shape and meta.weight.is_meta


@pytest.mark.parametrize("levels, count", [(quant.NF4, 16), (quant.INT4, 16), (quant.FP4, 15)])
@pytest.mark.parametrize("shape", [(7, 9), (16, 8)])
def test_each_weight_gets_its_nearest_level_times_its_blocks_largest(levels, count, shape):
    assert len(levels) == count
    W = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    codes, scales = quant.quantize(W, levels, block=10)
    found = quant.dequantize(codes, scales, levels, block=10)
    flat = W.flatten()
    for start in range(0, len(flat), 10):
        part = flat[start:start + 10]
        largest = part.abs().max()
        for w, back in zip(part, found.flatten()[start:start + 10], strict=True):
            best = min((largest * levels - w).abs())
            assert (back - w).abs() <= best + 1e-6


def test_zero_and_each_blocks_largest_are_exact_and_a_block_of_zeros_stays():
    W = torch.randn(3, 64)
    W[1] = 0
    W[0, 5] = 0
    W[2, 7] = -9
    codes, scales = quant.quantize(W)
    found = quant.dequantize(codes, scales)
    assert found[0, 5] == 0 and found[2, 7] == -9 and not found[1].any()
    assert found[0].abs().max() == W[0].abs().max()
    with pytest.raises(ValueError, match="NaN or infinite"):
        quant.quantize(torch.tensor([1.0, math.nan]))


def test_nf4_errs_least_on_normal_weights_and_whole_numbers_on_uniform_ones():
    draw = torch.Generator().manual_seed(0)
    errors = {}
    for name, W in (("normal", torch.randn(256, 256, generator=draw)),
                    ("uniform", torch.rand(256, 256, generator=draw) * 2 - 1)):
        for kind in ("NF4", "INT4", "FP4"):
            levels = getattr(quant, kind)
            back = quant.dequantize(*quant.quantize(W, levels), levels)
            errors[name, kind] = ((back - W).norm() / W.norm()).item()
    assert min(("NF4", "INT4", "FP4"), key=lambda k: errors["normal", k]) == "NF4"
    assert min(("NF4", "INT4", "FP4"), key=lambda k: errors["uniform", k]) == "INT4"


def test_scales_in_bytes_are_off_by_half_a_step_at_most():
    scales = torch.rand(700, generator=torch.Generator().manual_seed(0)) + 0.5
    steps, largest, mean = quant.scales_to_bytes(scales)
    back = quant.scales_from_bytes(steps, largest, mean)
    assert steps.dtype == torch.uint8 and len(largest) == 3
    for group in range(3):
        part = slice(256 * group, 256 * group + 256)
        assert (back[part] - scales[part]).abs().max() <= largest[group] / 127 / 2 + 1e-6


def test_bits_a_weight_are_counted_as_by_hand():
    four = FourBitLinear.from_linear(linear(512, 512))
    n = 512 * 512
    assert four.bits() == 4 + 8 / 64 + 32 / (64 * 256) == pytest.approx(4.127, abs=1e-3)
    held = sum(t.numel() * t.element_size() for t in four.buffers())
    assert held == n / 2 + n / 64 + 4 * n / 64 / 256 + 4


@pytest.mark.parametrize("shape, bias", [((48, 40), True), ((7, 9), False), ((65, 3), True)])
def test_a_layer_is_its_rounded_weight_in_output_and_gradient(shape, bias):
    plain = linear(*shape, bias)
    four = FourBitLinear.from_linear(plain)
    again, x = dense(four), torch.randn(2, 5, shape[0])
    assert (four.weight - plain.weight).abs().max() < 0.2 * plain.weight.abs().max()
    ours, theirs = (x.clone().requires_grad_() for _ in range(2))
    torch.testing.assert_close(four(ours), again(theirs))
    four(ours).square().sum().backward()
    again(theirs).square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert all(not p.requires_grad for p in four.parameters())


def test_the_input_gradient_survives_finite_differences_twice():
    four = FourBitLinear.from_linear(linear(5, 4).double())
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(four, x) and torch.autograd.gradgradcheck(four, x)


def test_no_full_weight_is_kept_for_the_backward_pass():
    four, kept = FourBitLinear.from_linear(linear(64, 64)), []
    x = torch.randn(2, 64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t,
                                                  lambda t: t):
        four(x).sum().backward()
    assert max(kept, default=0) < 64 * 64


def test_conversions_leave_the_scales_in_32_bits_and_follow_the_dtype():
    four = FourBitLinear.from_linear(linear())
    W = four.dequantize()
    half = copy.deepcopy(four).to(torch.bfloat16)
    assert half.weight.dtype == half(torch.randn(2, 48).bfloat16()).dtype == torch.bfloat16
    assert torch.equal(half.dequantize(torch.float32), W)
    assert half.largest.dtype == torch.float32 and torch.equal(half.float().dequantize(), W)


def test_it_is_saved_and_loaded_as_a_state_dict():
    four = FourBitLinear.from_linear(linear())
    other = FourBitLinear(48, 40)
    other.load_state_dict(four.state_dict())
    assert torch.equal(other.weight, four.weight) and torch.equal(other.bias, four.bias)


def four_and_dense():
    return nets.four_and_dense(6, 70, FourBitLinear)


@pytest.mark.parametrize("layer", [lm.LoRALinear, DoRALinear, PiSSALinear])
def test_an_adapter_on_four_bits_trains_as_on_the_rounded_weight(layer):
    nets.trains_alike(*four_and_dense(), layer, "codes")


def test_a_final_merge_leaves_full_weights_that_can_be_rounded_again():
    four, _ = four_and_dense()
    lm.attach(four, ["up"], 2, 5)
    nn.init.normal_(four.up.lora_B)
    x = torch.randn(5, 6)
    apart = four(x)
    lm.merge(four, keep_base=False)
    assert type(four.up) is nn.Linear
    torch.testing.assert_close(four(x), apart, rtol=1e-4, atol=1e-5)
    assert to_four_bits(four, "up") == ["up"] and not torch.equal(four(x), apart)


def test_an_adapter_of_a_four_bit_base_is_saved_and_knows_its_base(tmp_path):
    four, _ = four_and_dense()
    lm.attach(four, ["up", "down"], 2, 5)
    nn.init.normal_(four.up.lora_B)
    adapters.save(four, tmp_path)
    other, x = four_and_dense()[0], torch.randn(5, 6)
    assert adapters.load(other, tmp_path).checked and torch.equal(other(x), four(x))
    for wrong in (nets.Net(6, 70), four_and_dense()[0]):
        if wrong.up.__class__ is FourBitLinear:
            wrong.up.codes[0] ^= 3  # one weight, another level
        with pytest.raises(ValueError, match="trained on another base"):
            adapters.load(wrong, tmp_path)
    assert not adapters.load(nets.Net(6, 70), tmp_path, any_base=True).checked


def test_a_shared_layer_stays_shared_and_what_can_not_be_is_refused():
    model = nets.Net(6, 70)
    model.twin = model.up
    to_four_bits(model, ["up", "twin"])
    assert model.twin is model.up
    with pytest.raises(ValueError, match="matches no module"):
        to_four_bits(nets.Net(6, 70), "q_proj")
    with pytest.raises(TypeError, match="expected an nn.Linear, got a FourBitLinear"):
        FourBitLinear.from_linear(model.up)
    adapted = nets.Net(6, 70)
    lm.attach(adapted, "up", 2, 5)
    with pytest.raises(ValueError, match="lies inside an adapter: quantise the base first"):
        to_four_bits(adapted, "up.base")
    adapted = nets.Net(6, 70)
    lm.attach(adapted, "up", 2, 5, modules_to_save=["down"])
    with pytest.raises(ValueError, match="'down.copy' lies inside an adapter"):
        to_four_bits(adapted, "down.copy")
    with pytest.raises(ValueError, match="'base' lies inside an adapter"):
        to_four_bits(lm.LoRALinear(nn.Linear(6, 4), 2, 5), "base")
