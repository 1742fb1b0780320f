"""Shapes of models that papers and people tune, as skeletons on the meta device: no memory at all.

A skeleton has every linear layer of every block, under Llama's names, so that `attach` and `ledger`
work on it. What stands outside (embeddings, norms, a head) is counted, and not adapted.
"""

from dataclasses import dataclass

import torch
from torch import nn

from lora_mini.quant import FourBitLinear


@dataclass(frozen=True)
class Shape:
    """A transformer's sizes. All widths are numbers of features.

    kv: of keys and values; ff: of the network between; gated: has it three matrices? tables: how
    many vocabulary x d_model matrices there are (1: the head is tied). norm: numbers in a block's
    norms, over d_model. more: whatever else there is.
    """

    title: str
    layers: int
    d_model: int
    ff: int
    kv: int
    vocabulary: int
    tables: int
    positions: int
    norm: int
    more: int
    gated: bool = False
    bias: bool = True

    @property
    def linear(self):
        """{name: (d_out, d_in)} of one block."""
        d = self.d_model
        found = {"q_proj": (d, d), "k_proj": (self.kv, d), "v_proj": (self.kv, d), "o_proj": (d, d)}
        if self.gated:
            found["gate_proj"] = (self.ff, d)
        return found | {"up_proj": (self.ff, d), "down_proj": (d, self.ff)}

    @property
    def outside(self):
        """How many numbers stand outside the blocks' linear layers."""
        return ((self.tables * self.vocabulary + self.positions + self.layers * self.norm)
                * self.d_model + self.more)


def _gpt(title, layers, d, positions=1024):
    return Shape(title, layers, d, 4 * d, d, 50257, 1, positions, 4, 2 * d)


def _roberta(title, layers, d):  # more: type, norms; the head's layer, its norm, a bias a word
    return Shape(title, layers, d, 4 * d, d, 50265, 1, 514, 4, 3 * d + d * d + 3 * d + 50265)


def _llama(title, layers, d, ff, kv, vocabulary):
    return Shape(title, layers, d, ff, kv, vocabulary, 2, 0, 2, d, gated=True, bias=False)


SHAPES = {  # RoBERTa to GPT-3: the models of Hu et al. 2021, section 5
    "roberta-base": _roberta("RoBERTa base", 12, 768),
    "roberta-large": _roberta("RoBERTa large", 24, 1024),
    "gpt2-medium": _gpt("GPT-2 medium", 24, 1024),
    "gpt2-large": _gpt("GPT-2 large", 36, 1280),
    "deberta-xxl": Shape(  # more: 512 places, norms, and a convolution over three tokens
        "DeBERTa v2 XXL", 48, 1536, 6144, 1536, 128100, 1, 512, 4, (4 + 3) * 1536 + 3 * 1536**2),
    "gpt3": _gpt("GPT-3 175B", 96, 12288, 2048),  # Brown et al. 2020, table 2.1
    "llama2-7b": _llama("Llama 2 7B", 32, 4096, 11008, 4096, 32000),
    "llama3-8b": _llama("Llama 3 8B", 32, 4096, 14336, 1024, 128256),
    "llama-65b": _llama("LLaMA 65B", 80, 8192, 22016, 8192, 32000),
    "llama3-70b": _llama("Llama 3 70B", 80, 8192, 28672, 1024, 128256),
}


def skeleton(name, dtype=torch.bfloat16, four_bits=False):
    """A module of a shape's sizes on the meta device: `blocks.0.q_proj` and so on, and `outside`.

    four_bits: the blocks' layers are `FourBitLinear`s, frozen. It can't be called. Raises
    ValueError for a name that is not in SHAPES.
    """
    if name not in SHAPES:
        raise ValueError(f"there is no shape {name!r}: take one of {', '.join(SHAPES)}")
    shape = SHAPES[name]
    kind = FourBitLinear if four_bits else nn.Linear
    with torch.device("meta"):
        model = nn.Module()
        model.blocks = nn.ModuleList(nn.ModuleDict({
            layer: kind(d_in, d_out, bias=shape.bias, dtype=dtype)
            for layer, (d_out, d_in) in shape.linear.items()}) for _ in range(shape.layers))
        model.outside = nn.Parameter(torch.empty(shape.outside, dtype=dtype))
    return model
