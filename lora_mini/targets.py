"""Which modules of a model an adapter takes: by name, by pattern, or all linear layers."""

import difflib
import re

from torch import nn


def choose(model, target_modules, exclude=()):
    """The `nn.Linear` layers that the names stand for: a dictionary from full name to module.

    See `lora.attach` for what a name may be. Raises ValueError for a name that matches nothing.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    linear = {name: m for name, m in modules.items() if isinstance(m, nn.Linear)}
    if not linear:
        raise ValueError("the model has no nn.Linear to adapt")
    if target_modules == "all-linear":
        head = _output_head(model)
        chosen = {name: m for name, m in linear.items() if m is not head}
    else:
        chosen = matching(target_modules, linear, "target_modules", modules)
        if not chosen:
            raise ValueError("target_modules is empty: name at least one layer, or 'all-linear'")
    left_out = matching(exclude, linear, "exclude", modules)
    chosen = {name: m for name, m in chosen.items() if name not in left_out}
    if not chosen:
        raise ValueError("exclude and the output head leave no layer to adapt")
    return chosen


def matching(patterns, candidates, what, modules=None):
    """Those of `candidates` (name to module) that at least one pattern names.

    Raises ValueError, with the nearest names, for a pattern that matches none of them.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    candidates = {name: m for name, m in candidates.items() if name}  # "" is the model itself
    chosen = set()
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"{what}: expected names as strings, got {pattern!r}")
        hits = [name for name in candidates if _fits(pattern, name)]
        if not hits:
            raise ValueError(f"{what}: {_no_match(pattern, candidates, modules or {})}")
        chosen.update(hits)
    return {name: m for name, m in candidates.items() if name in chosen}


def check_copies(model, originals, targets):
    """Raise ValueError if a full copy overlaps an adapted layer or another copy, or tears a tie."""
    for name in originals:
        for other in [*targets, *originals]:
            if other == name and name in targets or other.startswith(f"{name}.") \
                    or name.startswith(f"{other}."):
                raise ValueError(f"modules_to_save: {name!r} overlaps {other!r}; a module is "
                                 "either adapted or copied, once")
    copied = {id(p) for m in originals.values() for p in m.parameters()}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        inside = any(name.startswith(f"{n}.") for n in originals)
        if id(parameter) in copied and not inside:
            raise ValueError(f"modules_to_save: {name!r} is tied to a weight that would be copied, "
                             "and the copy would tear them apart: name both modules, or neither")


def _output_head(model):
    try:
        return model.get_output_embeddings()
    except (AttributeError, NotImplementedError):
        return None


def _fits(pattern, name):
    if name == pattern or name.endswith(f".{pattern}"):
        return True
    try:
        return re.fullmatch(pattern, name) is not None
    except re.error:  # not a regular expression: it can still be a name
        return False


def _no_match(pattern, candidates, modules):
    others = [name for name in modules if name and name not in candidates and _fits(pattern, name)]
    if others:
        kind = type(modules[others[0]]).__name__
        return f"{pattern!r} names {others[0]!r}, a {kind}; LoRA here wraps nn.Linear only"
    names = sorted(candidates)
    leaves = sorted({name.rpartition(".")[2] for name in names})
    near = difflib.get_close_matches(pattern, leaves + names, n=3, cutoff=0.4) or names[:3]
    return f"{pattern!r} matches no module; the nearest names are {', '.join(near)}"
