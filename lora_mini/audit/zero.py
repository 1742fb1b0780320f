"""Factors B that training left where they started, and why, as far as it can be seen."""

from collections.abc import Mapping

import torch

from lora_mini.audit.findings import Finding, listed, share
from lora_mini.audit.forward import cut_by_checkpoint, reached
from lora_mini.audit.optimizer import idle, no_step

LABELS = "all labels are -100"
REMEDY = {  # why: what to do
    "the adapter is switched off": "switch it on before training",
    "B doesn't require grad": "require_grad for A and B, or load the adapter as trainable",
    "B is not in the optimizer": "build the optimizer after the adapter is attached",
    "the learning rate is 0 at this step": "call scheduler.step() after each step; after a "
                                           "warm-up's first step this is as it should be",
    LABELS: "look at how the labels are masked: no token counts for the loss",
    "a forward over the batch doesn't reach it": "leave the layer out, or train on what uses it",
    "reentrant checkpointing gets an input without grad":
        "model.enable_input_require_grads(), or use_reentrant=False",
    "the optimizer has made no step": "see that step() is called; a GradScaler passes over every "
                                      "step whose gradients overflow: give it to audit as scaler",
    "the GradScaler has skipped every step": "find where the forward overflows, or train in "
                                             "bfloat16, which needs no scaler",
    "the cause can't be seen from here": "look at B.grad after a backward pass",
}


def zero_B(case):
    """Layers whose B is zero, or as it started, after training: one Finding for each cause."""
    if not case.trained:
        return []
    still = [layer for layer in case.acting if _still(case, layer)]
    causes = {}
    for layer, cause in zip(still, _causes(case, still), strict=True):
        causes.setdefault(cause, []).append(layer.label)
    return [Finding("B has not moved in training" + ("" if case.before else ": it is zero"),
                    listed(names), f"{share(len(names), len(case.acting))} layers; {cause}",
                    REMEDY[cause.partition(":")[0]]) for cause, names in causes.items()]


def _still(case, layer):
    B = layer.factors[layer.B].detach()
    start = case.before.start.get(layer.B) if case.before else None
    if start is not None and start.shape == B.shape:
        return torch.equal(start, B.cpu())
    return not B.any()


def _causes(case, layers):
    """The cause for each of the layers, in words of REMEDY."""
    if not layers:
        return []
    labels = case.batch is not None and no_label_counts(case.batch)
    seen = reached(case.model, [x.module for x in layers], case.batch) \
        if case.batch is not None else None
    found = [_cause(case, layer, labels, seen) for layer in layers]
    if None in found and case.batch is not None and _cut(case):
        found = [c or "reentrant checkpointing gets an input without grad" for c in found]
    rest = no_step(case) if idle(case) else "the cause can't be seen from here"
    return [c or rest for c in found]


def _cause(case, layer, labels, seen):
    B = layer.factors[layer.B]
    group = case.group_of.get(id(B))
    if not layer.enabled:
        return "the adapter is switched off"
    if not B.requires_grad:
        return "B doesn't require grad"
    if case.optimizer is not None and group is None:
        return "B is not in the optimizer"
    if group is not None and float(group.get("lr", 1)) == 0:
        return "the learning rate is 0 at this step"
    if labels:
        return LABELS
    if seen is not None and id(layer.module) not in seen:
        return "a forward over the batch doesn't reach it"
    return None


def _cut(case):
    try:
        return cut_by_checkpoint(case.model, case.batch)
    except Exception:  # in training mode a model may refuse what it takes in eval mode
        return False


def no_label_counts(batch):
    """Whether all labels of a batch are -100: named "labels", or a tensor of nothing else."""
    if isinstance(batch, Mapping):
        tensors = [batch.get("labels")]
    else:
        tensors = batch if isinstance(batch, (tuple, list)) else [batch]
    return any(isinstance(t, torch.Tensor) and t.numel() and bool((t == -100).all())
               for t in tensors)
