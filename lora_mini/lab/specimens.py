"""The code of the fourteen specimens, broken and mended: each function differs in one place.

It is code as people write it, in plain PyTorch where the course's own functions would refuse. What
trains gives a Start, what is loaded or merged a Patient. `zoo` has the reports.
"""

import copy
import warnings

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import lora_mini as lm
from lora_mini import audit
from lora_mini.lab.beside import as_peft, config, whole
from lora_mini.lab.patients import RATE, Patient, Start, adam, factors, layers
from lora_mini.lab.ward import ALPHA, RANK
from lora_mini.lora import LoRALinear
from lora_mini.quant import rounded
from lora_mini.targets import place
from lora_mini.world import text

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj")


def checkpointed(ward, mended):
    """Blocks are computed again on the way back; the head trains in full."""
    model = ward.adapted(modules_to_save=["head"])
    for block in model.blocks:
        block.forward = _again(block, block.forward, use_reentrant=not mended)
    return Start(model, adam(model))


def _again(block, forward, **options):
    def recomputed(x, past=None):
        return checkpoint(forward, x, past, **options) if block.training else forward(x, past)
    return recomputed


def foreign_targets(ward, mended):
    """Layers are chosen by the ends of their names; they are another model's."""
    ends = LINEAR if mended else ("query", "key", "value", "o_proj", "c_fc", "c_proj")
    model = ward.fresh().requires_grad_(False)
    torch.manual_seed(ward.seed)
    for name, module in list(model.named_modules()):
        if name.endswith(ends):
            place(model, name, LoRALinear(module, RANK, ALPHA))
    return Start(model, adam(model))


def early_optimizer(ward, mended):
    """The optimizer is built before the adapter is attached."""
    model = ward.fresh()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    torch.manual_seed(ward.seed)
    lm.attach(model, "all-linear", RANK, ALPHA)
    return Start(model, adam(model) if mended else optimizer)


def copied_rate(ward, mended):
    """The learning rate is that of a recipe for tuning a large model in full."""
    model = ward.adapted()
    return Start(model, adam(model, RATE if mended else 2e-5))


class NoRank(LoRALinear):
    """LoRA with the scale alpha, in place of alpha / rank."""

    _scale = property(lambda self: self.alpha)


def undivided(ward, mended):
    """The update is scaled by alpha, and not divided by the rank; the rank is 32."""
    model = ward.adapted(rank=32, layer=LoRALinear if mended else NoRank)
    return Start(model, adam(model, 0.01))


def thawed(ward, mended):
    """All numbers are trainable when training goes on."""
    model = ward.adapted()
    if not mended:
        model.requires_grad_(True)
    return Start(model, adam(model))


def reloaded(ward, patient):
    """Its twin: the base as it was, with the trained factors."""
    patient.twin = ward.adapted()
    patient.twin.load_state_dict(factors(patient.model), strict=False)
    return patient


def no_end(ward, mended):
    """The end of a sentence is left out of the loss, with the padding."""
    model = ward.adapted()

    def counts(tokens, mask):
        return mask if mended else mask * (tokens != text.END)
    return Start(model, adam(model), counts)


def other_names(ward, mended):
    """The names in the file begin with what a wrapper has put before them."""
    saved = {f"base_model.{name}": tensor for name, tensor in ward.saved.items()}
    if mended:
        saved = {name.removeprefix("base_model."): tensor for name, tensor in saved.items()}
    return _loaded(ward, ward.adapted(), saved, config(RANK, ALPHA))


def exported(ward, mended):
    """The file holds the factors and no alpha; whoever loads them takes alpha = rank."""
    model = ward.adapted(alpha=ALPHA if mended else RANK)
    return _loaded(ward, model, ward.saved, config(RANK, ALPHA) if mended else None)


def _loaded(ward, model, saved, beside):
    """The Patient that a model becomes by loading factors; beside: the config beside their file."""
    model.load_state_dict(saved, strict=False)
    return Patient(model, before=ward.before, twin=ward.sound.model, file=as_peft(saved),
                   config=beside)


@torch.no_grad()
def merged_twice(ward, mended):
    """The update is written into W, and the adapter acts on beside it."""
    model = copy.deepcopy(ward.sound.model)
    for _, layer in layers(model):
        layer.base.weight += layer.update()
    if mended:
        lm.detach(model)
    acts = copy.deepcopy(model)  # what an export makes of it
    if not mended:
        lm.merge(acts, keep_base=False)
    return Patient(model, before=ward.before, twin=ward.sound.model, file=whole(acts))


@torch.no_grad()
def sixteen_bits(ward, mended, strength=0.01, dtype=torch.bfloat16):
    """An update of this strength is merged into weights of 16 bits."""
    apart = copy.deepcopy(ward.sound.model)
    lm.set_strength(apart, strength)
    for _, layer in layers(apart):
        layer.base.weight.copy_(layer.base.weight.to(dtype))
    return _merged(apart, lambda W: W if mended else W.to(dtype), ward, None if mended else dtype)


def four_bits(ward, mended, rate=3e-4):
    """An adapter that was trained on weights of four bits is merged, and the sum rounded again."""
    apart = ward.once(f"on four bits, {rate}", lambda: _on_four_bits(ward, rate))
    return _merged(apart, lambda W: W if mended else rounded(W), ward)


def _on_four_bits(ward, rate):
    apart = ward.adapted()
    with torch.no_grad():
        for _, layer in layers(apart):
            layer.base.weight.copy_(rounded(layer.base.weight))
    ward.trained(Start(apart, adam(apart, rate)))
    return apart


@torch.no_grad()
def _merged(apart, kept, ward, dtype=None):
    """The Patient whose adapter is merged for good; kept: from W + s B A to what is kept of it.

    dtype: that of its file, if it is another than the model's.
    """
    model = copy.deepcopy(apart)
    lm.merge(model, keep_base=False)
    for name, _ in layers(apart):
        weight = model.get_submodule(name).weight
        weight.copy_(kept(weight))
    return Patient(model, before=audit.snapshot(apart, ward.batch), twin=apart,
                   file=whole(model, dtype))


def tied(ward, mended):
    """The head's weight is the embedding's, and the head's update is merged into it."""
    apart = copy.deepcopy(ward.once("a tied head", lambda: _with_a_tied_head(ward)))
    if mended:
        apart.head.base.weight = nn.Parameter(apart.head.base.weight.detach().clone(), False)
    model = copy.deepcopy(apart)
    with torch.no_grad():
        for _, layer in layers(model):
            layer.base.weight += layer.update()
    lm.detach(model)
    return Patient(model, before=audit.snapshot(apart, ward.batch), twin=apart, file=whole(model))


def _with_a_tied_head(ward):
    apart = ward.fresh()
    apart.head.weight = apart.embed.weight
    ward.trained(Start(apart, adam(apart, 1e-3)))
    torch.manual_seed(ward.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # here nobody reads that the head is tied
        lm.attach(apart, [*LINEAR, "head"], RANK, ALPHA)
    ward.trained(Start(apart, adam(apart)))
    return apart


class Plain(LoRALinear):
    """LoRA as most write it: a new module, in training mode, whose dropout asks its own mode."""

    def __init__(self, *args):
        super().__init__(*args)
        self.train()

    _apart = LoRALinear._plain


def late_dropout(ward, mended):
    """The base is in eval mode; its adapter, which has dropout, comes after that."""
    model = ward.adapted(layer=Plain, dropout=0.1)
    if mended:
        model.eval()
    return _loaded(ward, model, ward.saved, config(RANK, ALPHA))
