"""The factors themselves: their numbers, their scale, and how often they act."""

import torch

from lora_mini.audit.findings import Finding, listed, share


def numbers(case):
    """Factors with NaN or infinite numbers, and factors that have no numbers at all."""
    found = []
    tensors = {n: p.detach() for layer in case.layers for n, p in layer.factors.items()}
    bad = {n: (~torch.isfinite(p)).sum().item() for n, p in tensors.items()}
    bad = {n: count for n, count in bad.items() if count}
    if bad:
        found.append(Finding("NaN or infinite numbers in factors", listed(bad),
                             f"{sum(bad.values()):,} numbers in {share(len(bad), len(tensors))} "
                             "tensors", "go back to a step before; lower the rate or clip gradients"
                             ", and keep A and B in float32"))
    if case.empty:
        found.append(Finding("factors without numbers", listed(x.label for x in case.empty),
                             f"{len(case.empty):,} layers on the meta device",
                             "load the adapter's weights into them"))
    return found


def twice(case):
    """Layers into which one adapter is merged more than once."""
    names = [x.label for x in case.layers if x.active and len(set(x.merged)) < len(x.merged)]
    return [Finding("merged twice", listed(names), f"{share(len(names), len(case.acting))} layers",
                    "load the base anew and merge once")] if names else []


def nested(case):
    """Adapters around adapters: a layer inside an adapted one, PEFT's model inside another."""
    names = {layer.name for layer in case.layers}
    inside = [n for n in names if any(above in names for above in _above(n))]
    models = [n or "the model" for n, m in case.model.named_modules()
              if hasattr(m, "peft_config") and "base_model" in m._modules]
    found = []
    if inside:
        found.append(Finding("an adapter is wrapped around an adapter", listed(sorted(inside)),
                             f"{share(len(inside), len(names))} layers lie in an adapted one",
                             "take one adapter off, or merge it for good, before the next"))
    if len(models) > 1:
        found.append(Finding("a PEFT model lies inside a PEFT model", listed(models[1:]),
                             f"{len(models)} of them",
                             "use add_adapter for a second one, or merge_and_unload first"))
    return found


def _above(name):
    parts = name.split(".") if name else []
    return [".".join(parts[:i]) for i in range(len(parts))]


def scales(case):
    """Layers whose scale is neither alpha / r nor, for rsLoRA, alpha / sqrt(r)."""
    off = [x for x in case.layers
           if not any(abs(x.scaling - due) <= 1e-6 * abs(due) for due in x.due)]
    if not off:
        return []
    return [Finding("the scale doesn't fit alpha and rank", listed(x.label for x in off),
                    f"{off[0].scaling:g}, where alpha and rank make {off[0].due[0]:g}; "
                    f"{share(len(off), len(case.layers))} layers",
                    "make alpha, rank and scale agree, in the layer and in its configuration")]


def inactive_trains(case):
    """Adapters that are not active, beside one that is, and still require grad."""
    idle = [(layer.adapter, n) for layer in case.layers if not layer.active
            for n, p in layer.factors.items() if p.requires_grad]
    if not idle:
        return []
    return [Finding("an adapter that is not active trains", listed(n for n, _ in idle),
                    f"{len(idle):,} tensors require grad",
                    "set_adapter(name) with the one that is to train, before the optimizer")]
