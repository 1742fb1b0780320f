"""LoRA's step without waste: what `LoRALinear` computes, as one function with its own gradients.

    y = x (W + s B A)^T + b        x (..., d_in), W (d_out, d_in), A (r, d_in), B (d_out, r)

Autograd, left to itself, walks over tokens x width more often than is needed. Here the update is
*folded* into W, as in RunLoRA (Cherniuk et al. 2023, arXiv 2312.03415), which pays from some tokens
on; below that the plain layer computes. The gradients of A and B go through the thin bracket, and
only x and the factors are kept for the way back.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import forward_ad
from torch.nn.modules.module import _has_any_global_hook

EXACT = (torch.float32, torch.float64)  # in fewer bits, folding would swallow a small update


def lora_linear(x, W, b, A, B, scaling, moved=None):
    """x W^T + b + scaling x A^T B^T: x (..., d_in) -> (..., d_out), with gradients for x, A and B.

    W and b are frozen: they get none. Gradients of gradients are right where A trains; where A is
    frozen they raise RuntimeError. `moved`, a pair (A', B'), is for an update scaling B' A' that
    differs from scaling B A by a constant: it is what gets folded, and A and B get the gradients.
    """
    return _Step.apply(x, W, b, A, B, scaling, *(moved or ()))


def folded(W, A, B, scaling):
    """W + scaling B A, (d_out, d_in), in one product that starts from W."""
    return torch.addmm(W, B, A, alpha=scaling)


def folds(tokens, d_in, d_out):
    """Whether folding costs less than two thin products, at any rank.

    The fold costs r d_in d_out, the thin products tokens r (d_in + d_out): it pays from 33 tokens
    on at 64 x 64, from 289 at 576 x 576.
    """
    return tokens * (d_in + d_out) > d_in * d_out


def fits(layer, x):
    """Whether `lora_linear` computes just what this LoRALinear would, hooks and all, and pays."""
    base, own = layer._modules["base"], layer._parameters  # past nn.Module's slow look-up
    if type(base) is not nn.Linear or layer.training and layer.dropout.p \
            or not folds(x.numel() // base.in_features, base.in_features, base.out_features):
        return False  # a kind of its own, or parametrized; or too few tokens
    frozen = base._parameters
    W, b = frozen.get("weight"), frozen.get("bias")
    A, B = own.get("lora_A"), own.get("lora_B")
    return (
        type(x) in (torch.Tensor, nn.Parameter) and x.dtype in EXACT
        and all(type(t) is nn.Parameter and t.dtype == x.dtype
                for t in (W, A, B, *map(own.get, layer.trains)))
        and not W.requires_grad and (b is None or b.dtype == x.dtype and not b.requires_grad)
        and not watched(base) and not _has_any_global_hook() and not autocasts(x)
        and not torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
    )


def watched(module):
    """Whether hooks see or change what goes through a module."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks
                or module._backward_pre_hooks)


def autocasts(tensor):
    """Whether autocast is on where a tensor lives; not every device has it."""
    kind = tensor.device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


class _Step(torch.autograd.Function):
    # Thin products are formed with the rank as the first axis, (r, n), as A X^T and not X A^T: on a
    # CPU that is two to four times faster, since rows of length r are too short to be worth a call.

    @staticmethod
    def forward(ctx, x, W, b, A, B, scaling, *moved):
        ctx.scaling, ctx.trains_A = scaling, ctx.needs_input_grad[3]
        # A frozen A needs no x, only h = A x: (r, n)
        kept = x if ctx.trains_A else A @ x.reshape(-1, W.shape[1]).T
        ctx.save_for_backward(kept, W, A, B, *moved)
        return F.linear(x, folded(W, *(moved or (A, B)), scaling), b)  # (..., d_out)

    @staticmethod
    def backward(ctx, G):
        kept, W, A, B, *moved = ctx.saved_tensors
        (d_out, d_in), s = W.shape, ctx.scaling
        for_x, _, _, for_A, for_B, *_ = ctx.needs_input_grad
        if torch.is_grad_enabled() and not ctx.trains_A:
            raise RuntimeError("with A frozen the fused step keeps no x, so its gradients can't be "
                               "differentiated again: let A train")
        rows, dX, dA, dB = G.reshape(-1, d_out), None, None, None  # (n, d_out)
        # Folding costs d_out r d_in, the thin product n r d_in, and what was moved has no thin one.
        fold = len(rows) > d_out or moved
        if for_A or for_B and ctx.trains_A:
            X = kept.reshape(-1, d_in)
        if for_A or for_x and not fold:
            g = (s * B).T @ rows.T  # (r, n)
        if for_A:
            dA = g @ X
        if for_B:
            dB = (((s * A) @ X.T if ctx.trains_A else s * kept) @ rows).T
        if for_x and fold:
            dX = G @ folded(W, *(moved or (A, B)), s)
        elif for_x:
            dX = torch.addmm(rows @ W, g.T, A).view(*G.shape[:-1], d_in)
        return dX, None, None, dA, dB, None, None, None
