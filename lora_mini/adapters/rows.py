"""Different adapters inside one batch, each row its own (as in Punica and S-LoRA, 2023)."""

import contextlib

import torch
import torch.nn.functional as F
from torch import nn

from lora_mini.adapters.shelf import (
    PLAIN,
    modules_of_base,
    park,
    pick,
    refuse_merged,
    shelf,
    switch,
)
from lora_mini.lora import LoRALinear
from lora_mini.targets import place


@contextlib.contextmanager
def rows(model, names):
    """Inside `with rows(model, ["medical", None, "legal"]):` each row of a batch has its adapter.

    names: one for each row, the first axis of what goes in; None is the base alone. Each row comes
    out as if the model had been called on it alone, with that adapter active. Afterwards the model
    is as it was. Raises ValueError for a name that there isn't, a merged adapter, or, when the
    model is called, a batch of another size.
    """
    held, names = shelf(model), list(names)
    chosen = {name: pick(held, name) for name in names if name is not None}
    refuse_merged(model)
    was, bare = held.active, modules_of_base(model)
    for name, adapter in chosen.items():
        if any(isinstance(w, LoRALinear) and w.merged for w in adapter.values()):
            raise ValueError(f"adapter {name!r} is merged: switch to it and call unmerge(model)")
    places = dict.fromkeys(where for adapter in chosen.values() for where in adapter)
    park(model)
    try:
        for where in places:
            mine = [chosen[name].get(where) if name is not None else None for name in names]
            place(model, where, Mixed(bare[where], mine))
        yield model
    finally:
        for where in places:
            place(model, where, bare[where])
        switch(model, was)


class Mixed(nn.Module):
    """One module of the base, and for each row of a batch a wrapper around it, or None."""

    def __init__(self, inner, mine):
        super().__init__()
        self.inner, self.training = inner, inner.training
        self.each = list(mine)  # plain lists: their parameters stay out of the model's
        self.kinds = [w for w in dict.fromkeys(mine) if w is not None]
        self.thin = all(type(w) in PLAIN for w in self.kinds)

    def forward(self, x, *args, **kwargs):
        """x (n, ..., d_in), one row for each name -> (n, ..., d_out)."""
        if len(x) != len(self.each):
            raise ValueError(f"rows(model, names) was given {len(self.each)} names, and a batch of "
                             f"{len(x)} rows came")
        y = self.inner(x, *args, **kwargs)
        dropped = self.training and any(getattr(w, "dropout", None) and w.dropout.p
                                        for w in self.kinds)
        if self.thin and not dropped and all(w.enabled for w in self.kinds):
            return y + self._updates(x).to(y.dtype)
        for wrapper in self.kinds:
            own = torch.tensor([i for i, w in enumerate(self.each) if w is wrapper]).to(y.device)
            y = y.index_copy(0, own, wrapper(x.index_select(0, own), *args, **kwargs))
        return y

    def _updates(self, x):
        """scaling x A^T B^T, each row with its own: all rows in two batched products.

        Factors of a lower rank are filled up with zeros, and a row without an adapter has zeros.
        """
        rank = max(w.rank for w in self.kinds)
        A = [F.pad(w.lora_A, (0, 0, 0, rank - w.rank)) for w in self.kinds]
        B = [F.pad(w.scaling * w.lora_B, (0, rank - w.rank)) for w in self.kinds]
        A, B = torch.stack([torch.zeros_like(A[0]), *A]), torch.stack([torch.zeros_like(B[0]), *B])
        at = {id(w): i for i, w in enumerate(self.kinds, 1)}
        own = torch.tensor([at.get(id(w), 0) for w in self.each]).to(x.device)
        flat = x.reshape(len(x), -1, x.shape[-1]).to(A.dtype)  # (n, T, d_in)
        thin = flat @ A.index_select(0, own).transpose(1, 2)  # (n, T, r)
        return (thin @ B.index_select(0, own).transpose(1, 2)).view(*x.shape[:-1], -1)
