"""An adapter's file, held against the adapter that the model has."""

import math

import torch

from lora_mini.adapters.reading import PREFIX, by_pattern
from lora_mini.audit.findings import Finding, listed, share
from lora_mini.audit.layers import base_modules, copies, plainly
from lora_mini.audit.merged import merged
from lora_mini.audit.stored import gap, matched, opened, renamed, same

AGAIN = "save it again from this model, after the last step"
WRAPS = ("base_layer", "token_adapter", "modules_to_save", "original_module")


def stored(case):
    """What an adapter's or a merged model's file says otherwise than the model; one call for both.

    An adapter's tensors are to be named as PEFT names them; an export with factors called down and
    up may have another start before all its names, and underscores for their dots.
    """
    if case.file is None:
        return []
    held, cannot = opened(case.file)
    if held is None:
        return cannot
    if not held.adapter:
        return cannot + merged(case, held)
    layers, names, found = _named(case, held)
    parts = [(layers[names[w]], w, {k: held.tensor(n) for k, n in held.factors[w].items()})
             for w in names if names[w] in layers]
    for check in (_numbers, _scales, _values):
        found += check(case, held, [p for p in parts if {"A", "B"} <= p[2].keys()])
    return cannot + found


def _named(case, held):
    """({name that is due: layer}, {name that came: name that is due}, findings)."""
    plain, ids = plainly(case.model), {}
    for name, module in case.model.named_modules(remove_duplicate=False):
        if (short := plain(name)) is not None:
            ids.setdefault(id(module), []).append(PREFIX + short)
    views = {}
    for layer in sorted([*case.layers, *case.empty], key=lambda x: not x.active):
        views.setdefault(layer.adapter, {}).update(dict.fromkeys(ids[id(layer.module)], layer))
    layers = max(views.values(), key=lambda view: len(views) > 1 and _alike(held, view))
    names, lost, change = _matched(held, layers)
    found = []
    if held.odd:
        found.append(Finding("tensors have other names than in PEFT's files", listed(held.odd),
                             f"{share(len(held.odd), len(held.handles))} tensors",
                             "a loader passes over them: save with save_pretrained, whose names "
                             f"are like {next(iter(layers))}.lora_A.weight"))
    if not held.exported:
        found += renamed(names, change, "the file's")
    if lost:
        found.append(Finding("the file has layers that the model doesn't adapt", listed(lost),
                             f"{share(len(lost), len(held.factors))} layers; the model's are like "
                             f"{next(iter(layers))}", "load the base that it was trained on, or "
                             "adapt the same layers"))
    there = {id(layers[name]) for name in names.values()}
    lacks = [n for n, layer in layers.items() if id(layer) not in there]
    lacks += [f"{n}.{what}" for w, n in names.items() for what, key in (
        ("lora_A", "A"), ("lora_B", "B"), ("lora_magnitude_vector", "m"))
        if key not in held.factors[w] and (key != "m" or _magnitude(layers[n]) is not None)]
    if lacks:
        found.append(Finding("adapted layers are missing from the file", listed(lacks),
                             f"{share(len(lacks), len(layers))} layers", AGAIN))
    return layers, names, found + _rest(case, held, change)


def _matched(held, layers):
    """As `matched`; in exports whose names have no dots, as kohya's, underscores are dots."""
    if not held.exported or any("." in where for where in held.factors):
        return matched(held.factors, layers)
    came = {where.replace("_", "."): where for where in held.factors}
    due = {name.removeprefix(PREFIX).replace("_", "."): name for name in layers}
    names, lost, _ = matched(came, due)
    return {came[w]: due[n] for w, n in names.items()}, [came[w] for w in lost], None


def _alike(held, view):
    """How many layers of an adapter, by their names, have the B that the file has."""
    names, _, _ = _matched(held, view)
    both = [(held.factors[w].get("B"), view[n]) for w, n in names.items()]
    return sum(gap(held.tensor(key), layer.factors[layer.B])[0] == 0
               for key, layer in both if key and not layer.factors[layer.B].is_meta)


def _rest(case, held, change):
    """Findings on what is no factor: trained copies, whole layers of the base, and the unknown."""
    old, new = change or ("", "")
    rest = {new + n.removeprefix(old) if change and n.startswith(old) else n: n for n in held.rest}
    rest = {".".join(p for p in n.removeprefix(PREFIX).split(".") if p not in WRAPS): name
            for n, name in rest.items()}
    due = {f"{where}.{n}": t for where, _, copy in copies(case.model)
           for n, t in copy.state_dict().items()}
    lacks, modules = [n for n in due if n not in rest], base_modules(case.model)
    other = [n for n in due if n in rest and not same(held.tensor(rest[n]), due[n])]
    odd = [n for n in rest if n not in due and n.rpartition(".")[0] not in modules
           and ".lora_" not in n and "trainable_tokens" not in n]
    whole = [name for n, name in rest.items() if n not in due and n not in odd]
    found = [Finding(what, listed(names), f"{share(len(names), count)} tensors", remedy)
             for what, names, count, remedy in (
        ("trained copies are missing from the file", lacks, len(due),
         "name the modules in modules_to_save of what saves, and save again"),
        ("trained copies in the file differ from the model's", other, len(due), AGAIN),
        ("the file has tensors that belong to no module of the model", odd, len(held.handles),
         "load the base that it was trained on")) if names]
    bulk = sum(held.tensor(n).nbytes for n in whole)
    if bulk > held.size / 2:
        found.append(Finding("note: most of the file is the base's own", listed(whole),
                             f"{bulk / 1e6:,.1f} of {held.size / 1e6:,.1f} MB",
                             "save_embedding_layers=False leaves them out, unless they have grown "
                             "or were trained"))
    return found


def _numbers(case, held, parts):
    bad = [where for _, where, tensors in parts if not _finite(tensors)]
    found = [Finding("NaN or infinite numbers in the file", listed(bad),
                     f"{share(len(bad), len(parts))} layers", "go back to a file from a step "
                     "before; a loader takes them as they are")] if bad else []
    if parts and not any(p["B"].any() for _, _, p in parts):
        found.append(Finding("every B in the file is zero", listed(w for _, w, _ in parts),
                             f"{len(parts)} layers", "it does nothing: it was saved before "
                             "training, or gathered from empty shards"))
    return found


def _scales(case, held, parts):
    """Ranks and alphas of the file against its own shapes and against the model's scale."""
    plain = plainly(case.model)
    silent, ranks, other = [], [], []
    for layer, where, tensors in parts:
        if layer.thin() is None:
            continue
        r, name, config = len(tensors["A"]), plain(layer.name), held.config or {}
        said = by_pattern(config, "rank_pattern", name, config.get("r", r))
        alpha = by_pattern(config, "alpha_pattern", name, config.get("lora_alpha", held.alpha))
        if "alpha" in tensors:
            alpha = float(tensors["alpha"])
        if said != r:
            ranks.append((where, f"r is {said} there, the factors have {r}"))
        elif alpha is None:
            silent.append(where)
        else:
            scale = alpha / (math.sqrt(r) if config.get("use_rslora") else r)
            have = getattr(layer.module, "_scale", layer.scaling)  # ours: without the strength
            if abs(scale - have) > 1e-3 * abs(have):
                other.append((where, f"{scale:g}, in the model {have:g}"))
    found = []
    if silent and held.config is None:
        found.append(Finding("the file doesn't say its alpha", listed(silent),
                             f"{share(len(silent), len(parts))} layers", "keep "
                             "adapter_config.json beside it, or write alpha into it: a loader "
                             "takes 1 or the rank instead, and the scale is another"))
    for what, pairs, remedy in (
            ("the config's rank contradicts the factors", ranks, "take config and tensors from "
             "one save; PEFT refuses them, and others scale them wrongly"),
            ("the file's scale is not the model's", other, "make alpha, rank and use_rslora of "
             "the config those of the training")):
        if pairs:
            found.append(Finding(what, listed(w for w, _ in pairs), f"{pairs[0][1]}; "
                                 f"{share(len(pairs), len(parts))} layers", remedy))
    return found


def _values(case, held, parts):
    """Layers whose factors in the file are not the model's."""
    if not any(p["B"].any() for _, _, p in parts):
        return []
    other, early = [], case.before is not None
    for layer, where, tensors in parts:
        ours = {"A": layer.factors[layer.A], "B": layer.factors[layer.B], "m": _magnitude(layer)}
        both = [(tensors[k], t) for k, t in ours.items() if t is not None and k in tensors]
        unknown = not _finite(tensors) or any(t.is_meta for _, t in both)
        if unknown or all(same(*pair) for pair in both) or _same_update(layer, tensors):
            continue
        other.append((where, max(gap(*pair)[0] for pair in both)))
        early &= all(n in case.before.start and same(tensors[k], case.before.start[n])
                     for k, n in (("A", layer.A), ("B", layer.B))) if early else False
    if not other:
        return []
    most = max(size for _, size in other)
    return [Finding("the file's factors are not the model's", listed(w for w, _ in other),
                    f"{share(len(other), len(parts))} layers, " + (
                        "of other shapes" if most == math.inf else f"by up to {most:.0e} of their "
                        "norm") + ("; they are those from before training" if early else ""),
                    AGAIN)]


def _same_update(layer, tensors):
    """Whether other factors make the same B A: those of PiSSA, which the file has as plain LoRA."""
    m, thin = _magnitude(layer), layer.thin()
    if thin is None or m is not None and "m" in tensors and not same(tensors["m"].flatten(),
                                                                     m.flatten()):
        return False
    A, B, here = tensors["A"].flatten(1), tensors["B"].flatten(1), layer.factors[layer.A]
    r = len(here)
    if len(A) == 2 * r and same(A[:r], here.flatten(1)) \
            and same(B[:, :r], layer.factors[layer.B].flatten(1)):
        return True  # PEFT's: the start, with the other sign, stands behind
    B2, A2 = (t.cpu().double() for t in thin[1:])
    if len(B) != len(B2) or A.shape[1] != A2.shape[1]:
        return False
    eps = max(torch.finfo(t.dtype).eps for t in (tensors["A"], here))
    A, B = A.double(), B.double()
    off = _norm(torch.cat([B, -B2], dim=1), torch.cat([A, A2]))
    return off <= 2 * max(eps, 1e-6) * _norm(B2, A2)


def _finite(tensors):
    return all(torch.isfinite(tensors[k]).all() for k in ("A", "B"))


def _norm(B, A):
    """||B A||, Frobenius, from r x r products."""
    return ((B.T @ B) * (A @ A.T)).sum().clamp(min=0).sqrt().item()


def _magnitude(layer):
    return next((p for n, p in layer.factors.items() if "magnitude" in n), None)
