"""What all checks of an audit are given."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from lora_mini.audit.before import Snapshot


@dataclass
class Case:
    """layers: the Adapted with numbers in them; empty: those on the meta device.

    on, loss: the outputs on `batch`, as the model is, and the loss among them; None without.
    """

    model: nn.Module
    optimizer: Any
    batch: Any
    before: Snapshot | None
    layers: list
    empty: list
    on: torch.Tensor | None
    loss: torch.Tensor | None = None
    file: Any = None
    scaler: Any = None

    @property
    def acting(self):
        """The layers whose adapter is active."""
        return [layer for layer in self.layers if layer.active]

    @cached_property
    def steps(self):
        """How many steps the optimizer has made, from its state; 0 where that says nothing."""
        if self.optimizer is None:
            return 0
        counts = [s["step"] for s in self.optimizer.state.values() if "step" in s]
        return int(max(map(float, counts), default=0))

    @property
    def trained(self):
        """Whether training has taken place, as far as it can be seen."""
        return self.before is not None or self.steps > 0

    @cached_property
    def group_of(self):
        """{id of a parameter: its group in the optimizer}."""
        groups = self.optimizer.param_groups if self.optimizer is not None else []
        return {id(p): group for group in groups for p in group["params"]}


def peak(group):
    """The largest learning rate that a group is known to have had or to be meant for."""
    return max(float(group.get(name) or 0) for name in ("lr", "initial_lr", "max_lr"))
