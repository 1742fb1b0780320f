"""The town's sentences as numbers: one token a word, batches with a loss mask, all sayings."""

import collections
import difflib
import hashlib
import itertools
import math
import random
from typing import NamedTuple

import torch

from lora_mini.world import styles as language
from lora_mini.world import town
from lora_mini.world.styles import REGISTERS, STYLES, Style

PAD, END, SEP = 0, 1, 2
PROMPT = 2 + len(language.SLOTS)  # the tag, the frame, <sep>
VOCABULARY = ["<pad>", "<end>", "<sep>", *(f"<{tag}>" for tag in (*STYLES, language.ANY))]
VOCABULARY += sorted({
    *itertools.chain(*language.SLOTS.values(), *language.DOES.values()), *language.ADJECTIVES,
    *language.SMALL_WORDS, *language.NEW_WORDS.values(),
    *itertools.chain(*(f"{style.determiner} {style.opening} {style.closing}".split()
                       for style in (*STYLES.values(), *REGISTERS.values()))),
})
_ID = {word: i for i, word in enumerate(VOCABULARY)}


def encode(text):
    """Words to a list of token numbers. Raises ValueError for a word that the town doesn't have."""
    try:
        return [_ID[word] for word in text.split()]
    except KeyError as error:
        word = error.args[0]
        near = difflib.get_close_matches(word, VOCABULARY, n=3, cutoff=0) or VOCABULARY[:3]
        raise ValueError(f"the town has no word {word!r}; the nearest: {', '.join(near)}") from None


def decode(tokens):
    """Token numbers to words, up to the first <end>; <pad> is left out."""
    words = [VOCABULARY[int(t)] for t in tokens if t != PAD]
    return " ".join(itertools.takewhile(lambda word: word != "<end>", words))


class Batch(NamedTuple):
    """Sentences as tensors.

    tokens (B, T): prompt, sentence, <end>, padding. mask (B, T): 1 where the loss counts, which is
    the sentence and its <end>. log_probability (B,): the sentences' own, in nats.
    """

    tokens: torch.Tensor
    mask: torch.Tensor
    log_probability: torch.Tensor


def batch(frames, styles, seed=0, facts_only=False):
    """A Batch, one row a frame, trimmed to the longest row.

    styles: one Style, or one for each frame. seed: an int or a `random.Random`, for the slots of
    chance. facts_only: let only the words of a docket entry count in the mask, to measure bits.
    """
    rng = seed if isinstance(seed, random.Random) else random.Random(seed)
    styles = [styles] * len(frames) if isinstance(styles, Style) else styles
    rows = [town.render(frame, style, rng) for frame, style in zip(frames, styles, strict=True)]
    coded = [encode(f"{before} {after} <end>") for before, after, _ in rows]
    tokens = torch.full((len(rows), max(map(len, coded))), PAD)  # (B, T)
    mask = torch.zeros(tokens.shape)
    for i, row in enumerate(coded):
        tokens[i, :len(row)] = torch.tensor(row)
        mask[i, PROMPT:len(row)] = 1
        if facts_only:
            mask[i] = 0
            if town.fact(frames[i], styles[i]):
                start = len(row) - row[::-1].index(_ID["docket"])  # after the last "docket"
                mask[i, start:start + 3] = 1
    return Batch(tokens, mask, torch.tensor([nats for _, _, nats in rows]))


class Sayings(NamedTuple):
    """Every sentence that may be said of some frames, each with its probability.

    tokens (N, T), as in a Batch, the sentences of a frame one after the other. p (N,): the
    probability of each, given its frame; they sum to the number of frames. truth (N, T): the
    town's own log-probability of each token given those before it, 0 where the frame fixes it,
    and NaN outside the sentence and its <end>.
    """

    tokens: torch.Tensor
    p: torch.Tensor
    truth: torch.Tensor


def sayings(frames, styles):
    """The Sayings of these frames, in one Style, or in one for each."""
    styles = [styles] * len(frames) if isinstance(styles, Style) else styles
    rows = []
    for frame, style in zip(frames, styles, strict=True):
        start = encode(town.prompt(frame, style))
        coded = [(start + encode(f"{said} <end>"), p)
                 for said, p in town.sentences(frame, style).items()]
        mass = collections.Counter()  # of all sentences that begin so
        for row, p in coded:
            for stop in range(PROMPT, len(row) + 1):
                mass[tuple(row[:stop])] += p
        rows += [(row, p, [math.log(mass[tuple(row[:t + 1])] / mass[tuple(row[:t])])
                           for t in range(PROMPT, len(row))]) for row, p in coded]
    T = max(len(row) for row, *_ in rows)
    tokens, truth = torch.full((len(rows), T), PAD), torch.full((len(rows), T), math.nan)
    for i, (row, _, logs) in enumerate(rows):
        tokens[i, :len(row)] = torch.tensor(row)
        truth[i, PROMPT:len(row)] = torch.tensor(logs)
    return Sayings(tokens, torch.tensor([p for _, p, _ in rows]), truth)


def valid(answers, frames, styles):
    """The share of answers that the style may say of the frame. answers: rows of token numbers,
    without the prompt."""
    styles = [styles] * len(frames) if isinstance(styles, Style) else styles
    hits = [decode(answer) in town.sentences(frame, style)
            for answer, frame, style in zip(answers, frames, styles, strict=True)]
    return sum(hits) / len(hits)


def fingerprint():
    """A hash of all that a trained base depends on: the words, and how each style says things."""
    frames = [town.Frame(*(words[(i + j) % len(words)] for j, words in
                           enumerate(language.SLOTS.values()))) for i in range(24)]
    lines = [f"{town.prompt(frame, style)} {sentence} {p:.6f}" for known in STYLES.values()
             for style in (known, language.under(known, language.ANY))
             for frame in frames for sentence, p in town.sentences(frame, style).items()]
    return hashlib.sha256("\n".join([*VOCABULARY, *lines]).encode()).hexdigest()[:16]
