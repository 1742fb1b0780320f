"""DoRA's and PiSSA's fused steps: dense oracles with a constant norm, and counts by hand."""

import copy

import pytest
import torch
import torch.nn.functional as F
from test_step import PLAIN, Products
from torch import nn
from torch.utils.checkpoint import checkpoint

from lora_mini import step, variants
from lora_mini.variants import DoRALinear, LoRAFALinear, PiSSALinear, dora_linear

SIZES = [(6, 4, 2), (5, 9, 3)]  # d_in, d_out, r
KINDS = [DoRALinear, PiSSALinear]


def tensors(tokens, d_in, d_out, r, bias=True):
    """x, W, b, A, B and a magnitude that is not the norm."""
    torch.manual_seed(tokens + d_in)
    sizes = (tokens, d_in), (d_out, d_in), (d_out,), (r, d_in), (d_out, r), (d_out,)
    x, W, b, A, B, m = (torch.randn(*size, dtype=torch.float64) for size in sizes)
    for trained in (x, A, B, m):
        trained.requires_grad_()
    return x, W, b if bias else None, A, B, m


def layer(kind, d_in=6, d_out=4, r=2, dtype=torch.float64, bias=True, **options):
    """A layer away from its start, as after training."""
    torch.manual_seed(3)
    made = kind(nn.Linear(d_in, d_out, bias=bias, dtype=dtype), r, 5, **options)
    with torch.no_grad():
        for parameter in made._parameters.values():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def lengths(W, A, B, s):
    """||W + s B A|| of the rows, as a constant."""
    return (W + s * B @ A).detach().square().sum(dim=1).sqrt()


@pytest.fixture
def constant(monkeypatch):
    """A function that stops the norms where they are, since to the gradient they are constants."""
    return lambda norms: monkeypatch.setattr(variants, "_lengths", lambda V: norms)


@pytest.fixture
def plainly(monkeypatch):
    """A function that calls a layer on its plain path."""
    def call(made, x):
        with monkeypatch.context() as patch:
            patch.setattr(step, "fits", lambda *_: False)
            return made(x)
    return call


def check_same(outputs, of, push=None):
    """Two outputs, and their gradients with respect to the tensors `of`, are equal."""
    torch.testing.assert_close(*outputs)
    push = torch.randn_like(outputs[0]) if push is None else push
    found = [torch.autograd.grad(y, of, push) for y in outputs]
    for ours, oracle in zip(*found, strict=True):
        torch.testing.assert_close(ours, oracle)


@pytest.mark.parametrize("d_in, d_out, r", SIZES)
@pytest.mark.parametrize("shape", [(), (1,), (3,), (4, 7), (2, 3, 5), (0,)])
@pytest.mark.parametrize("bias", [True, False])
def test_dora_is_the_dense_layer_with_a_constant_norm(shape, d_in, d_out, r, bias):
    _, W, b, A, B, m = tensors(1, d_in, d_out, r, bias)
    x = torch.randn(*shape, d_in, dtype=torch.float64, requires_grad=True)
    V = W + 1.7 * B @ A
    oracle = F.linear(x, m[:, None] * V / lengths(W, A, B, 1.7)[:, None], b)
    check_same((dora_linear(x, W, b, A, B, m, 1.7), oracle), (x, A, B, m))


@pytest.mark.parametrize("d_in, d_out, r", SIZES)
@pytest.mark.parametrize("trains", ["xABm", "ABm", "xAB", "xBm", "B", "x", "A", "m"])
def test_doras_gradcheck_whatever_trains(constant, d_in, d_out, r, trains):
    x, W, b, A, B, m = tensors(7, d_in, d_out, r)
    for name, tensor in zip("xABm", (x, A, B, m), strict=True):
        tensor.requires_grad_(name in trains)
    constant(lengths(W, A, B, 1.7))
    assert torch.autograd.gradcheck(lambda x, *rest: dora_linear(x, W, b, *rest, 1.7), (x, A, B, m))


@pytest.mark.parametrize("d_in, d_out, r", SIZES)
def test_doras_gradients_of_gradients_are_right_too(constant, d_in, d_out, r):
    x, W, b, A, B, m = tensors(7, d_in, d_out, r)
    constant(lengths(W, A, B, 1.7))
    assert torch.autograd.gradgradcheck(lambda x, *rest: dora_linear(x, W, b, *rest, 1.7),
                                        (x, A, B, m))


@pytest.mark.parametrize("d_in, d_out, r", SIZES)
@pytest.mark.parametrize("trains", ["xAB", "AB", "xB", "B", "A", "x"])
def test_pissas_gradcheck_whatever_trains(d_in, d_out, r, trains):
    made, x = layer(PiSSALinear, d_in, d_out, r), tensors(40, d_in, d_out, r)[0]
    x.requires_grad_("x" in trains)
    made.lora_A.requires_grad_("A" in trains)
    made.lora_B.requires_grad_("B" in trains)
    assert step.fits(made, x)
    given = x, made.lora_A, made.lora_B
    assert torch.autograd.gradcheck(lambda x, *_: made(x), given)
    if "A" in trains:
        assert torch.autograd.gradgradcheck(lambda x, *_: made(x), given)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [True, False])
def test_both_paths_have_the_same_numbers_in_float32(plainly, kind, bias):
    made = layer(kind, 128, 96, 8, torch.float32, bias)
    x = torch.randn(2, 100, 128, requires_grad=True)
    outputs = made(x), plainly(made, x)
    torch.testing.assert_close(*outputs)
    of = x, *made._parameters.values()
    for ours, other in zip(*(torch.autograd.grad(y.square().sum(), of) for y in outputs),
                           strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-5 * other.abs().max().item())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("kind", [*KINDS, LoRAFALinear])
def test_each_starts_as_its_base_bit_for_bit_where_a_sum_apart_would_round(kind, turned, bias):
    torch.manual_seed(0)
    base, x = nn.Linear(512, 512, bias=bias), torch.randn(600, 512)
    if turned:
        base.weight.data = base.weight.data.T  # the same numbers in another order
    made = kind(base, 4, 8)
    assert step.fits(made, x) and torch.equal(made(x), base(x))
    if kind is DoRALinear:
        assert torch.equal(made._gain(), torch.ones(512))


@pytest.mark.parametrize("for_x", [True, False])
def test_the_products_are_those_counted_by_hand(for_x):
    tokens, d_in, d_out, r = 40, 12, 10, 2
    big, fold, thin = tokens * d_in * d_out, r * d_in * d_out, tokens * r * (d_in + d_out)
    for kind, folds in ((DoRALinear, 1), (PiSSALinear, 2)):  # of rank 2 r
        made = layer(kind, d_in, d_out, r)
        x = torch.randn(tokens, d_in, dtype=torch.float64, requires_grad=for_x)
        with Products() as forward:
            y = made(x)
        with Products() as backward:
            y.sum().backward()
        assert forward.count == big + folds * fold, kind
        assert backward.count == 2 * thin + for_x * (big + folds * fold), kind


@pytest.mark.parametrize("kind, frozen, sizes", [
    (DoRALinear, [], [(40, 4), (40, 6)]), (DoRALinear, ["magnitude"], [(40, 6)]),
    (PiSSALinear, [], [(40, 6)]),
])
def test_of_the_size_of_the_tokens_only_x_is_kept_and_doras_product(kind, frozen, sizes):
    made, kept = layer(kind), []
    for name in frozen:
        made.get_parameter(name).requires_grad_(False)
    x = torch.randn(40, 6, dtype=torch.float64)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        made(x)
    assert sorted(shape for shape in kept if 40 in shape) == sizes


def test_the_magnitudes_gradient_holds_at_a_gain_of_zero_and_beside_a_large_bias():
    x, W, b, A, B, m = tensors(200, 6, 4, 2)
    with torch.no_grad():
        m[0], m[1] = 0, 1e-12
        b *= 100

    def gradient(dtype):
        given = [t.detach().to(dtype) for t in (x, W, b, A, B, m)]
        y = dora_linear(*given[:5], given[5].requires_grad_(), 1.7)
        return torch.autograd.grad(y.square().sum(), given[5])[0].double()

    exact = torch.autograd.grad(F.linear(
        x, m[:, None] * (W + 1.7 * B @ A) / lengths(W, A, B, 1.7)[:, None], b).square().sum(), m)
    torch.testing.assert_close(gradient(torch.float64), exact[0])
    torch.testing.assert_close(gradient(torch.float32), exact[0], rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_what_comes_next_may_write_into_the_output(plainly, kind):
    made, x = layer(kind), torch.randn(40, 6, dtype=torch.float64)
    made(x).relu_().square().sum().backward()
    found = [p.grad.clone() for p in made._parameters.values()]
    made.zero_grad()
    plainly(made, x).relu().square().sum().backward()
    for parameter, grad in zip(made._parameters.values(), found, strict=True):
        torch.testing.assert_close(parameter.grad, grad)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frozen", ["lora_A", "lora_B", "magnitude", "lora_A magnitude"])
def test_frozen_parts_get_nothing_and_the_rest_is_the_same(plainly, kind, frozen):
    made = layer(kind)
    x = torch.randn(40, 6, dtype=torch.float64, requires_grad=True)
    for name in set(frozen.split()) & set(made._parameters):
        made.get_parameter(name).requires_grad_(False)
    check_same((made(x), plainly(made, x)),
               (x, *(p for p in made._parameters.values() if p.requires_grad)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", PLAIN)
def test_what_would_be_lost_stays_on_the_plain_path(plainly, kind, case):
    made, x = layer(kind), torch.randn(40, 6, dtype=torch.float64)
    assert step.fits(made, x)
    spoil, change = PLAIN[case]
    if spoil:
        spoil(made)
    x = change(x) if change else x
    assert not step.fits(made, x)
    torch.manual_seed(1)  # the same dropout
    y = made(x)
    torch.manual_seed(1)
    torch.testing.assert_close(torch.Tensor(y), torch.Tensor(plainly(made, x)), check_dtype=True)


def test_a_strength_and_a_magnitude_of_another_kind_stay_on_the_plain_path(plainly, monkeypatch):
    made, x = layer(DoRALinear), torch.randn(40, 6, dtype=torch.float64)
    expected = plainly(made, x)
    monkeypatch.setattr(variants, "dora_linear", lambda x, *_: 0 * expected)
    lent = {"magnitude": made.magnitude.detach().clone()}
    torch.testing.assert_close(torch.func.functional_call(made, lent, (x,)), expected)
    made.strength = 0.4
    torch.testing.assert_close(made(x), made.base(x) + 0.4 * (expected - made.base(x)))
    made.magnitude.data = made.magnitude.data.float()
    assert not step.fits(made, x)


def test_a_start_lent_to_pissa_gets_its_gradient(plainly):
    made, x = layer(PiSSALinear), torch.randn(40, 6, dtype=torch.float64)
    start = made.start_A.clone().requires_grad_()

    def call(x):
        return torch.func.functional_call(made, {"start_A": start}, (x,))

    call(x).square().sum().backward()
    assert start.grad is not None
    expected = torch.autograd.grad(plainly(call, x).square().sum(), start)[0]
    torch.testing.assert_close(start.grad, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_compiling_and_transforms_stay_on_the_plain_path(plainly, kind):
    made, x = layer(kind, dtype=torch.float32), torch.randn(40, 6)
    expected = plainly(made, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not step.fits(made, x)
        torch.testing.assert_close(made(x).float(), expected, atol=0.1, rtol=0.05)
    torch.testing.assert_close(torch.compile(made, backend="eager", fullgraph=True)(x), expected)
    torch.testing.assert_close(torch.vmap(made)(x), expected)
    trained = dict(made.named_parameters())
    trained = {name: trained[name] for name in made.trains}

    def loss(trained, row):
        return torch.func.functional_call(made, trained, (row,)).square().sum()

    by_row = torch.vmap(torch.func.grad(loss), (None, 0))(trained, x)
    for i in (0, 39):
        made.zero_grad()
        made(x[i]).square().sum().backward()
        for name, parameter in trained.items():
            torch.testing.assert_close(by_row[name][i], parameter.grad)
    _, moved = torch.func.jvp(made, (x,), (torch.ones_like(x),))
    torch.testing.assert_close(moved, plainly(made, x + 1) - expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_functional_call_and_checkpointing_have_the_same_gradients(plainly, kind):
    made = layer(kind)
    x = torch.randn(40, 6, dtype=torch.float64, requires_grad=True)
    of, push = (x, *made._parameters.values()), torch.randn(40, 4, dtype=torch.float64)
    other = copy.deepcopy(made)
    nn.init.normal_(other.lora_A)
    state = dict(made.named_parameters()) | dict(made.named_buffers())
    for y in (made(x), checkpoint(made, x, use_reentrant=False),
              torch.func.functional_call(other, state, (x,))):
        check_same((y, plainly(made, x)), of, push)


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_penalty_is_that_of_the_plain_path(plainly, kind):
    made = layer(kind)
    x = torch.randn(40, 6, dtype=torch.float64, requires_grad=True)
    found = []
    for y in (made(x), plainly(made, x)):
        of = x, *made._parameters.values()
        grads = torch.autograd.grad(y.square().sum(), of, create_graph=True)
        found.append(torch.autograd.grad(sum(g.square().sum() for g in grads), of))
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain)


def test_with_a_frozen_A_pissas_gradients_of_gradients_are_refused_and_doras_right(plainly):
    x = torch.randn(40, 6, dtype=torch.float64, requires_grad=True)
    pissa, dora = layer(PiSSALinear), layer(DoRALinear)
    for made in (pissa, dora):
        made.lora_A.requires_grad_(False)
    with pytest.raises(RuntimeError, match="can't be differentiated again"):
        torch.autograd.grad(pissa(x).square().sum(), x, create_graph=True)
    found = [torch.autograd.grad(y.square().sum(), (x, dora.magnitude), create_graph=True)
             for y in (dora(x), plainly(dora, x))]
    check_same([torch.cat([g.flatten() for g in grads]) for grads in found],
               (x, dora.lora_B, dora.magnitude))
