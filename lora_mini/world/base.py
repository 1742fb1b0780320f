"""The base as a file: safetensors, with what made it in its metadata. Nothing is ever unpickled."""

import functools
import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from lora_mini.world import text, train
from lora_mini.world.gpt import GPT, Config

SHIPPED = Path(__file__).with_name("base.safetensors")
COMMAND = "python -m lora_mini.world.make_base"


def base_path(preset="laptop"):
    """Where a base is kept: the laptop's beside this file, the GPU's in the reader's own folder."""
    if preset == "laptop":
        return SHIPPED
    home = Path(os.environ.get("LORA_MINI_HOME") or "~/.lora_mini").expanduser()
    return home / f"base_{preset}.safetensors"


def save_base(model, path, **made_by):
    """Write a GPT to `path`, with its Config, the town's fingerprint, and what `made_by` says."""
    state = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    about = {key: str(value) for key, value in made_by.items()} | {
        "config": json.dumps(asdict(model.config)), "town": text.fingerprint(),
        "torch": torch.__version__, "digest": _digest(state)}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.part")  # several processes may make one base
    unfinished.write_bytes(save(state, about))
    unfinished.replace(path)  # a file is whole, or not there


def load_base(device=None, path=None):
    """The pre-trained GPT, in eval mode, on `device` (by default what `train.device()` says).

    path: by default the base of `train.preset()`: on "gpu" the larger one, once notebook 05 or
    `make_base --preset gpu` has made it, and the one that ships with this package until then.
    Raises FileNotFoundError if there is no such file, ValueError if it is damaged, or was made for
    another town.
    """
    if path is None:
        larger = base_path(train.preset())
        path = larger if larger.exists() else SHIPPED
    about, state = _read(Path(path))
    try:
        model = GPT(Config(**json.loads(about["config"])))
        model.load_state_dict(state)
    except (TypeError, ValueError, RuntimeError, AttributeError, ZeroDivisionError) as error:
        raise ValueError(f"{path} is damaged (its config does not fit its numbers: "
                         f"{str(error).splitlines()[0]:.200}): {_remedy(Path(path))}") from None
    return model.to(train.device() if device is None else device).eval()


@functools.cache
def shipped():
    """The base that ships, on the CPU, read once a process: to copy, not to train."""
    return load_base("cpu", SHIPPED)


def describe(path=SHIPPED):
    """What made a base: a dictionary with its command, seed, torch, town, config and digest."""
    return _read(Path(path))[0]


def _read(path):
    """(metadata, tensors by name), both checked."""
    if not path.exists():
        raise FileNotFoundError(f"there is no base at {path}: {_remedy(path)}")
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}): {_remedy(path)}") from None
    if missing := {"config", "town", "digest"} - about.keys():
        raise ValueError(f"{path} is no base, its metadata lack {', '.join(sorted(missing))}: "
                         f"{_remedy(path)}")
    if about["digest"] != _digest(state):
        raise ValueError(f"{path} is damaged (its numbers are not those that were written): "
                         f"{_remedy(path)}")
    if about["town"] != (here := text.fingerprint()):
        raise ValueError(f"{path} was made for another town (its fingerprint is {about['town']}, "
                         f"this one's {here}): {_remedy(path)}")
    return about, state


def _remedy(path):
    """What to do about a base that can't be read."""
    if path.resolve() == SHIPPED.resolve():  # trained anew, it would not be the records' base
        return ("take this file again from where you have the course (git restore, or download "
                "it); the recorded figures belong to just this base, so don't train another")
    return f"make it anew with {COMMAND}, or delete it to work with the base that ships"


def _digest(state):
    """A hash of names, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(f"{name} {tuple(state[name].shape)}".encode())
        digest.update(state[name].flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
