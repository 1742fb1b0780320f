"""One view of an adapter's layers, ours and PEFT's, and of which parameters are the base's.

PEFT is never imported: its layers are known by what they have, `base_layer`, `lora_A` and `lora_B`.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn

from lora_mini.copies import TrainedCopy
from lora_mini.lora import LoRALinear
from lora_mini.variants import PiSSALinear

INNER = ("base_layer", "original_module", "token_adapter")  # the base's own in PEFT's wrappers


@dataclass(frozen=True)
class Adapted:
    """One adapter on one layer.

    factors: {parameter name: tensor} of all that the adapter holds there; A (r, d_in) and B
    (d_out, r) lie under the names `A` and `B`. due: the scales that fit alpha and rank; more than
    one where the layer doesn't say whether it is rsLoRA. adapter: PEFT's name for it, "" for ours.
    """

    name: str
    module: nn.Module
    base: nn.Module
    adapter: str
    factors: dict
    A: str
    B: str
    scaling: float
    due: tuple
    active: bool
    enabled: bool
    merged: tuple
    dropout: nn.Module | None

    @property
    def label(self):
        """The layer's name, with the adapter's where it isn't the usual one."""
        return self.name + (f" [{self.adapter}]" if self.adapter not in ("", "default") else "")

    def thin(self):
        """(scaling, B (d_out, r), A (r, d_in)) whose product is the update; None for experts."""
        if isinstance(self.module, PiSSALinear):
            return self.scaling, *self.module._difference()
        A, B = (self.factors[n].detach() for n in (self.A, self.B))
        if hasattr(self.module, "parameter_name"):  # many matrices in one
            return None
        return self.scaling, B.flatten(1), A.flatten(1)


def adapted(model):
    """All Adapted of a model, ours and PEFT's, inactive ones included."""
    found = []
    for name, module in model.named_modules():
        if isinstance(module, LoRALinear):
            found.append(_ours(name, module))
        elif hasattr(module, "base_layer") and isinstance(getattr(module, "lora_A", None),
                                                          nn.ModuleDict):
            found += [view for key in [*module.lora_A, *getattr(module, "lora_embedding_A", ())]
                      if (view := _theirs(name, module, key))]
    return found


def _ours(name, module):
    at = f"{name}." if name else ""
    factors = {f"{at}{n}": p for n, p in module.named_parameters(recurse=False)}
    rank = module.lora_A.shape[0]
    due = module.strength * module.alpha / (math.sqrt(rank) if module.rslora else rank)
    merged = ("",) if module.merged else ()
    return Adapted(name, module, module.base, "", factors, f"{at}lora_A", f"{at}lora_B",
                   module.scaling, (due,), True, module.enabled, merged, module.dropout)


def _theirs(name, module, key):
    at, factors, ends = f"{name}." if name else "", {}, {}
    for kind in getattr(module, "adapter_layer_names", ("lora_A", "lora_B")):
        part = _held(getattr(module, kind, None), key)
        if isinstance(part, nn.Module):
            found = {f"{at}{kind}.{key}.{n}": p for n, p in part.named_parameters()}
        else:
            found = {} if part is None else {f"{at}{kind}.{key}": part}
        factors |= found
        if found and kind[-2:] in ("_A", "_B"):
            ends[kind[-1]] = next(iter(found))
    if len(ends) < 2:
        return None
    rank, alpha = module.r[key], module.lora_alpha[key]
    known = getattr(module, "use_rslora", {}).get(key)
    due = tuple(alpha / (math.sqrt(rank) if root else rank)
                for root in ((False, True) if known is None else (known,)))
    return Adapted(name, module, module.base_layer, key, factors, ends["A"], ends["B"],
                   module.scaling[key], due, key in _active(module), not module.disable_adapters,
                   tuple(module.merged_adapters), _held(module.lora_dropout, key))


def _held(mapping, key):
    return mapping[key] if mapping is not None and key in mapping else None


def _active(module):
    names = module.active_adapters
    return [names] if isinstance(names, str) else list(names)


def inner(module):
    """(attribute's name, module) of the base's own module in a wrapper; None for no wrapper."""
    if isinstance(module, LoRALinear):
        return "base", module.base
    if isinstance(module, TrainedCopy):
        return "original", module.original
    if hasattr(module, "adapter_layer_names"):
        return next(((n, m) for n in INNER if (m := module._modules.get(n)) is not None), None)
    return None


def own(model):
    """{name: parameter} of what is the adapter's: factors, magnitudes, trained copies."""
    mine = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if not (held := inner(module)):
            continue
        theirs = {id(p) for p in held[1].parameters()}
        at = f"{name}." if name else ""
        mine |= {f"{at}{n}": p for n, p in module.named_parameters(remove_duplicate=False)
                 if id(p) not in theirs}
    return mine


def base_names(model):
    """{name of a parameter or buffer of the base: its name in the base without adapter}."""
    mine, plain = set(own(model)), plainly(model)
    names = [*dict(model.named_parameters(remove_duplicate=False)),
             *dict(model.named_buffers(remove_duplicate=False))]
    found = {name: plain(name) for name in names if name not in mine}
    return {name: short for name, short in found.items() if short is not None}


def base_modules(model):
    """{name in the base without adapter: the base's own module}."""
    plain = plainly(model)
    found = {plain(name): m for name, m in model.named_modules(remove_duplicate=False)}
    return {name: m for name, m in found.items() if name}  # an inner one comes after its wrapper


def copies(model):
    """[(name in the base, the base's own module, the copy that acts)] of fully trained copies."""
    plain, found = plainly(model), []
    for name, m in model.named_modules(remove_duplicate=False):
        if isinstance(m, TrainedCopy):
            found.append((plain(name), m.original, m.copy))
        elif isinstance(getattr(m, "modules_to_save", None), nn.ModuleDict):
            found += [(plain(name), m.original_module, m.modules_to_save[key])
                      for key in _active(m) if key in m.modules_to_save]
    return found


def plainly(model):
    """A function from a name to the one in the base; None for what is the adapter's own."""
    skip = {name: held[0] for name, m in model.named_modules(remove_duplicate=False)
            if (held := inner(m))}
    start = "base_model.model." if hasattr(model, "peft_config") else ""

    def plain(name):
        found = _without(name, skip)
        while found and start and found.startswith(start):
            found = found.removeprefix(start)
        return found
    return plain


def _without(name, skip):
    """A name without the steps into wrappers; None for a tensor of the wrapper itself."""
    kept, path = [], ""
    for part in name.split("."):
        if path in skip:
            if part != skip[path]:
                return None
        elif part != "_orig_mod":  # torch.compile's
            kept.append(part)
        path = f"{path}.{part}" if path else part
    return ".".join(kept)


def norm_ratio(layer):
    """||scaling B A|| / ||W||, Frobenius norms, from r x r products; None where W is not at hand.

    Of PiSSA it is the change since the start; DoRA's magnitudes are left out.
    """
    parts, W = layer.thin(), weight_of(layer.base)
    if parts is None or W is None:
        return None
    scaling, B, A = parts[0], *(p.detach().cpu().double() for p in parts[1:])
    squared = ((B.T @ B) * (A @ A.T)).sum().clamp(min=0)
    return abs(scaling) * squared.sqrt().item() / max(W.detach().float().norm().item(), 1e-30)


@torch.no_grad()
def weight_of(base):
    """A base's W as a tensor of numbers, (d_out, d_in), or None."""
    while held := inner(base):
        base = held[1]
    W = base.dequantize() if hasattr(base, "dequantize") else getattr(base, "weight", None)
    return W if isinstance(W, torch.Tensor) and W.is_floating_point() and not W.is_meta else None
