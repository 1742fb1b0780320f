"""Eight points that catch most adapters that silently fail, from three steps of training."""

import hashlib
from dataclasses import dataclass

import torch

from lora_mini.copies import TrainedCopy
from lora_mini.lora import LoRALinear
from lora_mini.model import disabled, merge, unmerge


@dataclass(frozen=True)
class Point:
    """One point of the test: whether it passed, and a sentence with what was seen."""

    ok: bool
    sentence: str

    def __str__(self):
        return f"{'ok  ' if self.ok else 'FAIL'} {self.sentence}"


def smoke_test(make_model, step):
    """Train a fresh adapter for three steps and look at it from eight sides.

    make_model() returns (model, optimizer): a new model with its adapter attached, untrained.
    step(model, optimizer) makes one training step: forward, backward, update. The inputs of its
    first forward pass are kept and used for the comparisons, in eval mode. Buffers, such as the
    running statistics of a BatchNorm, may move: the point on the base names those that did.
    Returns a list of eight Points. A point that fails says what was seen; nothing is raised, except
    what make_model and step raise.
    """
    model, optimizer = make_model()
    layers = {n: m for n, m in model.named_modules() if isinstance(m, LoRALinear)}
    points = [Point(bool(layers), f"{len(layers)} layers are adapted")]
    if not layers:
        return points
    points.append(_trainable(model, layers))
    base_before, buffers = _digest(model), _buffers(model)
    A_before = {n: m.lora_A.detach().clone() for n, m in layers.items()}
    start_is_base, inputs = [], []

    def look(module, args, kwargs):  # before the first step: the inputs, and is it the base?
        hook.remove()
        inputs.append((args, kwargs))
        with_adapter = _output(module, *inputs[0])
        with disabled(module):
            start_is_base.append(torch.equal(with_adapter, _output(module, *inputs[0])))

    hook = model.register_forward_pre_hook(look, with_kwargs=True)
    for _ in range(3):
        step(model, optimizer)
    if not inputs:
        hook.remove()
        return [*points, Point(False, "step never called the model")]

    same = _digest(model) == base_before
    points.append(Point(start_is_base[0],
                        "before training the outputs are the base's, bit for bit"))
    now = _buffers(model)
    moved = [name for name, b in buffers.items() if not torch.equal(b, now.get(name, b))]
    points.append(Point(same, "training left every byte of the base's parameters alone"
                        + (f"; of its buffers, {', '.join(moved)} moved" if moved else "")))
    still = [n for n, m in layers.items() if not m.lora_B.any()
             or "lora_A" in m.trains and torch.equal(m.lora_A, A_before[n])]
    points.append(Point(not still, "after three steps every B has left zero, and every A that "
                        "trains has moved" + (f"; not so in {', '.join(still)}" if still else "")))
    return points + _after(model, inputs[0])


def _trainable(model, layers):
    expected = 0
    for m in layers.values():
        r, d_out = m.lora_A.shape[0], m.base.out_features
        sizes = {"lora_A": r * m.base.in_features, "lora_B": d_out * r, "magnitude": d_out}
        expected += sum(sizes[name] for name in m.trains)
    copies = [m.copy for m in model.modules() if isinstance(m, TrainedCopy)]
    expected += sum(p.numel() for m in copies for p in m.parameters())
    found = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return Point(found == expected, f"{found:,} parameters train; the shapes say {expected:,}")


def _after(model, inputs):
    """The points that need the trained model: off, merged, apart again."""
    apart = _output(model, *inputs)
    with disabled(model):
        base = _output(model, *inputs)
    points = [Point(not torch.equal(base, apart), "the trained adapter changes the outputs, and "
                                                  "switching it off undoes that")]
    merge(model)
    merged = _output(model, *inputs)
    unmerge(model)
    gap = (merged - apart).abs().max().item() / max(apart.abs().max().item(), 1e-30)
    bound = torch.finfo(apart.dtype).eps ** 0.5  # half of the digits that the dtype has
    points.append(Point(gap <= bound, f"merged outputs are off by {gap:.0e} of the largest, "
                                      f"at most {bound:.0e} for "
                                      + str(apart.dtype).removeprefix("torch.")))
    again = torch.equal(_output(model, *inputs), apart) and not any(
        m.merged for m in model.modules() if isinstance(m, LoRALinear))
    return [*points, Point(again, "unmerging restores every bit")]


def _output(model, args, kwargs):
    """The first tensor that the model returns, in eval mode and without gradients."""
    training = {m: m.training for m in model.modules()}
    model.eval()
    with torch.no_grad():
        out = model(*args, **kwargs)
    for module, mode in training.items():
        module.training = mode
    found = _first_tensor(out)
    if found is None:
        raise TypeError(f"the model returned {type(out).__name__}, with no tensor of numbers in it")
    return found.detach().clone()


def _first_tensor(out):
    """The first floating-point tensor in a nest of tuples, lists, mappings and data classes."""
    if isinstance(out, torch.Tensor):
        return out if out.is_floating_point() else None
    if isinstance(out, (str, bytes)):
        return None
    parts = out if isinstance(out, (tuple, list)) else getattr(out, "values", dict)
    parts = parts() if callable(parts) else parts
    parts = parts or vars(out).values() if hasattr(out, "__dict__") else parts
    return next((t for t in map(_first_tensor, parts) if t is not None), None)


def _buffers(model):
    return {name: b.detach().clone() for name, b in model.named_buffers()}


def _digest(model):
    """A hash of the bytes of everything that an adapter must not train."""
    theirs = [m for m in model.modules() if isinstance(m, TrainedCopy)]
    trained = {id(p) for m in theirs for p in m.copy.parameters()}
    trained |= {id(p) for m in model.modules() if isinstance(m, LoRALinear)
                for p in map(m.get_parameter, m.trains)}
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if id(parameter) not in trained:
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
