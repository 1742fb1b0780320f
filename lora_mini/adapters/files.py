"""Adapters as files, in PEFT's format: adapter_model.safetensors and adapter_config.json.

(And, for llama.cpp to read, adapter.gguf: `save(..., format="gguf")`.)

A factor of layer "q_proj" is "base_model.model.q_proj.lora_A.weight". Everything is checked before
the model is touched; nothing is ever unpickled. What PEFT doesn't read, the fingerprint of the
base, stands in the metadata of the tensors, under the key "lora_mini".
"""

import collections
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save as to_bytes
from torch import nn

from lora_mini.adapters.llama_cpp import FILE, adapter_bytes
from lora_mini.adapters.mixing import cut
from lora_mini.adapters.reading import CONFIG, PREFIX, TENSORS, read
from lora_mini.adapters.shelf import (
    PLAIN,
    add,
    check_new,
    modules_of_base,
    pick,
    refuse_merged,
    shelf,
)
from lora_mini.lora import LoRALinear
from lora_mini.variants import DoRALinear, PiSSALinear

VERSION = 1  # of what stands under "lora_mini"


@dataclass(frozen=True)
class Report:
    """What was loaded; as a text, one sentence."""

    name: str
    folder: str
    layers: tuple
    copies: tuple
    numbers: int
    checked: bool
    passed_over: tuple = ()

    def __str__(self):
        copies = f" and trained copies of {', '.join(self.copies)}" if self.copies else ""
        fields = f"; unknown fields, all empty: {', '.join(self.passed_over)}" if self.passed_over \
            else ""
        return (f"{self.folder}: {len(self.layers)} layers{copies}, {self.numbers:,} numbers, are "
                f"the active adapter {self.name!r}; "
                + ("the base is the one that it was trained on" if self.checked else
                   "whether it was trained on this base was not checked") + fields + ".")


def save(model, folder, name=None, format="peft"):
    """Write an adapter, by default the active one, into a folder; PEFT reads it. The folder.

    The same weights give the same bytes. PiSSA is written as plain LoRA of twice the rank, which
    fits the base as it was; LoRA+ and LoRA-FA leave no trace. Files are written whole or not at
    all. format="gguf" writes the one file that llama.cpp reads, adapter.gguf, instead: of a Llama,
    with one alpha, without DoRA and copies. Raises ValueError if there is no such adapter, its
    strength is not 1, it holds NaN or infinite numbers, PEFT would take more modules than it means,
    or llama.cpp's file can't hold it.
    """
    if format not in ("peft", "gguf"):
        raise ValueError(f"format must be 'peft' or 'gguf', got {format!r}")
    held = shelf(model)
    if not held.adapters:
        raise ValueError("the model has no adapter to save: call attach(model, ...) first")
    if name is None and held.active is None:
        raise ValueError(f"no adapter is active: name one of {', '.join(held.adapters)}")
    adapter = pick(held, held.active if name is None else name)
    layers = {n: w for n, w in adapter.items() if isinstance(w, LoRALinear)}
    copies = {n: w for n, w in adapter.items() if n not in layers}
    folder = Path(folder)
    if format == "gguf":
        data = adapter_bytes(model, layers, list(copies), _written)
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / FILE, data)
        return folder
    tensors, ranks, alphas = {}, {}, {}
    for where, layer in layers.items():
        written, ranks[where], alphas[where] = _written(where, layer)
        tensors |= {f"{PREFIX}{where}.{key}": t for key, t in written.items()}
    for where, wrapper in copies.items():
        tensors |= {f"{PREFIX}{where}.{key}": t for key, t in wrapper.copy.state_dict().items()}
    tensors = {key: t.detach().cpu().clone().contiguous() for key, t in sorted(tensors.items())}
    if bad := [key for key, t in tensors.items() if not torch.isfinite(t).all()]:
        raise ValueError(f"{bad[0]!r} holds NaN or infinite numbers: it would be of no use")
    config = _config(model, layers, copies, ranks, alphas)
    about = json.dumps({"fingerprint": fingerprint(model), "version": VERSION}, sort_keys=True)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / TENSORS, to_bytes(tensors, {"lora_mini": about}))
    _write(folder / CONFIG, (json.dumps(config, indent=2, sort_keys=True) + "\n").encode())
    return folder


def load(model, folder, name="default", *, trainable=False, any_base=False):
    """Attach the adapter that a folder holds, under a name; it becomes active. A Report.

    Files of ours and of PEFT's, from 0.9 on. trainable: whether its factors train further.
    any_base: load it although it was trained on another base. Raises FileNotFoundError, TypeError
    or ValueError, with what was expected, what came and what to do, and leaves the model as it was.
    """
    held = shelf(model)
    check_new(held, name)
    refuse_merged(model)
    found = read(Path(folder), modules_of_base(model))
    checked = found.fingerprint is not None
    if checked and found.fingerprint != (here := fingerprint(model)):
        if not any_base:
            raise ValueError(f"{folder} was trained on another base (its fingerprint is "
                             f"{found.fingerprint}, this model's {here}): load that base, or, if "
                             "you know that it fits, load(..., any_base=True)")
        checked = False
    common, rank, alpha = found.common, found.ranks, found.alphas
    kind = DoRALinear if found.magnitudes else LoRALinear
    add(model, name, list(found.factors), common[0], common[1], dropout=found.dropout,
        rslora=found.rslora, modules_to_save=list(found.copies), layer=kind,
        rank_pattern={n: r for n, r in rank.items() if r != common[0]},
        alpha_pattern={n: a for n, a in alpha.items() if a != common[1]})
    numbers = 0
    with torch.no_grad():
        for where, wrapper in pick(held, name).items():
            if isinstance(wrapper, LoRALinear):
                own = dict(zip(wrapper.trains, (*found.factors[where],
                                                found.magnitudes.get(where)), strict=False))
                for key, values in own.items():
                    getattr(wrapper, key).copy_(values)
            else:
                wrapper.copy.load_state_dict(found.copies[where])
            for key, parameter in wrapper.named_parameters():
                if not key.startswith(("base.", "original.")):
                    parameter.requires_grad_(trainable)
                    numbers += parameter.numel()
    return Report(name, str(folder), tuple(found.factors), tuple(found.copies), numbers, checked,
                  found.passed_over)


def fingerprint(model):
    """16 hexadecimal digits of the base's parameters, rounded to bfloat16, without any adapter.

    So a base that was loaded in 16 or in 32 bits is the same one.
    """
    digest = hashlib.sha256()
    for where, module in sorted(modules_of_base(model).items()):
        own = dict(module.named_parameters(recurse=False))
        if isinstance(module, nn.Linear) and hasattr(module, "dequantize"):  # W is no parameter
            own["weight"] = module.dequantize()
        for leaf, parameter in sorted(own.items()):
            digest.update(f"{where}.{leaf} {tuple(parameter.shape)}\n".encode())
            if parameter.is_floating_point():
                parameter = parameter.detach().bfloat16()
            digest.update(parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _written(where, layer):
    """({key in PEFT's format: tensor}, rank, alpha) of one layer."""
    if layer.strength != 1:
        raise ValueError(f"the strength of the adapter is {layer.strength}, which its file can't "
                         "hold: call set_strength(model, 1), or blend it into another adapter")
    A, B, alpha = layer.lora_A, layer.lora_B, layer.alpha
    extra = {}
    if isinstance(layer, PiSSALinear):
        B, A = layer._difference()  # of rank 2 r, with the same scale
        most = min(layer.out_features, layer.in_features)
        if len(A) > most:
            A, B, _ = cut(B @ A, most)
        alpha = layer.scaling * (len(A) ** 0.5 if layer.rslora else len(A))
        alpha = int(alpha) if alpha == int(alpha) else alpha
    elif isinstance(layer, DoRALinear):
        extra = {"lora_magnitude_vector": layer.magnitude}
    elif type(layer) not in PLAIN:
        raise ValueError(f"a {type(layer).__name__} ({where!r}) has no place in PEFT's format")
    return {"lora_A.weight": A, "lora_B.weight": B} | extra, len(A), alpha


def _config(model, layers, copies, ranks, alphas):
    """What PEFT 0.9 knows, and no more: it falls over fields that it doesn't know."""
    if not layers:
        raise ValueError("the adapter has no layer with factors")
    some = next(iter(layers.values()))
    common = [collections.Counter(values.values()).most_common(1)[0][0]
              for values in (ranks, alphas)]
    every = list(modules_of_base(model))
    for where in copies:
        if twin := [n for n in every if n != where and n.endswith(where)]:
            raise ValueError(f"PEFT would take {twin[0]!r} for a trained copy as well as "
                             f"{where!r}, as their names end alike: rename one of them")
    targets = sorted(layers)
    if any(n not in layers and n.endswith(tuple(f".{t}" for t in targets)) for n in every):
        targets = "|".join(t.replace(".", r"\.") for t in targets)  # a list would take more
    inner = getattr(model, "config", None)
    return {
        "alpha_pattern": {n: a for n, a in sorted(alphas.items()) if a != common[1]},
        "base_model_name_or_path": getattr(inner, "_name_or_path", None) or None,
        "bias": "none", "fan_in_fan_out": False, "inference_mode": True, "init_lora_weights": True,
        "lora_alpha": common[1], "lora_dropout": some.dropout.p,
        "modules_to_save": sorted(copies) or None, "peft_type": "LORA", "r": common[0],
        "rank_pattern": {n: r for n, r in sorted(ranks.items()) if r != common[0]},
        "target_modules": targets, "task_type": None,
        "use_dora": isinstance(some, DoRALinear), "use_rslora": some.rslora,
    }


def _write(path, data):
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    unfinished.write_bytes(data)
    unfinished.replace(path)  # a file is whole, or not there
