"""The fused step against a dense oracle, its counts by hand, and what stays on the plain path."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from lora_mini import LoRALinear, step
from lora_mini.variants import LoRAFALinear

SIZES = [(6, 4, 2), (5, 9, 3)]  # d_in, d_out, r


def tensors(shape, d_in, d_out, r, bias=True, dtype=torch.float64):
    torch.manual_seed(len(shape) + d_in)
    x = torch.randn(*shape, d_in, dtype=dtype, requires_grad=True)
    W, b = torch.randn(d_out, d_in, dtype=dtype), torch.randn(d_out, dtype=dtype)
    A, B = torch.randn(r, d_in, dtype=dtype), torch.randn(d_out, r, dtype=dtype)
    return x, W, b if bias else None, A.requires_grad_(), B.requires_grad_()


def layer(d_in=6, d_out=4, r=2, kind=LoRALinear, bias=True, dtype=torch.float64, **options):
    torch.manual_seed(3)
    made = kind(nn.Linear(d_in, d_out, bias=bias, dtype=dtype), r, 5, **options)
    nn.init.normal_(made.lora_B)
    return made


def dense(made, x):
    """The layer's output by a full matrix, formed here."""
    W = made.base.weight + made.strength * 5 / made.rank * made.lora_B @ made.lora_A
    return F.linear(x, W.detach(), made.base.bias)


@pytest.mark.parametrize("d_in, d_out, r", SIZES)
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 1), (4, 7), (2, 3, 5), (0,)])
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_dense_layer_in_output_and_gradients(shape, d_in, d_out, r, bias):
    x, W, b, A, B = tensors(shape, d_in, d_out, r, bias)
    y = step.lora_linear(x, W, b, A, B, 1.7)
    expected = F.linear(x, W + 1.7 * B @ A, b)
    torch.testing.assert_close(y, expected)
    G = torch.randn_like(y)
    for ours, oracle in zip(torch.autograd.grad(y, (x, A, B), G),
                            torch.autograd.grad(expected, (x, A, B), G), strict=True):
        torch.testing.assert_close(ours, oracle)


@pytest.mark.parametrize("d_in, d_out, r", SIZES)
@pytest.mark.parametrize("tokens", [2, 30])
@pytest.mark.parametrize("trains", ["xAB", "AB", "xB", "B", "x", "A"])
def test_gradcheck_whatever_trains(tokens, d_in, d_out, r, trains):
    x, W, b, A, B = tensors((tokens,), d_in, d_out, r)
    for name, tensor in (("x", x), ("A", A), ("B", B)):
        tensor.requires_grad_(name in trains)
    assert torch.autograd.gradcheck(lambda *t: step.lora_linear(t[0], W, b, *t[1:], 1.7), (x, A, B))


def test_folding_pays_from_as_many_tokens_as_the_counts_say():
    for d_in, d_out, most in ((64, 64, 32), (576, 576, 288), (64, 256, 51)):
        assert not step.folds(most, d_in, d_out) and step.folds(most + 1, d_in, d_out)
        for r in (1, 8):  # at any rank: r d_in d_out against tokens r (d_in + d_out)
            assert most * r * (d_in + d_out) <= r * d_in * d_out < (most + 1) * r * (d_in + d_out)


class Products(TorchDispatchMode):
    """Counts multiplications of matrices inside, in place or not."""

    count = 0

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        if op._schema.name.removeprefix("aten::") in ("mm", "addmm", "addmm_"):
            (n, k), (_, m) = args[-2].shape, args[-1].shape
            self.count += n * k * m
        return op(*args, **kwargs or {})


@pytest.mark.parametrize("tokens", [3, 40])
@pytest.mark.parametrize("for_x", [True, False])
def test_the_products_are_those_counted_by_hand(tokens, for_x):
    d_in, d_out, r = 12, 10, 2
    x, W, b, A, B = tensors((tokens,), d_in, d_out, r)
    x.requires_grad_(for_x)
    big, fold, thin = tokens * d_in * d_out, r * d_in * d_out, tokens * r * (d_in + d_out)
    with Products() as forward:
        y = step.lora_linear(x, W, b, A, B, 2.0)
    assert forward.count == big + fold
    with Products() as backward:
        y.sum().backward()
    back = 2 * thin + for_x * (big + min(fold, tokens * r * d_in))  # A and B; and x
    assert backward.count == back


@pytest.mark.parametrize("kind, shape", [(LoRALinear, (40, 6)), (LoRAFALinear, (2, 40))])
def test_only_x_is_kept_beside_the_factors_and_with_a_frozen_A_not_even_that(kind, shape):
    made, kept = layer(kind=kind), []
    x = torch.randn(40, 6, dtype=torch.float64)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        made(x)
    known = {t.data_ptr() for t in (made.base.weight, made.lora_A, made.lora_B)}
    assert [t.shape for t in kept if t.data_ptr() not in known] == [shape]


def test_the_layer_takes_the_fused_path_and_has_the_plain_ones_numbers(monkeypatch):
    made, x = layer(), torch.randn(3, 9, 6, dtype=torch.float64)
    assert step.fits(made, x) and not step.fits(made, x[0, :2])  # two tokens: folding costs more
    fused = made(x)
    monkeypatch.setattr(step, "fits", lambda *_: False)
    torch.testing.assert_close(made(x), fused)
    torch.testing.assert_close(fused, dense(made, x))


def test_from_enough_tokens_on_merged_and_fused_are_one_sum_bit_for_bit():
    for dtype in (torch.float32, torch.float64):
        made, x = layer(64, 48, 8, dtype=dtype), torch.randn(200, 64, dtype=dtype)
        apart = made(x)
        made.merge()
        with torch.no_grad():
            assert torch.equal(made(x), apart)


def plus_one(module, inputs, output):
    return output + 1


def hooked(made):
    made.base.register_forward_hook(plus_one)


def parametrized(made):
    nn.utils.parametrizations.weight_norm(made.base)


class Own(nn.Linear):
    pass


def of_its_own_kind(made):
    made.base.__class__ = Own


PLAIN = {  # what must not be fused: what to do to a layer, and what to do to x
    "a hook": (hooked, None), "a parametrization": (parametrized, None),
    "a subclass": (of_its_own_kind, None),
    "dropout": (lambda made: setattr(made.dropout, "p", 0.5), None),
    "W trains": (lambda made: made.base.weight.requires_grad_(), None),
    "b trains": (lambda made: made.base.bias.requires_grad_(), None),
    "bfloat16": (lambda made: made.to(torch.bfloat16), lambda x: x.bfloat16()),
    "factors of another dtype": (lambda made: made.base.float(), lambda x: x.float()),
    "a subclass of tensor": (None, lambda x: nn.Buffer(x).as_subclass(Tagged)),
}


class Tagged(torch.Tensor):
    pass


@pytest.mark.parametrize("case", PLAIN)
def test_what_would_be_lost_stays_on_the_plain_path(case):
    made, x = layer(), torch.randn(40, 6, dtype=torch.float64)
    assert step.fits(made, x)
    spoil, change = PLAIN[case]
    if spoil:
        spoil(made)
    x = change(x) if change else x
    assert not step.fits(made, x)
    if case == "a hook":
        torch.testing.assert_close(made(x), dense(made, x) + 1)
    elif x.dtype == torch.float64 and case != "dropout":
        torch.testing.assert_close(torch.Tensor(made(x)), torch.Tensor(dense(made, x)))


def test_a_hook_on_all_modules_is_kept():
    made, x = layer(), torch.randn(40, 6, dtype=torch.float64)
    handle = torch.nn.modules.module.register_module_forward_hook(
        lambda m, i, o: o + 1 if m is made.base else o)
    try:
        torch.testing.assert_close(made(x), dense(made, x) + 1)
    finally:
        handle.remove()
    assert step.fits(made, x)


def test_autocast_compiling_and_transforms_stay_on_the_plain_path(monkeypatch):
    made, x = layer(dtype=torch.float32), torch.randn(40, 6)
    expected = dense(made, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not step.fits(made, x) and made(x).dtype == torch.bfloat16
    torch.testing.assert_close(torch.compile(made, backend="eager", fullgraph=True)(x), expected)
    torch.testing.assert_close(torch.vmap(made)(x), expected)
    factors = {"lora_A": made.lora_A, "lora_B": made.lora_B}

    def loss(factors, row):
        return torch.func.functional_call(made, factors, (row,)).square().sum()

    by_row = torch.vmap(torch.func.grad(loss), (None, 0))(factors, x)
    for i in (0, 39):
        made.zero_grad()
        made(x[i]).square().sum().backward()
        torch.testing.assert_close(by_row["lora_A"][i], made.lora_A.grad)
        torch.testing.assert_close(by_row["lora_B"][i], made.lora_B.grad)
    _, moved = torch.func.jvp(made, (x,), (torch.ones_like(x),))
    torch.testing.assert_close(moved, dense(made, x + 1) - expected, rtol=1e-4, atol=1e-4)


def test_functional_call_and_checkpointing_have_the_same_gradients():
    made, x = layer(), torch.randn(40, 6, dtype=torch.float64, requires_grad=True)
    made(x).square().sum().backward()
    expected = [t.grad.clone() for t in (x, made.lora_A, made.lora_B)]
    other = copy.deepcopy(made)
    nn.init.normal_(other.lora_A)
    state = dict(made.named_parameters())
    for call in (lambda: checkpoint(made, x, use_reentrant=False),
                 lambda: checkpoint(made, x, use_reentrant=True),
                 lambda: torch.func.functional_call(other, state, (x,))):
        x.grad = made.lora_A.grad = made.lora_B.grad = None
        call().square().sum().backward()
        for tensor, grad in zip((x, made.lora_A, made.lora_B), expected, strict=True):
            torch.testing.assert_close(tensor.grad, grad)


@pytest.mark.parametrize("tokens", [2, 30])
def test_gradients_of_gradients_are_right_too(tokens):
    x, W, b, A, B = tensors((tokens,), 6, 4, 2)
    assert torch.autograd.gradgradcheck(lambda x, A, B: step.lora_linear(x, W, b, A, B, 1.7),
                                        (x, A, B))


def test_with_a_frozen_A_they_are_refused_not_wrong():
    made, x = layer(kind=LoRAFALinear), torch.randn(40, 6, dtype=torch.float64, requires_grad=True)
    with pytest.raises(RuntimeError, match="can't be differentiated again"):
        torch.autograd.grad(made(x).square().sum(), x, create_graph=True)
