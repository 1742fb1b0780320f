"""Record "fresh": what made it, all cells, what trains in them, and what is judged by it."""

import math
from statistics import fmean

import pytest
import torch

from lora_mini.desk import verdicts
from lora_mini.lab import bases, contrasts, fresh, parts, record, sweep, trials
from lora_mini.world import base, measure
from lora_mini.world.gpt import GPT

REC = record.load("fresh")
NUMBERS = {"full": 121_856, fresh.REST: 23_552, f"LoRA r=8 and {fresh.REST}": 41_984,
           "LoRA r=8": 18_432, "LoRA r=64": 147_456}


def test_the_record_says_what_made_it_and_its_plan():
    about = REC["about"]
    assert about["command"] == "python -m lora_mini.lab fresh" and len(about["code"]) == 12
    assert about["plan"] == record.plan_hash("fresh")
    assert len({record.plan_hash(name) for name in ("arms", "bits", "fresh")}) == 3


def test_every_arm_is_there_on_sixteen_bases_at_an_inner_rate():
    named = [(c["task"], c["arm"], c.get("new")) for c in REC["cells"]]
    assert named == [*((fresh.RANDOM, arm, None) for arm in fresh.ARMS), *(
        (fresh.UNLIMITED, arm, new) for new in (0, 12) for arm in ("full", "LoRA r=8"))]
    for cell in REC["cells"]:
        means = {float(rate): math.inf if None in seen["chooses"] else fmean(seen["chooses"])
                 for rate, seen in cell["tried"].items()}
        assert min(means) < min(means, key=means.get) < max(means)
        assert cell["best"] == sweep.chosen({float(r): seen for r, seen in cell["tried"].items()})
        assert len(cell["total"]) == 16 and all(map(math.isfinite, cell["total"]))
    assert len(REC["own"]) == len(bases.REPORT)


def test_each_arm_trains_its_share_of_random_weights_and_nothing_else():
    for cell in REC["cells"]:
        assert set(cell["trains"]) == {NUMBERS[cell["arm"]]}
    shipped = base.shipped()
    for arm, count in NUMBERS.items():
        torch.manual_seed(0)
        model = fresh.ready(arm, GPT(shipped.config))
        trains = {name for name, p in model.named_parameters() if p.requires_grad}
        assert sum(model.get_parameter(name).numel() for name in trains) == count
        matrices = {name for name in trains if "_proj.weight" in name or "base.weight" in name}
        assert bool(matrices) == (arm == "full")
        assert ("embed.weight" in trains) == (arm not in ("LoRA r=8", "LoRA r=64"))


def test_from_random_weights_nothing_of_the_base_is_left():
    shipped = base.shipped()
    torch.manual_seed(0)
    model = fresh.ready(fresh.REST, shipped)
    assert not any(torch.equal(p, shipped.get_parameter(name)) for name, p in
                   model.named_parameters() if "_proj.weight" in name)


def test_a_planted_gain_turns_the_verdict_on_c18():
    effects = {name: [x + 9 for x in xs] for name, xs in contrasts.effects("C18").items()}
    assert verdicts.weigh("C18", effects).word == "misleading"


def test_a_run_reports_its_best_checkpoint(monkeypatch):
    monkeypatch.setattr(fresh.bases, "base_of", lambda seed: base.shipped())
    monkeypatch.setattr(fresh, "STEPS", {fresh.RANDOM: 4, fresh.UNLIMITED: 4})
    monkeypatch.setattr(fresh, "EVERY", 2)
    for cell in ({"task": fresh.RANDOM, "arm": "LoRA r=8"},
                 {"task": fresh.UNLIMITED, "arm": "full", "new": 12}):
        found = fresh.run(cell, 1e-2, 0)
        assert found["step"] in (2, 4) and found["trains"] == NUMBERS[cell["arm"]]
        assert found["total"] == pytest.approx(found["content"] + found["chance"], rel=1e-5)
        assert "total" not in fresh.run(cell, 1e-2, 0, report=False)


def test_a_watched_run_leaves_the_model_at_the_checkpoint_that_it_reports():
    """At a rate that ruins the model the first checkpoint is the best."""
    torch.manual_seed(0)
    model, style = trials.prepare(base.shipped(), "full"), parts.task({"new": 0})
    held_out = trials.frames(style, 8, 0, "validation")
    found = parts.watched(model, style, held_out, 3.0, seed=0, steps=24, every=2)
    assert found["step"] < 24
    assert measure.excess(model, held_out).total == pytest.approx(found["chooses"], rel=1e-5)


def test_embedding_and_head_alone_are_a_record_of_their_own():
    found = record.load("fresh_words")
    cell, = found["cells"]
    assert found["about"]["plan"] == record.plan_hash("fresh_words") == record.plan_hash("fresh")
    means = {float(rate): fmean(seen["chooses"]) for rate, seen in cell["tried"].items()}
    assert min(means) < min(means, key=means.get) == cell["best"] < max(means)
    assert len(cell["total"]) == 16 and set(cell["trains"]) == {37_632}
    torch.manual_seed(0)
    model = fresh.ready(fresh.WORDS, base.shipped())
    trains = {n for n, p in model.named_parameters() if p.requires_grad and "lora_" not in n}
    assert trains == {n for n, p in model.named_parameters() if n.startswith(("embed.", "head."))}
