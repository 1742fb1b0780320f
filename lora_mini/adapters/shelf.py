"""Several adapters on one model, each under a name, one of them active.

An adapter that is not active stands on a shelf beside the model, `model._shelf`: out of its
modules, its parameters and its `state_dict`. To switch is to put other layers in the same places.
"""

import itertools
from dataclasses import dataclass, field

from torch import nn

from lora_mini.copies import TrainedCopy
from lora_mini.lora import LoRALinear
from lora_mini.model import attach, hold, thaw, trainable, within, wrappers
from lora_mini.refusals import allow_saving, refuse_saving
from lora_mini.targets import place
from lora_mini.variants import LoRAFALinear

PLAIN = (LoRALinear, LoRAFALinear)  # kinds whose update is scaling B A of their own two factors


@dataclass
class Shelf:
    """active: a name or None. adapters: {name: {module name: LoRALinear or TrainedCopy}}."""

    active: str | None = None
    adapters: dict = field(default_factory=dict)


def names(model):
    """The names of all adapters of a model, in the order in which they came."""
    return list(shelf(model).adapters)


def active(model):
    """The name of the adapter that acts, or None."""
    return shelf(model).active


def add(model, name, target_modules, rank, alpha, **options):
    """As `attach`, under a name, beside what is there; it becomes the active one.

    Returns the names of the adapted layers. Raises as `attach` does, and ValueError if the name is
    taken or the active adapter is merged; the model then is as it was.
    """
    held = shelf(model)
    check_new(held, name)
    refuse_merged(model)
    was = held.active
    park(model)
    try:
        taken = attach(model, target_modules, rank, alpha, **options)
    except BaseException:
        switch(model, was)
        raise
    held.adapters[name], held.active = wrappers(model), name
    return taken


def switch(model, name):
    """Let another adapter act, or with None the base alone. Nothing is copied.

    Raises ValueError for a name that there isn't, or if a layer of the base has been replaced
    since; the model then is as it was.
    """
    held = shelf(model)
    if name == held.active:
        return
    coming = {} if name is None else pick(held, name)
    for where, wrapper in coming.items():
        if of_base(model, where) is not within(wrapper):
            raise ValueError(f"adapter {name!r} belongs to a layer {where!r} that is no longer "
                             "there: it was replaced since, by a final merge for instance. Load "
                             "the adapter from its file into this model")
    was = held.active
    park(model)
    if coming:
        hold(model, model.__dict__.get("_trainable_before") or trainable(model))
    for where, wrapper in coming.items():
        _follow(wrapper)
        place(model, where, wrapper)
    held.active = name
    if bool(was) != bool(name):
        (refuse_saving if coming else allow_saving)(model)


def of_base(model, where):
    """The base's own module of that name, past whatever is attached; None if there is none."""
    module = _bare(model)
    for part in where.split(".") if where else ():
        module = _bare(module._modules.get(part)) if module is not None else None
    return module


def _bare(module):
    return within(module) if isinstance(module, (LoRALinear, TrainedCopy)) else module


def _follow(wrapper):
    """Let a wrapper lie where its base's module lies now, and train or not as that does."""
    inner = within(wrapper)
    parts = list(wrapper.modules())
    lies = next(_devices(inner.modules()), None)
    if lies is not None and any(device != lies for device in _devices(parts)):
        wrapper.to(lies)
    if any(m.training != inner.training for m in parts):
        wrapper.train(inner.training)


def _devices(modules):
    own = itertools.chain.from_iterable(
        (*m._parameters.values(), *m._buffers.values()) for m in modules)
    return (tensor.device for tensor in own if tensor is not None)


def remove(model, name):
    """Take an adapter off for good; with the last one the model is as before the first.

    Raises ValueError for a name that there isn't.
    """
    held = shelf(model)
    pick(held, name)
    if held.active == name:
        park(model)
        allow_saving(model)
    del held.adapters[name]
    if not held.adapters and "_trainable_before" in model.__dict__:
        thaw(model)


def shelf(model):
    """The Shelf of a model. What `attach` put on by itself stands there as "default"."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a model, an nn.Module, got {type(model).__name__}")
    held = model.__dict__.setdefault("_shelf", Shelf())
    found = wrappers(model)
    if held.active and set(map(id, found.values())) != set(
            map(id, held.adapters[held.active].values())):
        del held.adapters[held.active]  # detached, or merged for good, since
        held.active = None
    if found and not held.active:
        if "default" in held.adapters:
            raise ValueError("attach was called beside an adapter 'default' that is not active: "
                             "detach(model), then use add(model, name, ...)")
        held.adapters["default"], held.active = found, "default"
    return held


def pick(held, name):
    """The wrappers of one adapter, by module name; ValueError if there is none of that name."""
    if name not in held.adapters:
        raise ValueError(f"there is no adapter {name!r}: the model has "
                         f"{', '.join(map(repr, held.adapters)) or 'none'}")
    return held.adapters[name]


def check_new(held, name):
    """Raise unless a new adapter may have this name."""
    if not isinstance(name, str) or not name:
        raise TypeError(f"an adapter's name must be a text, got {name!r}")
    if name in held.adapters:
        raise ValueError(f"the model has an adapter {name!r} already: take another name, or "
                         f"remove(model, {name!r}) first")


def refuse_merged(model):
    """Raise ValueError if the active adapter is merged."""
    if any(w.merged for w in wrappers(model).values() if isinstance(w, LoRALinear)):
        raise ValueError("the active adapter is merged, so that the model looks like a base and is "
                         "none: call unmerge(model) first")


def park(model):
    """Put the base's own modules back; what was active stays on the shelf."""
    for where, wrapper in wrappers(model).items():
        place(model, where, within(wrapper))
    shelf_ = model.__dict__.get("_shelf")
    if shelf_:
        shelf_.active = None


def modules_of_base(model):
    """{name: module} of the model without its adapter."""
    attached = wrappers(model)
    inside = tuple(f"{name}." for name in attached)
    found = {name: m for name, m in model.named_modules(remove_duplicate=False)
             if not name.startswith(inside)}
    for name, wrapper in attached.items():
        inner = within(wrapper)
        found |= {f"{name}.{child}" if child else name: m
                  for child, m in inner.named_modules(remove_duplicate=False)}
    return found
