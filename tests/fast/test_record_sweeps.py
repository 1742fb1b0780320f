"""The records of 07: complete, fair, turned by planted faults; what the lesson reads off them."""

import json
import math
from statistics import fmean, median

import pytest

import build
from lora_mini.desk import verdicts
from lora_mini.lab import bases, contrasts, parts, record, sweep

NAMES = ("map", "facts", "starved", "scales", "width128", "width256")
FOUND = {name: record.load(name) for name in ("arms", *NAMES)}
CLAIMS = ("C9", "C14", "C20")
MEMORY = "memory: bytes kept for the backward pass"
SWAPPED = {"better": "worse", "worse": "better", "equal": "equal", "open": "open"}
GUESS = math.log(8 * 8 * 4) / 3  # nats a word: somebody who knows the form of an entry, no fact


def named(cell):
    """What a cell says of itself, without its results and the device."""
    keys = ("arm", "new", "examples", "register", "order", "facts", "size", "steps", "clip",
            "alpha", "law", "width")
    return {key: cell[key] for key in keys if key in cell and key != "device"}


def planned():
    """{record: (its cells as planned, how many bases report)}."""
    return {"map": (parts.chart(), 1), "facts": (parts.facts(), 8), "starved": (parts.starved(), 1),
            "scales": (parts.scales(), 0), "width128": (parts.width(128), 10),
            "width256": (parts.width(256), 4)}


def mean(seen):
    return math.inf if None in seen["chooses"] else fmean(seen["chooses"])


def cell(arm, new, **more):
    return contrasts.cell("arms", arm=arm, new=new, examples=256, **more)


def at(arm, new, examples):
    return contrasts.cell("map", arm=arm, new=new, examples=examples)["total"][0]


@pytest.mark.parametrize("name", NAMES)
def test_a_record_says_what_made_it_and_the_contrasts_stand_as_they_did(name):
    about = FOUND[name]["about"]
    assert about["command"] == f"python -m lora_mini.lab {name}"
    assert about["by"] and len(about["code"]) == 12 and about["plan"] == record.plan_hash(name)


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_is_there_once_with_all_its_bases(name):
    cells, count = planned()[name]
    recorded = [named(c) for c in FOUND[name]["cells"]]
    assert sorted(map(json.dumps, recorded)) == sorted(json.dumps(named(c)) for c in cells)
    assert len(FOUND[name].get("own", [])) in (0, count) or name == "starved"
    for c in FOUND[name]["cells"]:
        reported = [value for value in c.values() if isinstance(value, list)]
        assert {len(value) for value in reported} == ({count} if count else set())
        assert all(x is not None and math.isfinite(x) for key in ("content", "total", "bits")
                   for x in c.get(key, []))


@pytest.mark.parametrize("name", NAMES)
def test_the_best_rate_lies_inside_what_was_tried_and_the_gentlest_near_it_reports(name):
    for c in FOUND[name]["cells"]:
        means = {float(rate): mean(seen) for rate, seen in c["tried"].items()}
        assert min(means) < min(means, key=means.get) < max(means), named(c)
        assert c["best"] == sweep.chosen({float(r): seen for r, seen in c["tried"].items()})
    chosen_on = {len(seen["chooses"]) for c in FOUND[name]["cells"] for seen in c["tried"].values()}
    assert chosen_on <= ({1, 3} if name == "map" else {1} if name == "starved" else {3})


def test_the_map_takes_from_record_arms_what_that_has():
    both = 0
    for c in FOUND["map"]["cells"]:
        same = [other for other in FOUND["arms"]["cells"] if not other.keys() & {"order", "targets",
                "register"} and all(other[k] == c[k] for k in ("arm", "new", "examples"))]
        for other in same:
            both += 1
            assert c["total"] == other["total"][:1] and c["best"] == other["best"]
    assert both == 22 and bases.REPORT[0] == 11


# what the lesson reads off the records

def test_with_many_examples_and_new_words_random_weights_beat_lora():
    for new, factor in ((6, 1.4), (12, 1.5), (24, 3)):
        assert at("LoRA r=8", new, 1024) > factor * at("scratch", new, 1024)
        assert at("full", new, 1024) > at("scratch", new, 1024) / 1.5
    assert at("scratch", 0, 64) > 10 * at("full", 0, 64)
    assert 1.4 < at("scratch", 0, 1024) / at("full", 0, 1024) < 1.6
    flat = [at("LoRA r=1", 24, n) for n in (64, 256, 1024)]
    assert max(flat) < 1.1 * min(flat)
    assert at("LoRA r=1", 24, 256) == max(cell("LoRA r=1", 24)["total"])  # the worst of sixteen


def least(arm, new):
    seen = [rows for tried in cell(arm, new)["tried"].values()
            for rows in zip(*tried.get("path", []), strict=True)]
    return min(fmean(row[1] for row in rows) for rows in seen)


def test_place_and_rank_are_told_apart():
    blocks = [f"LoRA r={r}" for r in (1, 8, 16, 64)] + ["blocks"]
    for new, bound in ((12, 0.0045), (24, 0.0085)):
        assert min(least(arm, new) for arm in blocks) > bound
        assert max(least(arm, new) for arm in ("words", "LoRA r=8+words", "full")) < 0.003
    content = [fmean(cell(f"LoRA r={r}", 24)["content"]) for r in (1, 8, 64)]
    assert content == pytest.approx([0.090, 0.015, 0.011], abs=6e-4)
    total = {arm: fmean(cell(arm, 0)["total"]) for arm in ("LoRA r=8", "LoRA r=8+words")}
    assert total["LoRA r=8+words"] / total["LoRA r=8"] == pytest.approx(1.4, abs=0.05)
    assert fmean(cell("LoRA r=8", 24)["total"]) > fmean(cell("scratch", 24)["total"]) / 1.5


def test_content_is_bought_with_chance_by_a_larger_rate():
    tried = cell("full", 12)["tried"]
    parted = {rate: [min(path, key=lambda row: row[1] + row[2]) for path in tried[rate]["path"]]
              for rate in ("0.0003", "0.003")}
    content, chance = ({rate: fmean(row[i] for row in rows) for rate, rows in parted.items()}
                       for i in (1, 2))
    assert content["0.003"] < content["0.0003"] / 2 and chance["0.003"] > 1.3 * chance["0.0003"]


def test_the_width_turns_who_is_ahead_in_content_and_not_what_the_base_is_worth():
    def over(name, arm, rival, part):
        found = contrasts.effect(name, part, "ratio", {"arm": arm}, {"arm": rival},
                                 {"new": 12, "examples": 256})
        return math.exp(fmean(found))

    names = ("arms", "width128", "width256")
    content = [over(name, "LoRA r=8", "full", "content") for name in names]
    assert content[0] > 1.2 and content[1] < 0.6 and 0.8 < content[2] < 1.2
    gain = [over(name, "full", "scratch", "total") for name in names]
    assert gain == sorted(gain) and gain[0] < 1.6 and gain[2] > 3


def test_the_control_is_in_every_table_of_nats():
    for name in ("map", "width128", "width256"):
        tasks = {(c["new"], c["examples"]) for c in FOUND[name]["cells"]}
        assert tasks == {(c["new"], c["examples"]) for c in FOUND[name]["cells"]
                         if c["arm"] == "scratch"}


def test_a_loss_at_a_guessers_level_knows_nothing_and_steps_not_room_were_missing():
    def seen(steps, clip, rate, arm="LoRA r=64"):
        found = record.find(FOUND["starved"]["cells"], arm=arm, steps=steps, clip=clip)
        return found["tried"][rate]["bits"][0], found["tried"][rate]["loss"][0]

    bits, loss = seen(400, 1.0, "0.001")
    assert bits < 0 and abs(loss - GUESS) < 0.15
    assert seen(400, 1.0, "0.003")[0] < 100 and seen(1600, 1.0, "0.003")[0] > 1000
    assert seen(1600, None, "0.003")[0] > 1000  # clipping does not decide
    assert seen(400, 1.0, "0.01")[0] > 1.5 * seen(400, None, "0.01")[0]
    assert max(seen(steps, clip, "0.03")[0] for steps in (400, 1600) for clip in (1.0, None)) < 0
    assert seen(400, 1.0, "0.003", "full")[0] > 1000


def test_missing_bits_and_known_ones_are_one_count():
    for c in FOUND["facts"]["cells"] + FOUND["starved"]["cells"]:
        known = [8 * c["facts"] * (1 - x) for x in c["total"]]
        assert c["bits"] == pytest.approx(known, abs=0.3)


def test_the_laws_of_the_scale_differ_in_where_the_best_rate_is():
    scales = FOUND["scales"]["cells"]
    best = {law: [record.find(scales, law=law, arm=f"LoRA r={r}")["best"] for r in (1, 64)]
            for law in parts.LAWS}
    assert best["constant"][0] / best["constant"][1] == pytest.approx(100)
    assert best["alpha / r"][0] / best["alpha / r"][1] == pytest.approx(3)
    assert cell("LoRA r=8", 12)["best"] == best["alpha / r"][1]
    paid = [min(map(mean, record.find(scales, law=law, arm="LoRA r=64")["tried"].values()))
            for law in parts.LAWS]
    assert max(paid) < 1.1 * min(paid)


def test_the_mlp_alone_is_ahead_by_the_median_and_fails_on_two_bases():
    for ranks in ((16, 16), (36, 29)):
        attention, mlp = (cell(f"LoRA r={r}", 12, targets=where)["content"]
                          for r, where in zip(ranks, ("attention", "MLP"), strict=True))
        assert median(mlp) < median(attention) and fmean(mlp) > fmean(attention)
        assert sum(x > 2 * max(attention) for x in mlp) == 2


def test_at_six_words_the_rate_decides_between_the_layers():
    both = {}
    for targets in (None, "attention"):
        found = cell("LoRA r=16", 6, targets=targets)
        paths = found["tried"]["0.01"]["path"]
        both[targets] = fmean(min(path, key=lambda row: row[1] + row[2])[1] for path in paths)
    assert cell("LoRA r=16", 6)["best"] == 0.003 < cell("LoRA r=16", 6, targets="attention")["best"]
    assert both[None] == pytest.approx(0.0036, abs=5e-5)
    assert both["attention"] == pytest.approx(0.0057, abs=5e-5)


def test_three_rates_in_two_places_come_near_the_best_of_all_arms():
    for new in (0, 12, 24):
        six = [mean(cell(arm, new)["tried"][rate]) for arm in ("LoRA r=8", "LoRA r=8+words")
               for rate in ("0.003", "0.01", "0.03")]
        every = [mean(seen) for arm in parts.SET for seen in cell(arm, new)["tried"].values()]
        assert min(six) <= 1.1 * min(every)


def test_the_factor_of_the_rates_and_the_cliff():
    for name, news in (("arms", (0, 12, 24)), ("width128", (0, 12)), ("width256", (0, 12))):
        for new in news:
            lora, full = (contrasts.cell(name, arm=arm, new=new, examples=256)["best"]
                          for arm in ("LoRA r=8", "full"))
            assert 9 < lora / full < 34 or new == 24 and 3 < lora / full < 4
    for arm in ("LoRA r=1", "LoRA r=8", "LoRA r=64"):
        tried = cell(arm, 24)["tried"]
        assert mean(tried["0.1"]) > 10 * mean(tried["0.03"])


def test_the_decision_page_fits_on_one_side_of_paper():
    lesson, = (path for path in build.all_lessons() if path.stem.startswith("07"))
    page = lesson.read_text("utf-8").split("## The decision page")[1].split("## From this town")[0]
    words = [line for line in page.splitlines() if line.startswith("#")]
    rows = page.count('("') + 10  # each table row is a tuple; both heads and spaces
    assert len(words) + rows < 60


# verdicts, and faults planted in what they rest on

def effects(claim):
    """As the lesson hands them over; at rank 16 all layers keep a third more than attention."""
    memory = {MEMORY: [math.log(6.4 / 8.7)] * 2} if claim == "C9" else {}
    return contrasts.effects(claim) | memory


@pytest.mark.parametrize("claim, came", [
    ("C9", ["open", "equal", "better", "open", "better", "worse"]),
    ("C14", ["equal", "equal", "open", "equal", "equal", "open"]),
    ("C20", ["open", "better", "equal", "equal", "better", "open"]),
])
def test_each_claim_holds_for_some_and_not_for_others(claim, came):
    found = verdicts.weigh(claim, effects(claim))
    assert found.word == "holds when" and list(found.conditions.values()) == came


@pytest.mark.parametrize("claim", CLAIMS)
def test_reversed_data_reverse_every_contrast(claim):
    before = verdicts.weigh(claim, effects(claim)).conditions
    turned = {name: [-x for x in values] for name, values in effects(claim).items()}
    assert verdicts.weigh(claim, turned).conditions == {n: SWAPPED[w] for n, w in before.items()}


@pytest.mark.parametrize("claim, fault, word", [
    ("C9", 3.0, "holds"), ("C9", -3.0, "misleading"), ("C14", 3.0, "holds"),
    ("C14", -3.0, "misleading"), ("C20", 4.0, "holds"), ("C20", -6.0, "misleading")])
def test_a_fault_planted_in_the_effects_turns_the_verdict(claim, fault, word):
    shifted = {name: [x + fault for x in xs] for name, xs in effects(claim).items()}
    assert verdicts.weigh(claim, shifted).word == word


def planted(monkeypatch, name, change):
    """The record as it would be if `change` had been done to each of its cells."""
    found = json.loads(json.dumps(FOUND[name]))
    for each in found["cells"]:
        change(each)
    monkeypatch.setattr(contrasts, "load", {**FOUND, name: found}.get)


def test_attention_that_pays_as_little_as_all_layers_takes_c9_away(monkeypatch):
    everywhere = {(c["new"], c["examples"]): c["content"] for c in FOUND["arms"]["cells"]
                  if c["arm"] == "LoRA r=16" and "targets" not in c}
    planted(monkeypatch, "arms", lambda c: c.get("targets") == "attention" and c.update(
        content=everywhere[c["new"], c["examples"]]))
    came = verdicts.weigh("C9", effects("C9"))
    assert came.word == "misleading" and set(came.conditions.values()) == {"equal", "worse"}
    free = verdicts.weigh("C9", contrasts.effects("C9") | {MEMORY: [math.log(1.05)] * 2})
    assert free.conditions[MEMORY] == "equal"


def test_a_rank_64_that_pays_half_fails_c14(monkeypatch):
    planted(monkeypatch, "arms", lambda c: c["arm"] == "LoRA r=64" and c.update(
        content=[x / 3 for x in c["content"]]))
    came = verdicts.weigh("C14", effects("C14")).conditions
    assert came["rank 8, 12 new words"] == came["rank 16, 24 new words"] == "worse"


def test_a_rank_1_that_knows_the_facts_takes_its_part_of_c20_away(monkeypatch):
    eight = record.find(FOUND["facts"]["cells"], arm="LoRA r=8")["total"]
    planted(monkeypatch, "facts", lambda c: c["arm"] == "LoRA r=1" and c.update(total=eight))
    came = verdicts.weigh("C20", effects("C20")).conditions
    assert came["8 over 1, 64 facts, missing bits"] == "equal"
    assert came["8 over 1, 12 new words"] == "better"
