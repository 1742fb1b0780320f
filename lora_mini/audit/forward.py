"""Running a model on a batch without leaving a trace, and finding its logits in what it returns."""

import contextlib
import warnings
from collections.abc import Mapping

import torch

from lora_mini.copies import TrainedCopy
from lora_mini.lora import LoRALinear


def bare(model):
    """The model inside torch.compile's wrapper and those of data-parallel training."""
    while type(model).__name__ in ("OptimizedModule", "DataParallel", "DistributedDataParallel"):
        model = model._modules.get("_orig_mod") or model._modules["module"]
    return model


def call(model, batch):
    """What the model returns for a tensor, a tuple of arguments or a mapping of named ones.

    Raises TypeError for another kind of batch.
    """
    if isinstance(batch, torch.Tensor):
        return model(batch)
    if isinstance(batch, Mapping):
        return model(**batch)
    if isinstance(batch, (tuple, list)):
        return model(*batch)
    raise TypeError("batch must be a tensor, a tuple of arguments or a mapping of named ones, "
                    f"got {type(batch).__name__}")


def moved(batch, device):
    """A copy of a batch, its tensors on the device; those that ask for grad still do."""
    if isinstance(batch, torch.Tensor):
        return batch.detach().to(device, copy=True).requires_grad_(batch.requires_grad)
    if isinstance(batch, Mapping):
        return {name: moved(part, device) for name, part in batch.items()}
    if isinstance(batch, (tuple, list)):
        return tuple(moved(part, device) for part in batch)
    return batch


def device_of(model):
    """The device of the first parameter; the CPU for a model without."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


@contextlib.contextmanager
def at_rest(model, training=False):
    """Inside, the model is in eval mode, or may be put into training mode; then all is as it was.

    That is: the mode of every module, buffers, and the CPU's random numbers. Warnings are silent in
    eval mode.
    """
    modes = {m: m.training for m in model.modules()}
    buffers = [(b, b.clone()) for b in model.buffers()] if training else []
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        try:
            if not training:
                warnings.simplefilter("ignore")
                model.eval()
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode
            with torch.no_grad():
                for buffer, kept in buffers:
                    if not torch.equal(buffer, kept):
                        buffer.copy_(kept)


@contextlib.contextmanager
def switched_off(model):
    """Inside, no adapter acts, ours or PEFT's. Not for PEFT's while merged: it would unmerge."""
    held = []
    for module in model.modules():
        if isinstance(module, (LoRALinear, TrainedCopy)):
            held.append((module, "enabled", module.enabled, False))
        elif isinstance(getattr(module, "_disable_adapters", None), bool):
            held.append((module, "_disable_adapters", module._disable_adapters, True))
    try:
        for module, name, _, off in held:
            setattr(module, name, off)
        yield
    finally:
        for module, name, was, _ in held:
            setattr(module, name, was)


def outputs(model, batch):
    """(which tensor was looked at, that tensor) in eval mode; ("", None) if it returns none."""
    return run(model, batch)[:2]


def run(model, batch):
    """(name of the logits, the logits, the loss) in eval mode; None for what it doesn't return."""
    with at_rest(model), torch.no_grad():
        out = call(model, batch)
        where, found = logits(out)
        loss = next((t for n, t in _tensors(out, "output") if t.ndim == 0), None)
    return where, *(None if t is None else t.detach().clone() for t in (found, loss))


def logits(out):
    """(its name, the logits) in what a model returned: what is called so, or else the first tensor
    of numbers with two axes or more, or else the first at all. ("", None) if there is none.
    """
    found = list(_tensors(out, "output"))
    for fits in (lambda n, t: n.endswith(".logits"), lambda n, t: t.ndim > 1, lambda n, t: True):
        for name, tensor in found:
            if fits(name, tensor):
                return name.removeprefix("output."), tensor
    return "", None


def _tensors(out, path):
    if isinstance(out, torch.Tensor):
        if out.is_floating_point():
            yield path, out
        return
    if isinstance(out, Mapping):
        parts = [(f"{path}.{name}", part) for name, part in out.items()]
    elif isinstance(out, (tuple, list)):
        parts = [(f"{path}[{i}]", part) for i, part in enumerate(out)]
    elif hasattr(out, "__dict__") and not callable(out):
        parts = [(f"{path}.{name}", part) for name, part in vars(out).items()]
    else:
        parts = []
    for name, part in parts:
        yield from _tensors(part, name)


def reached(model, modules, batch):
    """The ids of those of `modules` that a forward pass over the batch calls."""
    seen = set()
    hooks = [m.register_forward_hook(lambda m, *_: seen.add(id(m))) for m in modules]
    try:
        with at_rest(model), torch.no_grad():
            call(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def cut_by_checkpoint(model, batch):
    """Whether reentrant checkpointing gets an input that asks for no gradient, as torch warns."""
    with warnings.catch_warnings(record=True) as said, at_rest(model, training=True):
        warnings.simplefilter("always")
        model.train()
        with torch.enable_grad():
            call(model, batch)
    return any("None of the inputs have requires_grad=True" in str(w.message) for w in said)
