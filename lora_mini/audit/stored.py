"""A file that is to be held against a model: safetensors and JSON, opened, never unpickled."""

import contextlib
import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from lora_mini.adapters.reading import CONFIG, TENSORS, config_of
from lora_mini.audit.findings import Finding, listed, share

PART = re.compile(r"(?P<where>.+?)\.lora[_.](?P<kind>embedding_A|embedding_B|A|B|down|up|"
                  r"magnitude_vector)(?P<end>(?:\.[^.]+)*)")
PLACE = {"down": "A", "up": "B", "embedding_A": "A", "embedding_B": "B", "magnitude_vector": "m"}
ALPHAS = ("lora_alpha", "network_alpha", "alpha")  # what metadata call it


@dataclass
class Stored:
    """An adapter's file, or a merged model's; tensors are read when they are asked for.

    factors: {layer, as the file spells it: {"A", "B", "m" or "alpha": tensor's name}}. rest: the
    names of all other tensors. odd: factors that PEFT spells otherwise. config: None where none is
    expected, empty if it is damaged. alpha: what the metadata say. exported: its factors are called
    down and up, as image tools do.
    """

    size: int = 0  # bytes
    adapter: bool = False
    handles: dict = field(default_factory=dict)
    factors: dict = field(default_factory=dict)
    rest: list = field(default_factory=list)
    odd: list = field(default_factory=list)
    config: dict | None = None
    alpha: float | None = None
    exported: bool = False

    def tensor(self, name):
        return self.handles[name].get_tensor(name)


def opened(path):
    """(Stored or None, findings) of a folder or a file; what can't be read is a finding.

    Raises TypeError for what is no path.
    """
    path, found = Path(os.fspath(path)), Stored()
    try:
        files = _files(path)
        for file in files:
            handle = safe_open(file, framework="pt")
            found.handles |= dict.fromkeys(handle.keys(), handle)
            found.alpha = found.alpha or _alpha(handle.metadata() or {})
            found.size += file.stat().st_size
    except (OSError, SafetensorError) as error:
        return None, [Finding("the file can't be read", str(path), f"{str(error):.200}",
                              "save it anew, as safetensors, and compare sizes after copying it")]
    _sort(found)
    found.adapter = bool(found.factors) or files[0].name == TENSORS
    if found.adapter and not found.factors:
        return None, [Finding("the file holds no adapter", str(path),
                              f"{len(found.rest)} tensors, none with lora_A or lora_B",
                              "save it with save_pretrained of the model that has the adapter")]
    if not found.handles:
        return None, [Finding("the file is empty", str(path), "0 tensors", "save it anew")]
    said = []
    if found.adapter and (path.is_dir() or (files[0].parent / CONFIG).is_file()):
        try:
            found.config = config_of(files[0].parent)
        except (OSError, ValueError) as error:
            found.config = {}
            said = [Finding("the adapter's config can't be used", str(path), f"{str(error):.200}",
                            "without rank and alpha a loader guesses the scale: save it anew")]
    return found, said


def _files(path):
    if not path.is_dir():
        return [path]
    if (path / TENSORS).is_file():
        return [path / TENSORS]
    if (path / CONFIG).is_file():
        other = [p.name for p in sorted(path.glob("*.bin"))]
        raise FileNotFoundError(f"there is no {TENSORS}" + (
            f", only {other[0]}, a pickle, which is never opened here" if other else ""))
    if not (parts := sorted(path.glob("model*.safetensors"))):
        raise FileNotFoundError(f"there is neither {TENSORS} nor model.safetensors")
    return parts


def _alpha(metadata):
    for key in ALPHAS:
        with contextlib.suppress(ValueError, TypeError):
            return float(metadata.get(key))
    return None


def _sort(found):
    for name in found.handles:
        part = PART.fullmatch(name)
        if not part or part["end"].endswith(".bias"):
            found.rest.append(name)
            continue
        kind, end = part["kind"], part["end"]
        found.factors.setdefault(part["where"], {})[PLACE.get(kind, kind)] = name
        found.exported |= kind in ("down", "up")
        if end != (".weight" if kind in ("A", "B", "down", "up") else "") \
                and (kind, end) != ("magnitude_vector", ".weight"):
            found.odd.append(name)
    for name in [n for n in found.rest if n.endswith(".alpha")]:
        if (where := name.removesuffix(".alpha")) in found.factors:
            found.factors[where]["alpha"] = name
            found.rest.remove(name)


def matched(came, due):
    """({name that came: name that is due}, names without a match, (old start, new start) or None).

    A start is changed only where that gives each of the lost names a place of its own.
    """
    known = {name: name for name in came if name in due}
    lost = [name for name in came if name not in known]
    free = set(due) - known.keys()
    for other in sorted(free) if lost else ():
        old, new = _starts(lost[0], other)
        if old is not None and all(name.startswith(old) and new + name.removeprefix(old) in free
                                   for name in lost):
            return known | {n: new + n.removeprefix(old) for n in lost}, [], (old, new)
    return known, lost, None


def renamed(names, change, what):
    """The Finding that names begin otherwise, from what `matched` gave; an empty list without."""
    if not change:
        return []
    other = [came for came, due in names.items() if came != due]
    how = "write {1!r} in place of {0!r}" if change[0] else "put {1!r}"
    return [Finding(f"{what} names begin otherwise than the model's", listed(other),
                    f"{share(len(other), len(names))} names", how.format(*change)
                    + " before each of them; a loader passes over them as they are")]


def _starts(name, other):
    """What stands before the common end of two names, ("", "x.") for instance; None without one."""
    parts = name.split("."), other.split(".")
    ends = len(os.path.commonprefix([p[::-1] for p in parts]))
    return ["".join(f"{p}." for p in part[:-ends]) for part in parts] if ends else (None, None)


def gap(came, here):
    """||came - here|| / ||here||, and the rounding of the coarser dtype: two floats.

    Of other shapes the first is infinite; NaN counts as zero.
    """
    eps = max(torch.finfo(t.dtype).eps for t in (came, here))
    came, here = (t.detach().cpu().float().nan_to_num() for t in (came, here))
    if came.shape != here.shape:
        return math.inf, eps
    return ((came - here).norm() / here.norm().clamp(min=1e-30)).item(), eps


def same(came, here):
    """Whether two tensors are the same but for rounding."""
    size, eps = gap(came, here)
    return size <= eps
