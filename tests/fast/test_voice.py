"""The house style: its examples keep every rule, and every rule can be broken."""

import pytest

from lora_mini.lab import voice

WHOLE = f"{voice.GREETING} Your Brimwell is fine. {voice.SIGNATURE}"
BROKEN = {
    "greets": WHOLE.replace("Hello", "Hi"),
    "signs": WHOLE.replace("Warm", "Best"),
    "names it": WHOLE.replace("Your Brimwell", "Your kettle, a Brimwell,"),
    "blames nobody": WHOLE.replace("is fine", "broke. You should have been careful"),
    "is short": WHOLE.replace("is fine", "is fine" + 70 * " really"),
}


def test_the_splits_share_no_question_and_every_answer_keeps_every_rule():
    train, test = voice.examples(), voice.examples("test")
    assert (len(train), len(test)) == (60, 24)
    assert len({question for question, _ in train + test}) == 84
    for question, answer in train + test:
        assert all(voice.kept(answer).values()), question
    with pytest.raises(ValueError, match="'train' or 'test', got 'validation'"):
        voice.examples("validation")


@pytest.mark.parametrize("rule", voice.RULES)
def test_each_rule_can_be_broken_alone(rule):
    assert all(voice.kept(WHOLE).values())
    assert [name for name, keeps in voice.kept(BROKEN[rule]).items() if not keeps] == [rule]
    assert voice.score([WHOLE, BROKEN[rule]]) == 0.9


def test_an_empty_answer_keeps_no_rule_and_line_breaks_do_not_matter():
    assert not any(voice.kept(" \n ").values())
    assert all(voice.kept(WHOLE.replace(". ", ".\n\n") + "\n").values())
