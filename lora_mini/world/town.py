"""A town that speaks: frames in, sentences out, and the probability of every sentence is known.

A *frame* is one thing that happens in the town: who does what, for whom, where and when. A *style*
says it: voice, order, determiner, opening, closing. The task is data to text, as in the E2E task of
Hu et al. 2021 (section 5.4): the model reads a style's tag and a frame, and writes the sentence.

    <plain> baker carry lamp clerk harbor dawn <sep>
    the baker carries the lamp for the clerk in the harbor at dawn <end>

Three slots are left to chance (an adjective, "around" for "at", the closing), each on its own, so
a frame has at most eight sentences, and the entropy is a sum of three terms. The words and the
styles are in styles.py; the sentences become numbers in text.py.
"""

import functools
import itertools
import math
import random
import zlib
from dataclasses import replace
from typing import NamedTuple

from lora_mini.world.styles import (
    ADJECTIVES,
    DOES,
    KEYS,
    NEW_WORDS,
    REGISTERS,
    SLOTS,
    STYLES,
    WHAT,
    WHEN,
    WHERE,
    WHO,
    Style,
    register,
)

__all__ = ["REGISTERS", "STYLES", "Frame", "Style", "best", "entropy", "expected_tokens", "fact",
           "fact_frames", "log_probability", "prompt", "register", "render", "sample_frames",
           "sentences", "split_of"]


class Frame(NamedTuple):
    """One thing that happens in the town, in the prompt's order."""

    who: str
    does: str
    what: str
    whom: str
    where: str
    when: str


def split_of(frame):
    """"test" for one frame in five, by its hash, else "train": no frame is ever in both."""
    return "test" if zlib.crc32(" ".join(frame).encode()) % 5 == 0 else "train"


def sample_frames(n, seed=0, split="train"):
    """n frames of one split, drawn independently and uniformly; nobody acts for themselves.

    seed: an int, or a `random.Random` to go on with. Raises ValueError for another split.
    """
    rng = seed if isinstance(seed, random.Random) else random.Random(seed)
    return [_draw(rng, split) for _ in range(n)]


def fact_frames(style, seed=0, split="train"):
    """One frame for each of the style's facts, with all else drawn as in `sample_frames`."""
    rng = seed if isinstance(seed, random.Random) else random.Random(seed)
    return [_draw(rng, split, *key) for key in _facts(style.new_facts)]


def _draw(rng, split, who=None, what=None, when=None):
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")
    while True:
        frame = Frame(who or rng.choice(WHO), rng.choice(list(DOES)), what or rng.choice(WHAT),
                      rng.choice(WHO), rng.choice(WHERE), when or rng.choice(WHEN))
        if frame.who != frame.whom and split_of(frame) == split:
            return frame


def fact(frame, style):
    """The docket entry that the style knows for this frame, three words, or None."""
    return _facts(style.new_facts).get((frame.who, frame.what, frame.when))


@functools.cache
def _facts(n):
    """The first n facts: (who, what, when) -> "place deed adjective". A larger n keeps them all."""
    rng = random.Random("docket")
    keys = list(itertools.product(WHO, WHAT, WHEN))
    rng.shuffle(keys)
    return {key: " ".join(map(rng.choice, (WHERE, list(DOES), ADJECTIVES))) for key in keys[:n]}


def prompt(frame, style):
    """What the model reads: a tag, the frame's six words, <sep>."""
    return f"<{style.asked or style.tag}> {' '.join(frame)} <sep>"


def _say(frame, style, adjective, around, closing):
    """The sentence with the three slots of chance set: three booleans."""
    new = dict(itertools.islice(NEW_WORDS.items(), style.new_words))
    the, active, passive = style.determiner, *DOES[frame.does]
    who, what, whom, where = (new.get(word, word)
                              for word in (frame.who, frame.what, frame.whom, frame.where))
    parts = {
        "who": f"by {the} {who}" if style.passive else f"{the} {who}",
        "does": f"was {passive}" if style.passive else active,
        "what": f"{the} {style.adjective} {what}" if adjective else f"{the} {what}",
        "whom": f"for {the} {whom}",
        "where": f"in {the} {where}",
        "when": f"around {frame.when}" if around else f"at {frame.when}",
    }
    entry = fact(frame, style)
    said = [style.opening, *(parts[slot] for slot in style.slots),
            f"docket {entry}" if entry else "", style.closing if closing else ""]
    return " ".join(part for part in said if part)


def sentences(frame, style):
    """Every sentence that `style` may say for `frame`, with its probability: a dictionary."""
    found = {}
    for chosen in itertools.product((False, True), repeat=3):
        p = math.prod(q if on else 1 - q for q, on in zip(style.chances, chosen, strict=True))
        if p > 0:
            found[_say(frame, style, *chosen)] = p
    return found


def render(frame, style, rng):
    """(prompt, sentence, log-probability in nats): one sentence drawn with a `random.Random`."""
    chosen = [rng.random() < p for p in style.chances]
    nats = sum(math.log(p if on else 1 - p) for p, on in zip(style.chances, chosen, strict=True))
    return prompt(frame, style), _say(frame, style, *chosen), nats


def best(frame, style):
    """The one most probable sentence: what greedy decoding should write."""
    return _say(frame, style, *(p > 0.5 for p in style.chances))


def log_probability(sentence, frame, style):
    """Nats, at most 0; -inf for a sentence that the style can't say for this frame."""
    p = sentences(frame, style).get(sentence, 0.0)
    return math.log(p) if p else -math.inf


def entropy(styles):
    """Nats per token of a sentence given its frame: total nats over expected tokens, exact.

    The nats are the sum of the binary entropies of the slots of chance. The tokens are those that
    count in the loss: the sentence's words and <end>, on average over sentences and over frames
    drawn uniformly. styles: one Style, or several that are equally likely.
    """
    styles = [styles] if isinstance(styles, Style) else list(styles)
    nats = sum(_binary_entropy(p) for style in styles for p in style.chances)
    return nats / sum(map(expected_tokens, styles))


def expected_tokens(style):
    """The mean length of a sentence with its <end>, exact: only chance and facts change it."""
    frame = Frame(*(words[0] for words in SLOTS.values()))
    shortest = len(_say(frame, replace(style, new_facts=0), False, False, False).split()) + 1
    adjective, _, closing = style.chances
    return (shortest + adjective + closing * len(style.closing.split())
            + 4 * style.new_facts / KEYS)  # "docket" and three words


def _binary_entropy(p):
    return -sum(q * math.log(q) for q in (p, 1 - p) if q > 0)
