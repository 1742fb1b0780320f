"""Memory: told by the ledger before training starts, and advice in place of a crash."""

import pytest
import torch
from torch import nn

import lora_mini as lm
from lora_mini.lab import tutor
from lora_mini.lab.peak import peak_bytes
from lora_mini.world import make_base, memory, text, town, train
from lora_mini.world.gpt import GPT, Config


def small(width=16):
    torch.manual_seed(0)
    return GPT(Config(len(text.VOCABULARY), d_model=width, heads=2, layers=2))


DATA = text.batch(town.sample_frames(8, 1), town.STYLES["plain"], 2)


def act(model):
    return train.loss(model, DATA.tokens, DATA.mask)


def test_what_is_needed_is_counted_and_the_model_is_left_alone():
    linear = nn.Linear(30, 20).eval()
    x = torch.zeros(5, 30)
    found, most = memory.needed(linear, lambda m: m(x).square().sum())
    weights = 4 * (30 * 20 + 20)
    assert found.total_bytes == 4 * weights  # weights, gradients, two moments
    assert most == 4 * weights  # the way back, 1,000 + 2 * 600 bytes, is less than all gradients
    _, most = memory.needed(linear, lambda m: m(x.repeat(9, 1)).square().sum())
    assert most == 3 * weights + 9 * (1000 + 2 * 600)  # now it is more
    assert not linear.training and linear.weight.grad is None


@pytest.mark.parametrize("width, rank", [(16, None), (32, None), (32, 4)])
def test_a_watched_step_peaks_near_the_count(width, rank):
    model = small(width)
    if rank:
        lm.attach(model, "all-linear", rank, 8)
    _, most = memory.needed(model, act)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])

    def step():
        optimizer.zero_grad()
        act(model).backward()
        optimizer.step()
    step()
    moments = [t for state in optimizer.state.values() for t in state.values()]
    assert 0.9 * most < peak_bytes(step, model, *moments) < 1.1 * most


def test_it_is_told_and_too_little_memory_is_refused_with_advice():
    model = small()
    found, most = memory.needed(model, act)
    rest = most - found.weight_bytes  # the weights lie there already
    said = memory.check(model, act, free=rest)
    assert f"{found.parameters:,} of {found.parameters:,} numbers train" in said
    with pytest.raises(MemoryError, match=r"cpu has \d+ MB left.*fewer examples.*restart"):
        memory.check(model, act, free=rest - 1)
    assert memory.check(model, act) == said  # nothing is known of a CPU's memory


@pytest.mark.parametrize("words", [
    "CUDA out of memory. Tried to allocate 2.00 GiB", "MPS backend out of memory",
    "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes",
    "DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"])
def test_a_full_memory_is_answered_by_advice(words, monkeypatch):
    model = small()

    def full(*args):
        raise torch.OutOfMemoryError(words)
    monkeypatch.setattr(model, "forward", full)
    with pytest.raises(MemoryError, match=r"memory of cpu is full.*fewer.*LORA_MINI_DEVICE"):
        train.fit(model, train.rows(DATA, 4), steps=2, rate=1e-3, progress=False)
    assert model.training  # as it was
    monkeypatch.setattr(tutor, "nats", full)
    with pytest.raises(MemoryError, match="memory of cpu is full"):
        tutor.fit(model, [([1, 2], [1, 2])], 1e-3, progress=False)


def test_other_errors_pass_as_they_are():
    with pytest.raises(RuntimeError, match=r"^shapes$"), memory.advice(small()):
        raise RuntimeError("shapes")


def test_the_gpu_preset_tells_its_memory_before_it_starts(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(train, "fit", lambda model, batches, **options: asked.append(options))
    model, _ = make_base.make_base("gpu", device="cpu")
    said = capsys.readouterr().out
    numbers = sum(p.numel() for p in model.parameters())
    assert f"By the ledger: {numbers:,} of {numbers:,} numbers train" in said and len(asked) == 1
    monkeypatch.setattr(memory, "check", lambda *a: (_ for _ in ()).throw(MemoryError("no")))
    with pytest.raises(MemoryError):
        make_base.make_base("gpu", device="cpu")
    assert len(asked) == 1  # nothing was trained
    make_base.make_base("laptop", device="cpu", styles=["plain"])
    assert not capsys.readouterr().out
