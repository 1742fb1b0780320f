"""The base: what of it trains, what of it changed, and what it gives with the adapter off."""

import torch

from lora_mini.audit.before import digests, off
from lora_mini.audit.findings import Finding, listed, share
from lora_mini.audit.layers import base_names


def base_trains(case):
    """Parameters of the base that require grad though an adapter is attached."""
    of_base = base_names(case.model)
    base = {n: p for n, p in case.model.named_parameters() if n in of_base}
    train = [n for n, p in base.items() if p.requires_grad and not _meant(case.model, n)]
    count = sum(base[n].numel() for n in train)
    return [Finding("the base trains", listed(train), f"{count:,} numbers in "
                    f"{share(len(train), len(base))} tensors",
                    "requires_grad_(False) for them; name modules to train in modules_to_save")
            ] if train else []


def _meant(model, name="bias"):
    """Whether PEFT was asked to train biases of the base, and this is one."""
    configs = getattr(model, "peft_config", None)
    return name.endswith("bias") and isinstance(configs, dict) and any(
        getattr(c, "bias", "none") != "none" for c in configs.values())


def base_moved(case):
    """Parameters and buffers of the base whose bytes, or names, are not those from before."""
    if case.before is None:
        return []
    then, now = case.before.base, digests(case.model)
    both = [n for n in now if n in then and not _meant(case.model, n)]
    changed = [n for n in both if now[n] != then[n]]
    names = base_names(case.model)
    buffers = {names[n] for n, _ in case.model.named_buffers(remove_duplicate=False) if n in names}
    found = []
    for what, names, remedy in (
            ("the base's parameters changed", [n for n in changed if n not in buffers],
             "freeze them; if a merge was written into them, start from the base again"),
            ("the base's buffers changed", [n for n in changed if n in buffers],
             "keep such layers in eval mode while the adapter trains, or save them with it")):
        if names:
            found.append(Finding(what, listed(names), f"{share(len(names), len(both))} tensors "
                                 "differ from those before training", remedy))
    if not both and then:
        found.append(Finding("the base has other names than before", listed(now),
                             f"none of {len(then):,} tensors found again",
                             "take the snapshot from this model"))
    return found


def outputs_moved(case):
    """Outputs with the adapter off that differ from those of the snapshot, on its own batch.

    Not judged where PEFT trains biases of the base, which stay when the adapter is off.
    """
    before = case.before
    if before is None or before.outputs is None or _meant(case.model):
        return []
    try:
        where, now = off(case.model, before.batch)
    except Exception as error:
        return [Finding("the model can't be run on the snapshot's batch", "its forward",
                        f"{type(error).__name__}: {error}", "take it with a batch of this model")]
    if now is None:
        return []
    then = before.outputs
    gap = _gap(then, now)
    eps = torch.finfo(then.dtype).eps
    if gap <= min(100 * eps, eps**0.5):
        return []
    return [Finding("with the adapter off the outputs are not those before training", where,
                    f"they differ by {gap:.0e} of the largest, in {_other(then, now)}",
                    "find what else changed: the base's parameters, its buffers or its hooks")]


def _gap(then, now):
    if then.shape != now.shape:
        return float("inf")
    then, now = then.double(), now.double()
    if torch.equal(then.isnan(), now.isnan()):  # what was NaN before is no change
        then, now = then.nan_to_num(), now.nan_to_num()
    gap = ((now - then).abs().max() / then.abs().max().clamp(min=1e-30)).item()
    return gap if gap == gap else float("inf")


def _other(then, now):
    if then.shape != now.shape:
        return f"their shape, {tuple(now.shape)} for {tuple(then.shape)}"
    return f"{(then != now).float().mean().item():.0%} of the numbers"
