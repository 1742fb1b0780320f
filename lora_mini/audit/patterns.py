"""Entries of PEFT's configurations that name nothing: PEFT passes over them without a word."""

import re

from lora_mini.adapters.reading import means
from lora_mini.audit.findings import Finding, listed, share
from lora_mini.audit.layers import base_modules, plainly
from lora_mini.targets import no_match

REMEDY = "mend the name and attach anew: what is left out has the common value, or no adapter"


def patterns(case):
    """One Finding for each field of a configuration with entries that mean no layer."""
    configs = getattr(case.model, "peft_config", None)
    if not isinstance(configs, dict):
        return []
    plain, modules = plainly(case.model), base_modules(case.model)
    found = []
    for adapter, config in configs.items():
        layers = {plain(x.name): x.base for x in [*case.layers, *case.empty]
                  if x.adapter == adapter}
        label = "" if adapter == "default" else f" [{adapter}]"
        for field, entries, lost, names in _lost(config, layers, modules):
            if lost:
                near = "" if names is None else f"; {no_match(str(lost[0]), names, {})}"
                found.append(Finding(f"{field}{label} names what is not there",
                                     listed(map(str, lost)),
                                     f"{share(len(lost), len(entries))} entries{near}", REMEDY))
    return found


def _lost(config, layers, modules):
    """(field, its entries, those that mean nothing, what they could have meant)."""
    if not layers:
        return
    for field in ("rank_pattern", "alpha_pattern"):  # of the adapted layers
        entries = list(getattr(config, field, None) or ())
        yield field, entries, [e for e in entries if not any(means(e, n) for n in layers)], layers
    for field in ("target_modules", "exclude_modules"):
        entries = getattr(config, field, None) or ()
        if isinstance(entries, str):
            lost = [entries] if field != "target_modules" and not any(
                re.fullmatch(entries, name) for name in modules) else []
            entries = [entries]
        else:
            entries = sorted(entries)
            lost = [e for e in entries if not any(n == e or n.endswith(f".{e}") for n in modules)]
        yield field, entries, lost, modules
    numbers = getattr(config, "layers_to_transform", None)
    numbers = [numbers] if isinstance(numbers, int) else list(numbers or ())
    there = {part for name in layers for part in name.split(".")}
    yield "layers_to_transform", numbers, [n for n in numbers if str(n) not in there], None
