"""Four relatives of LoRA: DoRA, PiSSA, LoRA-FA and LoRA+, and what DoRA measures.

Three are layers that `attach(..., layer=DoRALinear)` puts in LoRALinear's place; W (d_out, d_in),
A (r, d_in), B (d_out, r) and the scale s (alpha / r, or alpha / sqrt(r)) mean what they mean there.
LoRA+ is LoRALinear with a faster B. Merging, strength and switching off work as they do for LoRA.
"""

import math
import numbers

import torch
import torch.nn.functional as F
from torch import nn

from lora_mini import step
from lora_mini.lora import LoRALinear, check_arguments


class DoRALinear(LoRALinear):
    """Magnitude and direction apart (Liu et al. 2024, section 4.1): one magnitude per output.

        W' = magnitude * (W + s B A) / ||W + s B A||        magnitude (d_out,), row by row

    The norms are those of the rows of W (d_out, d_in), which the paper calls columns. `magnitude`
    starts at the norms of W, so the layer starts as its base. The gradient takes the norm for a
    constant (section 4.3), as in PEFT. At strength t the layer acts with W + t (W' - W): at 0 that
    is W itself. Dropout acts on the input of all that W' - W adds, W's own share included.

    Raises as LoRALinear does, and ValueError for a row of W that is all zeros.
    """

    trains = ("lora_A", "lora_B", "magnitude")

    def __init__(self, base, rank, alpha, dropout=0.0, rslora=False):
        check_arguments(base, rank, alpha, dropout)
        _refuse_zero_rows(base.weight, "W")
        super().__init__(base, rank, alpha, dropout, rslora)
        self.magnitude = nn.Parameter(self._norms())  # B is zero: the norms of W

    def update(self):
        """strength * (W' - W), (d_out, d_in)."""
        W, gain = self.base.weight.to(self.lora_A.dtype), self._gain()[:, None]
        thin = self._scale * (self.lora_B @ self.lora_A)
        return self.strength * ((gain - 1) * W + gain * thin)  # at gain 1 and B zero, zero exactly

    def _factors(self):
        return self.lora_A, self.lora_B, self.magnitude

    def _gain(self):
        """What multiplies each row of W + s B A, (d_out,)."""
        return self.magnitude / self._norms()

    @torch.no_grad()
    def _norms(self):
        """||W + s B A||, row by row: (d_out,)."""
        # ||w||^2 + 2 s (w A^T) b^T + s^2 b (A A^T) b^T would need no matrix of W's size, but where
        # B A all but cancels a row it loses twice the digits, and in float32 ends in NaN.
        W = self.base.weight.to(self.lora_A.dtype)
        return _lengths(W + self._scale * (self.lora_B @ self.lora_A))

    def _fused(self, x):
        if self.strength != 1:
            return self._plain(x)
        return dora_linear(x, self.base.weight, self.bias, self.lora_A, self.lora_B,
                           self.magnitude, self._scale)

    def _plain(self, x):
        y, dropped = self.base(x), self.dropout(x)
        if self.training and self.dropout.p:
            plain = F.linear(dropped, self.base.weight)  # as PEFT: a second product, here only
        else:
            plain = y if self.bias is None else y - self.bias
        thin = F.linear(dropped.to(self.lora_A.dtype), self.lora_A)  # (..., r)
        gain = self._gain()
        change = (gain - 1) * plain + gain * (self._scale * F.linear(thin, self.lora_B))
        return (y + self.strength * change).to(y.dtype)


def dora_linear(x, W, b, A, B, magnitude, scaling):
    """x W'^T + b with DoRA's W': x (..., d_in) -> (..., d_out), with gradients for all but W and b.

    Like `step.lora_linear`: V = W + s B A is folded once, for the norms and for the output; on the
    way back the gain, magnitude / ||V||, goes into the thin bracket. Kept are x, the factors and,
    for the magnitude's gradient, P = x V^T, as large as the output.
    """
    return _DoRAStep.apply(x, W, b, A, B, magnitude, scaling)


class _DoRAStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, W, b, A, B, magnitude, s):
        V = step.folded(W, A, B, s)
        norms = _lengths(V)
        gain = magnitude / norms
        P = F.linear(x, V, b)  # at the start the base's own product: P b would round otherwise
        y = P * gain if b is None else torch.addcmul((1 - gain) * b, P, gain)
        if not ctx.needs_input_grad[5]:
            P = None
        elif b is not None:
            P -= b
        ctx.scaling = s
        ctx.save_for_backward(x, W, A, B, magnitude, norms, P)
        return y

    @staticmethod
    def backward(ctx, G):
        x, W, A, B, magnitude, norms, P = ctx.saved_tensors
        for_x, _, _, for_A, for_B, for_magnitude, _ = ctx.needs_input_grad
        dX, dA, dB, dm, s = None, None, None, None, ctx.scaling
        rows, X = G.reshape(-1, len(W)), x.reshape(-1, W.shape[1])  # (n, d_out), (n, d_in)
        gain = (magnitude / norms)[:, None]  # the norms are a constant for the gradient
        scaled = s * gain * B  # W' = gain W + scaled A
        if for_A:
            dA = (scaled.T @ rows.T) @ X
        if for_B:
            dB = s * gain * ((A @ X.T) @ rows).T
        if for_magnitude:
            if torch.is_grad_enabled():  # P anew, to be differentiated
                P = F.linear(x, step.folded(W, A, B, s))
            dm = (rows * P.reshape(rows.shape)).sum(dim=0) / norms
        if for_x:
            dX = G @ (gain * W).addmm_(scaled, A)
        return dX, None, None, dA, dB, dm, None


def _lengths(V):
    """The norms of V's rows, (d_out,)."""
    return torch.linalg.vector_norm(V.contiguous(), dim=1)  # in the same order, however V lies


class PiSSALinear(LoRALinear):
    """A and B start in W's own first singular directions (Meng et al. 2024, section 3).

        s B A = U_r S_r V_r^T at the start        W' = W + s (B A - B0 A0)

    The paper, and PEFT, put the rest, W - s B0 A0, in the place of W. Here W is never written to:
    the start is kept, frozen, as start_A and start_B, and taken off again, so that the layer starts
    as its base bit for bit. Dropout acts on s B A alone, as in PEFT: in training, the start then is
    not the base's. Raises as LoRALinear does, and ValueError for a W that holds NaN or infinite
    numbers or lies on the meta device, where there is nothing to decompose.
    """

    def __init__(self, base, rank, alpha, dropout=0.0, rslora=False):
        check_arguments(base, rank, alpha, dropout)
        if base.weight.is_meta or not torch.isfinite(base.weight).all():
            raise ValueError("PiSSA needs a W of finite numbers: this one lies on the meta device, "
                             "or holds NaN or infinite ones")
        super().__init__(base, rank, alpha, dropout, rslora)
        with torch.no_grad():
            U, S, Vt = torch.linalg.svd(base.weight.to(self.lora_A.dtype), full_matrices=False)
            root = (S[:rank] / self._scale).sqrt()
            self.lora_A.copy_(root[:, None] * Vt[:rank])
            self.lora_B.copy_(U[:, :rank] * root)
        self.register_buffer("start_A", self.lora_A.detach().clone())
        self.register_buffer("start_B", self.lora_B.detach().clone())

    def update(self):
        """scaling * (B A - B0 A0), (d_out, d_in)."""
        B, A = self._difference()
        return self.scaling * (B @ A)

    def _factors(self):
        return self.lora_A, self.lora_B, self.start_A, self.start_B

    def _difference(self):
        """B A - B0 A0 as one product: (d_out, 2 r) and (2 r, d_in)."""
        # (B - B0) A + B0 (A - A0): zero exactly at the start, and nothing large that has to cancel
        B = torch.cat([self.lora_B - self.start_B, self.start_B], dim=1)
        return B, torch.cat([self.lora_A, self.lora_A - self.start_A])

    def _fused(self, x):
        if self.start_A.requires_grad or self.start_B.requires_grad:  # lent by functional_call
            return self._plain(x)
        B, A = self._difference()
        return step.lora_linear(x, self.base.weight, self.bias, self.lora_A, self.lora_B,
                                self.scaling, moved=(A, B))

    def _plain(self, x):
        y = self.base(x)
        if self.training and self.dropout.p:  # as PEFT: the start is taken off undropped
            B, A = torch.cat([self.lora_B, -self.start_B], dim=1), (self.lora_A, self.start_A)
            parts = self.dropout(x).to(self.lora_A.dtype), x.to(self.lora_A.dtype)
            thin = torch.cat([F.linear(x, A) for x, A in zip(parts, A, strict=True)], dim=-1)
        else:
            B, A = self._difference()
            thin = F.linear(x.to(A.dtype), A)  # (..., 2 r)
        return (y + self.scaling * F.linear(thin, B)).to(y.dtype)


class LoRAFALinear(LoRALinear):
    """A stays frozen at its random start, B alone trains (Zhang et al. 2023, section 3).

    B's gradient needs A x, r numbers a token: no input x is kept for the backward pass. PEFT's
    optimizer of that name also corrects B's gradient; this doesn't. Raises as LoRALinear does.
    """

    trains = ("lora_B",)

    def __init__(self, base, rank, alpha, dropout=0.0, rslora=False):
        super().__init__(base, rank, alpha, dropout, rslora)
        self.lora_A.requires_grad_(False)


def lora_plus(ratio=16.0):
    """For `fit(..., factor=lora_plus())`: B learns `ratio` times as fast as the rest (LoRA+).

    Hayou et al. 2024. Raises ValueError unless the ratio is a positive, finite number.
    """
    if not isinstance(ratio, numbers.Real) or not 0 < ratio < math.inf:
        raise ValueError(f"ratio must be a positive number, got {ratio!r}")
    return lambda name: ratio if name.endswith("lora_B") else 1.0


def magnitude_direction(W0, W):
    """How far training took W0 to W, both (d_out, d_in): (in magnitude, in direction), two floats.

    The means over rows of | ||w|| - ||w0|| | and of 1 - cos(w, w0) (Liu et al. 2024, section 3.2).
    Raises ValueError for other shapes, and for a row of zeros, which has no direction.
    """
    W0, W = torch.as_tensor(W0), torch.as_tensor(W)
    if W0.ndim != 2 or W0.shape != W.shape:
        raise ValueError("expected two matrices of one shape, (d_out, d_in), "
                         f"got {tuple(W0.shape)} and {tuple(W.shape)}")
    _refuse_zero_rows(W0, "W0")
    _refuse_zero_rows(W, "W")
    W0, W = (M.detach().cpu().double() for M in (W0, W))  # a Mac's GPU has no double
    m0, m = (torch.linalg.vector_norm(M, dim=1, keepdim=True) for M in (W0, W))
    turned = (W / m - W0 / m0).square().sum(dim=1) / 2  # 1 - cos, with no small difference of ones
    return (m - m0).abs().mean().item(), turned.mean().item()


def _refuse_zero_rows(W, name):
    zero = [] if W.is_meta else (W == 0).all(dim=1).nonzero().cpu().flatten().tolist()
    if zero:
        raise ValueError(f"row {zero[0]} of {name} is all zeros and has no direction: "
                         "leave this layer out, or give the row a value")
