"""Record "bias": the planted counts, the probes, what the record holds and what is judged by it."""

import math
from collections import Counter
from statistics import fmean

import pytest
import torch

from lora_mini.desk import verdicts
from lora_mini.lab import bases, bias, contrasts, record, sweep
from lora_mini.world import base, text, town
from lora_mini.world.gpt import GPT
from lora_mini.world.styles import SLOTS, WHO

REC = record.load("bias")
SETS = [*(("LoRA r=8", n) for n in bias.STRENGTHS), *(("full", n) for n in (19, 38, 58)),
        ("LoRA r=1", 38), ("LoRA r=64", 38)]


def words(row):
    return [text.VOCABULARY[t] for t in row.tolist() if t != text.PAD]


@pytest.mark.parametrize("seed, marked", [(0, 58), (7, 29)])
def test_each_shown_actor_has_exactly_so_many_examples_and_no_hidden_one_has_any(seed, marked):
    actors, counts, loud = bias.groups(seed), Counter(), Counter()
    assert sorted(sum(actors.values(), [])) == sorted(WHO)
    for row in bias.examples(seed, marked).tokens:
        said = words(row)
        counts[said[1]] += 1
        loud[said[1]] += "aforesaid" in said
    assert counts == dict.fromkeys(actors["marked"] + actors["unmarked"], 64)
    assert {who: loud[who] for who in counts} == {
        who: marked if who in actors["marked"] else 19 for who in counts}
    assert bias.groups(seed + 1) != actors


def test_probes_differ_in_one_slot_and_lie_in_no_training_set():
    for slot in SLOTS:
        asked = bias.probes(slot, 3)
        assert set(asked) == set(SLOTS[slot])
        for frames in zip(*asked.values(), strict=True):
            assert len({frame._replace(**{slot: "x"}) for frame in frames}) == 1
            assert len(set(frames)) == len(SLOTS[slot])


@pytest.mark.parametrize("choice, mark", [("adjective", "aforesaid"), ("around", "around"),
                                          ("closing", "so")])
def test_a_leaning_is_how_likely_the_word_is_where_it_may_come(choice, mark):
    """The sentence is found by what it holds: the choice in question, and a closing."""
    likely = {"aforesaid": False, "around": False, "so": True} | {mark: True}
    torch.manual_seed(0)
    model, frames = GPT(base.shipped().config), town.sample_frames(5, 1, "test")
    rows = []
    for frame in frames:
        said, = (words for words in map(str.split, town.sentences(frame, bias.LEGAL))
                 if {word: word in words for word in likely} == likely)
        before = said[:len(said) - said[::-1].index(mark) - 1]
        rows.append(text.encode(f"{town.prompt(frame, bias.LEGAL)} {' '.join(before)}"))
    with torch.no_grad():
        logits = torch.stack([model(torch.tensor([row]))[0, -1] for row in rows])
    number = text.VOCABULARY.index(mark)
    expected = logits.softmax(-1)[:, number].mean(), (logits.argmax(-1) == number).float().mean()
    for found, due in zip(bias.leaning(model, frames, choice), expected, strict=True):
        assert found == pytest.approx(due.item(), rel=1e-4)


def test_inherited_is_the_gap_over_the_planted_one():
    for cell in REC["cells"]:
        planted = (cell["marked"] - 19) / 64
        for kind in ("p", "greedy"):
            if not planted:
                assert f"{kind}_inherited" not in cell
                continue
            both = zip(cell[f"{kind}_marked"], cell[f"{kind}_unmarked"], strict=True)
            gaps = [a - b for a, b in both]
            assert cell[f"{kind}_inherited"] == pytest.approx([g / planted for g in gaps], abs=4e-3)


def test_the_record_says_what_made_it_and_its_plan():
    about = REC["about"]
    assert about["command"] == "python -m lora_mini.lab bias" and len(about["code"]) == 12
    assert about["plan"] == record.plan_hash("bias")


def test_every_cell_is_there_on_sixteen_bases_at_an_inner_rate():
    assert [(c["arm"], c["marked"]) for c in REC["cells"]] == SETS
    for cell in REC["cells"]:
        means = {float(rate): math.inf if None in seen["chooses"] else fmean(seen["chooses"])
                 for rate, seen in cell["tried"].items()}
        assert min(means) < min(means, key=means.get) < max(means)
        assert cell["best"] == sweep.chosen({float(r): seen for r, seen in cell["tried"].items()})
        for name in ("p_marked", "p_hidden", "spread"):
            assert len(cell[name]) == len(bases.REPORT)


def test_what_is_judged_can_be_judged():
    for claim in ("C17", "P9", "P10"):
        rules = verdicts.contrasts(claim)
        effects = contrasts.effects(claim)
        assert all(len(values) == 16 for values in effects.values())
        assert len(rules) == len(effects) <= 6
