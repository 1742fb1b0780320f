"""LoRA by hand (Hu et al. 2021, section 4.1): a frozen linear layer and a thin trained update.

    y = x W^T + b + (alpha / r) x A^T B^T

W (d_out, d_in) and b (d_out,) are frozen; lora_A (r, d_in) and lora_B (d_out, r) train; x is
(..., d_in). Notebooks 03 and 04 build this; everything later imports it.
"""

import math
import numbers
import warnings

import torch
import torch.nn.functional as F
from torch import nn

from lora_mini import step

FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}


class LoRALinear(nn.Module):
    """A frozen `nn.Linear`, as `.base`, and beside it the update scaling * B A.

    lora_A (rank, d_in) starts Kaiming-uniform with a = sqrt(5), as in Hu et al.'s code: uniform in
    +-1/sqrt(d_in). lora_B (d_out, rank) starts at zero, so the layer starts as its base. Both are
    float32 at least, as in PEFT. The scale is alpha / rank, or with `rslora` alpha / sqrt(rank)
    (Kalajdzievski 2023). Dropout acts on the input of the update alone.

    `merge` never writes to the base: it keeps W + scaling * B A beside it, out of `state_dict`, and
    forms it anew when A, B or W change. One change leaves no trace, a write to W through `.data`:
    call `merge` again after it. A base with forward hooks acts apart even when merged, so that the
    hooks see what they saw before.

    Raises ValueError for a rank outside 1..min(d_in, d_out), an alpha that is not positive, a
    dropout outside [0, 1); TypeError for a base that is not an `nn.Linear`, or a subclass with a
    `forward` of its own, unless it has `dequantize()`, which gives its W.
    """

    trains = ("lora_A", "lora_B")  # what `attach` makes trainable

    def __init__(self, base, rank, alpha, dropout=0.0, rslora=False):
        super().__init__()
        check_arguments(base, rank, alpha, dropout)
        self.base = base.requires_grad_(False)
        self.rank, self.rslora = int(rank), rslora
        self.alpha = alpha if isinstance(alpha, int) else float(alpha)
        like = {"device": base.weight.device, "dtype": _wide(base.weight)}
        self.lora_A = nn.Parameter(torch.empty(rank, base.in_features, **like))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, **like))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.dropout = nn.Dropout(float(dropout))
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
            return _dense(self.base)
        if self.merged and not self._recorded():
            return self._cached()
        self._cache = None  # what is recorded will be trained: a sum from before would be stale
        return self._sum()

    def _recorded(self):
        return torch.is_grad_enabled() and any(
            t.requires_grad for t in (self.base.weight, *self._factors()))

    def _factors(self):
        """The tensors that `update` is formed from, apart from W."""
        return self.lora_A, self.lora_B

    def _sum(self):
        """W + update, rounded to W's dtype once, after the addition; autocast has no say in it."""
        W = _dense(self.base)
        if step.autocasts(W):
            with torch.autocast(W.device.type, enabled=False):
                return self._sum()
        wide = W.to(_wide(W))
        if type(self).update is LoRALinear.update and self.lora_A.dtype == wide.dtype:
            return step.folded(wide, self.lora_A, self.lora_B, self.scaling).to(W.dtype)
        return (wide + self.update().to(wide.dtype)).to(W.dtype)

    def _cached(self):
        """The sum, kept as long as nothing that it is made of has changed."""
        W = self.base._parameters.get("weight")  # a parametrized base makes a new one each time
        lent = any(type(self._parameters.get(n)) is not nn.Parameter for n in self.trains)  # vmap
        if torch.compiler.is_compiling() or lent or W is None or W.is_inference() \
                or type(self.base) is not nn.Linear and hasattr(self.base, "dequantize"):
            return self._sum()  # no way, or no need, to notice what changed
        if not self._is_fresh(W):
            with torch.inference_mode(False), torch.no_grad():
                thin = [t.detach().clone() for t in self._factors()]
                self._cache = (self.scaling, W, W._version, thin), self._sum()
        return self._cache[1]

    def _is_fresh(self, W):
        # Fused optimisers raise no version counter: of the thin factors, the values are compared.
        if self._cache is None:
            return False
        scaling, kept, version, thin = self._cache[0]
        return scaling == self.scaling and kept is W and version == W._version \
            and all(map(torch.equal, thin, self._factors()))

    def forward(self, x):
        """x (..., d_in) -> (..., d_out)."""
        if not self.enabled:
            return self.base(x)
        if self.merged:
            if self.training and self.dropout.p and torch.is_grad_enabled():
                raise RuntimeError("this layer is merged, and a merged weight has no place for its "
                                   f"dropout of {self.dropout.p}: call unmerge(model) to train")
            if not step.watched(self.base):
                return F.linear(x, self.weight, self.base.bias)
        return self._apart(x)

    def _apart(self, x):
        """The output with base and update apart: x (..., d_in) -> (..., d_out)."""
        return self._fused(x) if step.fits(self, x) else self._plain(x)

    def _fused(self, x):  # the same numbers, in less time
        return step.lora_linear(x, self.base.weight, self.bias, self.lora_A, self.lora_B,
                                self.scaling)

    def _plain(self, x):
        dropped = self.dropout(x) if self.training else x  # a module's call costs
        thin = F.linear(dropped.to(self.lora_A.dtype), self.lora_A)  # (..., r)
        y = self.base(x)
        return (y + self.scaling * F.linear(thin, self.lora_B)).to(y.dtype)  # one rounding, as PEFT

    def merge(self):
        """Act with W + scaling * B A from now on. Safe to repeat.

        Returns the share of the update's entries that rounding to W's dtype swallowed, 0 to 1.
        Warns if the sum holds NaN or infinite numbers.
        """
        self.merged, self._cache = True, None  # asked for: formed anew in any case
        with torch.no_grad():
            moved, sum_ = self.update() != 0, self._cached()
            if not sum_.is_meta and not torch.isfinite(sum_).all():
                warnings.warn("the merged weight holds NaN or infinite numbers, from the base, "
                              f"the adapter or an overflow of {sum_.dtype}", stacklevel=2)
            swallowed = moved & (sum_ == _dense(self.base))
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
    kind, dense = type(base).__name__, hasattr(base, "dequantize")
    if isinstance(base, nn.LazyLinear):
        raise ValueError(f"this {kind} has no size yet: run a batch through the model first{where}")
    own = type(base).forward is not nn.Linear.forward or "forward" in vars(base)
    if own and not dense:
        raise TypeError(f"this {kind} has a forward of its own, which merging would pass over: "
                        f"leave the layer out{where}")
    if not dense and base.weight.dtype not in FLOATS:
        raise ValueError("expected floating-point weights of 16, 32 or 64 bits, "
                         f"got {base.weight.dtype}{where}")
    most = min(base.in_features, base.out_features)
    if isinstance(rank, bool) or not isinstance(rank, numbers.Integral):
        raise ValueError(f"rank must be an int, got {rank!r}{where}")
    if not 1 <= rank <= most:
        raise ValueError(f"rank must be between 1 and min(d_in, d_out) = {most}, "
                         f"got {rank}{where}")
    if not _is_number(alpha) or not 0 < alpha < math.inf:
        raise ValueError(f"alpha must be a positive number, got {alpha!r}")
    if not _is_number(dropout) or not 0 <= dropout < 1:
        raise ValueError(f"dropout must be a number, at least 0 and below 1, got {dropout!r}")


def _is_number(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _dense(base):
    """The base's W, (d_out, d_in)."""
    return base.dequantize() if hasattr(base, "dequantize") else base.weight


def _wide(tensor):
    return torch.promote_types(tensor.dtype, torch.float32)
