"""The arms: one and the same model, adapted by us, PEFT, loralib, torchtune and by hand.

A subject's `make()` gives a model whose linear layers are kept in four bits. Only the arm "four
bits" leaves it so; for all others the same weights are decoded first, so that all arms compute the
same, and `check_alike` can say whether they do. Each arm is a function (model, rank) -> model that
adapts every `nn.Linear` but the head. Its name's second word is the kind of adapter, if not LoRA.
"""

import functools

import torch
import torch.nn.functional as F
from torch import nn

import lora_mini as lm
from lora_mini.lora import LoRALinear
from lora_mini.quant import DecodedLinear
from lora_mini.targets import place
from lora_mini.variants import DoRALinear, PiSSALinear

RANK, ALPHA = 8, 16
absent = {}  # arms that could not be made here, and why


def inner(model):
    """{name: module} of all linear layers but the head."""
    return {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear) and "head" not in n}


def dense(model):
    """The same model, its layers in four bits decoded for good, in place."""
    for name, module in inner(model).items():
        if isinstance(module, DecodedLinear):
            made = nn.Linear(module.in_features, module.out_features, module.bias is not None,
                             device="meta")
            made.weight, made.bias = nn.Parameter(module.dequantize()), module.bias
            place(model, name, made)
    return model


class Naive(LoRALinear):
    """W + s B A through autograd, every time."""

    def _apart(self, x):
        return F.linear(x, self.base.weight + self.update(), self.bias)


def plain(kind):
    """The layer as it is taught, whatever would fit the fused path."""
    return type("Plain", (kind,), {"_apart": kind._plain})


def full(model, rank):
    return model.requires_grad_(True)


def with_ours(kind=LoRALinear):
    def attach(model, rank):
        lm.attach(model, list(inner(model)), rank, ALPHA, layer=kind)
        return model
    return attach


def peft_config(model, rank, **options):
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=ALPHA, target_modules=list(inner(model)), **options)


def with_peft(**options):
    def attach(model, rank):
        from peft import get_peft_model

        return get_peft_model(model, peft_config(model, rank, **options))
    return attach


def with_loralib(model, rank):
    import loralib

    for name, module in inner(model).items():
        made = loralib.Linear(module.in_features, module.out_features, r=rank, lora_alpha=ALPHA,
                              bias=module.bias is not None)
        made.weight, made.bias = module.weight, module.bias
        place(model, name, made)
    loralib.mark_only_lora_as_trainable(model)
    return model


def with_torchtune(model, rank):
    from torchtune.modules.peft import LoRALinear as Theirs

    layers = inner(model)
    model.requires_grad_(False)
    for name, module in layers.items():
        made = Theirs(module.in_features, module.out_features, rank, ALPHA,
                      use_bias=module.bias is not None)
        made.weight = module.weight
        if module.bias is not None:
            made.bias = module.bias
        place(model, name, made)
    return model


@functools.cache
def check_compiler():
    """Raise ImportError where torch.compile can't work: it needs a C++ compiler, and a folder
    without spaces."""
    try:
        torch.compile(torch.sin)(torch.ones(3))
    except Exception as error:
        raise ImportError(f"torch.compile fails here, {type(error).__name__}") from None


def compiled(attach):
    """An arm through torch.compile; the first call takes long."""
    def make(model, rank):
        check_compiler()
        return torch.compile(attach(model, rank), dynamic=False)
    return make


LORA = {"ours": with_ours(), "PEFT": with_peft(), "loralib": with_loralib,
        "torchtune": with_torchtune, "naive": with_ours(Naive)}
ARMS = {
    "full": full, **LORA, "ours, again": with_ours(),  # the control: the same once more
    "full, compiled": compiled(full), "ours, compiled": compiled(with_ours()),
    "ours, plain": with_ours(plain(LoRALinear)), "ours, four bits": with_ours(),
    "ours, DoRA": with_ours(DoRALinear), "PEFT, DoRA": with_peft(use_dora=True),
    "ours, PiSSA": with_ours(PiSSALinear), "PEFT, PiSSA": with_peft(init_lora_weights="pissa"),
}


def family(name):
    """What an arm has to equal: LoRA, DoRA, PiSSA, or nothing."""
    kind = name.partition(", ")[2]
    return None if name.startswith("full") else kind if kind in ("DoRA", "PiSSA") else "LoRA"


def adapted(make, rank, names):
    """{name: model in train mode} of the arms that can be made here; `absent` tells the others."""
    found = {}
    for name in names:
        model = make() if "four" in name else dense(make())
        try:
            found[name] = ARMS[name](model, rank).train()
        except ImportError as error:
            absent[name] = " ".join(str(error).split())
    return found


def fill(trained, seed=1):
    """Draw all matrices anew; what is one row long, DoRA's magnitudes, stays."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in trained:
            if parameter.dim() == 2:
                parameter.normal_(std=0.02, generator=generator)


def check_alike(models, loss, most=1e-3):
    """The largest distance of a family's gradients from its first's, relative, tensor by tensor.

    The factors are drawn anew, alike in all arms. Raises ValueError where it is more than `most`.
    """
    first, worst = {}, 0.0
    for name, model in models.items():
        if not (kind := family(name)):
            continue
        trained = [p for p in model.parameters() if p.requires_grad]
        fill(trained)
        loss(model).backward()
        found, expected = [p.grad for p in trained], first.setdefault(kind, None)
        model.zero_grad()
        if expected is None:
            first[kind] = found
            continue
        far = max(((a - b).norm() / b.norm()).item() for a, b in zip(found, expected, strict=True))
        if not far <= most:
            raise ValueError(f"{name} is another step than {kind} here: a gradient is {far:.1e} of "
                             "its own length away")
        worst = max(worst, far)
    return worst


def stepper(model, loss):
    """A function that makes one step of AdamW (fused) on whatever trains; its `optimizer`."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)

    def go():
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()
    go.optimizer = optimizer
    return go
