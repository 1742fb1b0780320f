"""Which tokens count for the loss, and what the loss is."""

from collections.abc import Mapping

import torch

from lora_mini.audit.factors import numbers
from lora_mini.audit.findings import Finding, share
from lora_mini.audit.zero import LABELS, no_label_counts, zero_B

FEW = 0.01  # of the labels
OFF = -100  # what cross entropy passes over


def labels(case):
    """Labels that are all -100, or nearly all; all of them only where `zero_B` doesn't say so."""
    if case.batch is None:
        return []
    if no_label_counts(case.batch):
        if any(LABELS in finding.how_large for finding in zero_B(case)):
            return []
        return [Finding("no token counts for the loss", "the batch's labels", LABELS,
                        "look at how they are masked: the answer must keep its labels")]
    given = _given(case.batch)
    if given is None:
        return []
    count, rows = int((given != OFF).sum()), len(given) if given.ndim > 1 else 0
    if count >= max(FEW * given.numel(), rows):
        return []
    return [Finding("note: few tokens count for the loss", "the batch's labels",
                    f"{share(count, given.numel())} are not {OFF}, in {max(rows, 1)} rows",
                    "look at how they are masked, and whether answers are cut off at the end")]


def loss(case):
    """A loss of NaN or infinity, unless the factors or the labels explain it."""
    if case.loss is None or torch.isfinite(case.loss) or no_label_counts(case.batch) \
            or numbers(case):
        return []
    return [Finding("the loss is no number", "what the model returns for the batch",
                    f"{case.loss.item():g}", "look for labels outside the vocabulary, rows without "
                    "a label, and overflow in 16 bits")]


def end_masked(case):
    """Rows that end with the end-of-sequence token while its label is -100 in all of them.

    Judged where config.eos_token_id and the batch's input_ids and labels, (n, T) both, are known;
    rows that are cut off before their end say nothing.
    """
    given, ids = _given(case.batch), _given(case.batch, "input_ids")
    ends = getattr(getattr(case.model, "config", None), "eos_token_id", None)
    if given is None or ids is None or ends is None or given.ndim != 2 or ids.shape != given.shape:
        return []
    ends = torch.tensor([ends] if isinstance(ends, int) else list(ends), device=ids.device)
    seen, last = _given(case.batch, "attention_mask"), []
    for i, row in enumerate(torch.isin(ids, ends)):
        live = torch.arange(len(row)) if seen is None or seen.shape != ids.shape \
            else seen[i].cpu().nonzero().flatten()
        others = (~row.cpu()[live]).nonzero().flatten()
        if len(others) and others[-1] + 1 < len(live):
            last.append((i, int(live[others[-1] + 1])))  # the first of those at the end
    kept = torch.isin(given, ends).any()
    if not last or kept or no_label_counts(case.batch) or any(given[at] != OFF for at in last):
        return []
    return [Finding("the end of the sentence is masked away", "the batch's labels",
                    f"token {', '.join(map(str, ends.tolist()))} ends {share(len(last), len(ids))} "
                    f"rows and is {OFF} in their labels", "keep its label, or the model never "
                    "learns to stop; a pad token that is no end token helps")]


def _given(batch, name="labels"):
    found = batch.get(name) if isinstance(batch, Mapping) else None
    return found if isinstance(found, torch.Tensor) and found.numel() and found.ndim else None
