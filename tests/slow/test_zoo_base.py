"""The zoo on a base of another size: what is red on the base that ships is red there, too."""

import pytest

from lora_mini.lab import zoo
from lora_mini.lab.ward import Ward
from lora_mini.world.make_base import make_base


@pytest.fixture(scope="module")
def ward():
    return Ward(make_base("laptop", steps=300, seed=7, width=48)[0])


@pytest.mark.parametrize("specimen", zoo.SPECIMENS, ids=lambda s: s.name)
def test_it_is_red_when_broken_and_green_when_mended_on_another_base(ward, specimen):
    broken, mended = specimen.broken(ward), specimen.mended(ward)
    assert specimen.red(ward, broken), specimen.number(ward, broken)
    assert not specimen.red(ward, mended), specimen.number(ward, mended)
    assert zoo.heard(ward, mended) == zoo.shown(ward, mended) == []
