"""The audit itself: what is known of a model, and the checks that look at it."""

import os

from torch import nn

from lora_mini.audit.base import base_moved, base_trains, outputs_moved
from lora_mini.audit.before import Snapshot
from lora_mini.audit.case import Case
from lora_mini.audit.factors import inactive_trains, nested, numbers, scales, twice
from lora_mini.audit.file import stored
from lora_mini.audit.findings import Finding, Findings
from lora_mini.audit.forward import bare, device_of, moved, run
from lora_mini.audit.labels import end_masked, labels, loss
from lora_mini.audit.layers import adapted, own
from lora_mini.audit.optimizer import decays, frozen_held, missing, rates, stale, worn
from lora_mini.audit.patterns import patterns
from lora_mini.audit.places import coverage, merged_dropout, modes
from lora_mini.audit.size import sizes
from lora_mini.audit.ties import adapted_ties, torn
from lora_mini.audit.zero import zero_B

CHECKS = (numbers, zero_B, sizes, rates, missing, stale, frozen_held, decays, base_trains,
          base_moved, outputs_moved, twice, nested, scales, inactive_trains, coverage, modes,
          merged_dropout, worn, patterns, labels, loss, end_masked, adapted_ties, stored)


UNSEEN = {  # without this argument: what is not looked at
    "optimizer": "rates, decay and what trains (optimizer)",
    "batch": "outputs, labels, which layers are reached (batch)",
    "before": "what training changed (before)",
    "file": "what was saved (file)",
}


def audit(model, optimizer=None, batch=None, *, before=None, file=None, scaler=None):
    """Findings, a list, empty for a sound model; the model is left as it is.

    Before training: `before = snapshot(model, batch)`; after it, `audit(model, optimizer, batch,
    before=before, file=folder)`. Less may be given, and less is looked at: the list's `unseen`, and
    its last line as a text, say what is not.

    model: with layers of lora_mini's or of PEFT's LoRA. optimizer: the one that trains it; whether
    the update is large enough is judged from 50 of its steps on. batch: a tensor, a tuple of
    arguments or a mapping of named ones for the model, with the labels if there are any. before:
    what `snapshot(model, batch)` gave before training; with it the model counts as trained.
    file: what was saved of this model, a path: an adapter's folder or its .safetensors, or that of
    a merged model, which may lie in a folder in parts. Nothing is ever unpickled, and what can't be
    read is a finding.
    scaler: the GradScaler of the training, if there is one: from the optimizer alone a step that it
    skipped and a step that nobody made look alike.

    A model without adapter is judged only if an optimizer, or a `before` without adapter, says that
    one was meant; a model that had one may have been merged for good.
    Raises TypeError for what is no module, no optimizer, no batch, no Snapshot, no path or no
    scaler; nothing is raised for a model that is unsound.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a model, an nn.Module, got {type(model).__name__}")
    if optimizer is not None and not hasattr(optimizer, "param_groups"):
        raise TypeError(f"expected an optimizer, got {type(optimizer).__name__}")
    if before is not None and not isinstance(before, Snapshot):
        raise TypeError(f"before: expected a Snapshot, got {type(before).__name__}")
    if file is not None and not isinstance(file, (str, os.PathLike)):
        raise TypeError(f"file: expected a path, got {type(file).__name__}")
    if scaler is not None and not hasattr(scaler, "get_scale"):
        raise TypeError(f"scaler: expected a GradScaler, got {type(scaler).__name__}")
    if scaler is None and hasattr(getattr(optimizer, "scaler", None), "get_scale"):
        scaler = optimizer.scaler  # accelerate's optimizer brings its own
    given = {"optimizer": optimizer, "batch": batch, "before": before, "file": file}
    unseen = [words for name, words in UNSEEN.items() if given[name] is None]
    model = bare(model)
    tears = torn(model, before)
    if not own(model):
        meant = optimizer is not None or file is not None \
            or before is not None and not before.start
        return Findings([Finding("no adapter", "the whole model", "0 adapted layers", "attach one "
                                 "before the optimizer is built")] if meant else tears, unseen)
    batch, (on, loss), cannot = _run(model, batch)
    layers, empty = [], []
    for layer in adapted(model):
        (empty if any(p.is_meta for p in layer.factors.values()) else layers).append(layer)
    case = Case(model, optimizer, batch, before, layers, empty, on, loss, file, scaler)
    found = [finding for check in CHECKS for finding in _looked(check, case)]
    return Findings(cannot + tears + found, unseen)


def _looked(check, case):
    """What a check finds; that it could not be made, if the model breaks under it."""
    try:
        return check(case)
    except Exception as error:
        return [Finding("a check could not be made", check.__name__,
                        f"{type(error).__name__}: {error}",
                        "find out why; the other checks were made")]


def _run(model, batch):
    """(batch, (logits, loss), findings); without the batch if it can't be run."""
    if batch is None:
        return None, (None, None), []
    if not hasattr(batch, "__len__"):
        raise TypeError("batch must be a tensor, a tuple of arguments or a mapping of named ones, "
                        f"got {type(batch).__name__}")
    try:
        batch = moved(batch, device_of(model))
        return batch, run(model, batch)[1:], []
    except Exception as error:
        return None, (None, None), [Finding(
            "the model can't be run on the batch", "its forward", f"{type(error).__name__}: "
            f"{error}", "give a batch that it takes; what needs one was not looked at")]
