"""What training costs in numbers and bytes, counted exactly from the tensors' shapes.

It works on the meta device too, where a model of any size costs nothing. Activations depend on the
batch: give one, and they are counted as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import nn

STATES = {"adam": 2, "adamw": 2, "momentum": 1, "sgd": 0}  # extra numbers per trained parameter


@dataclass(frozen=True)
class Ledger:
    """Numbers (parameters) and bytes (the rest) of one model in training.

    weight_bytes: of parameters and buffers; weights in four bits are buffers. activation_bytes:
    what autograd keeps for the backward pass of one batch, None without a batch.
    """

    parameters: int
    trainable: int
    weight_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int | None = None

    @property
    def total_bytes(self):
        """Weights, gradients and optimiser states together: what is there at the step."""
        return self.weight_bytes + self.gradient_bytes + self.optimizer_bytes


def ledger(model, optimizer="adamw", batch=None):
    """The Ledger of a model as it is now: frozen weights cost their bytes, trainable ones more.

    A gradient has its parameter's dtype and so have the optimiser's states: two for Adam and AdamW
    (Kingma and Ba 2015, algorithm 1), one for SGD with momentum, none for SGD. Adam's step counter,
    one number per tensor, is left out. Tied weights count once. batch: what the model takes, a
    tensor, a tuple of arguments or a mapping of named ones; the model is called once, see
    `activation_bytes`.
    Raises ValueError for another optimiser, TypeError for what is no module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if optimizer not in STATES:
        raise ValueError(f"optimizer must be one of {', '.join(STATES)}, got {optimizer!r}")
    everything = list(model.parameters())  # each tensor once, however many names it has
    trained = [p for p in everything if p.requires_grad]
    in_bits = sum(m.in_features * m.out_features for m in model.modules()
                  if isinstance(m, nn.Linear) and hasattr(m, "dequantize"))  # W is no parameter
    gradient_bytes = sum(p.numel() * p.element_size() for p in trained)
    return Ledger(
        parameters=sum(p.numel() for p in everything) + in_bits,
        trainable=sum(p.numel() for p in trained),
        weight_bytes=sum(t.numel() * t.element_size() for t in (*everything, *model.buffers())),
        gradient_bytes=gradient_bytes,
        optimizer_bytes=STATES[optimizer] * gradient_bytes,
        activation_bytes=None if batch is None else activation_bytes(model, batch),
    )


def activation_bytes(model, batch):
    """The bytes that autograd keeps between a forward pass over a batch and its backward pass.

    See `saved_bytes`. A loss on top of the outputs adds its own. On the meta device nothing is
    computed.
    """
    if isinstance(batch, Mapping):
        return saved_bytes(model, lambda: model(**batch))
    return saved_bytes(model, lambda: model(*(batch if isinstance(batch, tuple) else (batch,))))


def saved_bytes(model, act):
    """The bytes that autograd keeps for a backward pass while `act()` runs.

    Every piece of memory counts once, however many tensors look at it; the model's parameters and
    buffers are left out.
    """
    return sum(_saved(model, act))


def step_bytes(model, loss, optimizer="adamw"):
    """The most bytes that tensors hold at once in a training step, predicted, nothing trained.

    `loss()` runs the model on a batch and returns the loss; on the meta device nothing is computed.
    Weights and the optimiser's states are there all the time. On top of them come, at the start of
    the way back, what autograd has kept and two gradients as large as the largest piece of it (in a
    language model those of the log-probabilities and of the logits); at its end, all gradients. The
    larger of the two counts. Not in it: what an operation needs inside itself, tensors that live
    only on the way there, the allocator's reserve, Python. Raises as `ledger` does.
    """
    held, kept = ledger(model, optimizer), _saved(model, loss)
    on_the_way = sum(kept) + 2 * max(kept, default=0)
    return held.weight_bytes + held.optimizer_bytes + max(on_the_way, held.gradient_bytes)


def _saved(model, act):
    """The sizes of the pieces of memory that `saved_bytes` adds up."""
    own = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
    kept = {}

    def note(tensor):
        memory = tensor.untyped_storage()
        if memory._cdata not in own:
            kept[memory._cdata] = memory  # held, so that its number is not given away again
        return tensor.detach()  # a node that kept its own output would never be freed
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        act()
    return [memory.nbytes() for memory in kept.values()]


def lora_parameters(d_out, d_in, rank):
    """The numbers in one adapter of a (d_out, d_in) matrix: rank (d_in + d_out).

    Raises ValueError unless all three are whole numbers from 1 up.
    """
    if not all(isinstance(n, Integral) and n >= 1 for n in (d_out, d_in, rank)):
        raise ValueError("d_out, d_in and rank must be whole numbers from 1 up, got "
                         f"{d_out!r}, {d_in!r} and {rank!r}")
    return rank * (d_in + d_out)
