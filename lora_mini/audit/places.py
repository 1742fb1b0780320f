"""Which layers are adapted, and in which mode they stand."""

from torch import nn

from lora_mini.audit.findings import Finding, listed, share
from lora_mini.audit.layers import INNER, own
from lora_mini.copies import TrainedCopy

FEW = 0.15  # of the linear parameters


def coverage(case):
    """A note if less than 15 % of the linear parameters are adapted; the head doesn't count."""
    sizes = linear_sizes(case.model)
    total = sum(sizes.values())
    held = [layer.base for layer in case.layers]
    held += [m.original for m in case.model.modules() if isinstance(m, TrainedCopy)]
    theirs = [m._modules.get(INNER[1]) for m in case.model.modules()]
    held += [original for original in theirs if original is not None]
    inside = {id(m) for base in held for m in base.modules()}
    some = sum(n for i, n in sizes.items() if i in inside)
    if not case.layers or some >= FEW * total:
        return []
    return [Finding("note: few of the linear layers are adapted",
                    listed(sorted({x.name.rpartition(".")[2] for x in case.layers})),
                    f"{share(some, total)} linear parameters",
                    "target_modules='all-linear' learns more at the same rank")]


def linear_sizes(model):
    """{id of a linear layer of the base: numbers in its W}, without the output head."""
    mine = {id(p) for p in own(model).values()}
    try:
        head = model.get_output_embeddings()
    except (AttributeError, NotImplementedError):
        head = None
    skip = {id(m) for m in head.modules()} if isinstance(head, nn.Module) else set()
    sizes = {}
    for module in model.modules():
        weight = module._parameters.get("weight")
        if id(module) in skip or weight is not None and id(weight) in mine:
            continue
        if isinstance(module, nn.Linear):  # four bits keep W in another shape
            sizes[id(module)] = module.in_features * module.out_features
        elif type(module).__name__ == "Conv1D" and weight is not None:  # GPT-2's
            sizes[id(module)] = weight.numel()
    return sizes


def modes(case):
    """Adapter layers with dropout that train while the model is in eval mode, or the reverse."""
    want = case.model.training
    other = [x.label for x in _dropping(case) if x.dropout.training != want]
    return [Finding("dropout is in another mode than the model", listed(other),
                    f"{share(len(other), len(case.layers))} layers; the model is in "
                    f"{'training' if want else 'eval'} mode",
                    f"call model.{'train' if want else 'eval'}() after attaching")] if other else []


def merged_dropout(case):
    """Layers that are merged in training mode though they have dropout."""
    names = [x.label for x in _dropping(case) if x.merged and x.module.training]
    return [Finding("merged in training mode with dropout", listed(names),
                    f"{share(len(names), len(case.layers))} layers",
                    "unmerge to train, or call model.eval()")] if names else []


def _dropping(case):
    return [x for x in case.acting if getattr(x.dropout, "p", 0)]
