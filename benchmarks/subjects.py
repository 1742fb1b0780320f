"""What is measured: an MLP, the town's GPT, SmolLM2, their linear layers in four bits.

Each has `name`, `make()`, a model; `loss(rows, tokens)`, a function of a model; and, but for the
MLP, `ids(rows, tokens)`, a batch.
"""

import copy
import random

import torch
import torch.nn.functional as F
from arms import inner
from torch import nn

from lora_mini.blocks import Q41Linear
from lora_mini.quant import FourBitLinear, to_four_bits

LAYERS = 4  # of the MLP


class MLP:
    """Square layers with ReLU between them."""

    name = "MLP"

    def __init__(self, width):
        self.width = width

    def make(self):
        torch.manual_seed(0)
        parts = [part for _ in range(LAYERS)
                 for part in (nn.Linear(self.width, self.width), nn.ReLU())]
        model = nn.Sequential(*parts[:-1])
        to_four_bits(model, list(inner(model)))
        return model

    def loss(self, rows, tokens):
        torch.manual_seed(1)
        x, y = (torch.randn(rows * tokens, self.width) for _ in range(2))
        return lambda model: F.mse_loss(model(x), y)


class Town:
    """The town's GPT."""

    name = "the town's GPT"

    def make(self):
        from lora_mini.world import base

        model = copy.deepcopy(base.shipped())
        to_four_bits(model, list(inner(model)), layer=FourBitLinear)
        return model

    def ids(self, rows, tokens):
        return torch.randint(5, 60, (rows, tokens), generator=torch.Generator().manual_seed(0))

    def loss(self, rows=32, tokens=None):
        """On sentences, of their own length."""
        from lora_mini.world import text, town, train
        from lora_mini.world.styles import REGISTERS

        rng = random.Random(0)
        data = text.batch(town.sample_frames(rows, rng), REGISTERS["medical"], rng)
        return lambda model: train.loss(model, data.tokens, data.mask)


class SmolLM2:
    """The real language model, in its own four bits; `small` is a tiny one of its kind."""

    name = "SmolLM2"

    def __init__(self, small=False):
        self.small = small

    def make(self):
        if not self.small:
            from lora_mini.lab import smollm

            return smollm.load(bits=4)[0]
        import transformers

        torch.manual_seed(0)
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(
            vocab_size=40_000, hidden_size=64, intermediate_size=96, num_hidden_layers=1,
            num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True))
        to_four_bits(model, list(inner(model)), layer=Q41Linear)
        return model

    def ids(self, rows, tokens):
        return torch.randint(100, 40_000, (rows, tokens),
                             generator=torch.Generator().manual_seed(0))

    def loss(self, rows=4, tokens=128):
        ids = self.ids(rows, tokens)
        return lambda model: model(ids, labels=ids, use_cache=False).loss
