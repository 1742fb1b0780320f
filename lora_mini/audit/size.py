"""Whether the update is large enough to matter, in weights and in outputs."""

import torch

from lora_mini.audit.before import off
from lora_mini.audit.findings import Finding, listed
from lora_mini.audit.layers import norm_ratio

ENOUGH = 50  # steps, before which nothing is judged
FAINT = 0.02  # of the spread of the logits; Adam at 1e-4 reached 0.11 in 60 steps, at 1e-5 0.01
FEW = 0.05  # of the argmax: in a base that can't decide, a breath changes some
SMALL = 1e-3  # of ||W||, where there is no batch to ask; at those rates it was 0.012 and 0.001


def sizes(case):
    """After 50 steps: an update that hardly changes the logits or, without a batch, is small.

    With a batch the adapter must change the logits by 2 % of their spread, or 5 % of the argmax;
    without, one layer's ||s B A|| must reach a thousandth of its ||W||.
    """
    if case.steps < ENOUGH or not case.acting:
        return []
    ratios = {layer.label: r for layer in case.acting if (r := norm_ratio(layer)) is not None}
    largest = max(ratios.values(), default=1.0)
    change = _change(case)
    sound = largest >= SMALL if change is None else change[1] >= FAINT or change[2] > FEW
    if sound or largest != largest:  # NaN is another check's
        return []
    where = max(ratios, key=ratios.get) if change is None else change[0]
    seen = [f"||s B A|| is at most {largest:.0e} of ||W||"] if ratios else []
    if change is not None:
        seen.append(f"the adapter changes {where} by {change[1]:.0e} of their spread and "
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
    if not torch.isfinite(on).all() or not torch.isfinite(base).all():
        return None
    other = (on.argmax(dim=-1) != base.argmax(dim=-1)).float().mean().item()
    return where, (on - base).norm().item() / spread, other
