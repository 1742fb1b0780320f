"""Record "house": what made it, all arms, how rates and wordings were chosen, what is judged."""

from statistics import fmean, stdev

import pytest

from lora_mini.desk import verdicts
from lora_mini.desk.intervals import student
from lora_mini.lab import contrasts, house, record, sweep, voice

REC = record.load("house")
OF = {cell["arm"]: cell for cell in REC["cells"]}
TRAINED = (*house.ARMS, "LoRA r=8, replay", "LoRA r=8, gentler", "full, hotter")


def test_the_record_says_what_made_it_and_its_plan():
    about = REC["about"]
    assert about["command"] == "python -m lora_mini.lab house" and len(about["code"]) == 12
    assert about["plan"] == record.plan_hash("house") != record.plan_hash("arms")


def test_every_arm_is_there_with_24_questions_and_three_seeds():
    assert list(OF) == [*TRAINED, *house.PROMPTED] and len(REC["cells"]) == len(OF)
    for cell in REC["cells"]:
        assert len(cell["kept"]) == 24 and all(0 <= share <= 1 for share in cell["kept"])
        for key in ("rules", "held", "tokens", "general", "knows", "said"):
            assert len(cell[key]) == (1 if cell["arm"] in ("base", "rules") else 3), key
        by_rule = [share for seed in cell["rules"] for share in seed.values()]
        assert set(cell["rules"][0]) == set(voice.RULES)
        assert fmean(by_rule) == pytest.approx(fmean(cell["kept"]), abs=2e-3)


@pytest.mark.parametrize("arm", house.ARMS)
def test_the_rate_is_the_gentlest_of_the_best_and_lies_inside_what_was_tried(arm):
    tried = {float(rate): seen for rate, seen in OF[arm]["tried"].items()}
    losses = {rate: seen["chooses"][0] for rate, seen in tried.items()}
    assert min(tried) < min(losses, key=losses.get) < max(tried)
    assert OF[arm]["best"] == sweep.chosen(tried)


def test_replay_has_the_rate_of_lora_and_the_others_one_notch_of_the_grid_more_or_less():
    notch = {arm: sweep.GRID.index(OF[arm]["best"]) for arm in TRAINED}
    assert notch["LoRA r=8, replay"] == notch["LoRA r=8"] == notch["LoRA r=8, gentler"] + 1
    assert notch["full, hotter"] == notch["full"] + 1


@pytest.mark.parametrize("arm", house.PROMPTED)
def test_a_prompt_stands_in_the_wording_that_kept_most_rules(arm):
    tried = OF[arm]["tried"]
    assert len(tried) == (1 if arm == "base" else len(voice.ASKED))
    assert OF[arm]["wording"] == tried.index(min(tried))


def test_what_a_prompt_costs_grows_and_training_costs_nothing_of_it():
    tokens = {arm: fmean(cell["tokens"]) for arm, cell in OF.items()}
    assert {tokens[arm] for arm in TRAINED} == {tokens["base"]}
    prompted = [tokens[arm] for arm in house.PROMPTED]
    assert prompted == sorted(prompted) and len(set(prompted)) == 4


def test_at_strength_0_lora_is_the_base_and_at_1_what_was_reported():
    assert len(REC["strengths"]) == 3
    for i, seed in enumerate(REC["strengths"]):
        assert [each[0] for each in seed] == sorted((0, 1, *house.STRENGTHS))
        found = {each[0]: each[1:] for each in seed}
        for cell, of_seed, strength in ((OF["base"], 0, 0), (OF["LoRA r=8"], i, 1)):
            said, general, knows = found[strength]
            assert said == pytest.approx(fmean(cell["rules"][of_seed].values()), abs=2e-3)
            assert (general, knows) == (cell["general"][of_seed], cell["knows"][of_seed])


def test_the_verdict_on_c21_by_hand():
    came = {}
    for name, arm in zip(verdicts.contrasts("C21"), list(house.PROMPTED)[1:], strict=True):
        gains = [a - b for a, b in zip(OF["LoRA r=8"]["kept"], OF[arm]["kept"], strict=True)]
        reach = student(1 - 0.05 / 3, 23) * stdev(gains) / 24**0.5
        low, high = fmean(gains) - reach, fmean(gains) + reach
        came[name] = ("better" if low >= 0.2 else "worse" if high <= -0.2 else
                      "equal" if -0.2 < low and high < 0.2 else "open")
    assert verdicts.weigh("C21", contrasts.effects("C21")).conditions == came


def test_a_planted_gain_of_the_prompts_turns_the_verdict_on_c21():
    worse = {name: [x - 9 for x in xs] for name, xs in contrasts.effects("C21").items()}
    assert verdicts.weigh("C21", worse).word == "misleading"
