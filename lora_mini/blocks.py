"""Four bits a weight as llama.cpp keeps them (Q4_1): 32 neighbouring weights of a row in 20 bytes.

    d, m       float16 each: the block's step and its minimum
    16 bytes   byte j holds a number from 0 to 15 of weight j, and above it that of weight j + 16

and a weight is number * d + m: 5 bits a weight in all. Its levels lie evenly, where NF4's follow a
normal distribution; NF4 has no minimum, and its blocks are twice as long.
"""

import torch
from torch import nn

from lora_mini.quant import DecodedLinear

BLOCK, BYTES = 32, 20  # weights and bytes to a block
PIECE = 2**18  # weights that are decoded at once: a megabyte in float32


def decode(rows):
    """Blocks (n, d_in / 32 * 20), uint8 -> weights (n, d_in), float32."""
    blocks = rows.reshape(-1, BYTES)
    d, m = (blocks[:, i:i + 2].contiguous().view(torch.float16).float() for i in (0, 2))
    W = torch.empty(len(blocks), BLOCK, device=rows.device)
    W[:, :16] = blocks[:, 4:] & 15
    W[:, 16:] = blocks[:, 4:] >> 4
    return W.mul_(d).add_(m).view(len(rows), -1)


def encode(W):
    """Weights (n, d_in) -> blocks (n, d_in / 32 * 20), uint8.

    The 16 levels run from a block's least weight to its largest. Raises ValueError for NaN or
    infinite weights, and where 32 doesn't divide d_in.
    """
    _check_width(W.shape[-1])
    if not torch.isfinite(W).all():
        raise ValueError("the weights hold NaN or infinite numbers")
    flat = W.detach().float().reshape(-1, BLOCK)
    m = flat.amin(1, keepdim=True)
    d = (flat.amax(1, keepdim=True) - m) / 15
    numbers = torch.where(d > 0, (flat - m) / d, 0).add_(0.5).clamp_(0, 15).to(torch.uint8)
    ends = torch.cat([d, m], 1).half().view(torch.uint8)
    return torch.cat([ends, numbers[:, :16] | numbers[:, 16:] << 4], 1).view(len(W), -1)


class Q41Linear(DecodedLinear):
    """A frozen `nn.Linear` whose W is kept as blocks, (d_out, d_in / 32 * 20) bytes.

    Raises ValueError where 32 doesn't divide d_in.
    """

    kept = ("blocks",)

    def __init__(self, in_features, out_features, bias=True, dtype=torch.float32):
        super().__init__(in_features, out_features, bias, dtype)
        _check_width(in_features)
        self.register_buffer("blocks", torch.zeros(
            out_features, in_features // BLOCK * BYTES, dtype=torch.uint8))

    @classmethod
    def from_linear(cls, linear):
        """A Q41Linear with the weights of an `nn.Linear`, which is left alone.

        Raises TypeError for another module; ValueError as `encode` does.
        """
        if type(linear) is not nn.Linear:
            raise TypeError(f"expected an nn.Linear, got a {type(linear).__name__}")
        made = cls.from_blocks(encode(linear.weight), linear.weight.dtype)
        if linear.bias is not None:
            made.bias = nn.Parameter(linear.bias.detach().clone(), requires_grad=False)
        return made.train(linear.training)

    @classmethod
    def from_blocks(cls, blocks, dtype=torch.float32):
        """A Q41Linear without bias around blocks (d_out, d_in / 32 * 20), uint8, as they are."""
        d_out, size = blocks.shape
        made = cls(size // BYTES * BLOCK, d_out, False, dtype)
        if blocks.dtype != torch.uint8 or blocks.shape != made.blocks.shape:
            raise ValueError(f"expected uint8 and rows of whole blocks of {BYTES} bytes, got "
                             f"{blocks.dtype} and {tuple(blocks.shape)}")
        made.blocks = blocks
        return made

    def pieces(self, dtype):
        """Some rows at a time, a megabyte each: W is never whole."""
        step = max(1, PIECE // self.in_features)
        for start in range(0, self.out_features, step):
            rows = slice(start, min(start + step, self.out_features))
            yield rows, decode(self.blocks[rows]).to(dtype)


def _check_width(d_in):
    if d_in % BLOCK:
        raise ValueError(f"a row must be a multiple of {BLOCK} weights long, got {d_in}: other "
                         "layers fit lora_mini.quant.FourBitLinear")
