"""attach, detach, merge and their kin on whole models, tied, shared and awkward ones included."""

import copy

import pytest
import torch
from torch import nn

import lora_mini as lm
from lora_mini import LoRALinear
from lora_mini.variants import DoRALinear


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj, self.v_proj = nn.Linear(6, 6), nn.Linear(6, 4)
        self.up, self.down = nn.Linear(4, 10), nn.Linear(10, 6)

    def forward(self, x):
        return self.down(torch.tanh(self.up(self.v_proj(self.q_proj(x) + x))))


class Model(nn.Module):
    """Two blocks between an embedding and a head; the head may be tied to the embedding."""

    def __init__(self, tied=False):
        super().__init__()
        self.emb = nn.Embedding(9, 6)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 9, bias=False)
        if tied:
            self.head.weight = self.emb.weight

    def forward(self, tokens):
        x = self.emb(tokens)
        for block in self.blocks:
            x = x + block(x)
        return self.head(self.norm(x))


class WithHead(Model):
    def get_output_embeddings(self):
        return self.head


TOKENS = torch.arange(8).reshape(2, 4)


def make(cls=Model, seed=0, **options):
    torch.manual_seed(seed)
    return cls(**options)


def train(model, steps=3):
    optimizer = torch.optim.Adam(lm.trainable_parameters(model)[0].values(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        model(TOKENS).square().mean().backward()
        optimizer.step()
    return model


def snapshot(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def same(one, other):
    return list(one) == list(other) and all(torch.equal(one[k], other[k]) for k in one)


def describe(model):
    return ([(n, type(m)) for n, m in model.named_modules()],
            [(n, id(p), p.requires_grad) for n, p in model.named_parameters()])


def test_attach_by_last_name_by_full_name_and_by_pattern():
    for names, expected in [
        (["q_proj"], ["blocks.0.q_proj", "blocks.1.q_proj"]),
        ("blocks.1.up", ["blocks.1.up"]),
        (r"blocks\.0\.(up|down)", ["blocks.0.up", "blocks.0.down"]),
        (["0.up", r".*v_proj"], ["blocks.0.v_proj", "blocks.0.up", "blocks.1.v_proj"]),
    ]:
        model = make()
        assert lm.attach(model, names, 2, 5) == expected
        assert [n for n, m in model.named_modules() if isinstance(m, LoRALinear)] == expected


def test_all_linear_leaves_out_the_head_that_the_model_names():
    names = lm.attach(make(WithHead), "all-linear", 2, 5)
    assert len(names) == 8 and "head" not in names


def test_all_linear_takes_an_unnamed_head_unless_excluded():
    assert "head" in lm.attach(make(), "all-linear", 2, 5)
    assert "head" not in lm.attach(make(), "all-linear", 2, 5, exclude="head")


def test_attach_freezes_the_rest_and_changes_no_output():
    model = make()
    before = model(TOKENS)
    lm.attach(model, ["q_proj", "up"], 2, 5)
    assert torch.equal(model(TOKENS), before)
    found, count = lm.trainable_parameters(model)
    assert {n.rpartition(".")[2] for n in found} == {"lora_A", "lora_B"}
    assert count == 2 * (2 * (6 + 6) + 2 * (4 + 10))


def test_training_leaves_every_byte_of_the_base_and_detach_restores_the_model():
    model = make()
    model.norm.weight.requires_grad_(False)
    before, shape = snapshot(model), describe(model)
    lm.attach(model, "all-linear", 2, 5, exclude="head", modules_to_save=["head"])
    train(model)
    assert not torch.equal(model.head.copy.weight, before["head.weight"])
    lm.detach(model)
    assert describe(model) == shape and same(snapshot(model), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_merge_agrees_with_the_unmerged_model_and_unmerge_restores_it(dtype):
    model = make().to(dtype)
    lm.attach(model, ["q_proj", "down"], 2, 5)
    train(model).eval()
    before = snapshot(model)
    with torch.no_grad():
        apart = model(TOKENS)
        shares = lm.merge(model)
        lm.merge(model)
        tolerance = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 0.05}[dtype]
        torch.testing.assert_close(model(TOKENS), apart, atol=tolerance, rtol=tolerance)
        assert same(snapshot(model), before)
        lm.unmerge(model)
        lm.unmerge(model)
        assert torch.equal(model(TOKENS), apart)
    assert list(shares) == ["blocks.0.q_proj", "blocks.0.down", "blocks.1.q_proj", "blocks.1.down"]
    assert all(0 <= share < 1 for share in shares.values())


def test_a_final_merge_leaves_plain_layers_with_the_same_outputs():
    model = make()
    shape = [(n, type(m)) for n, m in model.named_modules()]
    flags = {n: p.requires_grad for n, p in model.named_parameters()}
    lm.attach(model, ["q_proj", "up"], 2, 5, dropout=0.1, modules_to_save=["head", "norm"])
    train(model).eval()
    adapted = model(TOKENS)
    lm.merge(model, keep_base=False)
    torch.testing.assert_close(model(TOKENS), adapted)
    assert [(n, type(m)) for n, m in model.named_modules()] == shape
    assert {n: p.requires_grad for n, p in model.named_parameters()} == flags
    assert not any(m.training for m in model.modules())
    lm.attach(model, ["q_proj"], 2, 5)  # and another adapter fits


def test_a_final_merge_writes_nothing_into_the_base():
    model = make()
    base = model.blocks[0].up
    W = base.weight.detach().clone()
    lm.attach(model, ["up"], 2, 5)
    train(model)
    lm.merge(model, keep_base=False)
    assert torch.equal(base.weight, W) and not torch.equal(model.blocks[0].up.weight, W)


def test_disabled_is_the_base_even_when_nested_merged_or_interrupted():
    model = make().eval()
    base = model(TOKENS)
    lm.attach(model, ["q_proj"], 2, 5, modules_to_save=["head"])
    train(model).eval()
    adapted = model(TOKENS)
    for change in (lambda: None, lambda: lm.merge(model)):
        change()
        with pytest.raises(KeyboardInterrupt), lm.disabled(model):
            assert torch.equal(model(TOKENS), base)
            with lm.disabled(model):
                assert torch.equal(model(TOKENS), base)
            assert torch.equal(model(TOKENS), base)
            raise KeyboardInterrupt
        torch.testing.assert_close(model(TOKENS), adapted)


def test_strength_runs_from_the_base_to_the_adapter():
    model = make()
    base = model(TOKENS)
    lm.attach(model, ["q_proj"], 2, 5)
    train(model)
    adapted, update = model(TOKENS), model.blocks[0].q_proj.update()
    lm.set_strength(model, 0)
    assert torch.equal(model(TOKENS), base)
    lm.set_strength(model, 0.5)
    torch.testing.assert_close(model.blocks[0].q_proj.update(), update / 2)
    lm.set_strength(model, 1)
    assert torch.equal(model(TOKENS), adapted)
    with pytest.raises(ValueError, match="finite"):
        lm.set_strength(model, float("inf"))


def test_a_deep_copy_is_a_model_of_its_own_merged_or_not():
    model = make()
    lm.attach(model, ["q_proj"], 2, 5, modules_to_save=["head"])
    train(model).eval()
    lm.merge(model)
    with torch.no_grad():
        before = model(TOKENS)
        other = copy.deepcopy(model)
        assert torch.equal(other(TOKENS), before)
    train(other)
    assert torch.equal(model(TOKENS), before) and not torch.equal(other(TOKENS), before)
    lm.detach(other)
    assert not any(isinstance(m, LoRALinear) for m in other.modules())


def test_a_state_dict_travels_to_a_fresh_attach():
    model = make()
    lm.attach(model, ["up"], 2, 5, modules_to_save=["head"])
    train(model)
    lm.merge(model)
    other = make(seed=1)
    lm.attach(other, ["up"], 2, 5, modules_to_save=["head"])
    other.load_state_dict(model.state_dict())
    lm.unmerge(model)
    assert torch.equal(other(TOKENS), model(TOKENS))


@pytest.mark.parametrize("arguments, words", [
    (dict(target_modules=["k_proj"]), "'k_proj' matches no module; the nearest names are .*q_proj"),
    (dict(target_modules=["q_proj", "qproj"]), "'qproj' matches no module"),
    (dict(target_modules=[]), "empty"),
    (dict(target_modules=["emb"]), "'emb', a Embedding; LoRA here wraps nn.Linear only"),
    (dict(target_modules=["q_proj["]), "no valid pattern"),
    (dict(target_modules="all-linear", exclude=["haed"]), "'haed' matches no module.*head"),
    (dict(target_modules="head", exclude="head"), "no layer to adapt"),
    (dict(modules_to_save=["lm_head"]), "modules_to_save: 'lm_head' matches no module.*head"),
    (dict(modules_to_save=["up"]), "overlaps"),
    (dict(modules_to_save=["blocks.0"]), "overlaps"),
    (dict(rank=0), "rank must be between 1 and"),
    (dict(rank=5), r"= 4, got 5 \(layer 'blocks.0.up'\)"),
    (dict(alpha=-1), "alpha"),
    (dict(dropout=1), "dropout"),
])
def test_bad_input_is_refused_and_leaves_the_model_untouched(arguments, words):
    model = make()
    before, shape = snapshot(model), describe(model)
    with pytest.raises(ValueError, match=words):
        lm.attach(model, **{"target_modules": ["q_proj", "up"], "rank": 2, "alpha": 5} | arguments)
    assert describe(model) == shape and same(snapshot(model), before)
    assert "_trainable_before" not in vars(model)


def test_attaching_twice_is_refused_and_leaves_the_adapter_alone():
    model = make()
    lm.attach(model, ["q_proj"], 2, 5)
    train(model)
    before, shape = snapshot(model), describe(model)
    with pytest.raises(ValueError, match="adapter already.*detach"):
        lm.attach(model, ["up"], 2, 5)
    assert describe(model) == shape and same(snapshot(model), before)


@pytest.mark.parametrize("call", [lm.detach, lm.merge, lm.unmerge, lambda m: lm.set_strength(m, 1),
                                  lambda m: lm.disabled(m).__enter__()])
def test_without_an_adapter_there_is_a_clear_error(call):
    with pytest.raises(ValueError, match="no adapter: call attach"):
        call(make())


def test_detach_and_final_merge_want_the_model_that_attach_was_given():
    model = make()
    lm.attach(model.blocks[0], ["up"], 2, 5)
    for call in (lm.detach, lambda m: lm.merge(m, keep_base=False)):
        with pytest.raises(ValueError, match="attach was not given this module"):
            call(model)
    lm.detach(model.blocks[0])


def test_a_model_that_is_one_linear_layer_is_refused():
    with pytest.raises(ValueError, match=r"LoRALinear\(model, rank, alpha\)"):
        lm.attach(nn.Linear(3, 4), "all-linear", 2, 5)
    with pytest.raises(ValueError, match="no nn.Linear"):
        lm.attach(nn.Embedding(3, 4), "all-linear", 2, 5)


# Tied weights: one tensor, two names.

def test_an_adapter_on_a_tied_head_leaves_the_embedding_alone():
    model = make(tied=True)
    before = model.emb.weight.detach().clone()
    with pytest.warns(UserWarning, match="'head', whose weight is tied to 'emb.weight'.*only its "
                      "use here"):
        lm.attach(model, ["head"], 2, 5)
    train(model)
    lm.merge(model)
    assert torch.equal(model.emb.weight, before) and model.head.base.weight is model.emb.weight


def test_a_final_merge_of_a_tied_head_is_refused_and_changes_nothing():
    model = make(tied=True)
    with pytest.warns(UserWarning, match="whose weight is tied"):
        lm.attach(model, ["head", "up"], 2, 5)
    train(model)
    shape = describe(model)
    with pytest.raises(ValueError, match="'head' is tied to 'emb.weight'.*keep_base=True"):
        lm.merge(model, keep_base=False)
    assert describe(model) == shape and not model.head.merged


def test_a_copy_of_one_side_of_a_tie_is_refused_and_of_both_stays_tied():
    for one in ("emb", "head"):
        with pytest.raises(ValueError, match="tied"):
            lm.attach(make(tied=True), ["up"], 2, 5, modules_to_save=[one])
    model = make(tied=True)
    lm.attach(model, ["up"], 2, 5, modules_to_save=["emb", "head"])
    train(model)
    assert model.emb.copy.weight is model.head.copy.weight
    assert model.head.weight is model.emb.weight  # read through the wrappers
    lm.detach(model)
    assert model.head.weight is model.emb.weight


def test_a_shared_layer_gets_one_adapter_and_detaches_everywhere():
    model = make()
    model.blocks[1].up = model.blocks[0].up
    shape = describe(model)
    assert lm.attach(model, ["up"], 2, 5) == ["blocks.0.up", "blocks.1.up"]
    assert model.blocks[0].up is model.blocks[1].up
    train(model).eval()
    adapted = model(TOKENS)
    with torch.no_grad():
        lm.merge(model)
        torch.testing.assert_close(model(TOKENS), adapted)
    final = copy.deepcopy(model)
    lm.merge(final, keep_base=False)
    torch.testing.assert_close(final(TOKENS), adapted)
    assert final.blocks[0].up is final.blocks[1].up
    lm.detach(model)
    assert describe(model) == shape


# Modules of PyTorch that read `.weight` instead of calling the layer.

@pytest.mark.parametrize("training", [True, False])
def test_pytorchs_own_encoder_layer_uses_the_adapter(training):
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(8, 2, dim_feedforward=12, dropout=0.0, batch_first=True)
    x = torch.randn(2, 5, 8)
    lm.attach(model, "all-linear", 2, 5)
    for layer in model.modules():
        if isinstance(layer, LoRALinear):
            nn.init.normal_(layer.lora_B)
    model.train(training)
    with torch.no_grad():  # in eval mode this takes PyTorch's fused path
        adapted = model(x)
        dense = copy.deepcopy(model)
        lm.merge(dense, keep_base=False)
        torch.testing.assert_close(adapted, dense(x))
        with lm.disabled(model):
            assert (model(x) - adapted).abs().max() > 0.01


def test_dropout_inside_multihead_attention_is_refused():
    model = nn.Sequential(nn.MultiheadAttention(8, 2), nn.Linear(8, 8))
    with pytest.raises(ValueError, match="MultiheadAttention"):
        lm.attach(model, "all-linear", 2, 5, dropout=0.1)
    lm.attach(model, "all-linear", 2, 5, dropout=0.1, exclude="out_proj")


def test_a_layer_that_a_variant_refuses_leaves_no_trace():
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 4))
    with torch.no_grad():
        model[1].weight[2] = 0
    with pytest.raises(ValueError, match=r"row 2 of W is all zeros.*\(layer '1'\)"):
        lm.attach(model, ["0", "1"], 2, 5, layer=DoRALinear)
    assert all(p.requires_grad for p in model.parameters()) and type(model[0]) is nn.Linear
    lm.attach(model, ["0"], 2, 5, layer=DoRALinear)
    lm.detach(model)
