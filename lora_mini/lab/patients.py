"""A patient of the zoo, before its training and after it, and a few looks at its adapter."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from lora_mini.lora import LoRALinear

RATE = 3e-3


@dataclass
class Patient:
    """A model, and what belongs to it.

    losses, optimizer: of its training, if it trained here. before: an audit's Snapshot from before
    that. twin: the model whose answers it should give, if there is one. said: what Python warned of
    while it trained. counts: as a Start's. file: {name: tensor} of the adapter's file that it was
    loaded from, or of the file that it became when merged; config: what lies beside that file.
    """

    model: nn.Module
    losses: list = field(default_factory=list)
    optimizer: Any = None
    before: Any = None
    twin: nn.Module | None = None
    said: tuple = ()
    counts: Any = None
    file: dict | None = None
    config: dict | None = None

    @property
    def merged(self):
        """Whether it has no adapter any more."""
        return not layers(self.model)


@dataclass
class Start:
    """A model before its training. counts: (tokens, mask) -> the mask of what the loss counts."""

    model: nn.Module
    optimizer: Any
    counts: Any = lambda tokens, mask: mask


def adam(model, rate=RATE):
    """AdamW over what trains in a model now."""
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)


def layers(model):
    """[(name, LoRALinear)] of a model."""
    return [(n, m) for n, m in model.named_modules() if isinstance(m, LoRALinear)]


def factors(model):
    """{name: tensor} of all factors, copies."""
    return {n: t.detach().clone() for n, t in model.state_dict().items() if "lora_" in n}
