"""What a model was before training: the side that an audit compares it with."""

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lora_mini.audit.forward import bare, device_of, moved, outputs, switched_off
from lora_mini.audit.layers import adapted, base_names, own
from lora_mini.audit.ties import ties


@dataclass(frozen=True)
class Snapshot:
    """What `snapshot` keeps, on the CPU.

    where, outputs: the name and the values of the model's logits on `batch`, the adapter off; None
    without a batch. base: {name in the base without adapter: hash} of its parameters and buffers.
    start: {name: values} of the adapter's trainable parameters. ties: groups of names in the base
    under which one parameter is found.
    """

    batch: Any
    where: str
    outputs: torch.Tensor | None
    base: dict
    start: dict
    ties: tuple = ()


def snapshot(model, batch=None):
    """What training must be compared with: call it before, and give it to `audit` as `before`.

    batch: a tensor, a tuple of arguments or a mapping of named ones for the model, of which a copy
    is kept. It may be taken before or after the adapter is attached. Returns a Snapshot; it holds
    the outputs, the adapter's start values and 64 letters a tensor of the base. Raises TypeError
    for what is no module, and whatever the model raises on the batch.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a model, an nn.Module, got {type(model).__name__}")
    model, where, found = bare(model), "", None
    if batch is not None:
        batch = moved(batch, torch.device("cpu"))
        where, found = off(model, batch)
    start = {n: p.detach().cpu().clone() for n, p in own(model).items() if p.requires_grad}
    return Snapshot(batch, where, found, digests(model), start, ties(model))


def off(model, batch):
    """(which tensor, its values on the CPU) with the adapter off; None while PEFT's is merged."""
    if written_in(model):
        return "", None
    with switched_off(model):
        where, found = outputs(model, moved(batch, device_of(model)))
    return where, None if found is None else found.cpu()


def written_in(model):
    """Names of layers whose base PEFT has written the update into: there is no off there."""
    return [a.name for a in adapted(model) if a.merged and a.adapter]


def digests(model):
    """{name in the base without adapter: SHA-256 of its bytes} of parameters and buffers."""
    skipped = tuple(f"{name}." for name in written_in(model))
    tensors = dict(model.named_parameters(remove_duplicate=False))
    tensors |= dict(model.named_buffers(remove_duplicate=False))
    known, found = {}, {}
    for name, plain in base_names(model).items():
        tensor = tensors[name]
        if skipped and name.startswith(skipped) or tensor.is_meta:
            continue
        if id(tensor) not in known:
            known[id(tensor)] = _digest(tensor)
        found[plain] = known[id(tensor)]
    return found


def _digest(tensor):
    plain = tensor.detach().cpu().contiguous().flatten()
    return hashlib.sha256(plain.view(torch.uint8).numpy()).hexdigest()
