"""The language model's benchmark runs, on a small Llama, and its arms are one and the same step."""

import sys

import pytest
import torch
import transformers

import build
import lora_mini as lm
from lora_mini.blocks import Q41Linear
from lora_mini.quant import to_four_bits

sys.path.insert(0, str(build.ROOT / "benchmarks"))
import llm  # noqa: E402


@pytest.fixture(autouse=True)
def small(monkeypatch):
    def load(bits=None):
        torch.manual_seed(0)
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(
            vocab_size=40_000, hidden_size=64, intermediate_size=96, num_hidden_layers=1,
            num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True))
        if bits:
            to_four_bits(model, layer=Q41Linear)
        return model, None
    monkeypatch.setattr(llm.smollm, "load", load)


def test_every_arm_is_timed_and_measured(capsys):
    before = torch.get_num_threads()
    times = llm.turns(1, 2)
    torch.set_num_threads(before)
    assert list(times) == list(llm.ARMS)
    assert all(len(t) == 2 and min(min(t)) > 0 for t in times.values())
    peaks = {arm: llm.memory(arm) for arm in ("full", "ours", "ours, four bits")}
    assert peaks["full"][0] > peaks["ours"][0] > peaks["ours, four bits"][0]


def test_ours_and_pefts_step_have_the_same_gradients():
    found = []
    for arm in ("ours", "PEFT"):
        model = llm.model_of(arm)
        torch.manual_seed(1)
        trained = [p for p in model.parameters() if p.requires_grad]
        for parameter in trained:
            torch.nn.init.normal_(parameter, std=0.1)
        step, optimizer = llm.stepper(model)
        optimizer.step = lambda: None
        step()
        found.append([p.grad for p in trained])
    assert len(found[0]) == len(found[1]) == 14
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)
    assert lm.trainable_parameters(llm.model_of("ours"))[1] == sum(g.numel() for g in found[0])
