"""The first probes of the page are for PEFT's models, too."""

import pytest
import torch

from lora_mini.lab import zoo
from lora_mini.world import base

peft = pytest.importorskip("peft")


@pytest.fixture
def model():
    model = peft.get_peft_model(base.load_base("cpu", base.SHIPPED), peft.LoraConfig(
        r=8, lora_alpha=32, lora_dropout=0.1, target_modules=["q_proj", "o_proj"]))
    return model.eval()


def asked(name, model, **more):
    return eval(zoo.named(name).line, {"model": model, **more})


def test_zero_B_names_scale_and_what_trains_are_read_from_a_model_of_peft(model):
    assert len(asked("reentrant checkpointing", model)) == 4
    assert len(asked("another model's names", model)) == 4
    assert asked("the rank not divided by", model) == [{"default": 4.0}]
    assert asked("a base left trainable", model) == []
    model.base_model.model.head.weight.requires_grad_(True)
    assert asked("a base left trainable", model) == ["base_model.model.head.weight"]


def test_an_early_optimizer_awake_modes_and_ties_are_read_too(model):
    early = torch.optim.AdamW(base.load_base("cpu", base.SHIPPED).parameters(), lr=2e-5)
    assert len(asked("optimizer too early", model, optimizer=early)) == 8
    late = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    assert asked("optimizer too early", model, optimizer=late) == []
    assert asked("a copied rate", model, optimizer=early) == [2e-5]
    assert asked("dropout awake", model) == []
    model.base_model.model.blocks[0].train()
    assert any("lora_dropout" in name for name in asked("dropout awake", model))
    assert not asked("merged into a tied head", model)
    inner = model.base_model.model
    inner.head.weight = inner.embed.weight
    assert asked("merged into a tied head", model)
