"""Adapters out of adapters: blends of several, and one out of a fully tuned model."""

import math
import numbers

import torch

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
from lora_mini.variants import PiSSALinear

METHODS = ("concat", "linear", "svd")


def blend(model, weights, into, method="concat", rank=None):
    """Make adapter `into`, the sum of weight times update over {name: weight}; it becomes active.

        concat: A = [A_1; A_2; ...], B = [w_1 s_1 B_1, w_2 s_2 B_2, ...]     exact; ranks add up
        svd:    the exact sum, a matrix (d_out, d_in), cut to `rank`         nearest of that rank
        linear: A = sum_i sqrt(w_i s_i) A_i, B = sum_i sqrt(w_i s_i) B_i     NOT the sum: B_i A_j
                                                                             come in, too

    "linear" is what PEFT's add_weighted_adapter calls so. s is an adapter's scaling. The layers are
    those that any of the adapters has. Raises ValueError for another method, weights that are no
    finite numbers, a negative weight or several ranks with "linear", a rank that does not fit, an
    adapter with trained copies, or DoRA with any method but "svd"; the model then is as it was.
    """
    held = shelf(model)
    check_new(held, into)
    refuse_merged(model)
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if (rank is None) == (method == "svd"):
        raise ValueError("svd needs a rank" if rank is None else "rank is for the method svd only")
    if not isinstance(weights, dict) or not weights:
        raise ValueError(f"weights must be a dictionary from names to numbers, got {weights!r}")
    for name, weight in weights.items():
        if not isinstance(weight, numbers.Real) or isinstance(weight, bool) \
                or not math.isfinite(weight):
            raise ValueError(f"the weight of {name!r} must be a finite number, got {weight!r}")
    parts = {}  # module name: [(weight, layer)]
    for name, weight in weights.items():
        for where, layer in pick(held, name).items():
            if not isinstance(layer, LoRALinear):
                raise ValueError(f"adapter {name!r} has a trained copy of {where!r}, which is no "
                                 "update that could be added: a blend can't hold it")
            parts.setdefault(where, []).append((weight, layer))
    with torch.no_grad():
        made = {where: _mixed(mine, method, rank, where) for where, mine in parts.items()}
    _put(model, into, made)


@torch.no_grad()
def extract(model, tuned, rank, name="default"):
    """Make an adapter of a rank out of the difference between a tuned model and this one.

    For each `nn.Linear` whose weight moved: the `rank` strongest directions of W_tuned - W_0
    (Eckart and Young 1936), split evenly between A and B. What else moved, such as biases, norms
    and embeddings, an adapter can't hold. The adapter becomes the active one.

    Returns ({layer: share of the update's squared norm that is kept}, [names of what else moved]).
    Raises ValueError if the two models don't have the same parameters, or nothing moved.
    """
    held = shelf(model)
    check_new(held, name)
    refuse_merged(model)
    before, after = modules_of_base(model), dict(tuned.named_modules(remove_duplicate=False))
    old = _own_parameters(before)
    new = _own_parameters(after)
    if old.keys() != new.keys() or any(old[n].shape != new[n].shape for n in old):
        odd = sorted(old.keys() ^ new.keys()) or [n for n in old if old[n].shape != new[n].shape]
        raise ValueError(f"the two models differ in more than numbers, at {odd[0]!r}: take a tuned "
                         "model without an adapter, of the same class and size")
    moved = [n for n in old if not torch.equal(old[n], new[n].to(old[n].device))]
    made, kept, rest = {}, {}, []
    for parameter in moved:
        where, _, leaf = parameter.rpartition(".")
        if leaf != "weight" or not isinstance(before[where], torch.nn.Linear):
            rest.append(parameter)
            continue
        X = new[parameter].to(old[parameter].device).float() - old[parameter].float()
        A, B, S = cut(X, min(rank, *X.shape))
        made[where], kept[where] = (A, B), (S[:len(A)].square().sum() / S.square().sum()).item()
    if not made:
        raise ValueError("no weight of an nn.Linear differs between the two models")
    _put(model, name, made)
    return kept, rest


def _mixed(mine, method, rank, where):
    """(A, B), at a scaling of 1, of one layer."""
    if method == "svd":
        X = sum(w * layer.update() for w, layer in mine)
        if not 1 <= rank <= min(X.shape):
            raise ValueError(f"rank must be between 1 and {min(X.shape)} for {where!r}, got {rank}")
        return cut(X, rank)[:2]
    pairs = [(w * layer.scaling, *_factors(layer, where)) for w, layer in mine]
    if method == "linear":
        ranks = {len(A) for _, A, _ in pairs}
        if len(ranks) > 1 or any(w < 0 for w, *_ in pairs):
            raise ValueError(f"linear adds factors of one rank, with weights of 0 or more; at "
                             f"{where!r} the ranks are {sorted(ranks)}: use concat or svd")
        return (sum(math.sqrt(w) * A for w, A, _ in pairs),
                sum(math.sqrt(w) * B for w, _, B in pairs))
    A, B = torch.cat([A for _, A, _ in pairs]), torch.cat([w * B for w, _, B in pairs], dim=1)
    if len(A) > min(len(B), A.shape[1]):
        raise ValueError(f"the ranks add up to {len(A)}, more than the {min(len(B), A.shape[1])} "
                         f"that {where!r} can have: use svd with a rank")
    return A, B


def _factors(layer, where):
    if isinstance(layer, PiSSALinear):
        B, A = layer._difference()
        return A, B
    if type(layer) in PLAIN:
        return layer.lora_A, layer.lora_B
    raise ValueError(f"the update of a {type(layer).__name__} ({where!r}) is no product of two "
                     "factors: use the method svd")


def cut(X, rank):
    """(A, B, S): B A is the nearest matrix of that rank to X (d_out, d_in)."""
    U, S, Vt = torch.linalg.svd(X, full_matrices=False)
    root = S[:rank].sqrt()
    return root[:, None] * Vt[:rank], U[:, :rank] * root, S


def _put(model, name, made):
    """Attach (A, B) by module name, as an adapter with a scaling of 1 everywhere."""
    ranks = {where: len(A) for where, (A, _) in made.items()}
    first = next(iter(ranks.values()))
    others = {where: rank for where, rank in ranks.items() if rank != first}
    add(model, name, list(made), first, first, rank_pattern=others, alpha_pattern=others)
    for where, layer in pick(shelf(model), name).items():
        A, B = made[where]
        with torch.no_grad():
            layer.lora_A.copy_(A)
            layer.lora_B.copy_(B)


def _own_parameters(modules):
    """{name: parameter} of all modules, each under the module that it belongs to."""
    return {f"{where}.{leaf}" if where else leaf: p for where, m in modules.items()
            for leaf, p in m.named_parameters(recurse=False)}
