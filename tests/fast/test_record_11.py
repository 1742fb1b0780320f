"""Record "bits": what made it, all cells, its controls, and what is judged by it."""

import copy
import math
from statistics import fmean

import numpy as np
import pytest
import torch

from lora_mini import quant
from lora_mini.desk import verdicts
from lora_mini.lab import bases, bits, contrasts, record, sweep, trials
from lora_mini.world import base

REC = record.load("bits")


def mean(seen):
    return math.inf if None in seen["chooses"] else fmean(seen["chooses"])


def test_the_record_says_what_made_it_and_its_plan_stands_apart_from_the_first():
    about = REC["about"]
    assert about["command"] == "python -m lora_mini.lab bits" and len(about["code"]) == 12
    assert about["plan"] == record.plan_hash("bits") != record.plan_hash("arms")


def test_every_cell_has_sixteen_bases_and_an_inner_rate():
    for cell in REC["cells"]:
        assert len(cell["total"]) == len(bases.REPORT) == 16
        assert all(math.isfinite(total) for total in cell["total"])
        if "tried" in cell:
            means = {float(rate): mean(seen) for rate, seen in cell["tried"].items()}
            assert cell["best"] == sweep.chosen({float(rate): seen
                                                 for rate, seen in cell["tried"].items()})
            # repairing what is hardly broken, the gentlest rates are as good as each other
            flat = cell.get("task") == bits.OWN and cell["bits"] in (32, 4)
            assert min(means) < min(means, key=means.get) < max(means) or flat
    assert len(REC["own"]) == 16 and set(REC["kinds"]) == set(bits.KINDS)


def test_the_places_of_an_adapter_are_all_there():
    for new in bits.NEW:
        for b in bits.BITS:
            used = {(c["used"], c["in_bits"]) for c in REC["cells"]
                    if c.get("new") == new and c["bits"] == b}
            others = {("moved", o) for o in bits.BITS if o != b}
            merged = {("merged", o) for o in ((4, 3, 2) if b == 32 else (b,))}
            assert used == {("there", b)} | others | merged


def test_on_32_bits_it_is_what_record_arms_has_of_the_same_arm():
    """The bases were made anew: some come out the same, the others a little apart."""
    for new in bits.NEW:
        here = contrasts.cell("bits", arm="LoRA r=8", bits=32, new=new, used="there")["total"]
        there = contrasts.cell("arms", arm="LoRA r=8", new=new, examples=256)["total"]
        logs = [math.log(a / b) for a, b in zip(here, there, strict=True)]
        assert abs(fmean(logs)) < math.log(1.1)


def test_fewer_bits_cost_more_and_the_more_of_the_rest_is_kept_the_less():
    for b in (4, 3, 2):
        by_rounds = [contrasts.cell("bits", arm=bits.UNTRAINED, bits=b, rounds=rounds)
                     for rounds in bits.ROUNDS]
        for key in ("off", "total"):
            means = [fmean(cell[key]) for cell in by_rounds]
            assert means == sorted(means, reverse=True)
    bare = [fmean(contrasts.cell("bits", arm=bits.UNTRAINED, bits=b, rounds=0)["total"])
            for b in bits.BITS]
    assert bare == sorted(bare)
    nf4 = contrasts.cell("bits", arm=bits.UNTRAINED, bits=4, rounds=0)
    assert REC["kinds"]["NF4"]["total"] == nf4["total"]


def test_a_planted_fault_turns_what_c7_rests_on():
    effects = contrasts.effects("P4")
    assert verdicts.weigh("P4", effects).conditions["4 bits, 12 new words"] == "equal"
    spoiled = {name: [x - 1 for x in xs] for name, xs in effects.items()}
    assert set(verdicts.weigh("P4", spoiled).conditions.values()) == {"worse"}


def test_the_rounded_model_is_the_one_with_four_bit_layers():
    before = base.shipped()
    ours, theirs = bits.in_bits(before, 4), copy.deepcopy(before)
    quant.to_four_bits(theirs)
    for name, layer in theirs.named_modules():
        if isinstance(layer, quant.FourBitLinear):
            assert torch.equal(layer.weight, ours.get_submodule(name).weight)
    untouched = bits.in_bits(before, 32)
    assert all(map(torch.equal, untouched.parameters(), before.parameters()))
    assert bits.error(before, ours) == pytest.approx(0.092, abs=0.003)


def test_near_is_a_rounded_matrix_and_a_rank_that_come_closer_with_each_round():
    before = base.shipped()
    W = before.blocks[0].up_proj.weight.detach()
    for rounds in (1, 3):
        X = bits.near(before, 3, rounds).blocks[0].up_proj.weight.detach()
        assert (X - W).norm() < (quant.rounded(W, quant.normal_float(3)) - W).norm()
    Q = quant.rounded(W, quant.normal_float(3))
    one = bits.near(before, 3, 1).blocks[0].up_proj.weight.detach() - Q
    assert np.linalg.matrix_rank(one.numpy(), tol=1e-4) == 8


def test_an_adapter_elsewhere_is_the_merged_matrix_by_hand():
    before, style = base.shipped(), bits.parts.task({"new": 0})
    model, _ = trials.tune(bits.in_bits(before, 4), "LoRA r=2", style, 3e-3, 0, examples=32,
                           steps=2, checkpoints=(2,), report=False)
    test = trials.frames(style, 8, 0, "test")
    bits_frames, trials.frames = trials.frames, lambda *_: test
    try:
        found = bits.elsewhere(before, model, 4, style, 0)
    finally:
        trials.frames = bits_frames
    assert set(found) == {"moved, 32", "moved, 3", "moved, 2", "merged, 4"}
    moved, merged = copy.deepcopy(before), copy.deepcopy(before)
    with torch.no_grad():
        for name, layer in model.named_modules():
            if isinstance(layer, bits.lm.LoRALinear):
                update = 8 * layer.lora_B @ layer.lora_A  # alpha 16 over rank 2
                moved.get_submodule(name).weight.add_(update)
                merged.get_submodule(name).weight.copy_(quant.rounded(layer.base.weight + update))
    for key, by_hand in (("moved, 32", moved), ("merged, 4", merged)):
        assert found[key] == pytest.approx(bits._pays(by_hand, test), rel=1e-3)
