"""An adapter as llama.cpp reads it: one file, adapter.gguf, for a model of Llama's kind.

A factor of layer "model.layers.3.self_attn.q_proj" is "blk.3.attn_q.weight.lora_a", (r, d_in), or
".lora_b", (d_out, r). The file knows a single alpha, and the scale is alpha / r of each layer.
"""

import math
import re

import numpy as np

from lora_mini.gguf_file import to_bytes
from lora_mini.llama import LAYERS, TURNED, interleaved
from lora_mini.variants import DoRALinear

FILE = "adapter.gguf"
PLACE = re.compile(r"(?:model\.)?layers\.(\d+)\.(\w+\.\w+)")


def adapter_bytes(model, layers, copies, written):
    """The bytes of adapter.gguf. layers: {name: LoRALinear}; copies: names of trained copies.

    written(name, layer) gives ({key in PEFT's format: tensor}, rank, alpha). Raises ValueError for
    what llama.cpp's adapters can't hold: DoRA, copies, a scale that is not one alpha over each
    rank, a layer outside the blocks, a model that is not of Llama's kind.
    """
    heads = _heads(model)
    if copies:
        raise ValueError(f"llama.cpp's adapters hold no trained copies, and this one has some "
                         f"({', '.join(copies)}): save it with format='peft', or train it without "
                         "modules_to_save")
    tensors, alphas = {}, {}
    for where, layer in layers.items():
        block, leaf = _place(where)
        if isinstance(layer, DoRALinear):
            raise ValueError(f"llama.cpp's adapters hold no DoRA ({where!r}): save it with "
                             "format='peft', or merge it and convert the whole model")
        factors, rank, _ = written(where, layer)
        A, B = (factors[f"lora_{x}.weight"].detach().cpu().float().numpy() for x in "AB")
        if leaf in TURNED:
            B = interleaved(B, heads[leaf])
        alphas[where] = layer.scaling * rank
        stem = f"blk.{block}.{leaf}.weight"
        tensors |= {f"{stem}.lora_a": A, f"{stem}.lora_b": B}
    alpha = _one(alphas)
    if bad := [name for name, array in tensors.items() if not np.isfinite(array).all()]:
        raise ValueError(f"{bad[0]!r} holds NaN or infinite numbers: it would be of no use")
    values = {"general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora",
              "adapter.lora.alpha": float(alpha)}
    return to_bytes(values, dict(sorted(tensors.items())))


def _heads(model):
    """{layer whose rows are turned: how many heads it has}."""
    config = getattr(model, "config", None)
    kind = getattr(config, "model_type", None)
    if kind != "llama":
        raise ValueError("format='gguf' is for models of Llama's kind, as Hugging Face loads them "
                         f"(model.config.model_type 'llama'), and this one is {kind or 'none'!r}: "
                         "save it with format='peft' and convert that with llama.cpp's own script")
    heads = config.num_attention_heads
    return {"attn_q": heads, "attn_k": getattr(config, "num_key_value_heads", None) or heads}


def _place(where):
    """(number of the block, llama.cpp's name of the layer inside it)."""
    found = PLACE.fullmatch(where)
    if not found or found[2] not in LAYERS:
        raise ValueError(f"llama.cpp's adapters have no name for {where!r}: they hold the layers "
                         f"{', '.join(LAYERS)} of each block. Exclude it, or use format='peft'")
    return found[1], LAYERS[found[2]]


def _one(alphas):
    """The alpha that all layers share."""
    values = list(alphas.values())
    for where, alpha in alphas.items():
        if not math.isclose(alpha, values[0], rel_tol=1e-6):
            first = next(iter(alphas))
            raise ValueError(f"llama.cpp's adapters hold one alpha for all layers, and here scale "
                             f"times rank is {values[0]:g} in {first!r}, {alpha:g} in {where!r}: "
                             "train with one alpha (with rslora: one rank, too), or use "
                             "format='peft'")
    return values[0]
