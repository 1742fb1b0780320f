"""An adapter on a whole model: attach, detach, merge, and what lies between.

`attach` replaces layers in place; nothing here ever writes to a frozen weight.
"""

import contextlib
import math
import numbers

import torch
from torch import nn

from lora_mini.copies import TrainedCopy, check_copies, copied
from lora_mini.lora import LoRALinear, check_arguments
from lora_mini.refusals import (
    allow_saving,
    check_root,
    refuse_attention,
    refuse_final,
    refuse_saving,
)
from lora_mini.targets import by_layer, choose, matching, place


def attach(model, target_modules, rank, alpha, *, dropout=0.0, rslora=False, exclude=(),
           modules_to_save=(), rank_pattern=None, alpha_pattern=None, layer=LoRALinear):
    """Put a LoRALinear around each chosen `nn.Linear` of `model`, in place; freeze all the rest.

    target_modules: one or several of: a module's full name, which means that module alone; the last
    parts of names ("q_proj"); a regular expression that matches full names; or "all-linear", which
    takes every `nn.Linear` but the output head, and warns of what it passes over. The head is what
    `model.get_output_embeddings()` gives; a model without that method has to name its head in
    `exclude` (PEFT looks for it in Hugging Face models only).
    modules_to_save: modules of any kind with a forward, of which a full copy trains.
    rank_pattern, alpha_pattern: dictionaries from a name, as in target_modules, to the rank or
    alpha of the layers that it means, in place of `rank` or `alpha`; the first that fits counts.
    layer: the kind of layer to put there, LoRALinear or one of `lora_mini.variants`.

    Returns the names of the adapted layers. Raises ValueError, and leaves the model as it was, if
    a name matches nothing, the rank does not fit, an adapter is there already (PEFT's too), or a
    tie between weights would be torn; TypeError for arguments of a wrong type. `detach` undoes all
    of it. Until then `save_pretrained` of a Hugging Face model refuses.
    """
    _check_module(model)
    if not callable(layer):
        raise TypeError(f"layer must be a class such as LoRALinear, got {layer!r}")
    if adapted := wrappers(model):
        raise ValueError("the model has an adapter already, at "
                         f"{next(iter(adapted)) or 'its root'!r}: before attaching another, call "
                         "detach(model) or merge(model, keep_base=False)")
    if isinstance(model, nn.Linear):
        raise ValueError("the model is itself an nn.Linear and can't be replaced in place: "
                         "use LoRALinear(model, rank, alpha)")
    targets = choose(model, target_modules, exclude)
    ranks = by_layer(rank, rank_pattern, targets, "rank_pattern")
    alphas = by_layer(alpha, alpha_pattern, targets, "alpha_pattern")
    for name, base in targets.items():
        check_arguments(base, ranks[name], alphas[name], dropout, name)
    if dropout:
        refuse_attention(model, targets)
    modules = dict(model.named_modules(remove_duplicate=False))
    originals = matching(modules_to_save, modules, "modules_to_save")
    check_copies(model, originals, targets)

    trainable_before = trainable(model)
    shared = {}  # deepcopy's memory: weights tied among the copies stay tied
    try:
        copies = {n: TrainedCopy(m, copied(n, m, shared)) for n, m in originals.items()}
        layers = _made(targets, lambda name, base: layer(
            base, ranks[name], alphas[name], dropout, rslora))
    except BaseException:
        _restore(model, trainable_before)  # leave no trace
        raise
    hold(model, trainable_before)
    for name, base in targets.items():
        place(model, name, layers[id(base)])
    for name, both in copies.items():
        both.copy.requires_grad_(True)
        place(model, name, both)
    for adapted in layers.values():
        for name in adapted.trains:
            getattr(adapted, name).requires_grad_(True)
    refuse_saving(model)
    return list(targets)


def detach(model):
    """Take the adapter off: the modules, and what was trainable, are as before `attach`.

    Every frozen parameter has the bits that it had. Buffers are the model's own business: running
    statistics of a BatchNorm move in every training step, adapter or none. Parameters that were
    added since `attach` stay as they are. Raises ValueError if there is no adapter.
    """
    _layers(model)
    check_root(model, "detach")
    for name, wrapper in wrappers(model).items():
        place(model, name, within(wrapper))
    thaw(model)


def merge(model, keep_base=True):
    """Let every adapted layer act with W + scaling * B A: no added latency, and safe to repeat.

    With keep_base the base stays beside it, untouched (one more matrix in memory per layer), and
    `unmerge` goes back. Without, it is final: plain `nn.Linear` layers, and the trained copies in
    place of their originals. Returns a dictionary: layer name to the share of the update's entries
    that rounding swallowed. Raises ValueError if a final merge would tear tied weights apart, bake
    in NaN or infinite numbers, drop a base's forward hooks, or comes while the adapter is disabled.
    """
    layers = _layers(model)
    if not keep_base:
        refuse_final(model, layers)
    swallowed = {name: layer.merge() for name, layer in layers.items()}
    if not keep_base:
        plain = {id(layer): _plain(layer) for layer in layers.values()}
        for name, wrapper in wrappers(model).items():
            place(model, name, plain.get(id(wrapper)) or wrapper.copy)
        thaw(model)
    return swallowed


def unmerge(model):
    """Undo `merge(model)`: base and update act apart again. Safe to repeat."""
    for layer in _layers(model).values():
        layer.unmerge()


def set_strength(model, strength):
    """Scale the update by `strength` without training it anew: 1 as trained, 0 the base.

    Copies of `modules_to_save` are not scaled. Raises ValueError unless it is a finite number.
    """
    if not isinstance(strength, numbers.Real) or isinstance(strength, bool) \
            or not math.isfinite(strength):
        raise ValueError(f"strength must be a finite number, got {strength!r}")
    for layer in _layers(model).values():
        layer.strength = float(strength)


@contextlib.contextmanager
def disabled(model):
    """Inside `with disabled(model):` the model is its base; afterwards it is as it was.

    The base's parameters are untouched by training; its buffers (a BatchNorm's running statistics)
    are as training left them. Raises ValueError if there is no adapter.
    """
    _check_module(model)
    before = [(m, m.enabled) for m in wrappers(model).values()]
    _layers(model)
    try:
        for module, _ in before:
            module.enabled = False
        yield model
    finally:
        for module, enabled in before:
            module.enabled = enabled


def trainable_parameters(model):
    """(parameters, count): a dictionary, name to trainable parameter, and how many numbers."""
    found = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return found, sum(p.numel() for p in found.values())


def wrappers(model):
    """{module name: LoRALinear or TrainedCopy} of all that is attached now."""
    found, waiting = {}, [("", model)]  # as named_modules, which takes five times as long
    while waiting:
        name, module = waiting.pop()
        if isinstance(module, (LoRALinear, TrainedCopy)):
            found[name] = module
        prefix = f"{name}." if name else ""
        waiting += [(prefix + child, m) for child, m in reversed(module._modules.items())
                    if m is not None]
    return found  # a shared module under each of its names


def within(wrapper):
    """The base's own module inside a wrapper."""
    return wrapper.base if isinstance(wrapper, LoRALinear) else wrapper.original


def trainable(model):
    """{parameter name: whether it is trainable}."""
    return {name: p.requires_grad for name, p in model.named_parameters(remove_duplicate=False)}


def hold(model, before):
    """Freeze a model. `before`, what was trainable, is noted if nothing is noted yet."""
    model.__dict__.setdefault("_trainable_before", before)
    model.requires_grad_(False)


def thaw(model):
    """Undo `hold`."""
    _restore(model, model.__dict__.pop("_trainable_before"))
    allow_saving(model)


def _check_module(model):
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a model, an nn.Module, got {type(model).__name__}")


def _layers(model):
    _check_module(model)
    layers = {name: m for name, m in wrappers(model).items() if isinstance(m, LoRALinear)}
    if layers:
        return layers
    raise ValueError("the model has no adapter: call attach(model, ...) first")


def _made(targets, make):
    """A new layer for each target, by the target's id: a shared one gets one."""
    layers = {}
    for name, base in targets.items():
        try:
            made = layers.get(id(base)) or make(name, base)
        except (ValueError, RuntimeError) as error:  # what this kind of layer can't take
            raise ValueError(f"{error} (layer {name!r})") from error
        if not isinstance(made, LoRALinear):
            raise TypeError(f"layer made a {type(made).__name__}, not a LoRALinear or a relative")
        layers[id(base)] = made
    return layers


def _restore(model, before):
    """What was trainable, by name; parameters that are not named there are left alone."""
    for name, parameter in model.named_parameters(remove_duplicate=False):
        parameter.requires_grad_(before.get(name, parameter.requires_grad))


def _plain(layer):
    """A new nn.Linear with the merged weight (d_out, d_in); it shares nothing with the base."""
    linear = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
    with torch.no_grad():
        linear.weight = nn.Parameter(layer._sum().detach().clone())
        if layer.bias is not None:
            linear.bias = nn.Parameter(layer.bias.clone())
    return linear.train(layer.training)
