"""A seed that no record has used lands where the records predict: a point of each kind, redone."""

from statistics import fmean

import numpy as np
import pytest

from lora_mini.desk.intervals import prediction
from lora_mini.lab import nb07, nb08, nb09, record, trials
from lora_mini.world import base, town
from lora_mini.world.styles import REGISTERS

SEED = 30


@pytest.mark.parametrize("method", ["full", "LoRA r=2"])
def test_06(method):
    found, style = record.load("06"), REGISTERS["support"]
    _, redone = trials.tune(base.load_base("cpu", base.SHIPPED), method, style,
                            found["best"][f"{method}, support"], SEED)
    recorded = [t["target"] for t in found["runs"]
                if (t["method"], t["style"]) == (method, "support")]
    expected = prediction(recorded, floor=0.02 * town.entropy(style))
    assert expected.holds(redone.target), (redone.target, expected)


@pytest.mark.parametrize("name, lab, part, where", [
    ("07", nb07, "dial", {"method": "LoRA r=4", "task": "24 new words"}),
    ("07", nb07, "facts", {"method": "LoRA r=16"} | nb07.FACTS),
    ("09", nb09, "cells", {"method": "DoRA r=4", "task": "24 new words", "clip": None}),
])
def test_07_and_09(name, lab, part, where):
    cell = record.find(record.load(name)[part], **where)
    redone = lab.run({key: value for key, value in where.items() if value is not None},
                     cell["best"], seed=SEED)
    floor = town.entropy(nb07.TASKS["24 new words"])
    expected = prediction(cell["target"], floor=8 if part == "facts" else 0.02 * floor)  # a fact
    assert expected.holds(redone["target"]), (redone, expected)


def test_08_and_its_update_opened():
    method, task = "full", "0 new words"
    model, style = base.load_base("cpu", base.SHIPPED), nb08.TASKS[task]
    tuned, redone = trials.tune(model, method, style, nb08.RATES[task][method], SEED,
                                checkpoints=(200,))
    recorded = record.find(record.load("08")["runs"], method=method, task=task)
    assert prediction(recorded["target"], floor=0.02 * town.entropy(style)).holds(redone.target)
    seen = nb08.spectra(model, tuned, np.random.default_rng(SEED))
    expected = prediction([fmean(s) for s in recorded["share"]], floor=0.02)
    assert expected.holds(fmean(seen["share"]))
