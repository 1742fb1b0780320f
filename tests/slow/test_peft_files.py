"""PEFT reads our adapters and we read PEFT's: the same logits, the base untouched."""

import sys
from pathlib import Path

import peft
import pytest
import torch
import transformers
from torch import nn

import lora_mini as lm
from lora_mini import adapters
from lora_mini.variants import DoRALinear, LoRAFALinear, PiSSALinear

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures" / "peft"))
from tiny import Tiny, shaken  # noqa: E402

X = torch.linspace(-2, 2, 30).view(5, 6)
IDS = torch.arange(14).view(2, 7)
KINDS = {  # ours, PEFT's
    "lora": ({}, {}),
    "rslora": ({"rslora": True}, {"use_rslora": True}),
    "dora": ({"layer": DoRALinear}, {"use_dora": True}),
    "fa": ({"layer": LoRAFALinear}, {}),
    "dropout": ({"dropout": 0.25}, {"lora_dropout": 0.25}),
    "copies": ({"modules_to_save": ["head"]}, {"modules_to_save": ["head"]}),
    "mixed": ({"rank_pattern": {"up_proj": 4}, "alpha_pattern": {"q_proj": 7}},
              {"rank_pattern": {"up_proj": 4}, "alpha_pattern": {"q_proj": 7}}),
}


def llama():
    """A small Hugging Face model with a tied head."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=20, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True)
    return transformers.LlamaForCausalLM(config).eval()


def ours(**options):
    model = Tiny()
    lm.attach(model, ["q_proj", "up_proj"], 2, 5, **options)
    return shaken(model).eval()


def theirs(base, **options):
    config = peft.LoraConfig(r=2, lora_alpha=5, **{"target_modules": ["q_proj", "up_proj"]}
                             | options)
    return shaken(peft.get_peft_model(base, config)).eval()


@pytest.mark.parametrize("kind", [*KINDS, "pissa"])
def test_peft_reads_what_we_write(tmp_path, kind):
    model = ours(**KINDS[kind][0] if kind in KINDS else {"layer": PiSSALinear})
    adapters.save(model, tmp_path)
    base = Tiny()
    before = {n: p.clone() for n, p in base.named_parameters()}
    read = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    torch.testing.assert_close(read(X), model(X), rtol=1e-5, atol=1e-6)
    after = {n.replace("base_layer.", ""): p for n, p in read.get_base_model().named_parameters()}
    assert all(torch.equal(after[n] if n in after else
                           after[n.replace("head.", "head.original_module.")], p)
               for n, p in before.items())


@pytest.mark.parametrize("kind", KINDS)
def test_we_read_what_peft_writes(tmp_path, kind):
    model = theirs(Tiny(), **KINDS[kind][1])
    model.save_pretrained(tmp_path)
    other = Tiny()
    report = adapters.load(other, tmp_path)
    torch.testing.assert_close(other.eval()(X), model(X), rtol=1e-5, atol=1e-6)
    assert not report.checked


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_a_start_that_changes_the_base_is_refused_and_its_conversion_read(tmp_path, start):
    model = theirs(Tiny(), init_lora_weights=start)
    model.save_pretrained(tmp_path / "raw")
    with pytest.raises(ValueError, match="rewrites the base"):
        adapters.load(Tiny(), tmp_path / "raw")
    torch.manual_seed(1)
    fresh = peft.get_peft_model(Tiny(), peft.LoraConfig(
        r=2, lora_alpha=5, target_modules=["q_proj", "up_proj"], init_lora_weights=start))
    fresh.peft_config["default"].init_lora_weights = True  # as PEFT's documentation does
    fresh.save_pretrained(tmp_path / "start")
    fresh.peft_config["default"].init_lora_weights = start
    shaken(fresh).eval()
    fresh.save_pretrained(tmp_path / "plain",
                          path_initial_model_for_weight_conversion=tmp_path / "start")
    other = Tiny()
    adapters.load(other, tmp_path / "plain")
    torch.testing.assert_close(other.eval()(X), fresh(X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_hugging_face_model_goes_both_ways(tmp_path, dtype):
    model = llama().to(dtype)
    taken = lm.attach(model, "all-linear", 2, 5)
    assert len(taken) == 14 and not any("lm_head" in name for name in taken)
    shaken(model).eval()
    adapters.save(model, tmp_path / "ours")
    read = peft.PeftModel.from_pretrained(llama().to(dtype), tmp_path / "ours").eval()
    near = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 0, "atol": 0}
    torch.testing.assert_close(read(IDS).logits, model(IDS).logits, **near)
    read.save_pretrained(tmp_path / "theirs")
    other = llama().to(dtype)
    adapters.load(other, tmp_path / "theirs")
    torch.testing.assert_close(other(IDS).logits, model(IDS).logits, **near)


def test_an_adapted_model_can_not_be_saved_whole_and_says_what_to_do(tmp_path):
    """Hugging Face would write "q_proj.base.weight", and fill "q_proj.weight" at random."""
    model = llama()
    lm.attach(model, "all-linear", 2, 5)
    with pytest.raises(ValueError, match=r"names that from_pretrained fills at random.*save"):
        model.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())
    shaken(model).eval()
    expected = model(IDS).logits
    adapters.switch(model, None)
    model.save_pretrained(tmp_path / "base")
    adapters.switch(model, "default")
    lm.merge(model, keep_base=False)
    model.save_pretrained(tmp_path / "merged")
    again = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(again(IDS).logits, expected, rtol=1e-4, atol=1e-5)
    bare = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "base").eval()
    assert torch.equal(bare(IDS).logits, llama()(IDS).logits)


def test_without_the_refusal_a_reload_would_be_filled_at_random(tmp_path):
    model = llama()
    lm.attach(model, "all-linear", 2, 5)
    type(model).save_pretrained(model, tmp_path)
    again = transformers.LlamaForCausalLM.from_pretrained(tmp_path).eval()
    assert not torch.allclose(again(IDS).logits, model(IDS).logits, atol=0.01)


@pytest.fixture
def pair(tmp_path):
    """Adapters "a" and "b", on our model and on PEFT's."""
    model = Tiny()
    for seed, name in ((1, "a"), (2, "b")):
        adapters.add(model, name, ["q_proj", "up_proj"], 2, 5)
        adapters.save(shaken(model, seed), tmp_path / name)
    read = peft.PeftModel.from_pretrained(Tiny(), tmp_path / "a", adapter_name="a")
    read.load_adapter(tmp_path / "b", "b")
    return model.eval(), read.eval()


def test_a_blend_is_pefts_by_concatenation_and_its_linear_merge(pair):
    model, read = pair
    for theirs_, ours_ in (("cat", "concat"), ("linear", "linear")):
        read.add_weighted_adapter(["a", "b"], [0.7, 0.4], theirs_, combination_type=theirs_)
        read.set_adapter(theirs_)
        adapters.blend(model, {"a": 0.7, "b": 0.4}, theirs_, ours_)
        torch.testing.assert_close(read.eval()(X), model.eval()(X), rtol=1e-4, atol=1e-5)


def test_rows_are_pefts_mixed_batch(pair):
    model, read = pair
    names = ["a", "b", "__base__", "b", "a"]
    with adapters.rows(model, [None if n == "__base__" else n for n in names]):
        torch.testing.assert_close(model(X), read(X, adapter_names=names), rtol=1e-5, atol=1e-6)


def test_a_transposed_layer_of_gpt2_is_refused(tmp_path):
    config = transformers.GPT2Config(vocab_size=20, n_embd=16, n_layer=1, n_head=2, n_positions=8)
    model = peft.get_peft_model(transformers.GPT2LMHeadModel(config), peft.LoraConfig(
        r=2, lora_alpha=5, target_modules=["c_attn"], fan_in_fan_out=True))
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="transposed, as GPT-2's Conv1D"):
        adapters.load(transformers.GPT2LMHeadModel(config), tmp_path)


def test_the_models_of_these_tests_are_linear_where_they_should_be():
    assert sum(isinstance(m, nn.Linear) for m in llama().modules()) == 15
