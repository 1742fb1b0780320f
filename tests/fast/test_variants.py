"""The variants against PEFT, against dense formulas with autograd, and against answers by hand."""

import copy
import math

import numpy as np
import peft
import pytest
import torch
from torch import nn

import lora_mini as lm
from lora_mini import step
from lora_mini.variants import (
    DoRALinear,
    LoRAFALinear,
    PiSSALinear,
    lora_plus,
    magnitude_direction,
)
from lora_mini.world import text, town, train
from lora_mini.world.gpt import GPT, Config

D_IN, D_OUT, RANK, ALPHA = 6, 4, 2, 5.0
S = ALPHA / RANK
TRAINED = {DoRALinear: {"lora_A", "lora_B", "magnitude"}, PiSSALinear: {"lora_A", "lora_B"},
           LoRAFALinear: {"lora_B"}}
VARIANTS = list(TRAINED)


@pytest.fixture(autouse=True, params=["plain", "fused"])
def path(request, monkeypatch):
    """Both ways to compute it; from three tokens on the fused one folds."""
    if request.param == "plain":
        monkeypatch.setattr(step, "fits", lambda layer, x: False)
    return request.param


def layer(kind, dtype=torch.float64, bias=True, d_in=D_IN, d_out=D_OUT, **options):
    """A layer away from its start, as after training."""
    torch.manual_seed(0)
    made = kind(nn.Linear(d_in, d_out, bias=bias, dtype=dtype), RANK, ALPHA, **options)
    with torch.no_grad():
        for name in sorted(TRAINED.get(kind, {"lora_A", "lora_B"})):
            parameter = getattr(made, name)
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def dora_by_hand(made):
    """W' row by row with Python's floats: magnitude times the row over its length."""
    W, A, B = (t.tolist() for t in (made.base.weight, made.lora_A, made.lora_B))
    rows = []
    for i, w in enumerate(W):
        row = [w[j] + S * sum(B[i][k] * A[k][j] for k in range(RANK)) for j in range(len(w))]
        length = math.sqrt(sum(v * v for v in row))
        rows.append([made.magnitude[i].item() * v / length for v in row])
    return torch.tensor(rows, dtype=torch.float64)


def peft_of(base, **options):
    """(the model, its adapted layer): PEFT around a copy of the base."""
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["0"], **options)
    model = peft.get_peft_model(nn.Sequential(copy.deepcopy(base)), config)
    return model, model.base_model.model[0]


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("d_in, d_out, shape", [(6, 4, (5,)), (3, 7, (2, 5))])
def test_dora_gives_the_outputs_gradients_and_merge_of_peft(d_in, d_out, shape, bias, dropout):
    ours = layer(DoRALinear, bias=bias, d_in=d_in, d_out=d_out, dropout=dropout)
    model, theirs = peft_of(ours.base, use_dora=True, lora_dropout=dropout)
    magnitude = theirs.lora_magnitude_vector["default"].weight
    A, B = theirs.lora_A["default"].weight, theirs.lora_B["default"].weight
    with torch.no_grad():
        torch.testing.assert_close(magnitude, ours.base.weight.norm(dim=1))
        for to, parameter in zip((A, B, magnitude), ours._factors(), strict=True):
            to.copy_(parameter)
    x = torch.randn(*shape, d_in, dtype=torch.float64, requires_grad=True)
    x_theirs = x.detach().clone().requires_grad_()
    outputs = []
    for module, at in ((ours, x), (model, x_theirs)):
        torch.manual_seed(1)  # the same dropout
        outputs.append(module(at))
        outputs[-1].square().sum().backward()
    torch.testing.assert_close(*outputs)
    for p, q in zip((x, *ours._factors()), (x_theirs, A, B, magnitude), strict=True):
        torch.testing.assert_close(p.grad, q.grad)
    ours.eval().merge()
    with torch.no_grad():
        torch.testing.assert_close(ours.weight, model.merge_and_unload()[0].weight)


@pytest.mark.parametrize("merged", [False, True])
def test_dora_gives_the_gradients_of_a_dense_layer_with_a_constant_norm(merged):
    made = layer(DoRALinear)
    A, B, m = (p.detach().clone().requires_grad_() for p in made._factors())
    V = made.base.weight + S * B @ A
    dense = m[:, None] * V / V.detach().square().sum(dim=1, keepdim=True).sqrt()
    x = torch.randn(7, D_IN, dtype=torch.float64)
    if merged:
        made.merge()
    y, expected = made(x), x @ dense.T + made.base.bias
    torch.testing.assert_close(y, expected)
    push = torch.randn_like(y)
    (y * push).sum().backward()
    (expected * push).sum().backward()
    for p, q in zip(made._factors(), (A, B, m), strict=True):
        torch.testing.assert_close(p.grad, q.grad)
    assert made.base.weight.grad is None


def test_dora_acts_with_rows_of_the_length_that_magnitude_says():
    made = layer(DoRALinear)
    with torch.no_grad():
        torch.testing.assert_close(made.weight, dora_by_hand(made))
        torch.testing.assert_close(made.weight.norm(dim=1), made.magnitude)
    assert made.magnitude.shape == (D_OUT,)


def test_dora_on_paper():
    base = nn.Linear(2, 3, bias=False)
    with torch.no_grad():
        base.weight.copy_(torch.tensor([[3.0, 4], [0, 2], [5, 12]]))
    made = DoRALinear(base, 1, 3)
    assert made.magnitude.tolist() == [5, 2, 13]
    with torch.no_grad():  # 3 B A turns the second row, (0, 2), into (1.5, 2), of length 2.5
        made.lora_A.copy_(torch.tensor([[0.5, 0]]))
        made.lora_B.copy_(torch.tensor([[0.0], [1], [0]]))
        made.magnitude.copy_(torch.tensor([10.0, 5, 13]))
        assert made.weight.tolist() == [[6, 8], [3, 4], [5, 12]]


def test_doubling_a_row_of_the_sum_leaves_doras_weight():
    made = layer(DoRALinear)
    with torch.no_grad():
        before = made.weight
        made.base.weight[1] *= 2
        made.lora_B[1] *= 2
        torch.testing.assert_close(made.weight, before)


def test_the_norm_holds_where_the_update_all_but_cancels_a_row():
    torch.manual_seed(0)
    base = nn.Linear(48, 9, bias=False)
    made = DoRALinear(base, 4, 3)
    C = torch.randn(9, 4)
    with torch.no_grad():
        base.weight.copy_(C @ made.lora_A)
        made.lora_B.copy_(-(1 - 1e-4) * C / 0.75)  # a ten-thousandth of each row is left
        wide = copy.deepcopy(made).double()
        torch.testing.assert_close(made.weight.norm(dim=1), made.magnitude, rtol=1e-2, atol=0)
        torch.testing.assert_close(made._norms().double(), wide._norms(), rtol=1e-2, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("kind", VARIANTS)
def test_each_starts_as_its_base_bit_for_bit_apart_and_merged(kind, rslora, dtype):
    torch.manual_seed(0)
    base, x = nn.Linear(D_IN, D_OUT, dtype=dtype), torch.randn(8, D_IN, dtype=dtype)
    before, made = base(x), kind(base, RANK, ALPHA, rslora=rslora)
    assert torch.equal(made(x), before) and not made.update().any()
    made.merge()
    assert torch.equal(made(x), before)


@pytest.mark.parametrize("kind", VARIANTS)
def test_a_strength_between_lies_between_and_zero_is_the_base(kind):
    made, x = layer(kind), torch.randn(5, D_IN, dtype=torch.float64)
    with torch.no_grad():
        W, full, y = made.base.weight, made.weight, made(x)
        made.strength = 0.25
        torch.testing.assert_close(made.weight, W + (full - W) / 4)
        torch.testing.assert_close(made(x), made.base(x) + (y - made.base(x)) / 4)
        made.strength = 0.0
        assert torch.equal(made.weight, W) and torch.equal(made(x), made.base(x))


@torch.no_grad()
@pytest.mark.parametrize("kind", VARIANTS)
def test_a_merged_layer_notices_every_change_of_what_it_is_made_of(kind):
    made, x = layer(kind), torch.randn(5, D_IN, dtype=torch.float64)

    def check(what):
        merged = made(x)
        made.unmerge()
        torch.testing.assert_close(made(x), merged, msg=lambda text: f"after {what}: {text}")
        made.merge()
        made(x)

    made.merge()
    for name in dict(made.named_parameters()) | dict(made.named_buffers()):
        made(x)
        made.get_parameter(name).mul_(1.5) if "start" not in name else made.get_buffer(name).mul_(2)
        check(name)
    made.strength = 0.3
    check("a new strength")
    made.float().double()
    check(".float().double()")


@pytest.mark.parametrize("kind", VARIANTS)
def test_each_survives_a_copy_another_dtype_and_a_state_dict(kind):
    made, x = layer(kind), torch.randn(5, D_IN, dtype=torch.float64)
    y = made(x)
    assert torch.equal(copy.deepcopy(made)(x), y)
    torch.manual_seed(5)
    other = kind(nn.Linear(D_IN, D_OUT, dtype=torch.float64), RANK, ALPHA)
    other.load_state_dict(made.state_dict())
    assert torch.equal(other(x), y)
    made = layer(kind, torch.float32)
    y = made(x.float())
    torch.testing.assert_close(made.to(torch.float64)(x), y.double(), rtol=1e-5, atol=1e-5)
    assert {t.dtype for t in made.state_dict().values()} == {torch.float64}


@pytest.mark.parametrize("kind", VARIANTS)
def test_each_can_be_attached_merged_disabled_and_detached(kind):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)), torch.randn(3, 6)
    base, frozen = model(x), copy.deepcopy(model.state_dict())
    lm.attach(model, ["0", "2"], RANK, ALPHA, layer=kind)
    found, _ = lm.trainable_parameters(model)
    assert set(found) == {f"{i}.{name}" for i in (0, 2) for name in TRAINED[kind]}
    start = copy.deepcopy(found)
    optimizer = torch.optim.SGD(found.values(), lr=0.05)
    for _ in range(2):  # in the first, B is still zero and A has no gradient
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
    assert not [name for name, p in found.items() if torch.equal(p, start[name])]
    y = model(x)
    with lm.disabled(model):
        assert torch.equal(model(x), base)
    lm.merge(model)
    torch.testing.assert_close(model(x), y)
    lm.unmerge(model)
    assert torch.equal(model(x), y) and not torch.allclose(y, base)
    final = copy.deepcopy(model)
    lm.merge(final, keep_base=False)
    assert type(final[0]) is nn.Linear
    torch.testing.assert_close(final(x), y)
    lm.detach(model)
    assert torch.equal(model(x), base) and all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(v, frozen[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("kind", VARIANTS)
def test_each_works_on_the_meta_device_and_under_autocast(kind):
    if kind is not PiSSALinear:  # which decomposes W
        made = kind(nn.Linear(D_IN, D_OUT, device="meta"), RANK, ALPHA)
        assert made(torch.empty(3, D_IN, device="meta")).shape == (3, D_OUT)
    made, x = layer(kind, torch.float32), torch.randn(3, D_IN)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = made(x)
    torch.testing.assert_close(y.float(), made(x), atol=0.1, rtol=0.05)


def test_dropout_acts_on_the_input_of_doras_update_alone():
    made, x = layer(DoRALinear, dropout=0.5), torch.ones(9, D_IN, dtype=torch.float64)
    torch.manual_seed(1)
    y = made(x)
    torch.manual_seed(1)
    dropped = nn.functional.dropout(x, 0.5)
    W = made.base.weight
    torch.testing.assert_close(y, made.base(x) + dropped @ (dora_by_hand(made) - W).T)


@pytest.mark.parametrize("d_in, d_out", [(6, 4), (3, 7)])
def test_pissa_starts_in_the_first_singular_directions_of_numpys_svd(d_in, d_out):
    torch.manual_seed(0)
    made = PiSSALinear(nn.Linear(d_in, d_out, dtype=torch.float64), RANK, ALPHA)
    U, sizes, Vt = np.linalg.svd(made.base.weight.detach().numpy(), full_matrices=False)
    start = S * (made.lora_B @ made.lora_A).detach().numpy()
    np.testing.assert_allclose(start, U[:, :RANK] * sizes[:RANK] @ Vt[:RANK], atol=1e-12)
    left = np.linalg.svd(made.base.weight.detach().numpy() - start, compute_uv=False)
    np.testing.assert_allclose(left[:len(sizes) - RANK], sizes[RANK:], atol=1e-12)
    gram_A, gram_B = made.lora_A @ made.lora_A.T, made.lora_B.T @ made.lora_B
    torch.testing.assert_close(gram_A, gram_B)  # the singular values are shared out evenly
    np.testing.assert_allclose(S * gram_A.detach().numpy(), np.diag(sizes[:RANK]), atol=1e-12)


@pytest.mark.parametrize("rslora", [False, True])
def test_pissa_gives_the_outputs_and_merge_of_peft_after_the_same_steps(rslora):
    torch.manual_seed(0)
    base, x = nn.Linear(D_IN, D_OUT), torch.randn(7, D_IN)
    model, theirs = peft_of(base, init_lora_weights="pissa", use_rslora=rslora)
    ours = PiSSALinear(base, RANK, ALPHA, rslora=rslora)
    W, start = base.weight.clone(), ours.start_A.clone()
    torch.testing.assert_close(ours.lora_A, theirs.lora_A["default"].weight)  # of one LAPACK
    for module in (ours, model):
        optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.05)
        for _ in range(3):
            optimizer.zero_grad()
            module(x).square().sum().backward()
            optimizer.step()
    assert torch.equal(base.weight, W) and torch.equal(ours.start_A, start)
    assert not torch.allclose(ours.weight, W, atol=1e-2)
    torch.testing.assert_close(ours(x), model(x), rtol=1e-5, atol=1e-5)  # PEFT rounds W - W_r
    torch.testing.assert_close(ours.weight, model.merge_and_unload()[0].weight,
                               rtol=1e-5, atol=1e-6)


def test_pissa_gives_the_gradients_of_a_dense_layer():
    made, x = layer(PiSSALinear), torch.randn(7, D_IN, dtype=torch.float64)
    A, B = (p.detach().clone().requires_grad_() for p in (made.lora_A, made.lora_B))
    y = made(x)
    dense = x @ (made.base.weight + S * (B @ A - made.start_B @ made.start_A)).T + made.base.bias
    torch.testing.assert_close(y, dense)
    y.square().sum().backward()
    dense.square().sum().backward()
    torch.testing.assert_close(made.lora_A.grad, A.grad)
    torch.testing.assert_close(made.lora_B.grad, B.grad)


def test_pissas_start_is_saved_and_never_trained():
    made = PiSSALinear(nn.Linear(D_IN, D_OUT), RANK, ALPHA)
    assert {"start_A", "start_B"} == {name for name, _ in made.named_buffers()}
    assert {"start_A", "start_B"} <= set(made.state_dict())
    assert not made.start_A.requires_grad and not made.start_B.requires_grad
    assert made.start_A.data_ptr() != made.lora_A.data_ptr()


def test_in_lora_fa_b_alone_moves_and_a_gets_no_gradient():
    made, x = layer(LoRAFALinear), torch.randn(5, D_IN, dtype=torch.float64)
    before = copy.deepcopy(made.state_dict())
    optimizer = torch.optim.SGD(made.parameters(), lr=0.1)
    made(x).square().sum().backward()
    optimizer.step()
    assert made.lora_A.grad is None and not made.lora_A.requires_grad and made.lora_A.any()
    moved = {k for k, v in made.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {"lora_B"}


@pytest.mark.parametrize("kind, kept", [(lm.LoRALinear, True), (LoRAFALinear, False)])
def test_lora_fa_keeps_no_input_for_the_backward_pass_and_lora_does(path, kind, kept):
    made = layer(kind)
    x = torch.randn(5, D_IN, dtype=torch.float64, requires_grad=True)
    shapes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: shapes.append(t.shape) or t,
                                                  lambda t: t):
        made(x)
    assert (x.shape in shapes) is kept
    if path == "fused":
        assert ((RANK, 5) in shapes) is not kept  # A x in its place


def test_lora_plus_makes_bs_first_step_sixteen_times_as_as():
    torch.manual_seed(0)
    model = GPT(Config(len(text.VOCABULARY), d_model=16, heads=2, layers=1))
    lm.attach(model, ["q_proj"], RANK, ALPHA)
    for name, p in model.named_parameters():
        if name.endswith("lora_B"):  # away from zero, so that A has a gradient
            nn.init.constant_(p, 0.02)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    data = text.batch(town.sample_frames(8, 1), town.register("legal", new_facts=20), seed=2)
    train.fit(model, train.rows(data, 8), steps=1, rate=1e-4, warmup=0, factor=lora_plus())
    for name, p in lm.trainable_parameters(model)[0].items():  # AdamW's first step is the rate
        moved = (p.detach() - before[name]).abs().median().item()
        expected = 16e-4 if name.endswith("lora_B") else 1e-4
        assert moved == pytest.approx(expected, rel=0.02), name


def test_lora_plus_names_by_hand():
    factor = lora_plus(4)
    names = ["lora_B", "blocks.0.q_proj.lora_B", "blocks.0.q_proj.lora_A", "0.magnitude"]
    assert [factor(name) for name in names] == [4, 4, 1, 1]
    assert lora_plus()("x.lora_B") == 16


@pytest.mark.parametrize("rows, expected", [
    ([[3.0, 4], [0, 2]], (0, 0)),
    ([[6.0, 8], [0, 1]], (3, 0)),  # lengths 5 -> 10 and 2 -> 1: the mean of 5 and 1
    ([[4.0, -3], [0, 2]], (0, 0.5)),  # the first row by a right angle: the mean of 1 and 0
    ([[-3.0, -4], [2, 0]], (0, 1.5)),  # turned round, and by a right angle: of 2 and 1
    ([[0.0, 10], [0, 2]], (2.5, 0.1)),  # length 5 -> 10, cos = 4/5: of 0.2 and 0
])
def test_magnitude_and_direction_of_rows_on_paper(rows, expected):
    found = magnitude_direction(torch.tensor([[3.0, 4], [0, 2]]), torch.tensor(rows))
    assert all(type(v) is float for v in found)
    assert found == pytest.approx(expected, abs=1e-12)


def test_magnitude_and_direction_of_a_dora_layer_read_off_its_parameters():
    made = layer(DoRALinear)
    with torch.no_grad():
        made.lora_B.zero_()
        made.magnitude.copy_(1.5 * made.base.weight.norm(dim=1))
    magnitude, direction = magnitude_direction(made.base.weight, made.weight)
    assert magnitude == pytest.approx(0.5 * made.base.weight.norm(dim=1).mean().item())
    assert direction == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("W0, W, words", [
    (torch.ones(2, 3), torch.ones(3, 2), r"one shape, \(d_out, d_in\), got \(2, 3\) and \(3, 2\)"),
    (torch.ones(2), torch.ones(2), r"got \(2,\) and \(2,\)"),
    (torch.ones(2, 3), torch.eye(2, 3) * torch.tensor([[1.0], [0]]), "row 1 of W is all zeros"),
    (torch.zeros(2, 3), torch.ones(2, 3), "row 0 of W0 is all zeros"),
])
def test_magnitude_direction_refuses_what_has_no_answer(W0, W, words):
    with pytest.raises(ValueError, match=words):
        magnitude_direction(W0, W)


def test_dora_refuses_a_row_of_zeros_and_leaves_the_base_trainable():
    base = nn.Linear(D_IN, D_OUT)
    with torch.no_grad():
        base.weight[2] = 0
    with pytest.raises(ValueError, match="row 2 of W is all zeros"):
        DoRALinear(base, RANK, ALPHA)
    assert base.weight.requires_grad


@pytest.mark.parametrize("kind", VARIANTS)
def test_each_refuses_what_lora_refuses(kind):
    with pytest.raises(ValueError, match="= 4, got 5"):
        kind(nn.Linear(D_IN, D_OUT), 5, ALPHA)
    with pytest.raises(ValueError, match="alpha must be a positive number, got 0"):
        kind(nn.Linear(D_IN, D_OUT), RANK, 0)
    with pytest.raises(TypeError, match="expected an nn.Linear, got Embedding"):
        kind(nn.Embedding(4, 6), RANK, ALPHA)


@pytest.mark.parametrize("ratio", [0, -1.0, float("inf"), float("nan")])
def test_lora_plus_refuses_a_ratio_that_is_not_positive(ratio):
    with pytest.raises(ValueError, match=f"ratio must be a positive number, got {ratio}"):
        lora_plus(ratio)
