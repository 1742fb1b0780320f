"""What the optimizer holds, what it doesn't, and at which rates."""

import math

import torch

from lora_mini.audit.case import peak
from lora_mini.audit.findings import Finding, listed, share
from lora_mini.audit.layers import own

LOW, DECAY = 1e-4, 0.1  # a peak rate below it, a weight decay from it on, are worth a line
WORN = 1.0  # a GradScaler's scale below it: what overflows there overflows without a scale
TORCHS = 1e-3  # what Adam has where no rate is given: it says nothing


def idle(case):
    """Whether the optimizer holds no state though the model counts as trained: no step was made.

    SGD without momentum never has a state; who asks must know that no factor has moved.
    """
    return case.optimizer is not None and case.before is not None and not case.optimizer.state


def no_step(case):
    """Why there was none, as far as the scaler and the gradients that are there tell."""
    if cuts := fallen(case.scaler):
        return f"the GradScaler has skipped every step: overflow cut its scale {cuts} times"
    grads = [p.grad for p in own(case.model).values() if p.grad is not None]
    bad = sum(not torch.isfinite(grad).all() for grad in grads)
    return "the optimizer has made no step: " + (
        f"gradients are there, NaN or infinite in {share(bad, len(grads))}" if grads else
        "no gradients are there now")


def fallen(scaler):
    """How many times overflow has cut a GradScaler's scale, at least; 0 without one."""
    if scaler is None or not scaler.is_enabled():
        return 0
    first, now = scaler._init_scale, scaler.get_scale()
    if now <= 0:
        return math.inf
    return max(0, round(math.log(first / now) / -math.log(scaler.get_backoff_factor())))


def worn(case):
    """A GradScaler whose scale has fallen below 1: the gradients overflow by themselves."""
    if idle(case) or not fallen(case.scaler) or (scale := case.scaler.get_scale()) >= WORN:
        return []
    return [Finding("the GradScaler finds overflow at every scale", f"its scale is {scale:.0e}",
                    f"cut {fallen(case.scaler)} times from {case.scaler._init_scale:,.0f}",
                    "its steps are skipped: find where NaN or infinity comes from, or train in "
                    "bfloat16")]


def missing(case):
    """Parameters of the adapter that require grad and are not in the optimizer."""
    if case.optimizer is None:
        return []
    train = {n: p for n, p in own(case.model).items() if p.requires_grad}
    out = [n for n, p in train.items() if id(p) not in case.group_of]
    return [Finding("trainable parameters are missing from the optimizer", listed(out),
                    f"{share(len(out), len(train))} tensors",
                    "build the optimizer after the adapter is attached")] if out else []


def stale(case):
    """Parameters in the optimizer that are no part of the model."""
    if case.optimizer is None:
        return []
    here = {id(p) for p in case.model.parameters()}
    gone = [p for i, p in _held(case).items() if i not in here]
    return [Finding("the optimizer holds parameters that are not in the model",
                    listed(f"shape {tuple(p.shape)}" for p in gone),
                    f"{share(len(gone), len(case.group_of))} tensors",
                    "build the optimizer anew from the model as it is")] if gone else []


def frozen_held(case):
    """Parameters of the base in the optimizer although they are frozen."""
    if case.optimizer is None:
        return []
    mine = {id(p) for p in own(case.model).values()}
    held = [n for n, p in case.model.named_parameters()
            if id(p) in case.group_of and id(p) not in mine and not p.requires_grad]
    return [Finding("frozen parameters of the base are in the optimizer", listed(held),
                    f"{share(len(held), len(case.group_of))} tensors",
                    "give it the parameters with requires_grad only")] if held else []


def decays(case):
    """A weight decay of 0.1 or more on A and B, which pulls the update to zero."""
    groups = _groups(case)
    strong = [n for n, g in groups.items() if float(g.get("weight_decay") or 0) >= DECAY]
    if not strong:
        return []
    most = max(groups[n]["weight_decay"] for n in strong)
    return [Finding("weight decay pulls A and B to zero", listed(strong),
                    f"{most:g} a step and rate, on {share(len(strong), len(groups))} factors",
                    "set weight_decay to 0, or to 0.01 at most, for A and B")]


def rates(case):
    """A peak rate of Adam below what suits LoRA.

    No fault are a warm-up to a larger rate, where a scheduler or the optimizer's default tells of
    it, and a decay: if B is farther from its start than the rate now could take it, the peak isn't
    known. A B that started elsewhere than at zero needs a snapshot for that.
    """
    groups = list({id(g): g for g in _groups(case).values()}.values())
    optimizer = getattr(case.optimizer, "optimizer", case.optimizer)  # accelerate's wrapper
    if not groups or "adam" not in type(optimizer).__name__.lower():
        return []
    now = max(float(g.get("lr") or 0) for g in groups)
    default = float(getattr(optimizer, "defaults", {}).get("lr") or 0)
    most = max([*map(peak, groups), 0 if default == TORCHS else default])
    if most >= LOW or case.steps and _farthest(case) > 2 * now * case.steps:
        return []
    return [Finding("the learning rate is low for LoRA", "the groups that hold A and B",
                    f"{most:.0e} at its peak, {now:.0e} now, after {case.steps:,} steps",
                    "1e-4 to 1e-3 suits LoRA with Adam, ten times what suits full fine-tuning")]


def _farthest(case):
    """The largest distance of a number in a B from its start."""
    starts = case.before.start if case.before else {}
    far = 0.0
    for layer in case.layers:
        B = layer.factors[layer.B].detach()
        start = starts.get(layer.B, getattr(layer.module, "start_B", None))
        far = max(far, (B if start is None else B - start.to(B)).abs().max().item())
    return far


def _held(case):
    return {id(p): p for group in case.optimizer.param_groups for p in group["params"]}


def _groups(case):
    """{name of a factor A or B that the optimizer holds: its group}."""
    names = [(n, layer.factors[n]) for layer in case.layers for n in (layer.A, layer.B)]
    return {n: case.group_of[id(p)] for n, p in names if id(p) in case.group_of}
