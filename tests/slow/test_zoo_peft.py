"""The first probes of the page are for PEFT's models, too."""

import pytest
import torch
from safetensors.torch import load_file

from lora_mini.lab import specimens, zoo
from lora_mini.world import base

peft = pytest.importorskip("peft")


@pytest.fixture
def model():
    model = peft.get_peft_model(base.load_base("cpu", base.SHIPPED), peft.LoraConfig(
        r=8, lora_alpha=32, lora_dropout=0.1, target_modules=["q_proj", "o_proj"]))
    return model.eval()


def asked(name, model, **more):
    return eval(zoo.named(name).line, {"model": model, **more})


def test_names_that_dont_fit_are_told_from_a_sound_file_of_peft(model, tmp_path):
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")

    def odd(tensors):
        return eval(zoo.named("names that don't fit").peft,
                    {"model": model, "tensors": tensors, "peft": peft})
    assert len(tensors) == 8 and odd(tensors) == []
    assert len(odd({f"base_model.{n}": t for n, t in tensors.items()})) == 16
    assert odd(dict(list(tensors.items())[1:])) == [next(iter(tensors))]


@pytest.mark.parametrize("reentrant, names", [(True, 8), (False, 0)])
def test_what_gets_no_gradient_is_read_from_a_model_of_peft(model, reentrant, names):
    model.train()
    for block in model.base_model.model.blocks:
        block.forward = specimens._again(block, block.forward, use_reentrant=reentrant)
    model.base_model.model.head.weight.requires_grad_(True)  # or nothing could go back at all
    model(torch.ones(2, 5, dtype=torch.long)).sum().backward()
    assert len(asked("reentrant checkpointing", model)) == names


def test_rslora_is_the_scale_that_the_page_says():
    model = peft.get_peft_model(base.load_base("cpu", base.SHIPPED), peft.LoraConfig(
        r=16, lora_alpha=32, use_rslora=True, target_modules=["q_proj"]))
    assert asked("the rank not divided by", model) == [{"default": 32 / 16**0.5}]


def test_names_scale_and_what_trains_are_read_from_a_model_of_peft(model):
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
