"""Recorded measurements: what they say of themselves, the verdicts they carry, and damage."""

import json
from statistics import fmean

import pytest

from lora_mini.desk import verdicts
from lora_mini.lab import nb06, record, trials
from lora_mini.world import base, town
from lora_mini.world.styles import REGISTERS

REC = record.load("06")


def runs(method, register, rows="runs"):
    return [t for t in REC[rows] if (t["method"], t["style"]) == (method, register)]


def test_a_record_says_what_made_it():
    about = REC["about"]
    assert about["command"] == "python -m lora_mini.lab 06"
    assert {"machine", "torch", "code", "minutes"} <= set(about)
    assert len(about["code"]) == 12 and about["code"] in record.label(REC)


def test_the_record_was_made_from_the_base_that_ships():
    assert REC["base"] == base.describe()["digest"]


def test_every_method_register_rate_and_seed_is_there_once():
    for method in trials.METHODS:
        for register in REGISTERS:
            found = sorted((t["rate"], t["seed"]) for t in runs(method, register, "sweep"))
            assert found == [(rate, seed) for rate in trials.rates(method) for seed in range(3)]
            assert [t["seed"] for t in runs(method, register)] == list(range(10, 18))
    assert all(t["whole"] for rows in ("sweep", "runs", "calm", "narrow") for t in REC[rows])


def test_rates_were_chosen_on_seeds_that_are_not_reported():
    for name, rate in REC["best"].items():
        method, register = name.split(", ")
        mean = {r: fmean(t["target"] for t in runs(method, register, "sweep") if t["rate"] == r)
                for r in trials.rates(method)}
        assert rate == min(mean, key=mean.get)
        assert {t["rate"] for t in runs(method, register)} == {rate}


def test_the_gentlest_points_fit_on_the_choosing_seeds():
    for name, (rate, step) in REC["gentle"].items():
        method, register = name.split(", ")
        points = [target for t in runs(method, register, "sweep") if t["rate"] == rate
                  for s, target, _ in t["path"] if s == step]
        assert fmean(points) <= nb06.FIT


def effects_of_c5(penalty=0.0):
    floor = {r: town.entropy(style) for r, style in REGISTERS.items()}
    pairs = {r: zip(runs("full", r), runs("LoRA r=8", r), strict=True) for r in REGISTERS}
    return {r: [100 * (f["target"] - x["target"] - penalty) / floor[r] for f, x in pair]
            for r, pair in pairs.items()}


def effects_of_c12(added=0.0):
    def forgotten(method, register):
        step = REC["gentle"][f"{method}, {register}"][1]
        return [next(others for s, _, others in t["path"] if s == step)
                for t in runs(method, register, "calm")]
    pairs = {r: zip(forgotten("full", r), forgotten("LoRA r=8", r), strict=True) for r in REGISTERS}
    return {r: [f - x + added for f, x in pair] for r, pair in pairs.items()}


def test_a_fault_planted_in_the_data_flips_each_verdict():
    assert verdicts.weigh("C5", effects_of_c5()).word == "holds"
    assert verdicts.weigh("C5", effects_of_c5(penalty=0.02)).word == "misleading"
    exact = {r: [t["exact"] for t in runs("LoRA r=8", r)] for r in REGISTERS}
    assert verdicts.weigh("C8", exact).word == "holds"
    assert verdicts.weigh("C8", {r: [e - 0.2 for e in v] for r, v in exact.items()}
                          ).word == "misleading"
    assert verdicts.weigh("C12", effects_of_c12()).word == "not decided"
    assert verdicts.weigh("C12", effects_of_c12(0.2)).word == "holds"
    assert verdicts.weigh("C12", effects_of_c12(-0.2)).word == "misleading"


def test_a_cell_is_found_by_what_it_says_and_only_if_it_is_the_one():
    cells = [{"method": "full", "task": "a"}, {"method": "full", "task": "b", "clip": 1.0}]
    assert record.find(cells, method="full", clip=None)["task"] == "a"
    with pytest.raises(LookupError, match="2 cells have {'method': 'full'}; there are.*full"):
        record.find(cells, method="full")
    with pytest.raises(LookupError, match="0 cells .*'a', 'b'"):
        record.find(cells, task="c")


def test_a_missing_and_a_damaged_record_say_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="there is no record '99': 06, 07, 08, 09 exist"):
        record.load("99")
    monkeypatch.setattr(record, "HERE", tmp_path / "lab")
    (tmp_path / "lab/records").mkdir(parents=True)
    for damage in ('{"about": ', "[]", "{}", "3", '{"about": 3}'):
        (tmp_path / "lab/records" / "06.json").write_text(damage)
        with pytest.raises(ValueError, match="damaged.*python -m lora_mini.lab 06"):
            record.load("06")


def test_what_is_written_can_be_loaded_and_holds_the_code_that_made_it(tmp_path, monkeypatch):
    (tmp_path / "lora.py").write_text('"""Words."""\nx = 1\n')
    monkeypatch.setattr(record, "HERE", tmp_path / "lab")
    record.write("77", {"values": [1, 2]}, seconds=90, code=record.code_hash())
    found = record.load("77")
    assert found["values"] == [1, 2] and found["about"]["minutes"] == 1.5
    before = record.code_hash()
    (tmp_path / "lora.py").write_text('"""Other words."""\nx = 1  # a comment\n')
    assert record.code_hash() == before == found["about"]["code"]
    (tmp_path / "lora.py").write_text("x = 2\n")
    assert record.code_hash() != before
    json.loads((tmp_path / "lab/records" / "77.json").read_text("utf-8"))


def test_a_part_that_is_made_anew_leaves_the_rest_and_says_so(tmp_path, monkeypatch):
    (tmp_path / "lora.py").write_text("x = 1\n")
    monkeypatch.setattr(record, "HERE", tmp_path / "lab")
    record.write("77", {"one": [1], "two": [2], "base": "b"}, 60, "old")
    record.write("77", {"two": [3], "base": "b"}, 120, "new", kept=record.load("77"))
    found = record.load("77")
    assert (found["one"], found["two"], found["base"]) == ([1], [3], "b")
    assert found["about"]["code"] == "old"
    assert found["about"]["remade"] == {"two": {"code": "new", "minutes": 2.0}}
