"""The smoke test passes on a sound adapter, and each planted fault turns its own point red."""

import pytest
import torch
from torch import nn

import lora_mini as lm
from lora_mini import audit
from lora_mini.lora import LoRALinear
from lora_mini.variants import DoRALinear, LoRAFALinear, PiSSALinear

X = torch.linspace(-1, 1, 18).reshape(3, 6)


def made(spoil=lambda model: None, stale=False, dtype=torch.float32, copies=(), layer=LoRALinear):
    def make_model():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)).to(dtype)
        parameters = list(model.parameters())
        lm.attach(model, ["0"], 2, 5, modules_to_save=copies, layer=layer)
        spoil(model)
        if not stale:
            parameters = [p for p in model.parameters() if p.requires_grad]
        return model, torch.optim.Adam(parameters, lr=0.05)
    return make_model


def step(model, optimizer):
    optimizer.zero_grad()
    model(X.to(model[2].weight.dtype)).square().mean().backward()
    optimizer.step()


def failing(make_model, step=step):
    return [p.sentence for p in audit.smoke_test(make_model, step) if not p.ok]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_sound_adapter_passes_all_eight_points(dtype):
    points = audit.smoke_test(made(dtype=dtype, copies=["2"]), step)
    assert len(points) == 8 and all(p.ok for p in points), "\n".join(map(str, points))
    assert str(points[0]) == "ok   1 layers are adapted"


def with_start(model):
    with torch.no_grad():
        model[0].lora_B.fill_(0.1)


def thawed(model):
    model[0].base.weight.requires_grad_(True)


def dead(model):
    nn.init.zeros_(model[0].lora_A)


@pytest.mark.parametrize("spoil, words", [
    (with_start, "before training"), (thawed, "parameters train"), (thawed, "every byte"),
    (dead, "not so in 0"), (dead, "changes the outputs"),
])
def test_a_spoiled_model_fails_at_the_point_that_names_it(spoil, words):
    assert any(words in sentence for sentence in failing(made(spoil)))


def test_an_optimizer_built_before_attaching_is_noticed():
    assert any("every B has left zero" in s for s in failing(made(stale=True)))


def test_no_adapter_at_all_is_one_sentence():
    assert failing(lambda: (nn.Linear(6, 4), None)) == ["0 layers are adapted"]


def test_a_step_that_never_calls_the_model_is_noticed():
    assert failing(made(), lambda model, optimizer: None) == ["step never called the model"]


def test_a_merge_without_the_scale_is_noticed(monkeypatch):
    def wrong(self):
        return self.base.weight + self.lora_B @ self.lora_A
    monkeypatch.setattr(LoRALinear, "_sum", wrong)
    assert any("merged outputs" in s for s in failing(made()))


def test_an_unmerge_that_stays_merged_is_noticed(monkeypatch):
    monkeypatch.setattr(LoRALinear, "unmerge", lambda self: None)
    assert failing(made()) == ["unmerging restores every bit"]


@pytest.mark.parametrize("kind", [DoRALinear, PiSSALinear, LoRAFALinear])
def test_the_variants_are_sound(kind):
    assert not failing(made(layer=kind))


def test_a_dora_whose_magnitude_does_not_train_is_found():
    frozen = made(lambda model: model[0].magnitude.requires_grad_(False), layer=DoRALinear)
    assert failing(frozen) == ["22 parameters train; the shapes say 27"]


class Nest(nn.Module):
    """Outputs as libraries give them: words, counts and nothing beside the numbers."""

    def __init__(self, first):
        super().__init__()
        self.inner, self.first = nn.Linear(6, 4), first

    def forward(self, x):
        return {"name": self.first, "rest": [None, 3, {"logits": self.inner(x)}]}


@pytest.mark.parametrize("first", ["x", None, 7, torch.arange(3)])
def test_outputs_in_a_nest_are_found(first):
    def make():
        torch.manual_seed(0)
        model = Nest(first)
        lm.attach(model, ["inner"], 2, 5)
        return model, torch.optim.Adam(lm.trainable_parameters(model)[0].values(), lr=0.1)

    def train(model, optimizer):
        optimizer.zero_grad()
        model(torch.ones(3, 6))["rest"][2]["logits"].square().sum().backward()
        optimizer.step()

    assert failing(make, train) == []


def test_buffers_that_moved_are_named():
    def make():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4))
        lm.attach(model, ["0"], 2, 5)
        return model, torch.optim.Adam(lm.trainable_parameters(model)[0].values(), lr=0.1)

    def train(model, optimizer):
        optimizer.zero_grad()
        model(torch.randn(8, 6)).pow(3).sum().backward()
        optimizer.step()

    point = next(p for p in audit.smoke_test(make, train) if "parameters alone" in p.sentence)
    assert point.ok and "1.running_mean, 1.running_var" in point.sentence
