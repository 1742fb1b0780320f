"""The audit on PEFT's models: planted faults are named, sound ones give an empty list."""

import math
import warnings

import peft
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from lora_mini.audit import snapshot
from tests.fixtures.audits import one, said
from tests.fixtures.audits_peft import ALL, BATCH, TOKENS, adam, llama, made, train


def layer(model, name="self_attn.q_proj"):
    return model.base_model.model.model.layers[0].get_submodule(name)


# Sound models

SOUND = {
    "LoRA": {}, "rsLoRA": {"use_rslora": True}, "DoRA": {"use_dora": True},
    "dropout": {"lora_dropout": 0.1}, "PiSSA": {"init_lora_weights": "pissa"},
    "a trained head": {"modules_to_save": ["lm_head"]}, "biases": {"bias": "all"},
    "embeddings": {"target_modules": [*ALL, "embed_tokens"]},
    "patterns": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3}},
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_model_gives_an_empty_list_fresh_and_trained(name):
    model = made(**SOUND[name])
    optimizer, before = adam(model), snapshot(model, BATCH)
    assert said(model, optimizer, BATCH) == []
    train(model, optimizer)
    assert said(model, optimizer, BATCH, before=before) == []


@pytest.mark.parametrize("name", ["LoRA", "DoRA", "a trained head"])
def test_a_merged_model_in_eval_mode_is_sound_and_stays_merged(name):
    model = made(**SOUND[name])
    optimizer, before = adam(model), snapshot(model, BATCH)
    train(model, optimizer).eval().merge_adapter()
    assert said(model, optimizer, BATCH, before=before) == []
    assert layer(model).merged_adapters == ["default"]


def test_a_second_adapter_that_waits_is_sound():
    model = made()
    model.add_adapter("second", peft.LoraConfig(r=2, lora_alpha=8, target_modules=ALL))
    assert said(train(model, optimizer := adam(model)), optimizer, BATCH) == []


def test_layers_injected_without_a_peft_model_are_sound():
    model = llama()
    before = snapshot(model, BATCH)
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=ALL)
    model = peft.inject_adapter_in_model(config, model)
    assert said(train(model, optimizer := adam(model)), optimizer, BATCH, before=before) == []


def test_gpt2_whose_layers_lie_transposed_is_sound():
    base = GPT2LMHeadModel(GPT2Config(vocab_size=31, n_positions=16, n_embd=16, n_layer=2,
                                      n_head=2, bos_token_id=None, eos_token_id=None))
    model = made(base, target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True)
    optimizer, before = adam(model), snapshot(model, BATCH)
    assert said(train(model, optimizer), optimizer, BATCH, before=before) == []


def test_two_adapters_that_act_together_are_sound():
    model = made()
    model.add_adapter("second", peft.LoraConfig(r=2, lora_alpha=8, target_modules=ALL))
    model.base_model.set_adapter(["default", "second"])
    optimizer, before = adam(model), snapshot(model, BATCH)
    assert said(train(model, optimizer), optimizer, BATCH, before=before) == []


def test_an_adapter_from_a_file_is_sound(tmp_path):
    model = made()
    train(model, adam(model)).save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(llama(), tmp_path)
    assert said(loaded, None, BATCH) == []


def test_a_snapshot_from_before_the_adapter_does_as_well():
    base = llama()
    before = snapshot(base, BATCH)
    model = made(base, modules_to_save=["lm_head"])
    assert said(train(model, optimizer := adam(model)), optimizer, BATCH, before=before) == []


# Faults

def test_labels_of_minus_100_are_named_as_the_cause():
    model = made()
    batch = BATCH | {"labels": torch.full_like(TOKENS, -100)}
    optimizer = adam(model)
    for p in model.parameters():
        p.grad = torch.zeros_like(p) if p.requires_grad else None
    optimizer.step()
    one(["B has not moved", "14 of 14", "all labels are -100"], model, optimizer, batch)


def test_reentrant_checkpointing_without_input_grad_is_named_as_the_cause():
    model = made()
    model.base_model.model.gradient_checkpointing_enable({"use_reentrant": True})
    model.base_model.model.disable_input_require_grads()
    optimizer, before = adam(model), snapshot(model, BATCH)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(model, optimizer, 2)
    one(["B has not moved", "14 of 14", "reentrant"], model, optimizer, BATCH, before=before)


@pytest.mark.parametrize("rate", [1e-5, 1e-8])
def test_a_rate_far_too_low_is_found(rate):
    model = made()
    optimizer = adam(model, rate)
    lines = said(train(model, optimizer), optimizer, BATCH)
    assert any("learning rate is low" in s and f"{rate:.0e} at its peak" in s for s in lines)
    assert any("too small to matter: logits" in s for s in lines)


def test_faults_of_the_optimizer_are_named():
    base = llama()
    optimizer = torch.optim.AdamW(base.parameters(), lr=1e-3)
    lines = said(made(base), optimizer)
    assert any("missing from the optimizer" in s and "28 of 28" in s for s in lines)
    assert any("frozen parameters of the base" in s and "29 of 29" in s for s in lines)
    other = made()
    one(["weight decay", "on 28 of 28"], other, adam(other, weight_decay=0.1))


def test_parameters_of_a_deleted_adapter_are_stale():
    model = made()
    optimizer = adam(model)
    model.delete_adapter("default")
    model.add_adapter("new", peft.LoraConfig(r=4, lora_alpha=8, target_modules=ALL))
    model.set_adapter("new")
    assert any("not in the model" in s and "28 of 28" in s for s in said(model, optimizer))


def test_a_base_that_trains_or_changed_is_named():
    model = made()
    before = snapshot(model, BATCH)
    weight = layer(model).base_layer.weight.requires_grad_(True)
    with torch.no_grad():
        weight.mul_(1.1)
    lines = said(model, None, BATCH, before=before)
    assert any("the base trains" in s and "256 numbers" in s for s in lines)
    assert any("parameters changed: model.layers.0.self_attn.q_proj.weight" in s for s in lines)
    assert any("with the adapter off" in s and ": logits (" in s for s in lines)


def test_numbers_that_are_not_finite_are_counted():
    model = made()
    with torch.no_grad():
        layer(model).lora_B["default"].weight[0, 0] = math.nan
    one(["NaN or infinite", "q_proj.lora_B.default.weight", "1 numbers in 1 of 28"], model)


def test_a_merge_that_is_entered_twice_is_found():
    model = made().eval()
    model.merge_adapter()
    layer(model).merged_adapters.append("default")
    one(["merged twice", "q_proj", "1 of 14"], model)


def test_a_merge_that_the_layer_forgot_shows_as_a_base_that_changed():
    model = made()
    optimizer, before = adam(model), snapshot(model, BATCH)
    train(model, optimizer).merge_adapter()
    for module in model.modules():
        getattr(module, "merged_adapters", []).clear()
    lines = said(model, optimizer, BATCH, before=before)
    assert len(lines) == 2 and "parameters changed" in lines[0] and "14 of 31" in lines[0]


@pytest.mark.filterwarnings("ignore")
def test_a_model_inside_a_model_is_found():
    one(["a PEFT model lies inside"], made(made()))


def test_a_scale_that_does_not_fit_is_named():
    model = made(use_rslora=True)
    layer(model).scaling["default"] = 2.0
    one(["scale doesn't fit", "q_proj", "2, where alpha and rank make 4"], model)


def test_an_adapter_that_is_not_active_and_trains_is_found():
    model = made()
    model.add_adapter("second", peft.LoraConfig(r=2, lora_alpha=8, target_modules=ALL))
    layer(model).lora_A["second"].weight.requires_grad_(True)
    one(["not active trains: second", "1 tensors"], model)
    model.set_adapter("second")
    assert said(model) == []
    for name, parameter in model.named_parameters():  # as a loop that thaws all of LoRA does
        parameter.requires_grad_("lora_" in name)
    one(["not active trains: default", "28 tensors"], model)


def test_few_adapted_layers_are_a_note():
    one(["note", "k_proj", "10%"], made(target_modules=["k_proj"]))


def test_dropout_in_another_mode_and_a_merge_in_training_mode_are_found():
    model = made(lora_dropout=0.1).eval()
    assert said(model) == []
    layer(model).train()
    one(["another mode", "q_proj", "1 of 14"], model)
    model.train()
    model.merge_adapter()
    one(["merged in training mode", "14 of 14"], model)
