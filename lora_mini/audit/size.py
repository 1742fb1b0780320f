"""Whether the update is large enough to matter, in weights and in outputs."""

import torch

from lora_mini.audit.before import off
from lora_mini.audit.findings import Finding, listed
from lora_mini.audit.layers import norm_ratio

ENOUGH = 50  # steps, before which nothing is judged
SMALL, FAINT = 5e-4, 1e-3  # of ||W||; of the spread of the logits


def sizes(case):
    """After 50 steps: an update that is small beside W everywhere, or hardly changes the logits."""
    if case.steps < ENOUGH or not case.acting:
        return []
    ratios = {layer.label: r for layer in case.acting if (r := norm_ratio(layer)) is not None}
    largest = max(ratios.values(), default=0.0)
    change = _change(case)
    small, faint = bool(ratios) and largest < SMALL, change is not None and change[1] < FAINT
    if not (small or faint and not change[2]):
        return []
    where = max(ratios, key=ratios.get) if small else change[0]
    seen = [f"||s B A|| is at most {largest:.0e} of ||W||"] if ratios else []
    if change is not None:
        seen.append(f"the adapter changes {change[0]} by {change[1]:.0e} of their spread and "
                    f"{change[2]:.1%} of the argmax")
    return [Finding("the update is too small to matter", listed([where]),
                    f"{'; '.join(seen)}; after {case.steps:,} steps",
                    "raise the learning rate: 1e-4 to 1e-3 suits LoRA with Adam")]


def _change(case):
    """(tensor's name, ||on - off|| / ||off - mean||, share of argmax changed), or None."""
    if case.on is None:
        return None
    where, base = off(case.model, case.batch)
    if base is None or base.shape != case.on.shape or not base.ndim:
        return None
    on, base = case.on.float().cpu(), base.float()
    spread = (base - base.mean(dim=-1, keepdim=True)).norm().item()
    spread = spread or base.norm().item() or 1.0  # outputs of one number each have no spread
    change = (on - base).norm().item() / spread
    other = (on.argmax(dim=-1) != base.argmax(dim=-1)).float().mean().item() \
        if torch.isfinite(on).all() else 1.0
    return where, change, other
