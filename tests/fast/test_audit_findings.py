"""Each planted fault is named by a finding of its kind; sound models give an empty list."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import lora_mini as lm
from lora_mini import adapters
from lora_mini.audit import Finding, audit, snapshot
from lora_mini.lora import LoRALinear
from lora_mini.variants import DoRALinear, LoRAFALinear, PiSSALinear
from lora_mini.world.gpt import GPT, Config
from tests.fixtures.audits import (
    TOKENS,
    Labelled,
    X,
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
from tests.fixtures.peft.tiny import Tiny

# Sound models

def fresh(**options):
    return lambda: (gpt(**options), None)


def shelved():
    model = GPT(Config(11, context=8, d_model=16, layers=2, heads=2))
    for name in ("one", "two"):
        adapters.add(model, name, ["q_proj", "v_proj", "up_proj"], 2, 4)
    return model, adam(model)


def finally_merged():
    model, _, before = trained()()
    lm.merge(model, keep_base=False)
    return model, None, before


def with_sgd():
    model = gpt()
    optimizer = torch.optim.SGD(lm.trainable_parameters(model)[0].values(), lr=0.1, momentum=0.9)
    before = snapshot(model, TOKENS)
    return train(model, optimizer), optimizer, before


def merged_and_apart_again():
    model, optimizer, before = trained(merged=True)()
    lm.unmerge(model)
    return model.train(), optimizer, before


def switched_back():
    model, _ = shelved()
    adapters.switch(model, "one")
    optimizer, before = adam(model), snapshot(model, TOKENS)
    return train(model, optimizer), optimizer, before


def compiled():
    model = gpt()
    optimizer, before = adam(model), snapshot(model, TOKENS)
    return torch.compile(train(model, optimizer), backend="eager"), optimizer, before


def parallel():
    model = gpt()
    optimizer, before = adam(model), snapshot(model, TOKENS)
    return nn.DataParallel(train(model, optimizer)), optimizer, before


SOUND = {
    "SGD": with_sgd, "bfloat16": in_half, "unmerged": merged_and_apart_again,
    "switched": switched_back, "compiled": compiled, "parallel": parallel,
    "fresh": fresh(), "fresh rsLoRA": fresh(rslora=True), "fresh DoRA": fresh(layer=DoRALinear),
    "fresh PiSSA": fresh(layer=PiSSALinear), "fresh with dropout": fresh(dropout=0.1),
    "LoRA": trained(), "rsLoRA": trained(rslora=True), "DoRA": trained(layer=DoRALinear),
    "PiSSA": trained(layer=PiSSALinear), "LoRA-FA": trained(layer=LoRAFALinear),
    "copies": trained(modules_to_save=["head"]), "dropout": trained(dropout=0.1),
    "patterns": trained(rank_pattern={"q_proj": 4}, alpha_pattern={"up_proj": 9}),
    "merged": trained(merged=True), "merged DoRA": trained(merged=True, layer=DoRALinear),
    "merged for good": finally_merged, "on the shelf": shelved, "four bits": four_bits,
    "no adapter": lambda: (Tiny(), None),
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_model_gives_an_empty_list(name):
    model, optimizer, *before = SOUND[name]()
    batch = X if name == "no adapter" else TOKENS
    assert said(model, optimizer, batch, before=before[0] if before else None) == []


def test_an_audit_leaves_the_model_as_it_is():
    model = gpt(dropout=0.1)
    optimizer, before = adam(model), snapshot(model, TOKENS)
    train(model, optimizer, 2)
    model.blocks[0].eval()
    modes, random = [m.training for m in model.modules()], torch.get_rng_state()
    kept = copy.deepcopy(model.state_dict())
    audit(model, optimizer, TOKENS, before=before)
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(t, kept[n]) for n, t in model.state_dict().items())


def test_a_finding_is_one_line():
    assert str(Finding("what", "a\nb", "1 of 2", "do")) == "what: a b (1 of 2); do"
    known = Finding("the base trains", "a", "1", "do")
    assert str(known) == ("the base trains: a (1); do; see docs/my-adapter-does-not-learn.md"
                          "#a-base-left-trainable")


@pytest.mark.parametrize("arguments, options", [
    ((3,), {}), ((tiny(), 3), {}), ((tiny(), None, 3), {}), ((tiny(),), {"before": 3})])
def test_what_is_no_module_optimizer_batch_or_snapshot_is_a_type_error(arguments, options):
    with pytest.raises(TypeError):
        audit(*arguments, **options)
    with pytest.raises(TypeError):
        audit.snapshot("model")


def test_a_batch_that_the_model_refuses_is_a_finding():
    one(["can't be run", "RuntimeError"], tiny(), None, torch.ones(2, 5))


class Needy(Tiny):
    """It breaks when its adapter is off."""

    def forward(self, x):
        if not self.block.q_proj.enabled:
            raise RuntimeError("on, please")
        return super().forward(x)


def test_a_check_under_which_the_model_breaks_is_a_finding():
    model = Needy()
    lm.attach(model, ["q_proj", "up_proj"], 2, 4)
    optimizer = adam(model)
    one(["a check could not be made: sizes", "on, please"], train(model, optimizer, 50, X),
        optimizer, X)


def test_an_optimizer_for_no_adapter_is_a_finding():
    model = Tiny()
    one(["no adapter"], model, torch.optim.Adam(model.parameters()))
    one(["no adapter"], model, before=snapshot(model))


# B has not moved

class Unused(Tiny):
    """A layer that no forward pass reaches."""

    def __init__(self):
        super().__init__()
        self.extra = nn.Linear(6, 6)


def test_a_layer_that_no_forward_reaches_is_named_with_the_cause():
    model = Unused()
    lm.attach(model, ["q_proj", "up_proj", "extra"], 2, 4)
    optimizer = adam(model)
    train(model, optimizer, 3, X)
    one(["it is zero: extra", "1 of 3 (33%)", "doesn't reach it"], model, optimizer, X)


def test_labels_of_minus_100_are_named_as_the_cause():
    model = Labelled()
    lm.attach(model, ["q_proj", "up_proj"], 2, 4)
    batch = {"x": X, "labels": torch.full((5,), -100)}
    one(["block.q_proj, block.up_proj", "2 of 2", "all labels are -100"], model, adam(model),
        batch, before=snapshot(model, batch))


class Checkpointed(Tiny):
    def forward(self, x):
        return self.head(checkpoint(self.block, x, use_reentrant=True))


@pytest.mark.filterwarnings("ignore:None of the inputs")  # in train, not in the audit
def test_reentrant_checkpointing_without_input_grad_is_named_as_the_cause():
    model = Checkpointed()
    lm.attach(model, ["q_proj", "up_proj"], 2, 4)
    optimizer, before = adam(model), snapshot(model, X)
    train(model, optimizer, 3, X)
    one(["has not moved", "2 of 2", "reentrant checkpointing"], model, optimizer, X,
        before=before)


@pytest.mark.filterwarnings("error:None of the inputs")
def test_checkpointing_whose_input_asks_for_grad_is_sound():
    model = Checkpointed()
    lm.attach(model, ["q_proj", "up_proj"], 2, 4)
    optimizer, x = adam(model), X.clone().requires_grad_()
    before = snapshot(model, X)
    train(model, optimizer, 60, x)
    assert said(model, optimizer, x, before=before) == []


def test_a_rate_of_zero_in_a_warm_up_is_named_as_the_cause():
    model = gpt()
    optimizer = adam(model)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 10)
    assert said(model, optimizer, TOKENS) == []
    train(model, optimizer, 1)
    one(["12 of 12", "the learning rate is 0 at this step"], model, optimizer, TOKENS)


def switched_off(model):
    for module in lm.model.wrappers(model).values():
        module.enabled = False


def frozen(model):
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B"):
            parameter.requires_grad_(False)


@pytest.mark.parametrize("spoil, cause", [(switched_off, "switched off"), (frozen, "require grad")])
def test_an_adapter_that_is_off_or_frozen_is_named_as_the_cause(spoil, cause):
    model = gpt(layer=PiSSALinear)
    optimizer, before = adam(model), snapshot(model)
    spoil(model)
    train(model, optimizer, 2)
    assert any("B has not moved" in s and cause in s
               for s in said(model, optimizer, TOKENS, before=before))


# Size and rate

@pytest.mark.parametrize("rate", [1e-5, 1e-8])
def test_a_rate_far_too_low_is_found_and_so_is_its_small_update(rate):
    model = gpt()
    optimizer = adam(model, rate)
    lines = said(train(model, optimizer), optimizer, TOKENS)
    assert any("learning rate is low" in s and f"{rate:.0e} at its peak" in s for s in lines)
    assert any("too small to matter" in s and "0.0% of the argmax" in s for s in lines)


def test_without_a_batch_the_size_is_judged_by_the_weights():
    model = gpt()
    optimizer = adam(model, 3e-6)
    assert any("too small to matter: blocks." in s and "e-04 of ||W||" in s
               for s in said(train(model, optimizer), optimizer))


def test_the_size_is_not_judged_before_fifty_steps():
    model = gpt()
    optimizer = adam(model, 1e-8)
    one(["learning rate is low"], train(model, optimizer, 49), optimizer, TOKENS)


def test_a_rate_of_1e_4_and_one_that_has_decayed_to_zero_are_sound():
    model = gpt()
    optimizer = adam(model, 1e-4)
    assert said(train(model, optimizer), optimizer, TOKENS) == []
    optimizer.param_groups[0] |= {"initial_lr": 1e-4, "lr": 0.0}
    assert said(model, optimizer, TOKENS) == []


def test_rates_that_a_loop_sets_by_hand_are_sound_in_warm_up_and_after_decay():
    model = gpt()
    optimizer = adam(model, 2e-4)
    optimizer.param_groups[0]["lr"] = 1e-6
    assert said(model, optimizer, TOKENS) == []
    model = gpt()
    train(model, optimizer := adam(model, 1e-3))
    optimizer.param_groups[0]["lr"] = 1e-6
    assert said(model, optimizer, TOKENS) == []


@pytest.mark.parametrize("kind", [LoRAFALinear, DoRALinear, PiSSALinear])
def test_a_low_rate_is_found_in_the_variants(kind):
    model = gpt(layer=kind)
    optimizer = adam(model, 1e-5)
    lines = said(train(model, optimizer), optimizer)
    assert any("learning rate is low" in s for s in lines)


def test_a_slow_A_beside_a_fast_B_is_sound():
    model = gpt()
    factors = lm.trainable_parameters(model)[0]
    optimizer = torch.optim.Adam([{"params": [p for n, p in factors.items() if n.endswith(end)],
                                   "lr": rate} for end, rate in (("_A", 5e-5), ("_B", 8e-4))])
    assert said(train(model, optimizer), optimizer, TOKENS) == []


# The optimizer

def test_parameters_that_the_optimizer_lacks_are_named():
    model = tiny()
    optimizer = torch.optim.Adam([model.block.q_proj.lora_A, model.block.q_proj.lora_B])
    one(["missing from the optimizer", "block.up_proj.lora_A", "2 of 4"], model, optimizer)


def test_an_optimizer_from_before_another_attach_holds_stale_parameters():
    model = tiny()
    optimizer = adam(model)
    lm.detach(model)
    lm.attach(model, ["q_proj", "up_proj"], 2, 4)
    lines = said(model, optimizer)
    assert len(lines) == 2 and "missing" in lines[0] and "not in the model" in lines[1]
    assert "4 of 4" in lines[1]


def test_frozen_parameters_of_the_base_in_the_optimizer_are_named():
    model = tiny()
    one(["frozen parameters of the base", "block.q_proj.base.weight", "5 of 9"], model,
        torch.optim.Adam(model.parameters()))


@pytest.mark.parametrize("decay, lines", [(0.1, 1), (0.5, 1), (0.09, 0), (0.01, 0)])
def test_weight_decay_is_found_from_a_tenth_on(decay, lines):
    model = tiny()
    found = said(model, adam(model, weight_decay=decay))
    assert len(found) == lines and all("weight decay" in s and "4 of 4" in s for s in found)


# The base

def test_parameters_of_the_base_that_train_are_named():
    model = tiny()
    model.head.weight.requires_grad_(True)
    one(["the base trains: head.weight", "30 numbers"], model)


def test_a_base_that_changed_is_named_and_so_are_its_outputs():
    model = tiny()
    before = snapshot(model, X)
    train(model, adam(model), 3, X)
    with torch.no_grad():
        model.block.q_proj.base.weight[0, 0] += 0.5
    lines = said(model, before=before)
    assert len(lines) == 2 and "parameters changed: block.q_proj.weight (1 of 5" in lines[0]
    assert "with the adapter off" in lines[1] and ": output (" in lines[1]


def test_a_snapshot_from_before_the_adapter_does_as_well():
    model = Tiny()
    before = snapshot(model, X)
    lm.attach(model, ["q_proj", "up_proj"], 2, 4, modules_to_save=["head"])
    optimizer = adam(model)
    train(model, optimizer, 60, X)
    assert said(model, optimizer, X, before=before) == []


def test_the_logits_are_compared_and_not_the_loss():
    model = Labelled()
    lm.attach(model, ["q_proj", "up_proj"], 2, 4)
    before = snapshot(model, {"x": X, "labels": torch.arange(5) % 3})
    train(lambda x: model(x)[0], adam(model), 3, X)
    model.head.register_forward_hook(lambda m, args, out: out + 1)  # no loss would show it
    one(["with the adapter off", "output[1]"], model, before=before)


def test_buffers_that_moved_are_named():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4))
    lm.attach(model, ["0"], 2, 4)
    before = snapshot(model)
    train(model, adam(model), 3, X)
    one(["buffers changed: 1.running_mean, 1.running_var", "3 of 7"], model, before=before)


# Numbers, scales, nests, places, modes

@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_counted(value):
    model = tiny()
    with torch.no_grad():
        model.block.q_proj.lora_A[0, :2] = value
    one(["NaN or infinite", "block.q_proj.lora_A", "2 numbers in 1 of 4"], model, None, X)


def test_factors_on_the_meta_device_are_a_finding():
    model = tiny()
    model.block.q_proj.lora_A = nn.Parameter(torch.empty(2, 6, device="meta"))
    assert any("without numbers: block.q_proj" in s for s in said(model))


def test_an_adapter_around_an_adapter_is_named():
    model = tiny()
    outer = LoRALinear(nn.Linear(6, 6), 2, 4)
    outer.base = model.block.q_proj
    model.block.q_proj = outer
    one(["wrapped around an adapter: block.q_proj.base", "1 of 3"], model)


def test_a_scale_that_does_not_fit_the_rank_is_named():
    model = tiny(rslora=True)
    model.block.q_proj.rank = 8
    one(["scale doesn't fit", "block.q_proj", "1.41421", "make 2.82843"], model)


def test_a_strength_is_no_fault():
    model = tiny()
    lm.set_strength(model, 0.5)
    assert said(model) == []


def test_few_adapted_layers_are_a_note():
    model = GPT(Config(11, context=8, d_model=16, layers=2, heads=2))
    lm.attach(model, ["q_proj"], 2, 4)
    one(["note", "q_proj", "512 of 6,144 (8%)"], model)


def test_dropout_in_another_mode_than_the_model_is_found():
    model = tiny(dropout=0.1).eval()
    model.block.q_proj.train()
    one(["another mode", "block.q_proj", "1 of 2", "eval mode"], model)


def test_a_merge_in_training_mode_with_dropout_is_found():
    model = tiny(dropout=0.1)
    lm.merge(model)
    one(["merged in training mode", "2 of 2"], model)
    assert said(model.eval()) == []


def test_what_was_not_given_is_said_and_is_no_finding(tmp_path):
    model = gpt()
    optimizer, before = adam(model), snapshot(model, TOKENS)
    train(model, optimizer)
    adapters.save(model, tmp_path)
    found = audit(model, optimizer, TOKENS, before=before, file=tmp_path)
    assert found == [] and found.unseen == () and str(found) == "no fault found"
    for name, words in {"optimizer": "rates", "batch": "outputs", "before": "training",
                        "file": "saved"}.items():
        given = {"optimizer": optimizer, "batch": TOKENS, "before": before, "file": tmp_path}
        less = audit(model, **given | {name: None})
        assert less == [] and [words in said for said in less.unseen] == [True]
        assert str(less).splitlines()[0] == "no fault found"
        assert str(less).splitlines()[1].startswith("not looked at: ")
    assert len(audit(model).unseen) == 4
