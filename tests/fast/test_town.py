"""The town's probabilities against enumeration, counting and sampling; its words and its splits."""

import itertools
import math
import random
from collections import Counter

import pytest
import torch

from lora_mini.world import styles, text, town
from lora_mini.world.styles import (
    ANY,
    NEW_ORDER,
    NEW_WORDS,
    REGISTERS,
    STYLES,
    Style,
    register,
    under,
)
from lora_mini.world.town import Frame

EVERY = [*STYLES.values(), *REGISTERS.values(), register("legal", 24, True)]
ODD = Style("plain", True, "where core when whom", "this", "once upon", "the end my friend", "old",
            p_adjective=0.15, p_around=0.6, p_closing=0.35)  # no probability as in the others
FRAME = Frame("baker", "carry", "lamp", "clerk", "harbor", "dawn")


def by_tag(style):
    return style.tag


def all_words(styles, frames):
    """Every word that any sentence of these styles uses for these frames."""
    return {word for style in styles for frame in frames
            for sentence in town.sentences(frame, style) for word in sentence.split()}


def test_the_example_of_the_docstring():
    assert town.prompt(FRAME, STYLES["plain"]) == "<plain> baker carry lamp clerk harbor dawn <sep>"
    assert town.best(FRAME, STYLES["plain"]) == ("the baker carries the lamp for the clerk in the "
                                                 "harbor at dawn")
    assert town.best(FRAME, register("legal", new_words=24, new_order=True)) == (
        "be it known that said luminary in said harbor for said registrar at dawn said lessee "
        "carries so ordered")


@pytest.mark.parametrize("style", [*EVERY, ODD], ids=by_tag)
def test_entropy_equals_the_sum_over_all_sentences(style):
    told = town.sentences(FRAME, style)
    nats = -sum(p * math.log(p) for p in told.values())
    length = sum(p * (len(sentence.split()) + 1) for sentence, p in told.items())
    assert math.isclose(sum(told.values()), 1) and len(told) == (8 if style.closing else 4)
    assert town.expected_tokens(style) == pytest.approx(length)
    assert town.entropy(style) == pytest.approx(nats / length)


def test_entropy_of_several_styles_is_total_nats_over_total_tokens():
    pair = [STYLES["plain"], ODD]
    nats = tokens = 0
    for style in pair:
        for sentence, p in town.sentences(FRAME, style).items():
            nats, tokens = nats - p * math.log(p), tokens + p * (len(sentence.split()) + 1)
    assert town.entropy(pair) == pytest.approx(nats / tokens)


def test_entropy_with_facts_equals_the_mean_over_all_keys():
    style = register("legal", new_facts=300)
    keys = itertools.product(styles.WHO, styles.WHAT, styles.WHEN)
    length = 0
    for who, what, when in keys:
        told = town.sentences(FRAME._replace(who=who, what=what, when=when), style)
        length += sum(p * (len(s.split()) + 1) for s, p in told.items()) / styles.KEYS
    assert town.expected_tokens(style) == pytest.approx(length)


@pytest.mark.parametrize("style", [REGISTERS["legal"], ODD], ids=by_tag)
def test_entropy_equals_the_mean_of_samples_within_four_standard_errors(style):
    rng = random.Random(1)
    drawn = [town.render(FRAME, style, rng) for _ in range(4000)]
    surprise = torch.tensor([-nats for _, _, nats in drawn])
    error = surprise.std() / math.sqrt(len(surprise))
    exact = town.entropy(style) * town.expected_tokens(style)
    assert abs(surprise.mean() - exact) < 4 * error
    assert error < 0.02 * exact  # or the line above would say nothing


def test_sampled_sentences_come_as_often_as_their_probabilities_say():
    rng, n = random.Random(2), 4000
    counts = Counter(town.render(FRAME, ODD, rng)[1] for _ in range(n))
    told = town.sentences(FRAME, ODD)
    assert counts.keys() <= told.keys()
    for sentence, p in told.items():
        assert abs(counts[sentence] / n - p) < 4 * math.sqrt(p * (1 - p) / n)


@pytest.mark.parametrize("style", [*EVERY, ODD], ids=by_tag)
def test_the_best_sentence_is_the_argmax_of_the_enumeration(style):
    told = town.sentences(FRAME, style)
    ranked = sorted(told, key=told.get)
    assert town.best(FRAME, style) == ranked[-1]
    assert told[ranked[-1]] > told[ranked[-2]]


@pytest.mark.parametrize("style", [*EVERY, ODD], ids=by_tag)
def test_greedy_choice_word_by_word_also_leads_to_the_best_sentence(style):
    told = {(*s.split(), "<end>"): p for s, p in town.sentences(FRAME, style).items()}
    begun = ()
    while begun[-1:] != ("<end>",):
        following = Counter()
        for words, p in told.items():
            if words[:len(begun)] == begun:
                following[words[len(begun)]] += p
        begun += (max(following, key=following.get),)
    assert " ".join(begun[:-1]) == town.best(FRAME, style)


@pytest.mark.parametrize("style", [REGISTERS["support"], ODD], ids=by_tag)
def test_log_probability_of_each_sentence_equals_a_count_of_its_words(style):
    for sentence in town.sentences(FRAME, style):
        words = sentence.split()
        p = math.prod(q if there else 1 - q for q, there in [
            (style.p_adjective, style.adjective in words), (style.p_around, "around" in words),
            (style.p_closing, sentence.endswith(style.closing))])
        assert town.log_probability(sentence, FRAME, style) == pytest.approx(math.log(p))


def test_what_a_style_can_not_say_has_log_probability_minus_infinity():
    for wrong in ("", "the lamp", town.best(FRAME, STYLES["diary"]),
                  town.best(FRAME._replace(who="nurse"), STYLES["plain"])):
        assert town.log_probability(wrong, FRAME, STYLES["plain"]) == -math.inf
    sure = Style("plain", False, "core whom where when", "the", "", "", "old", p_adjective=0.0)
    assert not any("old" in sentence for sentence in town.sentences(FRAME, sure))


def test_train_and_test_frames_are_disjoint_and_stay_so():
    train, test = (town.sample_frames(3000, seed, split) for seed, split in ((1, "train"),
                                                                           (2, "test")))
    assert not set(train) & set(test)
    assert {town.split_of(f) for f in train} == {"train"}
    assert all(f.who != f.whom for f in train + test)
    assert [town.split_of(FRAME._replace(when=when)) for when in styles.WHEN] == [
        "test", "train", "test", "test", "test", "train"]  # a new hash would mix old splits


def test_about_a_fifth_of_all_frames_is_for_testing():
    rng = random.Random(0)
    frames = [Frame(*map(rng.choice, styles.SLOTS.values())) for _ in range(4000)]
    share = sum(town.split_of(f) == "test" for f in frames) / len(frames)
    assert abs(share - 0.2) < 4 * math.sqrt(0.2 * 0.8 / len(frames))


def test_the_same_seed_gives_the_same_frames_and_another_gives_others():
    assert town.sample_frames(20, 3) == town.sample_frames(20, random.Random(3))
    assert town.sample_frames(20, 3) != town.sample_frames(20, 4)


def test_registers_combine_seen_things_in_unseen_ways():
    for new in REGISTERS.values():
        traits = ("passive", "order", "determiner", "opening", "closing", "adjective")
        shared = {s.tag: sum(getattr(s, t) == getattr(new, t) for t in traits)
                  for s in STYLES.values()}
        assert max(shared.values()) <= 2, (new.tag, shared)
        for trait in traits:
            assert getattr(new, trait) in {getattr(s, trait) for s in STYLES.values()}
        assert new.tag not in STYLES


def test_new_words_are_exactly_what_the_base_never_saw():
    frames = [FRAME._replace(**{slot: word}) for slot, words in styles.SLOTS.items()
              for word in words]
    known = all_words(STYLES.values(), frames)
    assert all_words(REGISTERS.values(), frames) <= known
    for k in (0, 1, 6, 24):
        unknown = all_words([register("legal", new_words=k)], frames) - known
        assert unknown == set(list(NEW_WORDS.values())[:k]) and len(unknown) == k


def test_the_new_order_is_no_other_style_s():
    style = register("medical", new_order=True)
    assert style.slots == NEW_ORDER.split()
    assert style.slots not in [s.slots for s in (*STYLES.values(), *REGISTERS.values())]


def test_facts_are_countable_nested_and_said_before_the_closing():
    few, many = (register("legal", new_facts=n) for n in (20, 864))
    frames = town.fact_frames(few, 5, "test")
    assert len({(f.who, f.what, f.when) for f in frames}) == 20
    assert {town.split_of(f) for f in frames} == {"test"}
    for frame in frames:
        entry = town.fact(frame, few)
        assert town.fact(frame, many) == entry and town.fact(frame, REGISTERS["legal"]) is None
        assert town.best(frame, few).endswith(f" docket {entry} so ordered")
    entries = Counter(town.fact(f, many) for f in town.fact_frames(many))
    assert 220 < len(entries) <= 2**styles.FACT_BITS and max(entries.values()) < 16


@pytest.mark.parametrize("style", [*EVERY, register("support", new_facts=864)], ids=by_tag)
def test_words_to_numbers_and_back(style):
    for sentence in town.sentences(FRAME, style):
        numbers = text.encode(f"{sentence} <end> <pad>")
        assert text.decode(numbers) == sentence
        assert text.decode(torch.tensor(numbers)) == sentence
    assert len(set(text.VOCABULARY)) == len(text.VOCABULARY)


def test_a_batch_marks_the_sentence_and_its_end_and_nothing_else():
    frames = town.sample_frames(30, 1)
    said = [EVERY[i % len(EVERY)] for i in range(30)]
    made = text.batch(frames, said, seed=2)
    for i, (row, mask) in enumerate(zip(made.tokens, made.mask, strict=True)):
        counted = row[mask == 1].tolist()
        assert counted[-1] == text.END and text.END not in counted[:-1]
        sentence = text.decode(counted)
        assert made.log_probability[i].item() == pytest.approx(
            town.log_probability(sentence, frames[i], said[i]))
        rest = text.encode(town.prompt(frames[i], said[i]))
        assert row.tolist() == rest + counted + [text.PAD] * (len(row) - len(rest) - len(counted))


def test_a_batch_is_as_wide_as_its_longest_row():
    made = text.batch(town.sample_frames(30, 1), STYLES["fable"], seed=2)
    assert (made.tokens[:, -1] != text.PAD).any()
    assert (made.tokens == text.PAD).any()


def test_facts_only_marks_the_three_words_of_each_entry():
    style = register("legal", new_facts=50)
    frames = [*town.fact_frames(style), *(f for f in town.sample_frames(200)
                                          if town.fact(f, style) is None)]
    made = text.batch(frames, style, facts_only=True)
    for frame, row, mask in zip(frames, made.tokens, made.mask, strict=True):
        assert text.decode(row[mask == 1]) == (town.fact(frame, style) or "")


@pytest.mark.parametrize("style, count", [("herald", 8), ("plain", 4)])
def test_sayings_are_all_sentences_with_their_own_chances(style, count):
    frames, style = town.sample_frames(3, 1), under(STYLES[style], ANY)
    said = text.sayings(frames, style)
    every = [(f, sentence, p) for f in frames for sentence, p in town.sentences(f, style).items()]
    assert len(said.tokens) == len(every) == 3 * count
    for row, p, truth, (frame, sentence, chance) in zip(*said, every, strict=True):
        whole = text.encode(f"{town.prompt(frame, style)} {sentence} <end>")
        assert row.tolist() == whole + [text.PAD] * (len(row) - len(whole))
        assert p.item() == pytest.approx(chance)
        assert truth.isnan().tolist() == [not text.PROMPT <= t < len(whole)
                                          for t in range(len(row))]
        assert math.exp(truth.nansum().item()) == pytest.approx(chance, rel=1e-5)
        by_chance = [text.VOCABULARY[t] for t, log in zip(row, truth, strict=True) if log < 0]
        assert "at" in by_chance or "around" in by_chance
    assert said.p.sum().item() == pytest.approx(3)


def test_valid_is_any_sentence_that_the_style_may_say_and_no_other():
    frames, style = town.sample_frames(4, 1), STYLES["herald"]
    rare = [min(town.sentences(f, style), key=town.sentences(f, style).get) for f in frames]
    good = [text.encode(f"{sentence} <end> <pad>") for sentence in rare]
    assert text.valid(good, frames, style) == 1
    spoiled = [good[0][:-3], text.encode("old") + good[1], good[3], good[3]]
    assert text.valid(spoiled, frames, [style] * 4) == 0.25
    assert text.valid(good, frames, [STYLES["plain"]] * 4) == 0


def test_a_style_under_another_tag_says_the_same():
    frame, style = town.sample_frames(1, 1)[0], STYLES["herald"]
    asked = under(style, ANY)
    assert town.prompt(frame, style).split()[0] == "<herald>"
    assert town.prompt(frame, asked).split()[0] == f"<{ANY}>" == "<any>"
    assert town.sentences(frame, asked) == town.sentences(frame, style)
    assert town.prompt(frame, register("legal")).split()[0] == "<any>"


@pytest.mark.parametrize("make, words", [
    (lambda: register("legl"), "one of medical, legal, support, got 'legl'"),
    (lambda: register("legal", new_words=25), "new_words must be between 0 and 24, got 25"),
    (lambda: register("legal", new_facts=-1), "new_facts must be between 0 and 864, got -1"),
    (lambda: Style("x", False, "core when", "the", "", "", "old"), "order must name each of who"),
    (lambda: Style("x", False, "core whom where when", "the", "", "", "old", 0.5), "not 0.5"),
    (lambda: town.sample_frames(1, split="tset"), "must be 'train' or 'test', got 'tset'"),
    (lambda: text.encode("the bakr"), "no word 'bakr'; the nearest: baker"),
])
def test_what_can_not_be_is_refused_with_a_reason(make, words):
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        make()


def test_the_fingerprint_notices_another_word_and_another_way_to_say(monkeypatch):
    before = text.fingerprint()
    assert before == text.fingerprint()
    monkeypatch.setitem(styles.DOES, "carry", ("carries", "borne"))
    assert text.fingerprint() != before
