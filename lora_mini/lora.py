"""LoRA by hand (Hu et al. 2021, section 4.1): a frozen linear layer and a thin trained update.

    y = x W^T + b + (alpha / r) x A^T B^T

W (d_out, d_in) and b (d_out,) are frozen; lora_A (r, d_in) and lora_B (d_out, r) train; x is
(..., d_in). Notebooks 03 and 04 build this; everything later imports it.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn


class LoRALinear(nn.Module):
    """A frozen `nn.Linear`, as `.base`, and beside it the update scaling * B A.

    lora_A (rank, d_in) starts Kaiming-uniform with a = sqrt(5), as in Hu et al.'s code: uniform in
    +-1/sqrt(d_in). lora_B (d_out, rank) starts at zero, so the layer starts as its base. Both are
    float32 at least, as in PEFT. The scale is alpha / rank, or with `rslora` alpha / sqrt(rank)
    (Kalajdzievski 2023). Dropout acts on the input of the update alone.

    `merge` never writes to the base: it keeps W + scaling * B A beside it, out of `state_dict`.
    Raises ValueError for a rank outside 1..min(d_in, d_out), an alpha that is not positive, a
    dropout outside [0, 1), and TypeError for a base that is not an `nn.Linear`.
    """

    trains = ("lora_A", "lora_B")  # what `attach` makes trainable

    def __init__(self, base, rank, alpha, dropout=0.0, rslora=False):
        super().__init__()
        check_arguments(base, rank, alpha, dropout)
        self.base = base.requires_grad_(False)
        self.rank, self.alpha, self.rslora = rank, alpha, rslora
        like = {"device": base.weight.device, "dtype": _wide(base.weight)}
        self.lora_A = nn.Parameter(torch.empty(rank, base.in_features, **like))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, **like))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.dropout = nn.Dropout(dropout)
        self.strength, self.enabled, self.merged, self._cache = 1.0, True, False, None
        self.train(base.training)

    @property
    def scaling(self):
        """What multiplies B A: alpha / rank or alpha / sqrt(rank), times the strength."""
        return self.strength * self._scale

    @property
    def _scale(self):
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    def update(self):
        """The update itself: scaling * B A, (d_out, d_in)."""
        return self.scaling * (self.lora_B @ self.lora_A)

    @property
    def weight(self):
        """The matrix this layer acts with, (d_out, d_in); some modules read it past `forward`.

        While merged it comes from the cache, unless autograd is recording: then the sum is formed
        anew, so that A and B get their gradients.
        """
        if not self.enabled:
            return self.base.weight
        recorded = torch.is_grad_enabled() and any(t.requires_grad for t in self._factors())
        return self._cached() if self.merged and not recorded else self._sum()

    def _factors(self):
        """The tensors that `update` is formed from, apart from W."""
        return self.lora_A, self.lora_B

    def _sum(self):
        """W + update, rounded to W's dtype once, after the addition."""
        W = self.base.weight
        return (W.to(_wide(W)) + self.update().to(_wide(W))).to(W.dtype)

    def _cached(self):
        tensors = (self.base.weight, *self._factors())
        key = (self.scaling, *((id(t), t._version) for t in tensors))
        if self._cache is None or self._cache[0] != key:  # first use, or trained or loaded since
            with torch.inference_mode(False), torch.no_grad():
                self._cache = key, self._sum()
        return self._cache[1]

    def forward(self, x):
        """x (..., d_in) -> (..., d_out)."""
        if not self.enabled:
            return self.base(x)
        if self.merged:
            if self.training and self.dropout.p and torch.is_grad_enabled():
                raise RuntimeError("this layer is merged, and a merged weight has no place for its "
                                   f"dropout of {self.dropout.p}: call unmerge(model) to train")
            return F.linear(x, self.weight, self.base.bias)
        return self._apart(x)

    def _apart(self, x):
        """The output with base and update apart: x (..., d_in) -> (..., d_out)."""
        thin = F.linear(self.dropout(x).to(self.lora_A.dtype), self.lora_A)  # (..., r)
        y = self.base(x)
        return y + (self.scaling * F.linear(thin, self.lora_B)).to(y.dtype)

    def merge(self):
        """Act with W + scaling * B A from now on. Safe to repeat.

        Returns the share of the update's entries that rounding to W's dtype swallowed, 0 to 1.
        """
        self.merged = True
        with torch.no_grad():
            moved = self.update() != 0
            swallowed = moved & (self._cached() == self.base.weight)
            return (swallowed.sum() / moved.sum().clamp(min=1)).item()

    def unmerge(self):
        """Act with base and update apart again. Safe to repeat."""
        self.merged, self._cache = False, None

    def _apply(self, fn, recurse=True):
        self._cache = None  # .to(...) and its kin may change values without a trace
        return super()._apply(fn, recurse)

    @property
    def bias(self):
        return self.base.bias

    @property
    def in_features(self):
        return self.base.in_features

    @property
    def out_features(self):
        return self.base.out_features

    def extra_repr(self):
        return (f"rank={self.rank}, alpha={self.alpha}, scaling={self.scaling:g}, "
                f"merged={self.merged}")


def check_arguments(base, rank, alpha, dropout, name=""):
    """Raise TypeError or ValueError, with the layer's name, for what LoRALinear can't take."""
    where = f" (layer {name!r})" if name else ""
    if not isinstance(base, nn.Linear):
        raise TypeError(f"expected an nn.Linear, got {type(base).__name__}{where}")
    if not base.weight.is_floating_point():
        raise ValueError(f"expected floating-point weights, got {base.weight.dtype}{where}")
    most = min(base.in_features, base.out_features)
    if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= most:
        raise ValueError(f"rank must be between 1 and min(d_in, d_out) = {most}, "
                         f"got {rank!r}{where}")
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 < alpha < math.inf:
        raise ValueError(f"alpha must be a positive number, got {alpha!r}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and below 1, got {dropout!r}")


def _wide(tensor):
    return torch.promote_types(tensor.dtype, torch.float32)
