"""LoRALinear against a dense layer, autograd, and numbers that fit on paper.

alpha differs from rank, and d_in from d_out, everywhere: at scale 1 a lost `/ rank` can't be seen.
"""

import copy
import math

import pytest
import torch
from torch import nn

from lora_mini import LoRALinear, step

D_IN, D_OUT, RANK, ALPHA = 6, 4, 2, 5.0


@pytest.fixture(autouse=True, params=["plain", "fused"])
def path(request, monkeypatch):
    """Both ways to compute it; from enough tokens on the fused one folds."""
    if request.param == "plain":
        monkeypatch.setattr(step, "fits", lambda layer, x: False)


def layer(dtype=torch.float64, bias=True, **options):
    """A layer whose B is away from zero, as after training."""
    torch.manual_seed(0)
    base = nn.Linear(D_IN, D_OUT, bias=bias, dtype=dtype)
    made = LoRALinear(base, RANK, ALPHA, **options)
    with torch.no_grad():
        made.lora_B.normal_()
    return made


def by_hand(made, scale):
    """W + scale B A, entry by entry, from the factors alone."""
    W = made.base.weight.detach().clone()
    for i in range(D_OUT):
        for j in range(D_IN):
            for k in range(RANK):
                W[i, j] += scale * made.lora_B[i, k].item() * made.lora_A[k, j].item()
    return W


def test_the_update_of_the_paper_fixture():
    base = nn.Linear(3, 2)
    made = LoRALinear(base, rank=2, alpha=6)
    with torch.no_grad():
        made.lora_A.copy_(torch.tensor([[1.0, 0, 2], [0, 1, 1]]))
        made.lora_B.copy_(torch.tensor([[1.0, 2], [3, 4]]))
    assert made.update().tolist() == [[3, 6, 12], [9, 12, 30]]


@pytest.mark.parametrize("rslora, scale", [(False, ALPHA / RANK), (True, ALPHA / math.sqrt(RANK))])
def test_outputs_and_gradients_match_a_dense_layer(rslora, scale):
    made = layer(rslora=rslora)
    W = by_hand(made, scale).requires_grad_()
    x = torch.randn(3, 5, D_IN, dtype=torch.float64, requires_grad=True)
    x_dense = x.detach().clone().requires_grad_()
    y, dense = made(x), x_dense @ W.T + made.base.bias
    torch.testing.assert_close(y, dense)
    push = torch.randn_like(y)
    (y * push).sum().backward()
    (dense * push).sum().backward()
    torch.testing.assert_close(x.grad, x_dense.grad)
    # by the chain rule, from the dense gradient G: dA = scale B^T G, dB = scale G A^T
    torch.testing.assert_close(made.lora_A.grad, scale * made.lora_B.detach().T @ W.grad)
    torch.testing.assert_close(made.lora_B.grad, scale * W.grad @ made.lora_A.detach().T)
    assert made.base.weight.grad is None and made.base.bias.grad is None


def test_gradients_match_finite_differences():
    made, x = layer(), torch.randn(5, D_IN, dtype=torch.float64)

    def loss(A, B):
        return torch.func.functional_call(made, {"lora_A": A, "lora_B": B}, x)

    assert torch.autograd.gradcheck(loss, (made.lora_A, made.lora_B))


def test_it_starts_as_its_base_bit_for_bit_and_B_is_zero():
    base, x = nn.Linear(D_IN, D_OUT), torch.randn(8, D_IN)
    before = base(x)
    made = LoRALinear(base, RANK, ALPHA)
    assert torch.equal(made(x), before)
    assert not made.lora_B.any() and made.lora_A.all()


def test_A_is_uniform_in_one_over_root_d_in():
    torch.manual_seed(0)
    A = LoRALinear(nn.Linear(400, 100), 50, 7).lora_A
    bound = 1 / math.sqrt(400)
    assert A.abs().max() <= bound
    assert A.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)  # of a uniform draw


def test_only_the_factors_are_trainable():
    made = layer()
    assert {n for n, p in made.named_parameters() if p.requires_grad} == {"lora_A", "lora_B"}
    assert set(made.state_dict()) == {"lora_A", "lora_B", "base.weight", "base.bias"}


@pytest.mark.parametrize("bias", [True, False])
def test_merged_outputs_are_those_of_the_dense_layer(bias):
    made, x = layer(bias=bias), torch.randn(7, D_IN, dtype=torch.float64)
    made.merge()
    with torch.no_grad():
        dense = nn.functional.linear(x, by_hand(made, ALPHA / RANK), made.base.bias)
        torch.testing.assert_close(made(x), dense)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_merge_and_unmerge_leave_every_bit_of_the_base(dtype):
    made = layer(dtype=dtype)
    W, x = made.base.weight.detach().clone(), torch.randn(3, D_IN, dtype=dtype)
    before = made(x)
    for _ in range(3):
        made.merge()
        made.merge()
        assert torch.equal(made.base.weight, W)
        made.unmerge()
        made.unmerge()
    assert torch.equal(made.base.weight, W) and torch.equal(made(x), before)


def test_merging_adds_nothing_to_the_state_dict():
    made = layer()
    before = {k: v.clone() for k, v in made.state_dict().items()}
    made.merge()
    after = made.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[k], before[k]) for k in before)


def test_merge_reports_the_share_that_bfloat16_swallowed():
    base = nn.Linear(2, 1, bias=False, dtype=torch.bfloat16)
    made = LoRALinear(base, 1, 3)
    with torch.no_grad():
        base.weight.copy_(torch.tensor([[1.0, 1.0]]))
        made.lora_A.copy_(torch.tensor([[1.0, 1.0]]))
        made.lora_B.fill_(0.001)  # 1.003 rounds to 1 in bfloat16: its next number is 1.0078
        assert made.merge() == 1.0
        made.lora_A.copy_(torch.tensor([[1.0, 3.0]]))  # 1.009 does not
        assert made.merge() == 0.5
        made.lora_B.zero_()
        assert made.merge() == 0.0


def test_merged_weight_is_rounded_once():
    made = layer(dtype=torch.bfloat16)
    exact = made.base.weight.double() + ALPHA / RANK * (made.lora_B.double() @ made.lora_A.double())
    assert made.lora_A.dtype == torch.float32  # factors stay wide, as in PEFT
    made.merge()
    with torch.no_grad():
        assert torch.equal(made.weight, exact.float().bfloat16())


def test_training_while_merged_gets_the_gradients_of_the_unmerged_layer():
    made, x = layer(), torch.randn(5, D_IN, dtype=torch.float64)
    made(x).square().sum().backward()
    expected = [p.grad.clone() for p in (made.lora_A, made.lora_B)]
    made.zero_grad()
    made.merge()
    made(x).square().sum().backward()
    for p, grad in zip((made.lora_A, made.lora_B), expected, strict=True):
        torch.testing.assert_close(p.grad, grad)


@torch.no_grad()
def test_a_merged_layer_never_answers_with_a_stale_weight():
    made, x = layer(), torch.randn(5, D_IN, dtype=torch.float64)

    def check(what):
        merged = made(x)
        made.unmerge()
        torch.testing.assert_close(made(x), merged, msg=lambda text: f"after {what}: {text}")
        made.merge()
        made(x)

    made.merge()
    made(x)
    made.lora_B.mul_(2)
    check("a step of the optimiser")
    made.load_state_dict({k: v + 1 for k, v in made.state_dict().items()})
    check("load_state_dict")
    made.load_state_dict({k: v + 1 for k, v in made.state_dict().items()}, assign=True)
    check("load_state_dict(assign=True)")
    made.strength = 0.3
    check("a new strength")
    made.float().double()
    check(".float().double()")
    other = copy.deepcopy(made)
    made.lora_B.mul_(3)
    check("training the original of a copy")
    other.lora_A.mul_(5)
    merged = other(x)
    other.unmerge()
    torch.testing.assert_close(other(x), merged)


def test_a_merged_layer_with_dropout_refuses_to_train():
    made = layer(dropout=0.5)
    made.merge()
    with pytest.raises(RuntimeError, match="unmerge"):
        made(torch.randn(2, D_IN, dtype=torch.float64))
    made.eval()
    made(torch.randn(2, D_IN, dtype=torch.float64))


def test_a_cache_made_in_inference_mode_serves_autograd_later():
    made = layer()
    made.merge()
    with torch.inference_mode():
        made(torch.randn(2, D_IN, dtype=torch.float64))
    made.requires_grad_(False)
    x = torch.randn(2, D_IN, dtype=torch.float64, requires_grad=True)
    made(x).sum().backward()
    torch.testing.assert_close(x.grad, made.weight.sum(0).expand(2, -1))


def test_dropout_acts_on_the_update_alone_and_only_in_training():
    made, x = layer(dropout=0.5), torch.ones(200, D_IN, dtype=torch.float64)
    made.eval()
    assert torch.equal(made(x), made(x))
    made.train()
    torch.manual_seed(1)
    y = made(x)
    torch.manual_seed(1)
    dropped = nn.functional.dropout(x, 0.5)
    expected = made.base(x) + ALPHA / RANK * dropped @ made.lora_A.T @ made.lora_B.T
    torch.testing.assert_close(y, expected)
    assert not torch.equal(y[0], y[1])


def test_strength_scales_the_update():
    made = layer()
    full = made.update()
    made.strength = 0.25
    torch.testing.assert_close(made.update(), full / 4)


@pytest.mark.parametrize("options, error, words", [
    (dict(rank=0), ValueError, r"min\(d_in, d_out\) = 4, got 0"),
    (dict(rank=5), ValueError, "= 4, got 5"),
    (dict(rank=2.0), ValueError, "got 2.0"),
    (dict(rank=True), ValueError, "got True"),
    (dict(alpha=0), ValueError, "alpha must be a positive number, got 0"),
    (dict(alpha=float("nan")), ValueError, "got nan"),
    (dict(alpha=None), ValueError, "got None"),
    (dict(dropout=1.0), ValueError, "below 1, got 1.0"),
    (dict(dropout=-0.1), ValueError, "got -0.1"),
    (dict(base=nn.Embedding(4, 6)), TypeError, "expected an nn.Linear, got Embedding"),
])
def test_bad_arguments_are_refused_and_leave_the_base_trainable(options, error, words):
    base = nn.Linear(D_IN, D_OUT)
    with pytest.raises(error, match=words):
        LoRALinear(**{"base": base, "rank": RANK, "alpha": ALPHA} | options)
    assert base.weight.requires_grad


def test_it_works_on_the_meta_device_and_under_autocast():
    made = LoRALinear(nn.Linear(D_IN, D_OUT, device="meta"), RANK, ALPHA)
    assert made(torch.empty(3, D_IN, device="meta")).shape == (3, D_OUT)
    plain, x = layer(dtype=torch.float32), torch.randn(3, D_IN)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = plain(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), plain(x), atol=0.1, rtol=0.05)
