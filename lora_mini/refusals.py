"""What is refused before a model is touched, and why: ties, hooks, attention's weights, saving."""

import torch
from torch import nn

from lora_mini.step import watched


def refuse_attention(model, targets):
    """Raise ValueError for a layer inside PyTorch's attention, which passes over a dropout."""
    for name in targets:
        if isinstance(model.get_submodule(name.rpartition(".")[0]), nn.MultiheadAttention):
            raise ValueError(f"{name!r} sits in an nn.MultiheadAttention, which reads its weight "
                             "and would pass over the dropout: use dropout=0 or exclude it")


def check_root(model, what):
    """Raise ValueError unless `attach` was given this very module."""
    if "_trainable_before" not in model.__dict__:
        raise ValueError(f"{what} undoes an attach, and attach was not given this module: call it "
                         "on the whole model that was")


def refuse_final(model, layers):
    """Raise ValueError where a merge without a way back would lose or tear something."""
    check_root(model, "a final merge")
    for name, layer in layers.items():
        if not layer.enabled:
            raise ValueError("the adapter is switched off, and a final merge would lose it: merge "
                             "outside `with disabled(model)`")
        if watched(layer.base):
            raise ValueError(f"the base of {name!r} has forward hooks, and a final merge would "
                             "drop them: remove them, or use keep_base=True")
        with torch.no_grad():
            if not torch.isfinite(layer._sum()).all():
                raise ValueError(f"the merged weight of {name!r} would hold NaN or infinite "
                                 "numbers: the adapter is damaged, or the dtype too narrow")
        tied = [n for n, p in model.named_parameters(remove_duplicate=False)
                if p is layer.base.weight and not n.startswith(f"{name}.")]
        if any(model.get_submodule(n.rpartition(".")[0]) is not layer.base for n in tied):
            raise ValueError(f"the weight of {name!r} is tied to {tied[0]!r}, and a final merge "
                             "would tear them apart: use keep_base=True, or untie them first")


def refuse_saving(model):
    """Let `save_pretrained` of a Hugging Face model say what to do while an adapter is attached.

    It would write names such as "q_proj.base.weight", which `from_pretrained` doesn't know: it
    fills those layers at random, and only warns.
    """
    for module in model.modules():
        if callable(getattr(type(module), "save_pretrained", None)):
            module.save_pretrained = _saving_refused


def allow_saving(model):
    """Undo `refuse_saving`."""
    for module in model.modules():
        module.__dict__.pop("save_pretrained", None)


def _saving_refused(*args, **kwargs):
    raise ValueError("the model has an adapter, and save_pretrained would write names that "
                     "from_pretrained fills at random: save the adapter alone with "
                     "lora_mini.adapters.save(model, folder), or call "
                     "merge(model, keep_base=False) or detach(model) first")
