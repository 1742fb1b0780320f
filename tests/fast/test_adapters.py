"""Several adapters on one model: switched, blended, in one batch, out of a tuned model."""

import copy

import pytest
import torch
from torch import nn

import lora_mini as lm
from lora_mini import adapters
from lora_mini.adapters import shelf
from lora_mini.lora import LoRALinear
from lora_mini.variants import DoRALinear, LoRAFALinear, PiSSALinear
from lora_mini.world.gpt import GPT, Config

TOKENS = torch.arange(24).view(4, 6) % 11


def small(seed=0):
    torch.manual_seed(seed)
    return GPT(Config(11, context=8, d_model=8, heads=2, layers=1)).eval()


def moved(model, seed=1):
    """The active adapter, away from its start."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def with_two(second=LoRALinear):
    """(model, its own outputs, those with "default", those with "two")."""
    model = small()
    outputs = [model(TOKENS)]
    lm.attach(model, "all-linear", 3, 5)
    outputs.append(moved(model)(TOKENS).detach())
    adapters.add(model, "two", ["q_proj", "up_proj"], 2, 7, layer=second)
    outputs.append(moved(model, 2)(TOKENS).detach())
    return model, *outputs


def dense(model, updates):
    """A copy of the bare model with updates {name: (d_out, d_in)} added to its weights."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for name, X in updates.items():
            model.get_submodule(name).weight.add_(X)
    return model


def updates_of(model, name):
    adapters.switch(model, name)
    return {n: m.update().detach() for n, m in model.named_modules() if isinstance(m, LoRALinear)}


def test_switching_is_bit_for_bit_and_leaves_the_base_alone():
    model, base, one, two = with_two()
    before = {n: p.clone() for n, p in small().named_parameters()}
    assert adapters.names(model) == ["default", "two"] and adapters.active(model) == "two"
    for name, expected in (("default", one), (None, base), ("two", two), ("two", two)):
        adapters.switch(model, name)
        assert torch.equal(model(TOKENS), expected) and adapters.active(model) == name
    adapters.switch(model, None)
    assert {n for n, _ in model.named_parameters()} == before.keys()
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_the_bases_own_modules_are_found_past_copies_and_layers():
    model = nn.Sequential(nn.Sequential(nn.Linear(6, 4), nn.ReLU()), nn.Linear(4, 3)).eval()
    own = dict(model.named_modules())
    adapters.add(model, "copy", ["1"], 2, 5, modules_to_save=["0"])
    assert all(shelf.of_base(model, name) is module for name, module in own.items())
    assert shelf.of_base(model, "0.7") is shelf.of_base(model, "0.0.7") is None
    adapters.add(model, "layer", ["0.0"], 2, 5)
    assert all(shelf.of_base(model, name) is module for name, module in own.items())
    model.train()
    for name in ("copy", "layer"):
        adapters.switch(model, name)
        assert all(m.training for m in model.modules())


def test_only_the_active_adapter_trains_and_the_shelf_is_out_of_sight():
    model, *_ = with_two()
    parameters, count = lm.trainable_parameters(model)
    assert count == 2 * (8 + 8) + 2 * (8 + 32)
    adapters.switch(model, "default")
    others, _ = lm.trainable_parameters(model)
    assert not set(map(id, parameters.values())) & set(map(id, others.values()))
    assert not any("two" in key or "shelf" in key for key in model.state_dict())


def test_taking_the_last_one_off_brings_back_what_was_trainable():
    model, base, one, _ = with_two()
    adapters.remove(model, "two")
    assert adapters.names(model) == ["default"] and torch.equal(model(TOKENS), base)
    adapters.switch(model, "default")
    assert torch.equal(model(TOKENS), one)
    adapters.remove(model, "default")
    assert adapters.names(model) == [] and torch.equal(model(TOKENS), base)
    assert all(p.requires_grad for p in model.parameters())


def test_detach_takes_the_active_one_and_the_others_can_come_back():
    model, base, one, _ = with_two()
    lm.detach(model)
    assert torch.equal(model(TOKENS), base) and all(p.requires_grad for p in model.parameters())
    assert adapters.names(model) == ["default"]
    adapters.switch(model, "default")
    assert torch.equal(model(TOKENS), one)
    assert not model.embed.weight.requires_grad


def test_a_copy_of_the_model_has_adapters_of_its_own():
    model, _, one, two = with_two()
    twin = copy.deepcopy(model)
    adapters.switch(twin, "default")
    moved(twin, 5)
    adapters.switch(model, "default")
    assert torch.equal(model(TOKENS), one) and not torch.equal(twin(TOKENS), one)
    adapters.switch(twin, "two")
    assert torch.equal(twin(TOKENS), two)


def test_a_merged_adapter_keeps_its_state_and_a_final_merge_bars_the_way_back():
    model, _, one, two = with_two()
    lm.merge(model)
    with pytest.raises(ValueError, match=r"merged.*call unmerge\(model\) first"):
        adapters.add(model, "three", "q_proj", 2, 5)
    adapters.switch(model, "default")
    adapters.switch(model, "two")
    torch.testing.assert_close(model(TOKENS), two)
    lm.merge(model, keep_base=False)
    assert adapters.names(model) == ["default"]
    with pytest.raises(ValueError, match="no longer there: it was replaced since"):
        adapters.switch(model, "default")
    torch.testing.assert_close(model(TOKENS), two)


@pytest.mark.parametrize("act, words", [
    (lambda m: adapters.switch(m, "tow"), "no adapter 'tow': the model has 'default', 'two'"),
    (lambda m: adapters.remove(m, "x"), "no adapter 'x'"),
    (lambda m: adapters.add(m, "two", "q_proj", 2, 5), "has an adapter 'two' already"),
    (lambda m: adapters.add(m, "x", "q_porj", 2, 5), "'q_porj' matches no module"),
    (lambda m: adapters.add(m, "x", "q_proj", 80, 5), "rank must be between 1 and"),
    (lambda m: adapters.add(m, "", "q_proj", 2, 5), "must be a text, got ''"),
    (lambda m: adapters.rows(m, ["two", "x"]).__enter__(), "no adapter 'x'"),
    (lambda m: adapters.blend(m, {"x": 1}, "new"), "no adapter 'x'"),
    (lambda m: adapters.blend(m, {"two": 1}, "default"), "has an adapter 'default' already"),
    (lambda m: adapters.blend(m, {}, "new"), "must be a dictionary"),
    (lambda m: adapters.blend(m, {"two": float("nan")}, "new"), "must be a finite number"),
    (lambda m: adapters.blend(m, {"two": 1}, "new", "mean"), "one of concat, linear, svd"),
    (lambda m: adapters.blend(m, {"two": 1}, "new", "svd"), "svd needs a rank"),
    (lambda m: adapters.blend(m, {"two": 1}, "new", rank=2), "rank is for the method svd"),
    (lambda m: adapters.blend(m, {"two": 1}, "new", "svd", rank=9), "between 1 and 8"),
    (lambda m: adapters.blend(m, {"two": -1}, "new", "linear"), "weights of 0 or more"),
    (lambda m: adapters.blend(m, {"default": 1, "two": 1}, "new", "linear"), "ranks are"),
    (lambda m: adapters.extract(m, nn.Linear(2, 2), 1, "new"), "differ in more than numbers"),
    (lambda m: adapters.extract(m, small(), 1, "new"), "no weight of an nn.Linear differs"),
])
def test_what_can_not_be_is_refused_and_changes_nothing(act, words):
    model, _, one, two = with_two()
    with pytest.raises((ValueError, TypeError), match=words.replace("(", r"\(")):
        act(model)
    assert torch.equal(model(TOKENS), two) and adapters.active(model) == "two"
    adapters.switch(model, "default")
    assert torch.equal(model(TOKENS), one)


def test_attach_beside_an_unnamed_one_on_the_shelf_is_refused_where_it_shows():
    model, *_ = with_two()
    adapters.switch(model, None)
    lm.attach(model, "q_proj", 2, 5)
    with pytest.raises(ValueError, match="attach was called beside an adapter 'default'"):
        adapters.names(model)


# Rows


@pytest.mark.parametrize("second", [LoRALinear, LoRAFALinear, DoRALinear, PiSSALinear])
def test_each_row_comes_out_as_if_alone(second):
    model, *alone = with_two(second)
    order = ("two", None, "default", "two")
    with adapters.rows(model, order):
        mixed = model(TOKENS)
    for i, name in enumerate(order):
        expected = alone[(None, "default", "two").index(name)][i]
        torch.testing.assert_close(mixed[i], expected, rtol=1e-4, atol=1e-5)
    assert adapters.active(model) == "two" and torch.equal(model(TOKENS), alone[2])


def test_rows_have_their_own_copies_and_generate_as_alone():
    model = small()
    adapters.add(model, "head", ["q_proj"], 2, 5, modules_to_save=["head"])
    moved(model)
    prompt = TOKENS[:2, :3]
    alone = model.generate(prompt, 4)
    adapters.switch(model, None)
    bare = model.generate(prompt, 4)
    with adapters.rows(model, ["head", None]):
        mixed = model.generate(prompt, 4)
    assert mixed[0].tolist() == alone[0].tolist() and mixed[1].tolist() == bare[1].tolist()
    assert alone[1].tolist() != bare[1].tolist()


@pytest.mark.parametrize("names", [
    ["two", "default", "two", "default"], ["two", "two", None, "default"],
    [None, "two", "two", None], ["two"] * 4])
def test_what_rows_keeps_follows_every_change_of_a_factor(names):
    model, base, *_ = with_two()
    factors = [p for m in model._shelf.adapters["two"].values() for p in (m.lora_A, m.lora_B)]

    def expected():
        with torch.no_grad():
            parts = []
            for i, name in enumerate(names):
                adapters.switch(model, name)
                parts.append(model(TOKENS[i:i + 1]))
            return torch.cat(parts)

    def train():
        optimizer = torch.optim.AdamW(factors, lr=0.1, fused=True)
        model(TOKENS).square().sum().backward()
        optimizer.step()

    def write():
        with torch.no_grad():
            factors[0].add_(1)
    changes = [lambda: None, write, train, train]
    found = []
    with adapters.rows(model, names):
        for change in changes:
            change()
            outputs = []
            for context in (torch.no_grad, torch.inference_mode):
                with context():
                    outputs += [model(TOKENS) for _ in range(3)]
            found.append((*outputs, [f.detach().clone() for f in factors]))
    for *outputs, kept in found:
        with torch.no_grad():
            for factor, was in zip(factors, kept, strict=True):
                factor.copy_(was)
        for output in outputs:
            torch.testing.assert_close(output, expected())
    assert not torch.equal(found[0][0], found[1][0])


def test_each_adapter_gets_the_gradient_of_its_rows():
    model, *_ = with_two()
    order = ["default", "two", "two", None]
    with adapters.rows(model, order):
        model(TOKENS).square().sum().backward()
    for name in ("default", "two"):
        adapters.switch(model, name)
        layer = model.blocks[0].attention.q_proj
        found, layer.lora_B.grad = layer.lora_B.grad.clone(), None
        mine = [i for i, each in enumerate(order) if each == name]
        model(TOKENS[mine]).square().sum().backward()
        torch.testing.assert_close(found, layer.lora_B.grad, rtol=1e-4, atol=1e-5)


def test_a_batch_of_another_size_and_a_merged_adapter_are_refused_and_the_model_is_whole():
    model, _, _, two = with_two()
    with adapters.rows(model, ["two", None]), pytest.raises(ValueError, match="2 names.* 4 rows"):
        model(TOKENS)
    assert torch.equal(model(TOKENS), two)
    lm.merge(model)
    adapters.switch(model, "default")
    with pytest.raises(ValueError, match="'two' is merged"), adapters.rows(model, ["two"]):
        pass
    adapters.switch(model, "two")
    torch.testing.assert_close(model(TOKENS), two)


# Blends


@pytest.mark.parametrize("method, rank", [("concat", None), ("svd", 8)])
def test_an_exact_blend_is_the_weighted_sum_of_the_updates(method, rank):
    model, *_ = with_two()
    one, two = updates_of(model, "default"), updates_of(model, "two")
    expected = {n: 0.7 * X - 0.4 * two.get(n, 0 * X) for n, X in one.items()}
    adapters.blend(model, {"default": 0.7, "two": -0.4}, "both", method, rank)
    assert adapters.active(model) == "both"
    torch.testing.assert_close(model(TOKENS), dense(small(), expected)(TOKENS), rtol=1e-4,
                               atol=1e-5)


def test_adding_factors_is_not_adding_updates():
    """With equal weights, half of B_1 A_1 + B_2 A_2 + B_1 A_2 + B_2 A_1, at a scaling of 1 each."""
    model = small()
    for seed, name in ((1, "a"), (2, "b")):
        adapters.add(model, name, "q_proj", 2, 2)
        moved(model, seed)
    factors = []
    for name in ("a", "b"):
        adapters.switch(model, name)
        layer = model.blocks[0].attention.q_proj
        factors.append((layer.lora_A.detach(), layer.lora_B.detach()))
    (A1, B1), (A2, B2) = factors
    adapters.blend(model, {"a": 0.5, "b": 0.5}, "linear", "linear")
    found = model.blocks[0].attention.q_proj.update()
    torch.testing.assert_close(found, 0.5 * (B1 + B2) @ (A1 + A2))
    assert not torch.allclose(found, 0.5 * (B1 @ A1 + B2 @ A2), atol=0.01)


def test_a_blend_cut_to_a_rank_is_the_nearest_of_that_rank():
    model, *_ = with_two()
    one, two = updates_of(model, "default"), updates_of(model, "two")
    name = "blocks.0.up_proj"
    U, S, Vt = torch.linalg.svd(one[name] + two[name], full_matrices=False)
    adapters.blend(model, {"default": 1, "two": 1}, "cut", "svd", rank=2)
    torch.testing.assert_close(model.get_submodule(name).update(), (U[:, :2] * S[:2]) @ Vt[:2],
                               rtol=1e-4, atol=1e-5)


def test_dora_and_copies_are_blended_only_where_that_means_something():
    model, *_ = with_two(DoRALinear)
    with pytest.raises(ValueError, match="DoRALinear.* is no product"):
        adapters.blend(model, {"two": 1}, "new")
    two = updates_of(model, "two")
    adapters.blend(model, {"two": 1}, "new", "svd", rank=8)
    torch.testing.assert_close(model(TOKENS), dense(small(), two)(TOKENS), rtol=1e-4, atol=1e-5)
    adapters.add(model, "head", "q_proj", 2, 5, modules_to_save=["head"])
    with pytest.raises(ValueError, match="trained copy of 'head'"):
        adapters.blend(model, {"head": 1}, "x")


def test_ranks_that_add_up_to_more_than_the_layer_has_are_refused():
    model = small()
    for name in ("a", "b"):
        adapters.add(model, name, "q_proj", 5, 5)
    with pytest.raises(ValueError, match="add up to 10, more than the 8 .* use svd"):
        adapters.blend(model, {"a": 1, "b": 1}, "x")


# Out of a tuned model


def test_what_is_extracted_at_full_rank_is_the_tuned_model_and_below_it_the_nearest():
    model, tuned = small(), small()
    torch.manual_seed(3)
    with torch.no_grad():
        for name, p in tuned.named_parameters():
            if name.endswith("_proj.weight"):
                p.add_(0.2 * torch.randn_like(p))
    kept, rest = adapters.extract(model, tuned, 8)
    assert rest == [] and all(share == pytest.approx(1) for share in kept.values())
    torch.testing.assert_close(model(TOKENS), tuned(TOKENS), rtol=1e-4, atol=1e-5)
    adapters.remove(model, "default")
    kept, _ = adapters.extract(model, tuned, 3)
    for name, share in kept.items():
        X = tuned.get_submodule(name).weight - model.get_submodule(name).base.weight
        S = torch.linalg.svdvals(X)
        assert share == pytest.approx((S[:3].square().sum() / S.square().sum()).item(), rel=1e-4)
        error = torch.linalg.norm(X - model.get_submodule(name).update())
        assert error.item() == pytest.approx(S[3:].square().sum().sqrt().item(), rel=1e-3)


def test_what_no_adapter_can_hold_is_named():
    model, tuned = small(), small()
    with torch.no_grad():
        tuned.blocks[0].up_proj.weight.add_(0.1)
        tuned.embed.weight.add_(0.1)
        tuned.blocks[0].up_proj.bias.add_(0.1)
    kept, rest = adapters.extract(model, tuned, 1)
    assert list(kept) == ["blocks.0.up_proj"] and kept["blocks.0.up_proj"] == pytest.approx(1)
    assert rest == ["embed.weight", "blocks.0.up_proj.bias"]


# Ranks and alphas by layer


def test_patterns_give_layers_their_own_rank_and_alpha():
    model = small()
    lm.attach(model, "all-linear", 2, 6, rank_pattern={"blocks.0.up_proj": 4, r".*k_proj": 1},
              alpha_pattern={"k_proj": 3, ".*attention.*": 9})
    attention, up = model.blocks[0].attention, model.blocks[0].up_proj
    assert [attention.q_proj.rank, attention.k_proj.rank, up.rank] == [2, 1, 4]
    assert [attention.q_proj.alpha, attention.k_proj.alpha, up.alpha] == [9, 3, 6]
    assert up.lora_A.shape == (4, 8) and up.scaling == 1.5


@pytest.mark.parametrize("options, words", [
    ({"rank_pattern": {"head": 2}}, "rank_pattern: 'head' matches no module"),
    ({"alpha_pattern": {"q_porj": 2}}, "alpha_pattern: 'q_porj' matches no module"),
    ({"rank_pattern": {"q_proj": 9}}, "between 1 and .* = 8, got 9 .layer .*q_proj"),
    ({"alpha_pattern": {"q_proj": 0}}, "alpha must be a positive number, got 0"),
    ({"rank_pattern": 3}, "expected a dictionary"),
])
def test_patterns_that_fit_nothing_are_refused(options, words):
    model = small()
    before = model(TOKENS)
    with pytest.raises((ValueError, TypeError), match=words):
        lm.attach(model, "q_proj", 2, 6, **options)
    assert torch.equal(model(TOKENS), before) and all(p.requires_grad for p in model.parameters())
