"""What a model has learned: nats over the floor, exact sentences, bits of facts."""

import math
import random
from typing import NamedTuple

import torch

from lora_mini.world import text, town
from lora_mini.world.styles import FACT_BITS, Style
from lora_mini.world.train import token_losses


class Score(NamedTuple):
    """excess: nats per token over the sentences' own; exact: share of greedy answers, 0 to 1."""

    excess: float
    exact: float


def evaluate(model, styles, n=300, seed=0, split="test"):
    """A Score on n frames of the test split, in one Style, or in several in turn."""
    styles, rng = [styles] if isinstance(styles, Style) else list(styles), random.Random(seed)
    said = [styles[i % len(styles)] for i in range(n)]
    frames = town.sample_frames(n, rng, split)
    data = text.batch(frames, said, rng)
    start = data.tokens[:, :text.PROMPT].to(next(model.parameters()).device)
    longest = max(len(town.best(*both).split()) for both in zip(frames, said, strict=True))
    answers = model.generate(start, longest + 1)  # and <end>
    return Score(excess(model, data), text.exact_match(answers.cpu().tolist(), frames, said))


def excess(model, data):
    """Nats per token of a Batch above its sentences' own: the model's total -log p, minus the
    town's, over the tokens that count. So most of the luck of the draw cancels."""
    return (total_nats(model, data) + data.log_probability.sum().item()) / data.mask.sum().item()


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
    training = model.training
    model.eval()
    try:
        each = token_losses(model, data.tokens)
        return (each * data.mask[:, 1:].to(each.device)).sum().item()
    finally:
        model.train(training)
