"""Records and the verdicts that they carry: what made them, honest rates, planted faults."""

import datetime
import json
import math
from statistics import fmean, stdev

import pytest

from lora_mini.desk import verdicts
from lora_mini.lab import bases, contrasts, forgetting, parts, record, sweep

ARMS, OLD = record.load("arms"), record.load("forgetting")
REPORTED = ("content", "chance", "total", "valid", "last", "train", "old", "old_valid", "step",
            "ms")


def named(cell):
    """What a cell says of itself, without its results."""
    keys = ("arm", "new", "examples", *contrasts.SPLIT, "asked")
    return {key: cell[key] for key in keys if key in cell}


@pytest.mark.parametrize("name", ["arms", "forgetting", "gentler", "narrow"])
def test_a_record_says_what_made_it_and_what_was_to_be_judged(name):
    found = record.load(name)
    about, label = found["about"], record.label(found)
    assert about["command"] == f"python -m lora_mini.lab {name}"
    assert about["by"] and len(about["code"]) == 12
    for said in (about["command"], *about["by"], about["code"], about["plan"]):
        assert said in label


@pytest.mark.parametrize("name", ["arms", "forgetting", "gentler", "narrow"])
def test_the_contrasts_stand_as_they_did_when_the_record_was_made(name):
    assert record.load(name)["about"]["plan"] == record.plan_hash(name)


def test_every_arm_and_task_is_there_once_on_sixteen_bases():
    assert [named(cell) for cell in ARMS["cells"]] == [
        {key: value for key, value in cell.items() if key != "watch"} for cell in parts.arms()]
    for cell in ARMS["cells"]:
        for key in REPORTED:
            assert len(cell[key]) == len(bases.REPORT) == 16
            assert all(math.isfinite(value) for value in cell[key]), (named(cell), key)
        parted = [a + b for a, b in zip(cell["content"], cell["chance"], strict=True)]
        assert parted == pytest.approx(cell["total"], rel=2e-3, abs=2e-6)  # four digits each
        assert set(cell["step"]) <= {25, 50, 100, 200}
    assert len(ARMS["own"]) == len(OLD["own"]) == 16


def test_bases_that_choose_report_nothing_and_the_one_that_ships_does_neither():
    assert not set(bases.CHOOSE) & set(bases.REPORT)
    assert 0 not in (*bases.CHOOSE, *bases.REPORT)  # the shipped base's seed
    for cell in ARMS["cells"]:
        assert {len(seen["chooses"]) for seen in cell["tried"].values()} == {len(bases.CHOOSE)}


def mean(seen):
    return math.inf if None in seen["chooses"] else fmean(seen["chooses"])


def test_the_best_rate_lies_inside_what_was_tried_and_the_gentlest_near_it_reports():
    for cell in ARMS["cells"]:
        means = {float(rate): mean(seen) for rate, seen in cell["tried"].items()}
        assert min(means) < min(means, key=means.get) < max(means), named(cell)
        near = [rate for rate in means if means[rate] <= 1.1 * min(means.values())]
        assert cell["best"] == min(near), named(cell)


def test_the_gentlest_rate_fits_and_the_next_lower_one_does_not():
    for cell in OLD["cells"]:
        rates = sorted(map(float, cell["tried"]))
        fitting = [rate for rate in rates if mean(cell["tried"][f"{rate:g}"]) <= OLD["bar"]]
        assert OLD["bar"] == 0.010 and cell["fits"] == bool(fitting)
        if fitting:
            assert cell["gentlest"] == fitting[0] > rates[0], named(cell)  # the end is interior
        assert len(cell["old_valid"]) == 16


def test_what_was_added_after_looking_is_the_rate_that_missed_the_bar_by_little():
    later, = record.load("gentler")["cells"]
    known = record.find(OLD["cells"], arm="full", asked="any")
    below = max(rate for rate in map(float, known["tried"]) if rate < known["gentlest"])
    assert (later["arm"], later["asked"], later["rate"]) == ("full", "any", below)
    assert 0 < mean(known["tried"][f"{below:g}"]) - OLD["bar"] < 0.001
    assert fmean(later["total"]) < OLD["bar"] and len(later["old_valid"]) == 16


def test_the_narrow_bases_have_every_arm_on_sixteen_bases_at_an_inner_rate():
    found = record.load("narrow")
    assert [cell["arm"] for cell in found["cells"]] == [cell["arm"] for cell in parts.narrow()]
    for cell in found["cells"]:
        means = {float(rate): mean(seen) for rate, seen in cell["tried"].items()}
        assert min(means) < min(means, key=means.get) < max(means)
        assert len(cell["total"]) == 16 and set(cell["old_valid"]) == {0}  # never read the old ones


def test_forgetting_has_both_prompts_replay_and_strengths():
    assert {(cell["arm"], cell["asked"]) for cell in OLD["cells"]} == {
        *((arm, "any") for arm in forgetting.ARMS), *((arm, "plain") for arm in forgetting.RIVALS)}
    for arm in forgetting.RIVALS:
        for replay in (0, 64):
            cell = record.find(OLD["replay"], arm=arm, replay=replay)
            assert len(cell["old_valid"]) == 16
    assert len(OLD["strength"]) == 16 and OLD["strengths"][0] == 0 and OLD["strengths"][10] == 1
    for base, own in zip(OLD["strength"], OLD["own"], strict=True):
        assert base[0][2] >= own["valid"] - 0.02  # at strength 0 the base speaks


@pytest.mark.parametrize("claim, name, found, task, rival, subject", [
    ("C5", "0 new words, 256 examples", "arms", {"new": 0, "examples": 256}, "full", "LoRA r=8"),
    ("C10", "12 new words, clipped", "variants", {"new": 12, "clip": 1.0}, "LoRA r=8", "DoRA r=8"),
])
def test_a_verdict_by_hand_is_the_one_that_is_printed(claim, name, found, task, rival, subject):
    """Ratio, mean and standard deviation, and Student's t of a printed table: 3.036 for six."""
    theirs, mine = (contrasts.cell(found, arm=arm, **task)["total"] for arm in (rival, subject))
    f = [own["total"] for own in record.load(found)["own"]]
    logs = [math.log(max(a, low)) - math.log(max(b, low))
            for a, b, low in zip(theirs, mine, f, strict=True)]
    reach = 3.036 * stdev(logs) / 4
    ends = [math.exp(fmean(logs) + side) for side in (0, -reach, reach)]
    words = verdicts.seen(contrasts.effects(claim)[name], verdicts.contrasts(claim)[name], 6, name)
    factor, low, high = (float(x) for x in words.split("factor ")[1].translate(
        str.maketrans("[,]", "   ")).split())
    assert [factor, low, high] == pytest.approx(ends, abs=0.006)


SWAPPED = {"better": "worse", "worse": "better", "equal": "equal", "open": "open"}


@pytest.mark.parametrize("claim", ["C5", "C12", "C18", *(f"P{i}" for i in range(1, 9))])
def test_reversed_data_reverse_every_contrast(claim):
    effects = contrasts.effects(claim)
    came = verdicts.weigh(claim, effects).conditions
    turned = verdicts.weigh(claim, {name: [-x for x in values] for name, values in effects.items()})
    assert turned.conditions == {name: SWAPPED[word] for name, word in came.items()}


@pytest.mark.parametrize("claim, fault, word", [
    ("C5", 3.0, "holds"), ("C5", -3.0, "misleading"), ("C12", 3.0, "holds when"),
    ("C12", -3.0, "misleading"), ("C8", -3.0, "misleading")])
def test_a_fault_planted_in_the_effects_turns_the_verdict(claim, fault, word):
    """Added to each base's effect; C12's preserved share can't be better than equal."""
    effects = {name: [x + fault for x in xs] for name, xs in contrasts.effects(claim).items()}
    assert verdicts.weigh(claim, effects).word == word


def planted(monkeypatch, name, change):
    """The record as it would be if `change` had been done to each of its cells."""
    found = json.loads(json.dumps(record.load(name)))
    for cell in found["cells"]:
        change(cell)
    load = {**{"arms": ARMS, "forgetting": OLD}, name: found}.get
    monkeypatch.setattr(contrasts, "load", load)


def test_arms_that_change_places_change_the_verdict_on_c5(monkeypatch):
    before = verdicts.weigh("C5", contrasts.effects("C5")).conditions
    names = {"full": "LoRA r=8", "LoRA r=8": "full"}
    planted(monkeypatch, "arms", lambda cell: cell.update(arm=names.get(cell["arm"], cell["arm"])))
    after = verdicts.weigh("C5", contrasts.effects("C5")).conditions
    assert after == {name: SWAPPED[word] for name, word in before.items()}


def test_a_lora_that_pays_three_times_as_much_matches_nowhere(monkeypatch):
    planted(monkeypatch, "arms", lambda cell: cell["arm"] == "LoRA r=8" and cell.update(
        total=[3 * x for x in cell["total"]]))
    came = verdicts.weigh("C5", contrasts.effects("C5"))
    assert came.word in ("misleading", "holds when") and "better" not in came.conditions.values()


def test_a_control_as_good_as_lora_takes_the_second_half_of_c8_away(monkeypatch):
    lora = {json.dumps(named(c) | {"arm": "scratch"}): c["total"] for c in ARMS["cells"]
            if c["arm"] == "LoRA r=8"}
    planted(monkeypatch, "arms", lambda cell: cell.update(
        total=lora.get(json.dumps(named(cell)), cell["total"])))
    came = verdicts.weigh("C8", contrasts.effects("C8")).conditions
    assert came["beats random weights, 256 examples"] == "equal"
    assert came["beats random weights, 1,024 examples"] == "equal"


def test_sentences_that_are_lost_or_kept_turn_c12(monkeypatch):
    planted(monkeypatch, "forgetting", lambda cell: cell["arm"] == "LoRA r=8" and cell.update(
        old_valid=[0.0] * 16))
    assert "better" not in verdicts.weigh("C12", contrasts.effects("C12")).conditions.values()
    planted(monkeypatch, "forgetting", lambda cell: cell.update(
        old_valid=[1.0 if cell["arm"] == "LoRA r=8" else 0.5] * 16))
    assert verdicts.weigh("C12", contrasts.effects("C12")).word == "holds"


def test_a_part_below_what_the_base_pays_counts_as_that():
    assert contrasts.ratios([0.001], [0.004], [0.002]) == [math.log(2)]
    assert contrasts.ratios([0.001], [0.0005], [0.002]) == [0]
    words = verdicts.seen([0.0] * 16, {"kind": "ratio", "margin": 1.5})
    assert "both learned it" in words


def test_a_cell_is_found_by_what_it_says_and_only_if_it_is_the_one():
    cells = [{"method": "full", "task": "a"}, {"method": "full", "task": "b", "clip": 1.0}]
    assert record.find(cells, method="full", clip=None)["task"] == "a"
    with pytest.raises(LookupError, match="2 cells have {'method': 'full'}; there are.*full"):
        record.find(cells, method="full")
    with pytest.raises(LookupError, match="0 cells .*'a', 'b'"):
        record.find(cells, task="c")


def test_a_missing_and_a_damaged_record_say_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="there is no record '99': .*arms.*exist"):
        record.load("99")
    monkeypatch.setattr(record, "HERE", tmp_path / "lab")
    (tmp_path / "lab/records").mkdir(parents=True)
    for damage in ('{"about": ', "[]", "{}", "3", '{"about": 3}'):
        (tmp_path / "lab/records" / "arms.json").write_text(damage)
        with pytest.raises(ValueError, match="damaged.*python -m lora_mini.lab arms"):
            record.load("arms")


def test_what_is_written_can_be_loaded_and_holds_the_code_that_made_it(tmp_path, monkeypatch):
    (tmp_path / "desk").mkdir()
    (tmp_path / "desk/contrasts.toml").write_text("[C5]\n")
    (tmp_path / "lora.py").write_text('"""Words."""\nx = 1\n')
    monkeypatch.setattr(record, "HERE", tmp_path / "lab")
    record.write("77", {"values": [1, 2]}, record.code_hash(), {"a machine", "another"})
    found = record.load("77")
    assert found["values"] == [1, 2] and found["about"]["by"] == ["a machine", "another"]
    assert datetime.date.fromisoformat(found["about"]["date"]) <= datetime.date.today()
    before, plan = record.code_hash(), record.plan_hash("77")
    assert (before, plan) == (found["about"]["code"], found["about"]["plan"])
    (tmp_path / "lora.py").write_text('"""Other words."""\nx = 1  # a comment\n')
    assert record.code_hash() == before
    (tmp_path / "lora.py").write_text("x = 2\n")
    (tmp_path / "desk/contrasts.toml").write_text("[C6]\n")
    assert record.code_hash() != before and record.plan_hash("77") != plan
    whole = record.code_hash()
    (tmp_path / "lab/voice.py").write_text("x = 1\n")  # what one record alone rests on
    assert record.code_hash("house") != whole == record.code_hash("arms")


def test_the_rule_of_the_sweep_is_the_one_that_the_records_followed():
    for cell in ARMS["cells"]:
        assert cell["best"] == sweep.chosen({float(r): seen for r, seen in cell["tried"].items()})
