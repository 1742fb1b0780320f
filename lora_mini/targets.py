"""Which modules of a model an adapter takes: by name, by pattern, or all linear layers."""

import difflib
import re
import warnings

from torch import nn


def choose(model, target_modules, exclude=()):
    """The `nn.Linear` layers that the names stand for: a dictionary from full name to module.

    See `lora.attach` for what a name may be. Raises ValueError for a name that matches nothing.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    for name, module in modules.items():
        if type(module).__module__.startswith("peft."):
            raise ValueError(f"the model has an adapter of PEFT's already, at {name!r}: take it "
                             "off with PEFT's unload() or merge_and_unload() first")
    linear = {name: m for name, m in modules.items() if isinstance(m, nn.Linear)}
    head = _output_head(model)
    passed = _passed_over(modules)
    if not linear or target_modules == "all-linear" and set(linear.values()) == {head}:
        raise ValueError("the model has no nn.Linear to adapt" + (" but its output head" if linear
                         else "") + (f"; LoRA here can't take {passed}" if passed else ""))
    if target_modules is None:
        raise TypeError("target_modules is None: name the layers to adapt, or 'all-linear'")
    if target_modules == "all-linear":
        chosen = {name: m for name, m in linear.items() if m is not head}
        if passed:
            warnings.warn(f"'all-linear' passes over {passed}: LoRA here takes nn.Linear only",
                          stacklevel=3)
        advice = "if it is the output head, name it in exclude"
    else:
        chosen = matching(target_modules, linear, "target_modules", modules)
        if not chosen:
            raise ValueError("target_modules is empty: name at least one layer, or 'all-linear'")
        advice = ("only its use here changes, not the other, and a final merge would tear the two "
                  "apart; to leave it out, name it in exclude")
    left_out = matching(exclude, linear, "exclude", modules)
    chosen = {name: m for name, m in chosen.items() if name not in left_out}
    if not chosen:
        raise ValueError("exclude and the output head leave no layer to adapt")
    if pairs := tied(model, chosen):
        warnings.warn(f"{pairs[0][0]!r}, whose weight is tied to {pairs[0][1]!r}, is among the "
                      f"targets: {advice}", stacklevel=3)
    return chosen


def place(model, name, module):
    """Put a module in the place of that name."""
    *path, leaf = name.split(".")
    for part in path:
        model = model._modules[part]
    setattr(model, leaf, module)


def matching(patterns, candidates, what, modules=None):
    """Those of `candidates` (name to module) that at least one pattern names.

    Raises ValueError, with the nearest names, for a pattern that matches none of them.
    """
    if patterns is None:
        patterns = ()
    if isinstance(patterns, (bool, int, float, nn.Module)):
        raise TypeError(f"{what}: expected names as strings, got {patterns!r}")
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    candidates = {name: m for name, m in candidates.items() if name}  # "" is the model itself
    chosen = set()
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"{what}: expected names as strings, got {pattern!r}")
        if pattern == "all-linear":
            raise ValueError(f"{what}: 'all-linear' stands alone: give it as a string, not in a "
                             "list" if what == "target_modules" else
                             f"{what}: 'all-linear' is for target_modules only")
        hits = [pattern] if pattern in candidates else [n for n in candidates if _fits(pattern, n)]
        if not hits:
            raise ValueError(f"{what}: {no_match(pattern, candidates, modules or {})}")
        chosen.update(hits)
    return {name: m for name, m in candidates.items() if name in chosen}


def by_layer(common, patterns, targets, what):
    """{name: its value} for all targets: that of the first pattern that means it, else `common`.

    Raises ValueError for a pattern that means none of them, TypeError for no dictionary.
    """
    if not isinstance(patterns or {}, dict):
        raise TypeError(f"{what}: expected a dictionary from names to numbers, got {patterns!r}")
    values = dict.fromkeys(targets, common)
    for pattern, value in reversed((patterns or {}).items()):
        values |= dict.fromkeys(matching(pattern, targets, what), value)
    return values


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


def no_match(pattern, candidates, modules):
    """What to say of a pattern that matches none of the candidates: the nearest names."""
    try:
        re.compile(pattern)
    except re.error as error:
        return f"{pattern!r} is no name here, and no valid pattern ({error})"
    others = [name for name in modules if name and name not in candidates and _fits(pattern, name)]
    if others:
        kind = type(modules[others[0]]).__name__
        return f"{pattern!r} names {others[0]!r}, a {kind}; LoRA here wraps nn.Linear only"
    leaves = list(dict.fromkeys(name.rpartition(".")[2] for name in candidates))
    if near := difflib.get_close_matches(pattern, leaves + sorted(candidates), n=3, cutoff=0.6):
        return f"{pattern!r} matches no module; the nearest names are {', '.join(near)}"
    return f"{pattern!r} matches no module; the last parts of names: {', '.join(leaves)}"


def _passed_over(modules):
    """What looks like a linear layer and is no `nn.Linear`, in words; empty if there is none."""
    found = {}
    for name, module in modules.items():
        kind = type(module).__name__
        if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
            found.setdefault("the packed q, k, v of nn.MultiheadAttention", name)
        elif kind == "Conv1D" and not isinstance(module, nn.Conv1d):  # GPT-2's, transposed
            found.setdefault("Conv1D layers", name)
        elif "expert" in kind.lower() and any(p.ndim == 3 for p in module.parameters(False)):
            found.setdefault("fused experts", name)
    return ", ".join(f"{what} (such as {name!r})" for what, name in found.items())


def tied(model, chosen):
    """[(name of a chosen layer, another module's name for its weight)], where there is one."""
    names, found = {}, []
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    for name, module in chosen.items():
        owners = [n for n in names.get(id(module._parameters.get("weight")), ())
                  if model.get_submodule(n.rpartition(".")[0]) is not module]
        found += [(name, owners[0])] if owners else []
    return found
