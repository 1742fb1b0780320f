"""Adapters as files: round trips, the same bytes, PEFT's files of four versions, and damage."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import lora_mini as lm
from lora_mini import adapters
from lora_mini.variants import DoRALinear, LoRAFALinear, PiSSALinear
from lora_mini.world.gpt import GPT, Config

FIXTURES = Path(__file__).parents[1] / "fixtures" / "peft"
sys.path.insert(0, str(FIXTURES))
from tiny import Tiny  # noqa: E402

X = torch.linspace(-2, 2, 30).view(5, 6)
OPTIONS = {
    "lora": {}, "rslora": {"rslora": True}, "dropout": {"dropout": 0.25},
    "dora": {"layer": DoRALinear}, "pissa": {"layer": PiSSALinear},
    "rspissa": {"layer": PiSSALinear, "rslora": True}, "fa": {"layer": LoRAFALinear},
    "copies": {"modules_to_save": ["head"]},
    "mixed": {"rank_pattern": {"up_proj": 4}, "alpha_pattern": {"q_proj": 7.5}},
}


def tuned(seed=1, **options):
    torch.manual_seed(seed)
    model = Tiny()
    lm.attach(model, ["q_proj", "up_proj"], 2, 5, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def saved(folder, **options):
    model = tuned(**options)
    adapters.save(model, folder)
    return model


def config(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def tensors(folder, change):
    path = folder / "adapter_model.safetensors"
    state = load_file(path)
    save_file(change(state) or state, path)


@pytest.mark.parametrize("kind", OPTIONS)
def test_what_was_saved_is_what_is_loaded_and_the_base_is_untouched(tmp_path, kind):
    model = saved(tmp_path, **OPTIONS[kind])
    other, bare = Tiny(), Tiny()
    report = adapters.load(other, tmp_path)
    torch.testing.assert_close(other.eval()(X), model(X), rtol=1e-5, atol=1e-6)
    assert report.checked and set(report.layers) == {"block.q_proj", "block.up_proj"}
    assert not lm.trainable_parameters(other)[0]
    lm.detach(other)
    for (name, p), q in zip(other.named_parameters(), bare.parameters(), strict=True):
        assert torch.equal(p, q), name


def test_a_report_is_one_sentence_and_counts_as_by_hand(tmp_path):
    saved(tmp_path / "a", **OPTIONS["copies"])
    report = adapters.load(Tiny(), tmp_path / "a", "legal")
    assert report.numbers == 2 * 12 + 2 * 16 + 33
    assert str(report) == (f"{tmp_path / 'a'}: 2 layers and trained copies of head, 89 numbers, "
                           "are the active adapter 'legal'; the base is the one that it was "
                           "trained on.")


def test_an_adapter_can_train_further_and_one_of_several_can_be_saved(tmp_path):
    model = saved(tmp_path / "a")
    adapters.add(model, "two", "q_proj", 1, 3)
    adapters.save(model, tmp_path / "b", "default")
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    other = Tiny()
    adapters.load(other, tmp_path / "a", trainable=True)
    assert lm.trainable_parameters(other)[1] == 2 * 12 + 2 * 16
    adapters.save(other, tmp_path / "c")
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "c" / file).read_bytes()


def test_another_process_writes_the_same_bytes(tmp_path):
    saved(tmp_path / "a", **OPTIONS["copies"])
    code = (f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            f"import test_files as t; from pathlib import Path\n"
            f"t.saved(Path({str(tmp_path / 'b')!r}), **t.OPTIONS['copies'])")
    subprocess.run([sys.executable, "-c", code], check=True)
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_only_fields_that_the_oldest_peft_knows_are_written(tmp_path):
    saved(tmp_path)
    known = json.loads((FIXTURES / "0.9.0" / "mixed" / "adapter_config.json").read_text())
    assert json.loads((tmp_path / "adapter_config.json").read_text()).keys() <= known.keys()


@pytest.mark.parametrize("folder", sorted(FIXTURES.glob("*/*/")),
                         ids=lambda p: f"{p.parent.name} {p.name}")
def test_files_of_several_peft_versions_give_their_outputs(folder):
    model, outputs = Tiny(), load_file(folder / "outputs.safetensors")
    report = adapters.load(model, folder)
    torch.testing.assert_close(model.eval()(outputs["x"]), outputs["y"], rtol=1e-5, atol=1e-6)
    assert not report.checked and report.passed_over == ()
    assert "was not checked" in str(report)
    assert not torch.allclose(Tiny()(outputs["x"]), outputs["y"], atol=0.01)


def test_all_four_versions_are_there():
    assert {p.name for p in FIXTURES.iterdir() if p.is_dir() and p.name[0].isdigit()} == {
        "0.9.0", "0.10.0", "0.13.0", "0.21.2"}


def test_a_base_in_other_bits_is_the_same_and_another_base_is_not(tmp_path):
    model = Tiny().bfloat16().float()
    lm.attach(model, "q_proj", 2, 5)
    adapters.save(model, tmp_path)
    for same in (Tiny(), Tiny().bfloat16()):
        assert adapters.load(same, tmp_path).checked
    other = Tiny()
    with torch.no_grad():
        other.head.weight[0, 0] += 0.1
    with pytest.raises(ValueError, match=r"trained on another base.*any_base=True"):
        adapters.load(other, tmp_path)
    assert adapters.names(other) == []
    report = adapters.load(other, tmp_path, any_base=True)
    assert not report.checked


def test_the_fingerprint_is_that_of_the_base_with_any_adapter_and_without():
    bare = adapters.fingerprint(Tiny())
    for options in OPTIONS.values():
        assert adapters.fingerprint(tuned(**options)) == bare
    model = Tiny()
    with torch.no_grad():
        model.block.q_proj.bias[0] += 0.01
    assert adapters.fingerprint(model) != bare


def test_a_list_of_names_that_would_take_more_is_written_as_a_pattern(tmp_path):
    """PEFT takes a name for the end of a name: "head" would take "side.head" as well."""
    class Twin(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.side = Tiny()
            self.head = torch.nn.Linear(3, 3)

        def forward(self, x):
            return self.head(self.side(x))
    model = Twin()
    lm.attach(model, "head", 2, 5, exclude="side.head")
    adapters.save(model, tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"] == "head"
    assert adapters.load(Twin(), tmp_path, any_base=True).layers == ("head",)
    model = Twin()
    lm.attach(model, "q_proj", 2, 5, modules_to_save=["head"])
    model = Twin()
    adapters.add(model, "x", "q_proj", 2, 5, modules_to_save=["side.head"])
    adapters.save(model, tmp_path)
    assert adapters.load(Twin(), tmp_path, any_base=True).copies == ("side.head",)


@pytest.mark.parametrize("spoil, words", [
    (lambda m: lm.detach(m), "no adapter to save"),
    (lambda m: adapters.switch(m, None), "no adapter is active: name one of default"),
    (lambda m: lm.set_strength(m, 0.5), "strength of the adapter is 0.5"),
    (lambda m: m.block.q_proj.lora_A.data.fill_(float("nan")), "NaN or infinite numbers"),
])
def test_what_would_be_lost_or_is_of_no_use_is_not_written(tmp_path, spoil, words):
    model = tuned()
    spoil(model)
    with pytest.raises(ValueError, match=words):
        adapters.save(model, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def renamed(old, new):
    return lambda state: {key.replace(old, new): t for key, t in state.items()}


def without(end):
    return lambda state: {key: t for key, t in state.items() if not key.endswith(end)}


def put(key, tensor):
    return lambda state: state | {f"base_model.model.{key}": tensor}


Q = "block.q_proj.lora_"
SPOILED = {
    "no folder": (lambda f: [p.unlink() for p in f.iterdir()], "no adapter_config.json in"),
    "no tensors": (lambda f: (f / "adapter_model.safetensors").unlink(),
                   "there is no adapter_model.safetensors"),
    "a pickle": (lambda f: (f / "adapter_model.safetensors").rename(f / "adapter_model.bin"),
                 "only adapter_model.bin, which is a pickle"),
    "config empty": (lambda f: (f / "adapter_config.json").write_text(""), "is damaged"),
    "config a list": (lambda f: (f / "adapter_config.json").write_text("[]"), "is damaged"),
    "config deep": (lambda f: (f / "adapter_config.json").write_text("[" * 10**5), "is damaged"),
    "config binary": (lambda f: (f / "adapter_config.json").write_bytes(b"\xff\xfe{"),
                      "is damaged"),
    "no rank": (lambda f: (f / "adapter_config.json").write_text('{"peft_type": "LORA"}'),
                "says nothing about r, lora_alpha"),
    "another method": (lambda f: config(f, peft_type="LOHA"), "only LORA is read"),
    "rank 0": (lambda f: config(f, r=0), "r must be a positive number, got 0"),
    "rank true": (lambda f: config(f, r=True), "r must be a positive number"),
    "alpha a text": (lambda f: config(f, lora_alpha="16"), "lora_alpha must be a positive"),
    "another rank": (lambda f: config(f, r=4), "says rank 4 .* its factors have 2"),
    "a pattern for nothing": (lambda f: config(f, alpha_pattern={"k_proj": 3}),
                              "alpha_pattern names 'k_proj'"),
    "a pattern that is none": (lambda f: config(f, rank_pattern={"(": 3}), r"rank_pattern names"),
    "a pattern that takes for ever": (lambda f: config(f, alpha_pattern={"(q*)*x" * 20: 3}),
                                      "without a repeated group"),
    "a pattern that is no text": (lambda f: config(f, modules_to_save=[3]), "holds 3; read are"),
    "patterns a list": (lambda f: config(f, rank_pattern=[3]), "must be a dict"),
    "dora without magnitudes": (lambda f: config(f, use_dora=True),
                                "lora_magnitude_vector is missing"),
    "pissa": (lambda f: config(f, init_lora_weights="pissa_niter_4"), "rewrites the base"),
    "olora": (lambda f: config(f, init_lora_weights="olora"), "rewrites the base"),
    "biases": (lambda f: config(f, bias="all"), "biases of the base were trained"),
    "transposed": (lambda f: config(f, fan_in_fan_out=True), "transposed"),
    "what is not read": (lambda f: config(f, trainable_token_indices=[3], use_qalora=True),
                         "trainable_token_indices, use_qalora"),
    "what nobody knows": (lambda f: config(f, use_magic=1), "uses what is not read here: use_mag"),
    "a copy that is not there": (lambda f: config(f, modules_to_save=["head"]),
                                 "the file holds nothing of it"),
    "dropout 2": (lambda f: config(f, lora_dropout=2), "dropout must be"),
    "tensors empty": (lambda f: (f / "adapter_model.safetensors").write_bytes(b""), "is damaged"),
    "tensors cut": (lambda f: (f / "adapter_model.safetensors").write_bytes(
        (f / "adapter_model.safetensors").read_bytes()[:-7]), "is damaged"),
    "a header too long": (lambda f: (f / "adapter_model.safetensors").write_bytes(
        (10**15).to_bytes(8, "little") + b"{}"), "is damaged"),
    "a header that lies": (lambda f: (f / "adapter_model.safetensors").write_bytes(
        (64).to_bytes(8, "little") + b'{"x":{"dtype":"F32","shape":[9],"data_offsets":[0,4]}}'
        .ljust(64) + b"\0" * 4), "is damaged"),
    "no tensor in it": (lambda f: save_file({}, f / "adapter_model.safetensors"), "is empty"),
    "no factor": (lambda f: tensors(f, lambda s: {"base_model.model.head.bias": torch.zeros(3)}),
                  "no factor at all"),
    "another prefix": (lambda f: tensors(f, renamed("base_model.model.", "model.")),
                       "does not begin with 'base_model.model.'"),
    "another layer": (lambda f: tensors(f, renamed("q_proj", "k_proj")),
                      "no layer 'block.k_proj'; the nearest are"),
    "no linear": (lambda f: tensors(f, renamed("block.q_proj", "block")), "'block' is a Block"),
    "half a layer": (lambda f: tensors(f, without("q_proj.lora_B.weight")), "lora_B is missing"),
    "one too many": (lambda f: tensors(f, put(Q + "magnitude_vector", torch.ones(6))),
                     "lora_magnitude_vector is one too many"),
    "what is no factor": (lambda f: tensors(f, put(Q + "C.weight", torch.ones(6))), "no factor of"),
    "surplus": (lambda f: tensors(f, put("head.weight", torch.ones(3, 10))),
                "modules_to_save .empty. names no module"),
    "another shape": (lambda f: tensors(f, put(Q + "A.weight", torch.ones(2, 7))),
                      r"must be \(r, 6\) and \(6, r\)"),
    "transposed factors": (lambda f: tensors(f, put(Q + "A.weight", torch.ones(6, 2))),
                           r"must be \(r, 6\)"),
    "NaN": (lambda f: tensors(f, put(Q + "A.weight", torch.full((2, 6), float("nan")))),
            "NaN or infinite"),
    "whole numbers": (lambda f: tensors(f, put(Q + "A.weight", torch.ones(2, 6).int())),
                      "is torch.int32; float16"),
    "float64": (lambda f: tensors(f, put(Q + "A.weight", torch.ones(2, 6).double())),
                "is torch.float64; float16"),
}


@pytest.mark.parametrize("what", SPOILED)
def test_nothing_loads_silently_and_the_model_is_as_it_was(tmp_path, what):
    saved(tmp_path)
    spoil, words = SPOILED[what]
    spoil(tmp_path)
    model = Tiny()
    before = {n: p.clone() for n, p in model.named_parameters()}
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        adapters.load(model, tmp_path, any_base=True)
    assert adapters.names(model) == [] and all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


@pytest.mark.parametrize("spoil, words", [
    (lambda f: tensors(f, put("head.weight", torch.ones(3, 9))), r"has 'weight' of shape \(3, 9\)"),
    (lambda f: tensors(f, without("head.bias")), "has 'bias' of shape nothing, here"),
    (lambda f: config(f, modules_to_save=["head", "embed"]), "names 'embed', and the file holds"),
])
def test_a_copy_must_be_whole(tmp_path, spoil, words):
    saved(tmp_path, **OPTIONS["copies"])
    spoil(tmp_path)
    with pytest.raises(ValueError, match=words):
        adapters.load(Tiny(), tmp_path, any_base=True)


def test_over_an_adapter_of_that_name_or_into_a_merged_one_nothing_is_loaded(tmp_path):
    model = saved(tmp_path)
    with pytest.raises(ValueError, match="has an adapter 'default' already"):
        adapters.load(model, tmp_path)
    lm.merge(model)
    with pytest.raises(ValueError, match="is merged"):
        adapters.load(model, tmp_path, "two")
    lm.unmerge(model)
    assert adapters.load(model, tmp_path, "two").checked
    assert adapters.names(model) == ["default", "two"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_factors_of_16_bits_are_read_exactly(tmp_path, dtype):
    model = saved(tmp_path)
    tensors(tmp_path, lambda state: {key: t.to(dtype) for key, t in state.items()})
    other = Tiny()
    adapters.load(other, tmp_path, any_base=True)
    found, whole = other.block.q_proj.lora_A, model.block.q_proj.lora_A
    assert found.dtype == torch.float32 and torch.equal(found, whole.to(dtype).float())


def test_a_tied_head_keeps_its_tie(tmp_path):
    def tied():
        torch.manual_seed(0)
        model = GPT(Config(11, context=8, d_model=8, heads=2, layers=1))
        model.head.weight = model.embed.weight
        return model.eval()
    model, tokens = tied(), torch.arange(12).view(2, 6) % 11
    lm.attach(model, ["head", "q_proj"], 2, 5)
    torch.nn.init.normal_(model.head.lora_B)
    adapters.save(model, tmp_path)
    other = tied()
    adapters.load(other, tmp_path)
    assert torch.equal(other(tokens), model(tokens))
    assert other.head.base.weight is other.embed.weight
