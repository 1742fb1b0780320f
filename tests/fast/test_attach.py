"""What attach takes and refuses, by name, kind of layer and type; a refusal leaves no trace."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import lora_mini as lm
from lora_mini.variants import PiSSALinear, lora_plus, magnitude_direction


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))


def trace(model):
    values = [(n, p.requires_grad, p if lost(p) else p.detach().clone())
              for n, p in model.named_parameters()]
    return [(n, type(m)) for n, m in model.named_modules()], values, sorted(vars(model))


def lost(p):
    """Whether there are no values to compare."""
    return p.is_meta or isinstance(p, nn.parameter.UninitializedParameter)


def same(a, b):
    return a[0] == b[0] and a[2] == b[2] and all(
        x[:2] == y[:2] and (lost(x[2]) or torch.equal(x[2].nan_to_num(), y[2].nan_to_num()))
        for x, y in zip(a[1], b[1], strict=True))


class CannotBeCopied(nn.Linear):
    def __deepcopy__(self, memo):
        raise TypeError("no copies")


def spoilt(value):
    model = net()
    model[0].weight.data[0, 0] = value
    return model


@pytest.mark.parametrize("make, arguments, error, words", [
    (lambda: spoilt(float("nan")), dict(layer=PiSSALinear), ValueError, "finite.*layer '0'"),
    (lambda: net().to("meta"), dict(layer=PiSSALinear), ValueError, "meta"),
    (net, dict(layer=lambda *a: nn.ReLU()), TypeError, "ReLU, not a LoRALinear"),
    (net, dict(layer="dora"), TypeError, "got 'dora'"),
    (lambda: nn.Sequential(nn.Linear(6, 4), CannotBeCopied(4, 3)),
     dict(modules_to_save=["1"]), ValueError, "'1' can't be copied: no copies"),
    (lambda: nn.Sequential(nn.Linear(6, 4), nn.ModuleList([nn.ReLU()])),
     dict(modules_to_save=["1"]), ValueError, "ModuleList, which has no forward"),
    (net, dict(target_modules=None), TypeError, "target_modules is None"),
    (net, dict(target_modules=3), TypeError, "names as strings, got 3"),
    (net, dict(target_modules=["all-linear"]), ValueError, "not in a list"),
    (net, dict(target_modules="("), ValueError, "no valid pattern"),
    (net, dict(target_modules=["query"]), ValueError, "last parts of names: 0, 2"),
    (net, dict(dropout="0.1"), ValueError, "a number.*'0.1'"),
    (net, dict(dropout=torch.tensor(0.1)), ValueError, "a number"),
    (net, dict(rank=2.0), ValueError, "an int, got 2.0"),
    (lambda: nn.Sequential(nn.LazyLinear(4)), {}, ValueError, "run a batch"),
])
def test_a_refused_attach_leaves_no_trace(make, arguments, error, words):
    model = make()
    before = trace(model)
    with pytest.raises(error, match=words):
        lm.attach(model, **{"target_modules": ["0"], "rank": 2, "alpha": 5} | arguments)
    assert same(trace(model), before)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8])
def test_weights_of_a_dtype_that_cannot_be_summed_are_refused(dtype):
    model = net()
    model[0].weight = nn.Parameter(model[0].weight.detach().to(dtype), requires_grad=False)
    with pytest.raises(ValueError, match="16, 32 or 64 bits.*layer '0'"):
        lm.attach(model, ["0"], 2, 5)
    assert model[2].weight.requires_grad and "_trainable_before" not in vars(model)


def test_what_a_library_hands_over_is_taken():
    model = net()
    lm.attach(model, ["0"], np.int64(2), np.float32(5), modules_to_save=None, exclude=None)
    assert model[0].rank == 2 and model[0].scaling == 2.5


@pytest.mark.parametrize("call", [lm.detach, lm.merge, lm.unmerge, lambda m: lm.set_strength(m, 1),
                                  lambda m: lm.attach(m, ["0"], 2, 5),
                                  lambda m: lm.disabled(m).__enter__()])
@pytest.mark.parametrize("thing", [None, "model"])
def test_what_is_no_model_is_told_so(call, thing):
    with pytest.raises(TypeError, match="expected a model, an nn.Module, got"):
        call(thing)


def test_wrong_types_elsewhere_get_a_sentence():
    model = net()
    lm.attach(model, ["0"], 2, 5)
    with pytest.raises(ValueError, match="finite number, got '1'"):
        lm.set_strength(model, "1")
    with pytest.raises(ValueError, match="positive number, got '4'"):
        lora_plus("4")
    assert magnitude_direction(np.eye(2), 2 * np.eye(2)) == (1.0, 0.0)


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc = nn.ModuleList([nn.Linear(6, 4)])
        self.add_module("enc_0", nn.Linear(6, 4))


def test_an_exact_name_means_only_itself():
    model = Named()
    assert lm.attach(model, ["enc.0"], 2, 5) == ["enc.0"]
    lm.detach(model)
    assert lm.attach(model, "enc.0|enc_0", 2, 5) == ["enc.0", "enc_0"]  # a pattern is one still


def test_what_was_added_after_attach_stays_trainable():
    for undo in (lm.detach, lambda m: lm.merge(m, keep_base=False)):
        model = net()
        model[2].bias.requires_grad_(False)
        lm.attach(model, ["0"], 2, 5)
        model.extra = nn.Parameter(torch.ones(2))
        undo(model)
        assert model.extra.requires_grad and model[0].weight.requires_grad
        assert not model[2].bias.requires_grad


def test_a_sequential_that_is_saved_can_be_iterated_and_says_its_mode():
    model = nn.Sequential(nn.Linear(6, 4), nn.Sequential(nn.Linear(4, 4), nn.ReLU())).eval()
    lm.attach(model, ["0"], 2, 5, modules_to_save=["1"])
    assert [type(m) for m in model[1]] == [nn.Linear, nn.ReLU] and len(model[1]) == 2
    assert model[1][0] is model[1].copy[0] and not model[1].training
    assert not model[0].training


def test_all_linear_says_what_it_passed_over():
    class Conv1D(nn.Module):  # GPT-2's name for a transposed linear layer
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(6, 4))

    model = nn.Sequential(nn.MultiheadAttention(6, 2), Conv1D(), nn.Linear(6, 4))
    with pytest.warns(UserWarning, match="packed q, k, v.*'0'.*Conv1D layers.*'1'"):
        assert lm.attach(model, "all-linear", 2, 5) == ["0.out_proj", "2"]
    with pytest.raises(ValueError, match="no nn.Linear to adapt; LoRA here can't take Conv1D"):
        lm.attach(nn.Sequential(Conv1D()), "all-linear", 1, 2)


def test_all_linear_says_when_it_takes_a_tied_head():
    model = nn.ModuleDict({"emb": nn.Embedding(9, 6), "up": nn.Linear(6, 6),
                           "head": nn.Linear(6, 9, bias=False)})
    model["head"].weight = model["emb"].weight
    with pytest.warns(UserWarning, match="'head', whose weight is tied to 'emb.weight'"):
        lm.attach(model, "all-linear", 2, 5)
    lm.detach(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lm.attach(model, "all-linear", 2, 5, exclude="head")


def test_buffers_are_the_models_own():
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4))
    x = torch.randn(8, 6)
    before = copy.deepcopy(model.state_dict())
    lm.attach(model, ["0"], 2, 5)
    model(x).sum().backward()
    lm.detach(model)
    moved = [n for n, t in model.state_dict().items() if not torch.equal(t, before[n])]
    assert moved == ["1.running_mean", "1.running_var", "1.num_batches_tracked"]
