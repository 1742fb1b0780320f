"""PEFT's files and configurations, held against the model: sound ones are silent."""

import copy
import json
import warnings

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from lora_mini.audit import snapshot
from tests.fixtures.audits import one, said
from tests.fixtures.audits_peft import ALL, BATCH, adam, llama, made, train

FILE = "adapter_model.safetensors"
Q = "base_model.model.model.layers.0.self_attn.q_proj"
pytestmark = pytest.mark.filterwarnings("ignore")


def tied():
    return llama(tie_word_embeddings=True)


def gpt2():
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=31, n_positions=16, n_embd=16, n_layer=2,
                                      n_head=2, bos_token_id=None, eos_token_id=None))


CONV = {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}
SOUND = {
    "LoRA": (llama, {}), "rsLoRA": (llama, {"use_rslora": True}),
    "DoRA": (llama, {"use_dora": True}), "PiSSA": (llama, {"init_lora_weights": "pissa"}),
    "a trained head": (llama, {"modules_to_save": ["lm_head"]}),
    "a bias in LoRA": (llama, {"lora_bias": True, "target_modules": ALL[:4]}),
    "biases": (llama, {"bias": "all"}), "bfloat16": (lambda: llama().bfloat16(), {}),
    "embeddings": (llama, {"target_modules": [*ALL, "embed_tokens"]}),
    "patterns": (llama, {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3}}),
    "some layers": (llama, {"layers_to_transform": [1]}),
    "a regular expression": (llama, {"target_modules": r".*\.(q|v|up|down)_proj"}),
    "all but one": (llama, {"target_modules": "all-linear", "exclude_modules": ["k_proj"]}),
    "trained tokens": (llama, {"trainable_token_indices": [1, 2]}),
    "tied elsewhere": (tied, {}), "GPT-2": (gpt2, CONV),
    "GPT-2's DoRA": (gpt2, CONV | {"use_dora": True}),
    "copies that stay tied": (tied, {"modules_to_save": ["lm_head", "embed_tokens"],
                                     "ensure_weight_tying": True}),
}


def trained(base=llama, **options):
    model = made(base(), **options)
    optimizer, before = adam(model), snapshot(model, BATCH)
    return train(model, optimizer), optimizer, before


def unwrapped(model):
    return copy.deepcopy(model).merge_and_unload()


def written(state, folder, dtype=torch.float32):
    save_file({n: t.detach().to(dtype).contiguous().clone() for n, t in state.items()},
              folder / "merged.safetensors")
    return folder / "merged.safetensors"


@pytest.mark.parametrize("name", SOUND)
def test_what_is_sound_stays_sound_as_a_file_and_merged(name, tmp_path):
    base, options = SOUND[name]
    model, optimizer, before = trained(base, **options)
    model.save_pretrained(tmp_path)
    assert said(model, optimizer, BATCH, before=before, file=tmp_path) == []
    assert said(model, file=tmp_path / FILE) == []
    loaded = peft.PeftModel.from_pretrained(base(), tmp_path)
    assert said(loaded, None, BATCH, file=tmp_path) == []
    plain = unwrapped(model)
    assert said(plain, before=before) == []
    for dtype in (torch.float32, torch.bfloat16):
        assert said(model, file=written(plain.state_dict(), tmp_path, dtype)) == []
    plain.save_pretrained(tmp_path / "merged")
    model.eval().merge_adapter()
    assert said(model, file=tmp_path / "merged") == said(model, file=tmp_path) == []


def test_an_adapter_on_both_sides_of_a_tie_that_is_one_is_sound(tmp_path):
    model, optimizer, before = trained(tied, target_modules=[*ALL, "lm_head", "embed_tokens"],
                                       ensure_weight_tying=True)
    model.save_pretrained(tmp_path)
    assert said(model, optimizer, BATCH, before=before, file=tmp_path) == []


def test_pissa_that_was_converted_to_plain_lora_is_sound(tmp_path):
    model = made(init_lora_weights="pissa")
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(tmp_path / "start")
    model.peft_config["default"].init_lora_weights = "pissa"
    train(model, adam(model))
    model.save_pretrained(tmp_path, path_initial_model_for_weight_conversion=tmp_path / "start")
    assert len(load_file(tmp_path / FILE)[f"{Q}.lora_A.weight"]) == 8
    assert said(model, file=tmp_path) == []


def test_each_of_two_adapters_has_its_own_file(tmp_path):
    model, _, _ = trained()
    model.add_adapter("second", peft.LoraConfig(r=2, lora_alpha=8, target_modules=ALL[:2]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B.second" in name:
                parameter.fill_(0.1)
    model.save_pretrained(tmp_path)
    assert said(model, file=tmp_path) == said(model, file=tmp_path / "second") == []


# Faults

def test_a_state_dict_of_the_whole_model_is_told_by_its_names_and_its_size(tmp_path):
    model, _, _ = trained()
    model.save_pretrained(tmp_path)
    save_file({n: t.contiguous().clone() for n, t in model.state_dict().items()}, tmp_path / FILE)
    lines = said(model, file=tmp_path)
    assert len(lines) == 2 and "note: most of the file is the base's own" in lines[1], lines
    assert "proj.lora_A.default.weight" in lines[0] and "28 of 57" in lines[0]


def test_names_without_peft_s_start_are_named(tmp_path):
    model, _, _ = trained()
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / FILE)
    save_file({n.removeprefix("base_model.model."): t for n, t in tensors.items()},
              tmp_path / FILE)
    one(["names begin otherwise", "14 of 14", "put 'base_model.model.' before"], model,
        file=tmp_path)


def test_an_alpha_that_was_lost_or_changed_is_found(tmp_path):
    model, _, _ = trained()
    model.save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"lora_alpha": 4}))
    one(["scale is not the model's", "1, in the model 2", "14 of 14"], model, file=tmp_path)
    del config["lora_alpha"]
    path.write_text(json.dumps(config))
    one(["config can't be used", "says nothing about lora_alpha"], model, file=tmp_path)
    path.unlink()
    one(["config can't be used"], model, file=tmp_path)
    one(["doesn't say its alpha", "14 of 14"], model, file=tmp_path / FILE)


def test_a_file_from_before_training_and_one_from_between_are_told_apart(tmp_path):
    model = made()
    model.save_pretrained(tmp_path / "start")
    optimizer = adam(model)
    train(model, optimizer, 2).save_pretrained(tmp_path / "early")
    train(model, optimizer, 2)
    one(["every B in the file is zero", "14 layers"], model, file=tmp_path / "start")
    one(["factors are not the model's", "14 of 14"], model, file=tmp_path / "early")


def test_a_trained_head_that_the_file_lacks_is_found(tmp_path):
    model, _, _ = trained(modules_to_save=["lm_head"])
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / FILE)
    del tensors["base_model.model.lm_head.weight"]
    save_file(tensors, tmp_path / FILE)
    one(["copies are missing from the file: lm_head.weight", "1 of 1"], model, file=tmp_path)


def test_embeddings_that_nobody_trains_are_a_note(tmp_path):
    model, _, _ = trained(lambda: llama(vocab_size=999))
    model.save_pretrained(tmp_path, save_embedding_layers=True)
    one(["note: most of the file", "model.embed_tokens.weight", "lm_head.weight"], model,
        file=tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merged_files_that_are_the_base_in_part_or_twice_the_update_are_told(dtype, tmp_path):
    model, _, _ = trained()
    base, whole = llama().state_dict(), unwrapped(model).state_dict()
    one(["weights are the base's", "14 of 14"], model, file=written(base, tmp_path, dtype))
    part = {n: base[n] if "layers.1." in n else t for n, t in whole.items()}
    one(["weights are the base's", "7 of 14"], model, file=written(part, tmp_path, dtype))
    double = {n: 2 * t - base[n] for n, t in whole.items()}
    one(["merged twice", "14 of 14"], model, file=written(double, tmp_path, dtype))
    other = {n: t + 0.1 * torch.randn(t.shape) for n, t in whole.items()}
    one(["neither", "14 of 14"], model, file=written(other, tmp_path, dtype))


def test_the_wrappers_names_in_a_merged_file_are_named(tmp_path):
    model, _, _ = trained()
    state = {n.replace("q_proj.", "q_proj.base_layer."): t
             for n, t in unwrapped(model).state_dict().items()}
    lines = said(model, file=written(state, tmp_path))
    assert len(lines) == 2 and "4 of 29" in lines[0] and "q_proj.base_layer.weight" in lines[0]
    assert "missing from the merged file" in lines[1] and "2 of 14" in lines[1]


@pytest.mark.parametrize("options, words", [
    ({"rank_pattern": {"q_prj": 2, "v_proj": 2}}, ["rank_pattern", "q_prj", "1 of 2", "q_proj"]),
    ({"alpha_pattern": {"lm_head": 3}}, ["alpha_pattern", "lm_head", "1 of 1"]),
    ({"rank_pattern": {"proj": 2}}, ["rank_pattern", "proj", "1 of 1"]),
    ({"target_modules": [*ALL, "out_proj"]}, ["target_modules", "out_proj", "1 of 8", "o_proj"]),
    ({"target_modules": "all-linear", "exclude_modules": ["kproj"]},
     ["exclude_modules", "kproj", "k_proj"]),
    ({"target_modules": "all-linear", "exclude_modules": ".*kproj"}, ["exclude_modules", "1 of 1"]),
    ({"layers_to_transform": [1, 2]}, ["layers_to_transform", ": 2 (", "1 of 2"])])
def test_entries_that_name_nothing_are_found_with_the_nearest_names(options, words):
    one(["names what is not there", *words], made(**options))


def test_an_adapter_or_a_copy_on_one_side_of_a_tie_is_found_and_so_is_the_torn_tie(tmp_path):
    words = ["on one side of a tie: lm_head", "1 of 15", "model.embed_tokens"]
    model, _, _ = trained(tied, target_modules=[*ALL, "lm_head"])
    unwrapped(model).save_pretrained(tmp_path)  # the head under the embedding's name alone
    one(words, model, file=tmp_path)
    model = made(tied(), modules_to_save=["lm_head"])
    before = snapshot(model)
    one(words, train(model, adam(model), 2), before=before)
    one(["a tie is torn: model.embed_tokens.weight and lm_head.weight"],
        model.merge_and_unload(), before=before)


# Modes, and adapters beside one another

def test_an_adapter_that_is_added_in_eval_mode_has_its_dropout_in_training_mode():
    model = made().eval()
    model.add_adapter("second", peft.LoraConfig(r=2, lora_dropout=0.1, target_modules=ALL))
    model.set_adapter("second")
    lines = said(model)
    assert any("dropout is in another mode" in s and "14 of" in s for s in lines), lines
    assert said(model.eval()) == []


def test_the_end_that_is_masked_as_padding_is_found():
    model = made()
    ids = BATCH["input_ids"].clone()
    ids[:, -1] = model.config.eos_token_id
    labels = ids.masked_fill(ids == model.config.eos_token_id, -100)
    one(["end of the sentence", "2 ends 3 of 3"], model, None, {"input_ids": ids, "labels": labels})
    assert said(model, None, {"input_ids": ids, "labels": ids}) == []


def test_a_loss_of_nan_from_the_base_is_found():
    base = llama()
    with torch.no_grad(), warnings.catch_warnings():
        base.model.norm.weight[0] = torch.nan
    one(["the loss is no number", "(nan)"], made(base), None, BATCH)
