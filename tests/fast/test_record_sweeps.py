"""The records of 07 and 09: complete, rates chosen on other seeds, verdicts."""

from statistics import fmean

import pytest
import torch

from lora_mini.desk import verdicts
from lora_mini.lab import nb07, nb09, record, sweep
from lora_mini.world import base, town, train

RANK, VARIANT = record.load("07"), record.load("09")
FLOOR = town.entropy(nb07.TASKS["24 new words"])
PARTS = {**{part: (RANK[part], found, nb07.rates) for part, found in
            nb07.cells().items()}, "variants": (VARIANT["cells"], nb09.cells(),
                                                     nb09.rates)}
each_part = pytest.mark.parametrize("part", PARTS)


def dial(method, task="24 new words"):
    return record.find(RANK["dial"], method=method, task=task)


def variant(method, task="24 new words", clip=None):
    return record.find(VARIANT["cells"], method=method, task=task, clip=clip)


@pytest.mark.parametrize("found", [RANK, VARIANT])
def test_they_were_made_from_the_base_that_ships(found):
    assert found["base"] == base.describe()["digest"]


@each_part
def test_every_cell_is_there_once_with_all_its_seeds(part):
    recorded, planned, rates = PARTS[part]
    assert len(recorded) == len(planned)
    for cell in planned:
        found = record.find(recorded, **{"clip": None} | cell)
        assert len(found["target"]) == len(sweep.REPORT)
        assert {float(rate) for rate in found["tried"]} >= set(rates(cell))
        assert all(len(seen["target"]) == len(sweep.CHOOSE) for seen in found["tried"].values())


@each_part
def test_the_best_rate_is_the_one_that_the_choosing_seeds_prefer(part):
    for cell in PARTS[part][0]:
        tried = {float(rate): seen for rate, seen in cell["tried"].items()}
        assert cell["best"] == sweep.best_rate(tried)


@pytest.mark.parametrize("part", [p for p in PARTS if p != "variants"])
def test_the_best_rate_of_07_lies_inside_what_was_tried(part):
    for cell in PARTS[part][0]:
        tried = [float(rate) for rate in cell["tried"]]
        assert min(tried) < cell["best"] < max(tried), cell


def test_a_run_starts_alike_whether_or_not_its_process_has_read_the_base(monkeypatch):
    starts = []

    def fit(model, *args, **options):
        starts.append(model.blocks[0].up_proj.lora_A.detach().clone())
        return train.History()

    monkeypatch.setattr(train, "fit", fit)
    base.shipped.cache_clear()
    for _ in range(2):
        nb09.drift({"method": "LoRA r=4"}, 1e-2, 10)
    assert torch.equal(*starts)


def paired(first, second, scale=100 / FLOOR):
    return [scale * (a - b) for a, b in zip(first["target"], second["target"], strict=True)]


def shifted(effects, by):
    return {condition: [x + by for x in values] for condition, values in effects.items()}


EFFECTS = {
    "C9": {"16": paired(record.find(RANK["targets"], targets="attention", method="LoRA r=16"),
                        dial("LoRA r=16"))},
    "C14": {t: dial("LoRA r=8", t)["exact"] for t in ("0 new words", "6 new words")},
    "C20": {"24": paired(dial("LoRA r=2"), dial("LoRA r=16"))},
    "C10": {"quality": paired(variant("LoRA r=4"), variant("DoRA r=4"))},
}


@pytest.mark.parametrize("claim, up, down", [
    ("C9", 100, -200), ("C14", 1, -1), ("C20", 100, -300), ("C10", 100, -100)])
def test_a_fault_planted_in_the_data_flips_the_verdict(claim, up, down):
    assert verdicts.weigh(claim, shifted(EFFECTS[claim], up)).word == "holds"
    assert verdicts.weigh(claim, shifted(EFFECTS[claim], down)).word == "misleading"


def test_rank_is_what_new_words_cost():
    mean = [fmean(dial(f"LoRA r={r}")["target"]) for r in (1, 2, 4)]
    assert mean == sorted(mean, reverse=True)
    assert fmean(dial("LoRA r=1+words")["target"]) < fmean(dial("blocks")["target"])
