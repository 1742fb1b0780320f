"""A merged model's file, layer by layer: is each weight the sum of the model's base and update?"""

import torch

from lora_mini.audit.findings import Finding, listed, share
from lora_mini.audit.layers import base_modules, base_names, copies, plainly, weight_of
from lora_mini.audit.stored import matched, renamed
from lora_mini.audit.ties import ties
from lora_mini.lora import LoRALinear

SLACK = 0.2  # updates; what merging in 16 bits, twice or in another order, may be off by
KINDS = {  # what a layer's weight is in the file: (what to say, what to do)
    "base": ("the merged file's weights are the base's", "merge before saving, and save what "
             "merge_and_unload() returns; in 16 bits a small update can be lost in rounding"),
    "twice": ("merged twice: the file has W + 2 s B A", "load the base anew, merge once, and save"),
    "unscaled": ("merged without the scale: the file has W + B A", "multiply by alpha / r, or "
                 "alpha / sqrt(r) for rsLoRA"),
    "shape": ("the merged file's weights have another shape", "load the base that was merged"),
    "neither": ("the merged file's weights are neither the base's nor the sum", "merge anew: this "
                "base and this adapter don't give that file"),
}


@torch.no_grad()
def merged(case, held):
    """Findings on a whole state dict, of which the adapted layers and the copies are compared.

    In float32, with the rounding of the coarser of the file's and the model's dtypes; a base in
    four bits may have been merged in full precision, so that only the base itself is a fault there.
    """
    names, found = _names(case, held)
    due, plain = {}, plainly(case.model)
    for layer in case.acting:
        due.setdefault(f"{plain(layer.name)}.weight", []).append(layer)
    whole = {f"{where}.{n}": (original.state_dict().get(n), t)
             for where, original, copy in copies(case.model) for n, t in copy.state_dict().items()}
    lacks = [n for n in [*due, *whole] if n not in names]
    if lacks:
        found.append(Finding("layers are missing from the merged file", listed(lacks),
                             f"{share(len(lacks), len(due) + len(whole))} of those that training "
                             "changed", "save the whole model"))
    kinds = {}
    for name, layers in due.items():
        if name in names and (kind := _layer(held.tensor(names[name]), layers)):
            kinds.setdefault(kind, []).append(name)
    for name, (base, copy) in whole.items():
        if name in names and base is not None and copy.is_floating_point():
            base, copy = base.cpu(), copy.cpu()
            kind = _kind(held.tensor(names[name]), base.float(),
                         copy.float() - base.float(), None, copy.dtype)
            kinds.setdefault(kind, []).append(name)
    kinds.pop(None, None)
    count = len(due) + len(whole) - len(lacks)
    return found + [Finding(what, listed(kinds[kind]), f"{share(len(kinds[kind]), count)} layers "
                            "that training changed", remedy)
                    for kind, (what, remedy) in KINDS.items() if kind in kinds]


def _names(case, held):
    """({name in the base: name in the file}, findings)."""
    modules = base_modules(case.model)
    due = set(base_names(case.model).values())
    due |= {f"{name}.weight" for name, m in modules.items() if hasattr(m, "dequantize")
            and hasattr(m, "in_features")}
    names, lost, change = matched(held.handles, due)
    found = renamed(names, change, "the merged file's")
    if lost:
        found.append(Finding("the merged file has tensors that the model lacks", listed(lost),
                             f"{share(len(lost), len(held.handles))} tensors",
                             "save the model after the merge, without its wrappers"))
    found_at = {name: came for came, name in names.items()}
    for group in ties(case.model):  # of tied weights a file has one
        if there := [found_at[n] for n in group if n in found_at]:
            found_at |= {n: found_at.get(n, there[0]) for n in group}
    return found_at, found


def _layer(came, layers):
    """The kind of one adapted layer's weight in the file, or None where it is the sum."""
    layer, W = layers[0], weight_of(layers[0].base)
    if W is None or not came.is_floating_point():
        return None
    W, dtype = W.detach().cpu(), W.dtype
    sums = _sum(layers, W.float())
    if sums is None:
        return None
    base, update, scale = sums
    if came.shape != W.shape:
        return "shape"
    return _kind(came, base, update, scale, dtype, hasattr(layer.base, "dequantize"))


def _sum(layers, W):
    """(base, update, the scale or None where there is no other than one), float32; or None."""
    layer = layers[0]
    if isinstance(layer.module, LoRALinear):
        scale = None if "magnitude" in layer.module.trains else layer.scaling
        return W, layer.module.update().cpu().float(), scale
    if not all(hasattr(x.module, "get_delta_weight") for x in layers):
        return None
    update = sum(x.module.get_delta_weight(x.adapter).detach().cpu().float() for x in layers)
    m = [p.detach().cpu().float() for x in layers for n, p in x.factors.items()
         if "magnitude" in n]
    if layer.merged:
        return None if m else (W - update, update, layer.scaling)
    if m:
        if len(layers) > 1 or update.ndim != 2 or layer.module.fan_in_fan_out:
            return None
        V = W + update
        return W, m[0].view(-1, 1) / V.norm(dim=1, keepdim=True) * V - W, None
    return W, update, layer.scaling if len(layers) == 1 else None


def _kind(came, base, update, scale, dtype, rounded=False):
    """Which sum of base and update a weight in the file is; None for the right one.

    It is told by how far the weight lies along the update, which rounding hardly moves: its errors
    are many, and each goes its own way.
    """
    kept, came = came.dtype, came.float()
    if not update.any():
        return None
    if torch.equal(came, base.to(kept).float()):
        return "base"

    def summed(W, n):
        return (W + n * update).to(kept).float()

    def off(W):
        return abs(found - _along(W - base, update))

    def near(W):
        return (came - W).norm() <= 2 * eps * base.norm() + 0.01 * size

    found, size = _along(came - base, update), update.norm()
    eps = max(torch.finfo(t).eps for t in (kept, dtype))
    noise = 6 * (came - base - found * update).norm() / (size * update.numel()**0.5)
    slack, right = max(SLACK, noise.item()), summed(base, 1)
    if min(off(right), abs(found - 1)) <= slack:  # 1: the base was rounded only after the merge
        return None if near(right) or rounded else "neither"
    ways = [("base", summed(base, 0))]
    if scale:
        ways += [("twice", summed(base, 2)), ("twice", summed(right, 1)),
                 ("unscaled", summed(base, 1 / scale))]
    kind, W = min(ways, key=lambda way: off(way[1]))
    if off(W) <= slack and near(W):
        return kind
    return None if rounded else "neither"


def _along(change, update):
    """How many updates a change holds: 1 for the update itself."""
    return ((change * update).sum() / update.square().sum()).item()
