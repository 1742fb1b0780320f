"""Different adapters inside one batch, each row its own (as in Punica and S-LoRA, 2023)."""

import contextlib

import torch
import torch.nn.functional as F
from torch import nn

from lora_mini.adapters.shelf import (
    PLAIN,
    of_base,
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
    was = held.active
    for name, adapter in chosen.items():
        if any(isinstance(w, LoRALinear) and w.merged for w in adapter.values()):
            raise ValueError(f"adapter {name!r} is merged: switch to it and call unmerge(model)")
    places = dict.fromkeys(where for adapter in chosen.values() for where in adapter)
    bare = {where: of_base(model, where) for where in places}
    park(model)
    orders = {}
    try:
        for where in places:
            mine = [chosen[name].get(where) if name is not None else None for name in names]
            place(model, where, Mixed(bare[where], mine, orders))
        yield model
    finally:
        for where in places:
            place(model, where, bare[where])
        switch(model, was)


class Mixed(nn.Module):
    """One module of the base, and for each row of a batch a wrapper around it, or None.

    Without gradients the stacked factors are kept from the second call on, until one of them has
    changed; with gradients they never are, since fused optimisers change them without a trace. So
    does a write through `.data`: leave the `with` and enter it again.
    """

    def __init__(self, inner, mine, orders):
        super().__init__()
        self.inner, self.training = inner, inner.training
        # Plain lists: what is in them stays out of the model's parameters.
        self.each, self.kinds = list(mine), list(dict.fromkeys(mine))
        self.wrappers = [w for w in self.kinds if w is not None]
        self.thin = all(type(w) in PLAIN for w in self.wrappers)
        own = tuple(map(self.kinds.index, mine))
        if own not in orders:  # the same in most layers
            orders[own] = _ordered(torch.tensor(own))
        self.own, self.order, self.back = orders[own]
        self._stack = None

    def forward(self, x, *args, **kwargs):
        """x (n, ..., d_in), one row for each name -> (n, ..., d_out)."""
        if len(x) != len(self.each):
            raise ValueError(f"rows(model, names) was given {len(self.each)} names, and a batch of "
                             f"{len(x)} rows came")
        y = self.inner(x, *args, **kwargs)
        dropped = self.training and any(getattr(w, "dropout", None) and w.dropout.p
                                        for w in self.wrappers)
        if self.thin and not dropped and all(w.enabled for w in self.wrappers):
            return (y + self._updates(x)).to(y.dtype)
        for wrapper in self.wrappers:
            own = torch.tensor([i for i, w in enumerate(self.each) if w is wrapper]).to(y.device)
            y = y.index_copy(0, own, wrapper(x.index_select(0, own), *args, **kwargs))
        return y

    def _updates(self, x):
        """scaling x A^T B^T, each row with its own: all rows in two batched products.

        Where all adapters have as many rows, the rows are put together by adapter, and no factor is
        copied; elsewhere each row gets its adapter's.
        """
        A, B, scaling = self._stacked()
        flat = x.reshape(len(x), -1, x.shape[-1]).to(A.dtype)  # (n, T, d_in)
        if self.order is None:
            own = self.own.to(x.device)
            thin = scaling[own] * (flat @ A.index_select(0, own).transpose(1, 2))  # (n, T, r)
            y = thin @ B.index_select(0, own).transpose(1, 2)
        else:
            flat = flat.index_select(0, self.order.to(x.device))
            thin = flat.view(len(A), -1, x.shape[-1]) @ A.transpose(1, 2)  # (k, T n / k, r)
            y = (scaling * thin @ B.transpose(1, 2)).view(len(x), flat.shape[1], -1)
            y = y.index_select(0, self.back.to(x.device))
        return y.view(*x.shape[:-1], -1)

    def _stacked(self):
        """A (k, r, d_in), B (k, d_out, r) and scaling (k, 1, 1); a lower rank ends in zeros."""
        factors = [t for w in self.wrappers for t in (w.lora_A, w.lora_B)]
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or any(
                type(t) is not nn.Parameter or t.is_inference() for t in factors):
            self._stack = None
            return self._formed()
        made_of = [w.scaling for w in self.wrappers], [(id(t), t._version) for t in factors]
        if self._stack is None or self._stack[0] != made_of:
            self._stack = made_of, None, factors  # held: an id is not given away again
            return self._formed()
        if self._stack[1] is None:
            self._stack = made_of, self._formed(), factors
        return self._stack[1]

    def _formed(self):
        like, rank = self.wrappers[0], max(w.rank for w in self.wrappers)
        A = [torch.zeros_like(like.lora_A) if w is None else w.lora_A for w in self.kinds]
        B = [torch.zeros_like(like.lora_B) if w is None else w.lora_B for w in self.kinds]
        if any(len(a) < rank for a in A):  # a pad of nothing would copy, too
            A = [F.pad(a, (0, 0, 0, rank - len(a))) for a in A]
            B = [F.pad(b, (0, rank - b.shape[1])) for b in B]
        scales = torch.tensor([0.0 if w is None else w.scaling for w in self.kinds],
                              dtype=torch.float64).to(A[0])
        return torch.stack(A), torch.stack(B), scales[:, None, None]


def _ordered(own):
    """(own, order, back): the kind of each row; if all are as frequent, the rows kind by kind, and
    the way back; else twice None."""
    if len(set(own.bincount().tolist())) > 1:
        return own, None, None
    order = own.argsort(stable=True)
    return own, order, order.argsort()
