"""An adapter's files, read and held against a model; nothing is attached and nothing unpickled."""

import difflib
import json
import math
import re
from dataclasses import dataclass, field

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

PREFIX = "base_model.model."
TENSORS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
NEEDED = ("peft_type", "r", "lora_alpha")
IDLE = {  # fields that say nothing about what is loaded: how it was trained, or where it came from
    "auto_mapping", "base_model_name_or_path", "exclude_modules", "inference_mode",
    "init_lora_weights", "layers_pattern", "layers_to_transform", "loftq_config", "megatron_core",
    "peft_version", "qalora_group_size", "revision", "target_modules", "task_type",
    "ensure_weight_tying",
}
READ = {"alpha_pattern", "bias", "fan_in_fan_out", "lora_alpha", "lora_dropout", "modules_to_save",
        "peft_type", "r", "rank_pattern", "use_dora", "use_rslora"}
EMPTY = {  # fields of PEFT up to 0.21 that are not read here, and must say nothing
    "alora_invocation_tokens", "arrow_config", "corda_config", "eva_config", "kasa_config",
    "layer_replication", "lora_bias", "lora_ga_config", "megatron_config", "monteclora_config",
    "runtime_config", "target_parameters", "trainable_token_indices", "use_bdlora", "use_qalora",
    "velora_config",
}
CHANGED = ("pissa", "olora", "corda", "loftq", "lora_ga")  # starts that rewrite the base
DTYPES = (torch.float16, torch.bfloat16, torch.float32)


@dataclass
class Found:
    """What the files of an adapter say, checked; names are those of the base's modules."""

    factors: dict = field(default_factory=dict)  # (A (r, d_in), B (d_out, r))
    magnitudes: dict = field(default_factory=dict)  # (d_out,), with DoRA
    copies: dict = field(default_factory=dict)  # state_dicts
    ranks: dict = field(default_factory=dict)
    alphas: dict = field(default_factory=dict)
    common: tuple = ()  # (r, lora_alpha)
    dropout: float = 0.0
    rslora: bool = False
    fingerprint: str | None = None
    passed_over: tuple = ()


def read(folder, modules):
    """The Found of a folder, for a base with these modules: {name: module}."""
    config, passed_over = _known(folder)
    tensors, about = _tensors(folder)
    found = Found(common=(config["r"], config["lora_alpha"]), passed_over=passed_over,
                  dropout=config.get("lora_dropout") or 0.0,
                  rslora=bool(config.get("use_rslora")), fingerprint=about.get("fingerprint"))
    loose = {}
    for key, tensor in tensors.items():
        if not key.startswith(PREFIX):
            raise ValueError(f"{folder}: the name {key!r} does not begin with {PREFIX!r}, as in "
                             "PEFT's files: was it saved from another wrapper?")
        where, mark, leaf = key.removeprefix(PREFIX).rpartition(".lora_")
        if not mark:
            loose[key.removeprefix(PREFIX)] = tensor
        elif leaf in ("A.weight", "B.weight", "magnitude_vector", "magnitude_vector.weight"):
            found.factors.setdefault(where, {})[leaf[0]] = tensor
        else:
            raise ValueError(f"{folder}: {key!r} is no factor of LoRA or DoRA")
    if not found.factors:
        raise ValueError(f"{folder} holds no factor at all, no name with lora_A or lora_B")
    dora = bool(config.get("use_dora"))
    for where, parts in found.factors.items():
        _check_factors(folder, where, parts, dora, modules)
        found.ranks[where] = len(parts["A"])
        said = by_pattern(config, "rank_pattern", where, config["r"])
        if said != found.ranks[where]:
            raise ValueError(f"{folder}: the config says rank {said} for {where!r}, its factors "
                             f"have {found.ranks[where]}: with a wrong rank the scale would be off")
        found.alphas[where] = by_pattern(config, "alpha_pattern", where, config["lora_alpha"])
        if dora:
            found.magnitudes[where] = parts["m"]
        found.factors[where] = parts["A"], parts["B"]
    for what in ("rank_pattern", "alpha_pattern"):
        for pattern in config.get(what) or {}:
            if not any(means(pattern, where) for where in found.factors):
                raise ValueError(f"{folder}: {what} names {pattern!r}, which is none of the "
                                 "layers in the file")
    found.copies = _copies(folder, loose, config.get("modules_to_save") or [], modules)
    return found


def config_of(folder):
    """adapter_config.json as a dictionary, with a rank, an alpha and patterns that can be used.

    Raises FileNotFoundError or ValueError, with what to do.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"there is no {CONFIG} in {folder}: expected a folder that "
                                "lora_mini.adapters.save or PEFT's save_pretrained wrote")
    try:
        config = json.loads(path.read_text("utf-8"))
        if not isinstance(config, dict):
            raise ValueError("it is no JSON object")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({str(error):.100}): take it again from where it "
                         "came from") from None
    if missing := [key for key in NEEDED if key not in config]:
        raise ValueError(f"{path} says nothing about {', '.join(missing)}")
    for key in ("r", "lora_alpha"):
        if isinstance(config[key], bool) or not isinstance(config[key], (int, float)) \
                or not 0 < config[key] < math.inf:
            raise ValueError(f"{path}: {key} must be a positive number, got {config[key]!r}")
    for key, kind in (("rank_pattern", dict), ("alpha_pattern", dict), ("modules_to_save", list)):
        if not isinstance(config.get(key) or kind(), kind):
            raise ValueError(f"{path}: {key} must be a {kind.__name__}, got {config[key]!r}")
        for pattern in config.get(key) or ():
            if not isinstance(pattern, str) or len(pattern) > 200 or re.search(r"\)[*+{]", pattern):
                raise ValueError(f"{path}: {key} holds {pattern!r:.60}; read are names and "
                                 "patterns of up to 200 characters, without a repeated group, "
                                 "which could take for ever")
    return config


def _known(folder):
    """(adapter_config.json as a dictionary, the empty fields in it that nobody knows)."""
    config, path = config_of(folder), folder / CONFIG
    if config["peft_type"] != "LORA":
        raise ValueError(f"{path}: peft_type is {config['peft_type']!r}; only LORA is read here")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(CHANGED):
        raise ValueError(f"{path}: started by {start!r}, which rewrites the base: these factors "
                         "fit a base that only PEFT has. Save it there with path_initial_model_"
                         "for_weight_conversion, which makes plain LoRA of twice the rank")
    if config.get("bias", "none") != "none":
        raise ValueError(f"{path}: bias is {config['bias']!r}: biases of the base were trained, "
                         "too, which LoRA here never does")
    if config.get("fan_in_fan_out"):
        raise ValueError(f"{path}: fan_in_fan_out is set: its layers are transposed, as GPT-2's "
                         "Conv1D, and LoRA here takes nn.Linear only")
    others = {key: value for key, value in config.items() if key not in IDLE | READ}
    if used := [key for key, value in others.items() if value not in (None, False, [], {}, "")]:
        raise ValueError(f"{path} uses what is not read here: {', '.join(sorted(used))}")
    return config, tuple(sorted(others.keys() - EMPTY))


def _tensors(folder):
    """({name: tensor}, what stands under "lora_mini"), both checked for damage."""
    path = folder / TENSORS
    if not path.is_file():
        old = [p.name for p in (folder / "adapter_model.bin", folder / "pytorch_model.bin")
               if p.exists()]
        raise FileNotFoundError(f"there is no {TENSORS} in {folder}" + (
            f", only {old[0]}, which is a pickle and could run any code: save it anew with PEFT's "
            "safe_serialization=True" if old else ""))
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("lora_mini", "{}"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if not isinstance(about, dict):
            raise ValueError("its metadata is no JSON object")
    except (SafetensorError, ValueError, OSError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({str(error):.100}): take it again from where it "
                         "came from") from None
    if not tensors:
        raise ValueError(f"{path} is empty: it holds no tensor")
    for key, tensor in tensors.items():
        if ".lora_" in key and tensor.dtype not in DTYPES:
            raise ValueError(f"{path}: {key!r} is {tensor.dtype}; float16, bfloat16 and float32 "
                             "are read")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{path}: {key!r} holds NaN or infinite numbers: the training that "
                             "made it went wrong, or the file is damaged")
    return tensors, about


def _check_factors(folder, where, parts, dora, modules):
    """Raise ValueError unless these are all the factors of a layer that there is."""
    if where not in modules:
        near = difflib.get_close_matches(where, modules, n=2, cutoff=0.5)
        raise ValueError(f"{folder}: the model has no layer {where!r}" + (
            f"; the nearest are {', '.join(near)}" if near else "") + ": is this the right base?")
    base = modules[where]
    if not isinstance(base, nn.Linear):
        raise ValueError(f"{folder}: {where!r} is a {type(base).__name__} here; LoRA here takes "
                         "nn.Linear only")
    wanted = {"A", "B"} | ({"m"} if dora else set())
    if parts.keys() != wanted:
        names = {"A": "lora_A", "B": "lora_B", "m": "lora_magnitude_vector"}
        lacks, more = wanted - parts.keys(), parts.keys() - wanted
        raise ValueError(f"{folder}: for {where!r} " + " and ".join(
            [f"{names[k]} is missing" for k in sorted(lacks)]
            + [f"{names[k]} is one too many (use_dora is {dora})" for k in sorted(more)]))
    A, B = parts["A"], parts["B"]
    fits = A.ndim == B.ndim == 2 and len(A) == B.shape[1] and A.shape[1] == base.in_features \
        and len(B) == base.out_features
    if not fits or dora and parts["m"].shape != (base.out_features,):
        raise ValueError(f"{folder}: {where!r} has lora_A {tuple(A.shape)} and lora_B "
                         f"{tuple(B.shape)}; for this base they must be (r, {base.in_features}) "
                         f"and ({base.out_features}, r)")


def _copies(folder, loose, patterns, modules):
    """{module: state_dict} of what else is in the file; all of it must belong to a copy."""
    copies = {}
    for key, tensor in loose.items():
        owners = [where for where in modules if where and key.startswith(f"{where}.")
                  and any(where == p or where.endswith(f".{p}") for p in patterns)]
        if not owners:
            raise ValueError(f"{folder}: {key!r} is no factor, and modules_to_save "
                             f"({', '.join(patterns) or 'empty'}) names no module of this model "
                             "that it belongs to")
        where = min(owners, key=len)
        copies.setdefault(where, {})[key.removeprefix(f"{where}.")] = tensor
    if lost := [p for p in patterns if not any(w == p or w.endswith(f".{p}") for w in copies)]:
        raise ValueError(f"{folder}: modules_to_save names {lost[0]!r}, and the file holds nothing "
                         "of it")
    for where, state in copies.items():
        here = {key: tuple(t.shape) for key, t in modules[where].state_dict().items()}
        came = {key: tuple(t.shape) for key, t in state.items()}
        if here != came:
            odd = sorted(key for key in here.keys() | came.keys()
                         if here.get(key) != came.get(key))[0]
            raise ValueError(f"{folder}: the copy of {where!r} has {odd!r} of shape "
                             f"{came.get(odd, 'nothing')}, here it is {here.get(odd, 'nothing')}")
    return copies


def by_pattern(config, what, where, common):
    """What the config's `what`, a dictionary from patterns, says of a layer; else `common`."""
    return next((value for pattern, value in (config.get(what) or {}).items()
                 if means(pattern, where)), common)


def means(pattern, where):
    """As PEFT has it: a regular expression for the end of a name."""
    try:
        return re.fullmatch(rf"(.*\.)?({pattern})", where) is not None
    except re.error:
        return False
