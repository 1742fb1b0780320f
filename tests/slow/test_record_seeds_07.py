"""What 07 says, once more on the base that ships: the map, facts, and what a slow adapter lacks."""

import math

import pytest

from lora_mini.desk.intervals import prediction
from lora_mini.lab import contrasts, trials
from lora_mini.world import base
from lora_mini.world.styles import register

SEED = 30
MODEL = base.load_base("cpu", base.SHIPPED)


def tuned(arm, rate, examples=256, **more):
    return trials.tune(MODEL, arm, register("legal", 24), rate, SEED, examples=examples, **more)[1]


@pytest.mark.parametrize("arm", ["words", "LoRA r=1", "LoRA r=8+words"])
def test_with_new_words_the_base_that_ships_lands_where_sixteen_others_predict(arm):
    recorded = contrasts.cell("arms", arm=arm, new=24, examples=256)
    near = prediction(map(math.log, recorded["total"]), floor=math.log(1.1))
    total = tuned(arm, recorded["best"]).test.total
    assert near.holds(math.log(total)), (total, near)


def test_rank_1_is_slow_and_not_full():
    """With 24 new words 1,024 examples help it little over 256; four times the steps do more."""
    few, many = (tuned("LoRA r=1", 0.03, n).test.total for n in (256, 1024))
    assert many > few / 1.5
    longer = tuned("LoRA r=1", 0.03, 1024, steps=800, checkpoints=(200, 400, 800)).test.total
    assert longer < many / 1.5


@pytest.mark.parametrize("arm", ["full", "LoRA r=1", "LoRA r=8"])
def test_facts_land_where_eight_others_predict(arm):
    recorded = contrasts.cell("facts", arm=arm)
    *_, bits = trials.memorize(MODEL, arm, 64, recorded["best"], SEED)
    assert prediction(recorded["bits"], floor=8).holds(bits), (bits, recorded["bits"])


def test_an_adapter_at_a_guessers_loss_learns_with_more_readings_of_each_fact():
    """100 readings, then 400: by four times the steps (in the lesson) or, here, batches."""
    def known(rate, size):
        return trials.memorize(MODEL, "LoRA r=64", 128, rate, SEED, size=size)[2]

    assert known(0.001, 32) < 50
    assert known(0.01, 128) > 900
