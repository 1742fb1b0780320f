"""What a model has learned: nats over the floor, in two parts, valid answers, bits of facts.

The nats are *enumerated*: the expectation over every sentence that may be said of each frame, with
its probability. Nothing is drawn, so the only luck is in the frames.
"""

import math
from typing import NamedTuple

import torch

from lora_mini.world import text, town
from lora_mini.world.styles import FACT_BITS, Style
from lora_mini.world.train import token_losses


class Score(NamedTuple):
    """Nats per token over the sentences' own, in two parts, and the share of valid answers.

    content: on the tokens that the frame fixes. chance: on those where chance decides, nats above
    the choice's own entropy. valid: greedy answers that the style may say of the frame, 0 to 1.
    """

    content: float
    chance: float
    valid: float = math.nan

    @property
    def total(self):
        """All nats per token over the sentences' own: 0 is perfect."""
        return self.content + self.chance


def evaluate(model, styles, n=200, seed=0, split="test"):
    """A Score on n frames of a split, in one Style, or in several in turn."""
    said, frames = drawn(styles, n, seed, split)
    return excess(model, text.sayings(frames, said))._replace(valid=valid(model, frames, said))


def drawn(styles, n, seed=0, split="test"):
    """n frames of a split, and the style of each: (styles, frames)."""
    styles = [styles] if isinstance(styles, Style) else list(styles)
    return [styles[i % len(styles)] for i in range(n)], town.sample_frames(n, seed, split)


@torch.no_grad()
def excess(model, sayings):
    """A Score without its last part: the nats that a model pays over the Sayings' own."""
    over = sayings.truth[:, 1:].nan_to_num() - _nats_below(model, sayings.tokens)  # (N, T - 1)
    counts = ~sayings.truth[:, 1:].isnan()
    weights = counts * sayings.p[:, None]
    by_chance = counts & (sayings.truth[:, 1:] < 0)
    parts = [(over * weights * which).sum() / weights.sum() for which in (~by_chance, by_chance)]
    return Score(*(part.item() for part in parts))


def valid(model, frames, styles):
    """The share of greedy answers that a style may say, one style for each frame."""
    data = [torch.tensor(text.encode(town.prompt(frame, style)))
            for frame, style in zip(frames, styles, strict=True)]
    start = torch.stack(data).to(next(model.parameters()).device)
    longest = max(len(said.split()) for frame, style in zip(frames, styles, strict=True)
                  for said in town.sentences(frame, style))
    answers = model.generate(start, longest + 1)  # and <end>
    return text.valid(answers.cpu().tolist(), frames, styles)


def bits_learned(model, style, seed=0):
    """How much of its docket entries a model knows, in bits: at most FACT_BITS * style.new_facts.

    What the entries cost somebody who knows nothing, minus what they cost the model; each is asked
    for once, in a frame of the test split. It is negative for a model that is sure and wrong.
    Raises ValueError for a style without facts.
    """
    if not style.new_facts:
        raise ValueError('the style has no facts: make it with register("legal", new_facts=...)')
    data = text.batch(town.fact_frames(style, seed, "test"), style, seed, facts_only=True)
    return FACT_BITS * style.new_facts - total_nats(model, data) / math.log(2)


@torch.no_grad()
def total_nats(model, data):
    """The sum of -log p over the tokens of a Batch that count, in eval mode."""
    return -(_nats_below(model, data.tokens) * data.mask[:, 1:]).sum().item()


def _nats_below(model, tokens):
    """log p of every token but the first, in eval mode, on the CPU: (N, T) -> (N, T - 1)."""
    training = model.training
    model.eval()
    try:
        return torch.cat([-token_losses(model, some).cpu() for some in tokens.split(512)])
    finally:
        model.train(training)
