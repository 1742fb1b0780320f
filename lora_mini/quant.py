"""Four bits a weight (Dettmers et al. 2023, *QLoRA*, section 3): levels, scales, a frozen layer.

A block of 64 neighbouring weights is divided by its largest absolute value, its *scale*, and each
quotient is rounded to the nearest of 16 levels. The scales are rounded, too (*double
quantisation*): to 8 bits, with one float32 scale for 256 of them. What is kept of a matrix is

    W (d_out, d_in)  ->  codes, 4 bits a weight; scales, 8 / 64 bits; 32 / (64 * 256) bits

or 4.127 bits a weight instead of 32.
"""

import operator
from functools import reduce
from statistics import NormalDist

import torch
import torch.nn.functional as F
from torch import nn

from lora_mini.copies import TrainedCopy
from lora_mini.lora import LoRALinear
from lora_mini.targets import choose, place

BLOCK, GROUP = 64, 256  # weights to a scale; scales to a scale of scales


def normal_float(bits=4):
    """Levels from -1 to 1 that hold about as many draws of a normal distribution each: (2^bits,).

    Of four bits, NF4: eight quantiles above zero and seven below, from the probability 0.9677 down
    to one half, over the largest; and zero itself. So zero is exact, and the levels are not
    symmetric. This is what QLoRA's code does (`create_normal_map`); formula 4 of the paper gives
    other numbers, and infinite ones at its ends. Other bits follow the same recipe. Raises
    ValueError unless bits is a whole number from 2 to 8.
    """
    if bits not in range(2, 9):
        raise ValueError(f"bits must be a whole number from 2 to 8, got {bits!r}")
    n = 2**bits
    far = 1 - (1 / (n - 1) + 1 / n) / 4  # between the last of n - 1 and of n equal shares
    quantile = NormalDist().inv_cdf

    def half(count):
        return [quantile(far + i * (0.5 - far) / count) for i in range(count)]
    above, below = half(n // 2), half(n // 2 - 1)
    levels = sorted([*above, 0.0, *(-q for q in below)])
    return torch.tensor([level / above[0] for level in levels], dtype=torch.float32)


NF4 = normal_float()
INT4 = torch.arange(-8, 8) / 7.0  # whole numbers; -8 / 7 is left over
FP4 = torch.tensor(sorted({sign * level / 6 for level in (0, 0.5, 1, 1.5, 2, 3, 4, 6)
                           for sign in (-1, 1)}))  # 1 sign, 2 exponent, 1 mantissa bit: 15 levels


def quantize(W, levels=NF4, block=BLOCK):
    """(codes, scales): the nearest level of each weight, uint8, and a float32 scale a block.

    W is read row by row; the last block may be shorter. Raises ValueError for NaN or infinite
    weights. `dequantize` goes back.
    """
    if not torch.isfinite(W).all():
        raise ValueError("the weights hold NaN or infinite numbers")
    flat = F.pad(W.detach().float().flatten(), (0, -W.numel() % block)).view(-1, block)
    scales = flat.abs().amax(dim=1)
    ratio = flat / scales.clamp(min=torch.finfo(torch.float32).tiny)[:, None]
    between = (levels[1:] + levels[:-1]).to(flat) / 2  # what lies below it belongs to the lower one
    codes = torch.bucketize(ratio, between).to(torch.uint8)
    return codes.flatten()[:W.numel()].view(W.shape), scales


def dequantize(codes, scales, levels=NF4, block=BLOCK):
    """The matrix that codes and scales stand for, float32."""
    found = levels.to(scales.device)[codes.flatten().long()]
    return (found * scales.repeat_interleave(block)[:len(found)]).view(codes.shape)


def scales_to_bytes(scales, group=GROUP):
    """(uint8 a scale, float32 a group, float32 mean): the second quantisation, of the scales.

    The mean of all is taken off first; a group of what is left is divided by its largest absolute
    value and rounded to 127 steps to either side.
    """
    mean = scales.mean()
    flat = F.pad(scales - mean, (0, -len(scales) % group)).view(-1, group)
    largest = flat.abs().amax(dim=1)
    steps = (flat / largest.clamp(min=torch.finfo(torch.float32).tiny)[:, None] * 127).round() + 127
    return steps.to(torch.uint8).flatten()[:len(scales)], largest, mean


def scales_from_bytes(steps, largest, mean, group=GROUP):
    """The scales again, float32; never below zero."""
    back = (steps.float() - 127) / 127 * largest.repeat_interleave(group)[:len(steps)] + mean
    return back.clamp(min=0)


def rounded(W, levels=NF4):
    """W (any shape) as it comes back, float32: quantised, its scales in bytes, dequantised."""
    codes, scales = quantize(W, levels)
    return dequantize(codes, scales_from_bytes(*scales_to_bytes(scales)), levels)


class DecodedLinear(nn.Linear):
    """A frozen `nn.Linear` that keeps W in few bits; `attach` takes it as a base.

    In `forward` and in `backward` W is made anew, in pieces, and let go: no full weight outlives a
    product. The gradient for x is exact, that of the layer as it is: rounding is not
    differentiated. `weight` gives W, made anew; W itself gets no gradient, and neither does the
    bias. A kind of it says what it keeps, and has `pieces`.
    """

    kept = ()  # names of the buffers that hold W

    def __init__(self, in_features, out_features, bias=True, dtype=torch.float32):
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.dtype = in_features, out_features, dtype
        self.register_parameter("bias", nn.Parameter(
            torch.zeros(out_features, dtype=dtype), requires_grad=False) if bias else None)

    def pieces(self, dtype):
        """Pairs (slice of rows, W of these rows), which together are W."""
        raise NotImplementedError

    @property
    def weight(self):
        """W (d_out, d_in), made anew, in the dtype that it had."""
        return self.dequantize()

    @torch.no_grad()
    def dequantize(self, dtype=None):
        """W (d_out, d_in), made anew."""
        if getattr(self, self.kept[0]).is_meta:  # a large model's skeleton asks often
            return torch.empty(self.out_features, self.in_features, dtype=dtype or self.dtype,
                               device="meta")
        parts = [W for _, W in self.pieces(dtype or self.dtype)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def forward(self, x):
        """x (..., d_in) -> (..., d_out)."""
        return _Product.apply(x, self)

    def _apply(self, fn, recurse=True):
        before = dict(self._buffers)
        super()._apply(fn, recurse)  # .half() and its kin must leave what is kept as it is
        lies = getattr(self, self.kept[0]).device
        self.dtype = fn(torch.empty(0, dtype=self.dtype, device=before[self.kept[0]].device)).dtype
        for name, was in before.items():
            if getattr(self, name).dtype != was.dtype:
                setattr(self, name, was.to(lies))
        return self

    def extra_repr(self):
        return f"{self.in_features}, {self.out_features}, {self.bits():.3f} bits a weight"

    def bits(self):
        """Bits that are kept, for each weight."""
        held = [getattr(self, name) for name in self.kept]
        return 8 * sum(t.numel() * t.element_size() for t in held) \
            / (self.in_features * self.out_features)


class FourBitLinear(DecodedLinear):
    """A frozen `nn.Linear` whose W is kept in NF4, its scales in bytes; made anew in one piece."""

    kept = ("codes", "steps", "largest")

    def __init__(self, in_features, out_features, bias=True, dtype=torch.float32):
        super().__init__(in_features, out_features, bias, dtype)
        blocks = -(-in_features * out_features // BLOCK)
        self.register_buffer("codes", torch.zeros(blocks * BLOCK // 2, dtype=torch.uint8))
        self.register_buffer("steps", torch.zeros(blocks, dtype=torch.uint8))
        self.register_buffer("largest", torch.zeros(-(-blocks // GROUP)))
        self.register_buffer("mean", torch.zeros(()))

    @classmethod
    def from_linear(cls, linear):
        """A FourBitLinear with the weights of an `nn.Linear`, which is left alone.

        Raises TypeError for another module, ValueError for NaN or infinite weights.
        """
        if type(linear) is not nn.Linear:
            raise TypeError(f"expected an nn.Linear, got a {type(linear).__name__}")
        W = linear.weight
        made = cls(linear.in_features, linear.out_features, linear.bias is not None, W.dtype)
        codes, scales = quantize(W)
        flat = F.pad(codes.flatten(), (0, -codes.numel() % BLOCK))
        made.codes = flat[::2] << 4 | flat[1::2]
        made.steps, made.largest, made.mean = scales_to_bytes(scales)
        if linear.bias is not None:
            made.bias = nn.Parameter(linear.bias.detach().clone(), requires_grad=False)
        return made.train(linear.training)

    def pieces(self, dtype):
        """W, whole: a block may run over the end of a row."""
        scales = scales_from_bytes(self.steps, self.largest, self.mean)
        two = torch.cartesian_prod(NF4, NF4).to(scales.device)  # the two levels of each byte
        W = two.index_select(0, self.codes.int()).view(-1, BLOCK)  # 6 bytes a weight at the most
        W = W.mul_(scales[:, None]).flatten()[:self.in_features * self.out_features]
        yield slice(None), W.view(self.out_features, self.in_features).to(dtype)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, layer):
        ctx.layer = layer
        b = None if layer.bias is None else layer.bias.to(x.dtype)
        parts = [F.linear(x, W, None if b is None else b[rows])
                 for rows, W in layer.pieces(x.dtype)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    @staticmethod
    def backward(ctx, G):
        parts = (G[..., rows] @ W for rows, W in ctx.layer.pieces(G.dtype))
        return reduce(operator.add, parts), None


def to_four_bits(model, target_modules="all-linear", exclude=(), layer=FourBitLinear):
    """Replace each chosen `nn.Linear` of a model by a FourBitLinear, in place; freeze them.

    target_modules, exclude: as in `attach`. layer: another kind that has `from_linear`, such as
    `lora_mini.blocks.Q41Linear`. Returns the names. Raises as `attach` does for a name
    that matches nothing, and ValueError for an adapted model: quantise first, then attach.
    """
    targets = choose(model, target_modules, exclude)
    adapted = tuple(f"{name}." if name else "" for name, m in model.named_modules()
                    if isinstance(m, (LoRALinear, TrainedCopy)))
    for name in targets:
        if name.startswith(adapted):
            raise ValueError(f"{name!r} lies inside an adapter: quantise the base first, then "
                             "attach")
    made = {id(base): layer.from_linear(base) for base in targets.values()}
    for name, base in targets.items():
        place(model, name, made[id(base)])
    return list(targets)
