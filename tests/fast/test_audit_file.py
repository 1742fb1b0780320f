"""A file held against the model: sound ones are silent, planted faults are named."""

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import lora_mini as lm
from lora_mini import adapters
from lora_mini.adapters.reading import CONFIG, TENSORS
from lora_mini.audit import snapshot
from lora_mini.lora import LoRALinear
from lora_mini.variants import DoRALinear, LoRAFALinear, PiSSALinear
from tests.fixtures.audits import (
    TOKENS,
    adam,
    four_bits,
    gpt,
    in_half,
    one,
    said,
    tiny,
    train,
    trained,
)
from tests.fixtures.peft import tiny as tiny_model
from tests.fixtures.peft.tiny import Tiny, shaken

Q, UP = "base_model.model.block.q_proj", "base_model.model.block.up_proj"
SOUND = {
    "LoRA": trained(), "rsLoRA": trained(rslora=True), "DoRA": trained(layer=DoRALinear),
    "PiSSA": trained(layer=PiSSALinear), "LoRA-FA": trained(layer=LoRAFALinear),
    "copies": trained(modules_to_save=["head"]), "four bits": four_bits, "bfloat16": in_half,
    "patterns": trained(rank_pattern={"q_proj": 4}, alpha_pattern={"up_proj": 9}),
}


@pytest.mark.parametrize("name", SOUND)
def test_what_was_saved_of_a_sound_model_is_sound(name, tmp_path):
    model, optimizer, before = SOUND[name]()
    adapters.save(model, tmp_path)
    for file in (tmp_path, str(tmp_path / TENSORS)):
        assert said(model, optimizer, TOKENS, before=before, file=file) == []


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_merged_file_of_a_sound_model_is_sound(name, dtype, tmp_path):
    model, _, _ = SOUND[name]()
    plain = copy.deepcopy(model)
    lm.merge(plain, keep_base=False)
    assert said(model, file=written(plain, tmp_path, dtype)) == []


def test_a_file_that_was_loaded_again_is_sound(tmp_path):
    model = saved(tmp_path)
    adapters.load(again := tiny_base(), tmp_path)
    assert said(again, file=tmp_path) == said(model, file=tmp_path) == []


FILES = sorted(p.parent for p in Path(tiny_model.__file__).parent.glob(f"*/*/{CONFIG}"))


@pytest.mark.parametrize("folder", FILES, ids=lambda p: "/".join(p.parts[-2:]))
def test_files_of_many_versions_of_peft_are_sound(folder):
    adapters.load(model := Tiny(), folder)
    assert said(model, file=folder) == []


def test_a_strength_is_no_other_scale(tmp_path):
    model = saved(tmp_path)
    lm.set_strength(model, 0.5)
    assert said(model, file=tmp_path) == []


def test_an_export_with_an_alpha_of_its_own_is_sound(tmp_path):
    model = shaken(tiny())
    assert said(model, file=exported(model, tmp_path, torch.tensor(4.0))) == []
    one(["scale is not the model's", "diffusion_model.block.q_proj", "4, in the model 2"], model,
        file=exported(model, tmp_path, torch.tensor(8.0)))
    one(["doesn't say its alpha", "2 of 2"], model, file=exported(model, tmp_path))
    path = exported(model, tmp_path)
    save_file(load_file(path), path, {"lora_alpha": "4"})
    assert said(model, file=path) == []


@pytest.mark.parametrize("name, words", [
    ("q_proj", None), ("k_proj", "adapt: lora_unet_block_k_proj, ")])
def test_an_export_may_have_underscores_for_dots(name, words, tmp_path):
    model = shaken(tiny())
    path = exported(model, tmp_path, torch.tensor(4.0))
    save_file({n.replace("diffusion_model.block.", "lora_unet_block_").replace("q_proj", name): t
               for n, t in load_file(path).items()}, path)
    lines = said(model, file=path)
    assert lines == [] if words is None else words in lines[0], lines


def tiny_base():
    return lm.detach(model := tiny()) or model


def saved(folder, **options):
    """A model whose adapter has moved, and is saved there."""
    model = shaken(tiny(**options))
    adapters.save(model, folder)
    return model


def changed(folder, tensors=lambda t: t, **config):
    """What lies in a folder, changed: its tensors by a function, its config by fields."""
    save_file({n: t.contiguous() for n, t in tensors(load_file(folder / TENSORS)).items()},
              folder / TENSORS)
    fields = json.loads((folder / CONFIG).read_text()) | config
    (folder / CONFIG).write_text(json.dumps(
        {key: value for key, value in fields.items() if value is not ...}))
    return folder


def exported(model, folder, alpha=None):
    """A file as image tools write it: down, up, and an alpha for each layer or none."""
    tensors = {}
    for name, layer in lm.model.wrappers(model).items():
        at = f"diffusion_model.{name}"
        tensors |= {f"{at}.lora_down.weight": layer.lora_A.detach().clone(),
                    f"{at}.lora_up.weight": layer.lora_B.detach().clone()}
        tensors |= {} if alpha is None else {f"{at}.alpha": alpha.clone()}
    save_file(tensors, folder / "lora.safetensors")
    return folder / "lora.safetensors"


def written(model, folder, dtype=torch.float32, change=lambda t: t):
    """A whole state dict as a file, changed by a function."""
    state = {n: t.detach().to(dtype) if t.is_floating_point() else t.detach()
             for n, t in model.state_dict().items()}
    save_file({n: t.contiguous().clone() for n, t in change(state).items()},
              folder / "model.safetensors")
    return folder / "model.safetensors"


# It can't be read

def test_what_is_no_path_is_a_type_error():
    with pytest.raises(TypeError):
        said(tiny(), file=3)


def test_a_file_that_is_not_there_or_cut_off_is_a_finding(tmp_path):
    one(["can't be read", "nowhere"], tiny(), file=tmp_path / "nowhere")
    model = saved(tmp_path)
    whole = (tmp_path / TENSORS).read_bytes()
    for damaged in (whole[:-1], whole[:20], b"", b"PK\x03\x04" + whole):
        (tmp_path / TENSORS).write_bytes(damaged)
        one(["can't be read", "save it anew"], model, file=tmp_path)


def test_a_pickle_is_named_and_left_alone(tmp_path):
    model = saved(tmp_path)
    (tmp_path / TENSORS).unlink()
    (tmp_path / "adapter_model.bin").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    one(["can't be read", "adapter_model.bin, a pickle"], model, file=tmp_path)


def test_a_file_without_an_adapter_or_without_a_tensor_is_a_finding(tmp_path):
    model = saved(tmp_path)
    changed(tmp_path, lambda t: {"x": torch.zeros(2)})
    one(["holds no adapter", "1 tensors"], model, file=tmp_path)
    save_file({}, tmp_path / "empty.safetensors")
    one(["the file is empty"], model, file=tmp_path / "empty.safetensors")


@pytest.mark.parametrize("config", [None, "{", "[]", "{}", '{"r": 2, "peft_type": "LORA"}'])
def test_a_config_that_is_missing_or_damaged_is_a_finding(config, tmp_path):
    model = saved(tmp_path)
    (tmp_path / CONFIG).unlink() if config is None else (tmp_path / CONFIG).write_text(config)
    one(["config can't be used", CONFIG, "guesses the scale"], model, file=tmp_path)


# Names

@pytest.mark.parametrize("old, new, words", [
    ("base_model.model.", "", "put 'base_model.model.' before"),
    ("base_model.model.", "base_model.model.transformer.",
     "'base_model.model.' in place of 'base_model.model.transformer.'"),
    ("base_model.model.", "unet.", "'base_model.model.' in place of 'unet.'")])
def test_another_start_of_all_names_is_named_and_the_rest_is_still_compared(old, new, words,
                                                                            tmp_path):
    model = saved(tmp_path)
    changed(tmp_path, lambda t: {n.replace(old, new): v for n, v in t.items()})
    one(["names begin otherwise", f"{new}block.q_proj", "2 of 2", words], model, file=tmp_path)
    changed(tmp_path, r=3)
    assert len(said(model, file=tmp_path)) == 2


def test_layers_that_only_the_file_or_only_the_model_has_are_counted(tmp_path):
    model = saved(tmp_path)
    changed(tmp_path, lambda t: {n.replace("q_proj", "key"): v for n, v in t.items()})
    lines = said(model, file=tmp_path)
    assert len(lines) == 2
    assert f"the model doesn't adapt: {Q[:-6]}key (1 of 2 (50%) layers" in lines[0]
    assert Q in lines[0]
    assert f"missing from the file: {Q} (1 of 2 (50%)" in lines[1]


@pytest.mark.parametrize("q, up", [("unet.block.q_proj", "unet.block.zip_proj"),
                                   ("a.block.q_proj", "block.up_proj")])
def test_starts_that_one_change_does_not_mend_are_lost_names(q, up, tmp_path):
    model = saved(tmp_path)
    changed(tmp_path, lambda t: {n.replace(Q, q).replace(UP, up): v for n, v in t.items()})
    lines = said(model, file=tmp_path)
    assert any("doesn't adapt" in s and q in s and up in s and "2 of 2" in s for s in lines), lines


def test_a_factor_without_its_partner_is_missing(tmp_path):
    model = saved(tmp_path, layer=DoRALinear)
    changed(tmp_path, lambda t: {n: v for n, v in t.items()
                                 if "q_proj.lora_B" not in n and "up_proj.lora_m" not in n})
    one([f"missing from the file: {Q}.lora_B, {UP}.lora_magnitude_vector"], model, file=tmp_path)


def test_factors_under_names_that_peft_does_not_read_are_named(tmp_path):
    model = saved(tmp_path)
    changed(tmp_path, lambda t: {n.replace(".weight", ".default.weight"): v for n, v in t.items()})
    one(["other names than in PEFT's", f"{Q}.lora_A.default.weight", "4 of 4",
         f"{Q}.lora_A.weight"], model, file=tmp_path)


def test_tensors_of_no_module_are_named(tmp_path):
    model = saved(tmp_path)
    changed(tmp_path, lambda t: t | {"base_model.model.tail.weight": torch.ones(2)})
    one(["belong to no module of the model: tail.weight", "1 of 5"], model, file=tmp_path)


# Numbers, ranks, scales, values

def test_numbers_that_are_not_finite_are_named(tmp_path):
    model = saved(tmp_path)
    changed(tmp_path, lambda t: t | {f"{Q}.lora_A.weight": torch.full((2, 6), torch.nan)})
    one([f"infinite numbers in the file: {Q}", "1 of 2"], model, file=tmp_path)


def test_a_file_from_before_training_has_only_zeros_in_B(tmp_path):
    model = tiny()
    adapters.save(model, tmp_path)
    one(["every B in the file is zero", "2 layers"], shaken(model), file=tmp_path)


def test_the_rank_of_the_config_is_held_against_the_factors(tmp_path):
    model = saved(tmp_path)
    one(["config's rank contradicts", Q, "r is 4 there, the factors have 2", "2 of 2"], model,
        file=changed(tmp_path, r=4))
    changed(tmp_path, r=2, rank_pattern={"q_proj": 3})
    one([Q, "r is 3 there", "1 of 2"], model, file=tmp_path)


@pytest.mark.parametrize("config, words", [
    ({"lora_alpha": 8}, ["4, in the model 2", "2 of 2"]),
    ({"alpha_pattern": {"q_proj": 2}}, ["1, in the model 2", "1 of 2"]),
    ({"use_rslora": True}, ["2.82843, in the model 2"])])
def test_another_scale_than_the_model_has_is_found(config, words, tmp_path):
    model = saved(tmp_path)
    one(["scale is not the model's", *words], model, file=changed(tmp_path, **config))


def test_factors_of_another_step_are_found_and_those_before_training_told_apart(tmp_path):
    model = shaken(tiny(), by=0.05)  # B must not be zero at the start
    adapters.save(model, tmp_path)
    before = snapshot(model)
    shaken(model)
    one(["factors are not the model's", Q, "2 of 2", "those from before training"], model,
        file=tmp_path, before=before)
    adapters.save(model, tmp_path)
    shaken(model, by=1e-4)
    line = one(["factors are not the model's", "2 of 2"], model, file=tmp_path, before=before)
    assert "before training" not in line
    assert said(model, file=adapters.save(model, tmp_path)) == []


@pytest.mark.parametrize("layer, part", [(PiSSALinear, "lora_A"), (DoRALinear, "magnitude")])
def test_one_layer_of_a_variant_that_differs_is_found(layer, part, tmp_path):
    model = saved(tmp_path, layer=layer)
    with torch.no_grad():
        model.block.up_proj.get_parameter(part if part == "magnitude" else "lora_A").mul_(1.01)
    one(["factors are not the model's", UP, "1 of 2"], model, file=tmp_path)


@pytest.mark.parametrize("layer", [LoRALinear, DoRALinear])
def test_factors_in_sixteen_bits_are_the_same_factors(layer, tmp_path):
    model = saved(tmp_path, layer=layer)
    changed(tmp_path, lambda t: {n: v.bfloat16() for n, v in t.items()})
    assert said(model, file=tmp_path) == []


def test_copies_that_the_file_lacks_or_has_otherwise_are_found(tmp_path):
    model = saved(tmp_path, modules_to_save=["head"])
    kept = load_file(tmp_path / TENSORS)
    changed(tmp_path, lambda t: t | {"base_model.model.head.bias": torch.ones(3)})
    one(["copies in the file differ", "head.bias", "1 of 2"], model, file=tmp_path)
    save_file({n: t for n, t in kept.items() if "lora" in n}, tmp_path / TENSORS)
    one(["copies are missing from the file: head.weight, head.bias", "2 of 2"], model,
        file=tmp_path)


def test_a_file_that_is_mostly_base_is_a_note(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(900, 6), nn.Linear(6, 4))
    lm.attach(model, ["1"], 2, 4)
    adapters.save(shaken(model), tmp_path)
    changed(tmp_path, lambda t: t | {"base_model.model.0.weight": model[0].weight.data})
    line = one(["note: most of the file is the base's own: base_model.model.0.weight", "0.0 of 0.0"
                " MB"], model, file=tmp_path)
    with safe_open(tmp_path / TENSORS, "pt") as file:
        assert len(file.keys()) == 3 and "save_embedding_layers=False" in line


# Merged files

def merged(model, times=1.0, **options):
    """The state dict of the base with so many times the update in it."""
    plain = copy.deepcopy(model)
    lm.set_strength(plain, times)
    lm.merge(plain, keep_base=False)
    return plain


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("times, words", [
    (0, "weights are the base's"), (2, "merged twice"), (0.5, "merged without the scale")])
def test_a_wrong_number_of_merges_is_told(times, words, dtype, tmp_path):
    model = shaken(tiny())  # its scale is 2
    one([words, "block.q_proj.weight, block.up_proj.weight", "2 of 2"], model,
        file=written(merged(model, times), tmp_path, dtype))


def test_a_model_in_sixteen_bits_whose_file_is_the_base_is_found(tmp_path):
    model, _, _ = in_half()
    for times, words in ((0, "the base's"), (2, "merged twice")):
        one([words, "12 of 12"], model, file=written(merged(model, times), tmp_path,
                                                     torch.bfloat16))


def small(dtype, width=192, share=0.002):
    """A layer and an update of so much of its weight, below the rounding of bfloat16."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(width, width))
    lm.attach(model, ["0"], 4, 4)
    layer = model[0]
    nn.init.normal_(layer.lora_B)
    with torch.no_grad():
        layer.lora_B.mul_(share * layer.base.weight.norm() / layer.update().norm())
    layer.base.to(dtype)
    return model


@pytest.mark.parametrize("made, words", [
    (lambda W, D: W + D, None), (lambda W, D: W, "the base's"), (lambda W, D: W + 2 * D, "twice"),
    (lambda W, D: (W + D).bfloat16() + D, "twice"), (lambda W, D: W + 4 * D, "neither"),
    (lambda W, D: W + D / 2, "neither")])
def test_a_small_update_is_told_from_rounding(made, words, tmp_path):
    model = small(torch.bfloat16)
    W = made(model[0].base.weight.float(), model[0].update())
    lines = said(model, file=written(model, tmp_path, torch.bfloat16, change=lambda t: {
        "0.weight": W.bfloat16(), "0.bias": t["0.base.bias"]}))
    assert lines == [] if words is None else len(lines) == 1 and words in lines[0], lines


@pytest.mark.parametrize("width, share", [(192, 0.002), (192, 0.0005), (8, 0.0005)])
def test_a_base_that_is_rounded_in_the_model_only_is_sound(width, share, tmp_path):
    plain = merged(small(torch.float32, width, share))
    model = small(torch.bfloat16, width, share)
    for dtype in (torch.float32, torch.bfloat16):
        assert said(model, file=written(plain, tmp_path, dtype)) == []


def test_a_file_that_is_the_base_bit_for_bit_is_found_however_small_the_update(tmp_path):
    model = small(torch.bfloat16, share=1e-4)
    one(["weights are the base's: 0.weight", "1 of 1"], model, file=written(
        model, tmp_path, torch.bfloat16,
        change=lambda t: {"0.weight": t["0.base.weight"], "0.bias": t["0.base.bias"]}))


def test_layers_that_a_merge_forgot_are_counted(tmp_path):
    model = shaken(tiny())
    one(["weights are the base's: block.up_proj.weight", "1 of 2 (50%)"], model, file=written(
        merged(model), tmp_path,
        change=lambda t: t | {"block.up_proj.weight": model.block.up_proj.base.weight}))


def test_a_file_of_another_base_or_adapter_is_neither(tmp_path):
    model = shaken(tiny())
    other = merged(shaken(tiny(), seed=2))
    one(["neither the base's nor the sum", "2 of 2"], model, file=written(other, tmp_path))
    one(["another shape: block.q_proj.weight", "1 of 2"], model, file=written(
        merged(model), tmp_path, change=lambda t: t | {"block.q_proj.weight": torch.ones(3, 6)}))


def test_a_dora_that_was_merged_as_lora_is_neither(tmp_path):
    model = shaken(tiny(layer=DoRALinear))
    other = tiny()
    for name in ("q_proj", "up_proj"):
        layer = getattr(other.block, name)
        for key in layer.trains:
            getattr(layer, key).data = getattr(model.block, name).get_parameter(key).data
    one(["neither", "2 of 2"], model, file=written(merged(other), tmp_path))


def test_names_of_a_merged_file_are_compared(tmp_path):
    model = shaken(tiny())
    plain = merged(model)
    one(["tensors that the model lacks: block.q_proj.lora_scale", "1 of 6"], model, file=written(
        plain, tmp_path, change=lambda t: t | {"block.q_proj.lora_scale": torch.ones(1)}))
    one(["missing from the merged file: block.up_proj.weight", "1 of 2"], model, file=written(
        plain, tmp_path, change=lambda t: {n: v for n, v in t.items() if "up_proj" not in n}))
    one(["names begin otherwise", "put 'block.' before"], model, file=written(
        plain, tmp_path, change=lambda t: {n.removeprefix("block."): v for n, v in t.items()}))


def test_copies_must_be_in_a_merged_file(tmp_path):
    model = shaken(tiny(modules_to_save=["head"]))
    one(["weights are the base's: head.weight, head.bias", "2 of 4"], model, file=written(
        merged(model), tmp_path,
        change=lambda t: t | {"head.weight": model.head.original.weight,
                              "head.bias": model.head.original.bias}))


def test_a_four_bit_base_that_was_merged_in_full_precision_is_sound(tmp_path):
    model, _, _ = four_bits()
    plain = merged(model)
    with torch.no_grad():
        for name, layer in lm.model.wrappers(model).items():
            plain.get_submodule(name).weight += 0.05 * torch.randn(layer.base.weight.shape) \
                * layer.base.weight.std()
    assert said(model, file=written(plain, tmp_path)) == []
    one(["weights are the base's", "6 of 6"], model, file=written(merged(model, 0), tmp_path))


def test_a_merged_model_in_parts_is_one_file(tmp_path):
    model = shaken(tiny())
    state = {n: t.detach().clone() for n, t in merged(model).state_dict().items()}
    for i, (name, tensor) in enumerate(state.items()):
        save_file({name: tensor}, tmp_path / f"model-{i}.safetensors")
    assert said(model, file=tmp_path) == []


def test_a_file_without_an_adapter_in_the_model_is_a_finding(tmp_path):
    saved(tmp_path)
    one(["no adapter"], tiny_base(), file=tmp_path)


def test_a_file_leaves_the_model_as_it_is(tmp_path):
    model = gpt(dropout=0.1)
    train(model, adam(model), 2)
    adapters.save(model, tmp_path)
    kept = copy.deepcopy(model.state_dict())
    said(model, None, TOKENS, file=tmp_path)
    assert model.training
    assert all(torch.equal(t, kept[n]) for n, t in model.state_dict().items())
