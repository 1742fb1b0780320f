"""What training costs in numbers and bytes, counted exactly from the tensors' shapes.

It works on the meta device too, where a model of any size costs nothing. Activations are not
counted: they depend on the batch, and LoRA does not spare them.
"""

from dataclasses import dataclass
from numbers import Integral

from torch import nn

STATES = {"adam": 2, "adamw": 2, "momentum": 1, "sgd": 0}  # extra numbers per trained parameter


@dataclass(frozen=True)
class Ledger:
    """Numbers (parameters) and bytes (the rest) of one model in training."""

    parameters: int
    trainable: int
    weight_bytes: int
    gradient_bytes: int
    optimizer_bytes: int

    @property
    def total_bytes(self):
        """Weights, gradients and optimiser states together."""
        return self.weight_bytes + self.gradient_bytes + self.optimizer_bytes


def ledger(model, optimizer="adamw"):
    """The Ledger of a model as it is now: frozen weights cost their bytes, trainable ones more.

    A gradient has its parameter's dtype and so have the optimiser's states: two for Adam and AdamW
    (Kingma and Ba 2015, algorithm 1), one for SGD with momentum, none for SGD. Adam's step counter,
    one number per tensor, is left out. Tied weights count once.
    Raises ValueError for another optimiser, TypeError for what is no module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if optimizer not in STATES:
        raise ValueError(f"optimizer must be one of {', '.join(STATES)}, got {optimizer!r}")
    everything = list(model.parameters())  # each tensor once, however many names it has
    trained = [p for p in everything if p.requires_grad]
    gradient_bytes = sum(p.numel() * p.element_size() for p in trained)
    return Ledger(
        parameters=sum(p.numel() for p in everything),
        trainable=sum(p.numel() for p in trained),
        weight_bytes=sum(p.numel() * p.element_size() for p in everything),
        gradient_bytes=gradient_bytes,
        optimizer_bytes=STATES[optimizer] * gradient_bytes,
    )


def lora_parameters(d_out, d_in, rank):
    """The numbers in one adapter of a (d_out, d_in) matrix: rank (d_in + d_out).

    Raises ValueError unless all three are whole numbers from 1 up.
    """
    if not all(isinstance(n, Integral) and n >= 1 for n in (d_out, d_in, rank)):
        raise ValueError("d_out, d_in and rank must be whole numbers from 1 up, got "
                         f"{d_out!r}, {d_in!r} and {rank!r}")
    return rank * (d_in + d_out)
