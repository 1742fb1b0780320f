"""Weights that two modules share: where an adapter sits on one of them, and where a tie is torn."""

from lora_mini.audit.findings import Finding, listed, share
from lora_mini.audit.layers import base_names, copies, plainly
from lora_mini.targets import tied


def adapted_ties(case):
    """Adapted or copied layers whose weight another module of the base has, too.

    No fault are two sides whose adapters, or copies, are one and the same as well.
    """
    plain = plainly(case.model)
    layers = {plain(layer.name): layer for layer in case.layers}
    pairs = [(name, plain(other).rpartition(".")[0]) for name, other in
             tied(case.model, {name: layer.base for name, layer in layers.items()})]
    own = {name: _stores(layer.factors.values()) for name, layer in layers.items()}
    own |= {name: _stores(copy.parameters()) for name, _, copy in copies(case.model)}
    pairs += [(name, plain(other).rpartition(".")[0]) for name, other in
              tied(case.model, {name: original for name, original, _ in copies(case.model)})]
    pairs = [pair for pair in pairs if not own[pair[0]] & own.get(pair[1], set())]
    if not pairs:
        return []
    return [Finding("an adapter sits on one side of a tie", listed(name for name, _ in pairs),
                    f"{share(len(pairs), len(own))} adapted modules; the other side is "
                    f"{listed(other for _, other in pairs)}",
                    "keep the adapter apart: merging it changes the other side or tears the tie; "
                    "or untie the weights before training, or leave the layer out")]


def torn(model, before):
    """Tensors of the base that were one in the snapshot and are two now."""
    if before is None:
        return []
    now = {name: group for group in ties(model) for name in group}
    here = set(base_names(model).values())
    lost = [group for group in before.ties if sum(n in here for n in group) > 1
            and len({now.get(n, n) for n in group if n in here}) > 1]
    return [Finding("a tie is torn", listed(" and ".join(group) for group in lost),
                    f"{share(len(lost), len(before.ties))} ties of the snapshot",
                    "call model.tie_weights(), or save both sides and load them untied")
            ] if lost else []


def ties(model):
    """Tuples of names in the base, without adapter, under which one parameter is found."""
    groups, names = {}, base_names(model)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name in names:
            groups.setdefault(id(parameter), []).append(names[name])
    return tuple(tuple(dict.fromkeys(group)) for group in groups.values() if len(set(group)) > 1)


def _stores(tensors):
    return {t.untyped_storage()._cdata for t in tensors}
