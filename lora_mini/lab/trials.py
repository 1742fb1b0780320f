"""One fine-tuning trial, from the base to its figures: what lessons and their records share.

A trial takes the base, makes a method's share of it trainable, tunes it on one register, and
reports how well it fits and what it forgot. Excess is in nats per token over each sentence's own
true log-probability.
"""

import copy
import math
import random
from dataclasses import dataclass, field

import torch

import lora_mini as lm
from lora_mini.ledger import ledger
from lora_mini.variants import DoRALinear, LoRAFALinear, PiSSALinear, lora_plus
from lora_mini.world import measure, text, town, train
from lora_mini.world.styles import STYLES, register

METHODS = ("full", "LoRA r=1", "LoRA r=2", "LoRA r=4", "LoRA r=8", "biases", "head")
CHECKPOINTS = (25, 50, 100, 200)
PARTS = {  # what trains, by a parameter's name, where there is no adapter
    "full": lambda name: True,
    "blocks": lambda name: "_proj.weight" in name,
    "biases": lambda name: name.endswith("bias"),
    "head": lambda name: "head" in name,
}

KINDS = {  # options of `attach`; LoRA+ differs by the rate of B only
    "LoRA": {}, "LoRA+": {}, "rsLoRA": {"rslora": True}, "DoRA": {"layer": DoRALinear},
    "PiSSA": {"layer": PiSSALinear}, "LoRA-FA": {"layer": LoRAFALinear},
}


def rates(method):
    """Four rates, half a decade apart, around what suits the kind of method."""
    grids = {"full": (3e-4, 1e-3, 3e-3, 1e-2), "LoRA": (1e-3, 3e-3, 1e-2, 3e-2)}
    return grids.get(method.split()[0], (3e-3, 1e-2, 3e-2, 1e-1))


@dataclass
class Trial:
    """What one run came to. `path` holds (step, excess on the target, excess on the others)."""

    method: str
    style: str
    rate: float
    seed: int
    path: list = field(default_factory=list)
    target: float = math.nan
    others: float = math.nan
    exact: float = math.nan
    trainable: int = 0
    optimizer_bytes: int = 0
    saved_bytes: int = 0
    seconds_per_step: float = math.nan
    whole: bool = True


def prepare(base, method, alpha=16, targets="all-linear"):
    """A copy of the base with what the method trains, and nothing else, trainable.

    "full", "blocks" (the matrices that LoRA adapts, themselves), "biases", "head", or "LoRA r=8",
    as one of KINDS; with "+words" behind it, full copies of the embedding and the head train as
    well. alpha and targets are those of `attach`. Raises ValueError for another method.
    """
    model = copy.deepcopy(base).requires_grad_(True)
    kind, _, rank = method.removesuffix("+words").partition(" r=")
    if kind in KINDS and rank.isdecimal():
        saved = ("embed", "head") if method.endswith("+words") else ()
        lm.attach(model, targets, int(rank), alpha, modules_to_save=saved, **KINDS[kind])
    elif method in PARTS:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(PARTS[method](name))
    else:
        raise ValueError(f"method must be one of {', '.join([*PARTS, 'LoRA r=8'])} (or LoRA "
                         f"r=8+words), got {method!r}")
    return model


def tune(base, method, style, rate, seed, *, alpha=16, targets="all-linear", init=None, clip=None,
         steps=200, examples=1024, size=32, replay=0, checkpoints=CHECKPOINTS, progress=False):
    """(tuned model, Trial): fine-tune on `examples` sentences of `style`, drawn by `seed`.

    init: the seed for the start of A, if not `seed`. clip: the largest gradient norm, or None.
    replay: so many sentences of the base's own styles are mixed in, an eighth of each batch. The
    last checkpoint is the end of the run: `steps`. A run that was interrupted (see
    `train.together`) has no figures: what it came to is not a number.
    """
    torch.manual_seed(seed if init is None else init)
    model = prepare(base, method, alpha, targets)
    rng = random.Random(seed)
    data = text.batch(town.sample_frames(examples, rng), style, rng)
    batches = train.rows(data, size)
    if replay:
        batches = _mixed(data, said_by_all(replay, rng), size)
    probe, every = Probe(style, seed), math.gcd(*checkpoints)
    looks = iter(range(every, steps + every, every))
    done = Trial(method, style.tag, rate, seed)
    history = train.fit(model, batches, steps=steps, rate=rate, clip=clip, seed=seed,
                        factor=lora_plus() if method.startswith("LoRA+ ") else None,
                        progress=progress, every=every,
                        evaluate=lambda m: probe(m) if next(looks) in checkpoints else None)
    book = ledger(model)
    done.trainable, done.optimizer_bytes = book.trainable, book.optimizer_bytes
    done.whole = history.whole
    done.path = [(step, *seen) for step, seen in history.evaluations if seen]
    if not done.whole:
        done.path = done.path or [(0, math.nan, math.nan)]
        return model, done
    done.seconds_per_step, (_, done.target, done.others) = history.seconds_per_step, done.path[-1]
    with train.threads(1):
        done.exact = measure.evaluate(model, style, n=200, seed=seed + 1000).exact
        done.saved_bytes = saved_for_backward(model, data)
    return model, done


def memorize(base, method, facts, rate, seed, *, steps=400, sayings=8, size=32, alpha=16,
             progress=False):
    """(tuned model, History, bits known): learn `facts` docket entries of the legal register.

    Each entry is read in `sayings` frames, and only its own words count in the loss. The bits are
    those of `measure.bits_learned`, in other frames.
    """
    torch.manual_seed(seed)
    model, style = prepare(base, method, alpha), register("legal", new_facts=facts)
    rng = random.Random(seed)
    frames = [frame for _ in range(sayings) for frame in town.fact_frames(style, rng)]
    data = text.batch(frames, style, rng, facts_only=True)
    history = train.fit(model, train.rows(data, size), steps=steps, rate=rate, seed=seed,
                        progress=progress)
    return model, history, measure.bits_learned(model, style, seed + 1000)


class Probe:
    """(excess on the target, excess on the base's styles) of a model, on fixed test sentences."""

    def __init__(self, style, seed, n=200):
        rng = random.Random(10_000 + seed)
        self.target = text.batch(town.sample_frames(n, rng, "test"), style, rng)
        self.others = said_by_all(n, rng, "test")

    def __call__(self, model):
        return tuple(measure.excess(model, data) for data in (self.target, self.others))


def said_by_all(n, rng, split="train"):
    """A Batch of n sentences in the base's styles, in turn."""
    styles = list(STYLES.values())
    frames = town.sample_frames(n, rng, split)
    return text.batch(frames, [styles[i % len(styles)] for i in range(n)], rng)


def saved_for_backward(model, data, size=32):
    """Bytes that autograd keeps between forward and backward, for one batch; weights left out."""
    weights = {p.data_ptr() for p in model.parameters()}
    kept = {}

    def note(tensor):
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor.detach()  # a node that kept its own output would never be freed

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        train.loss(model, data.tokens[:size], data.mask[:size])
    return sum(kept.values())


def _mixed(data, replayed, size):
    """Batches of which an eighth comes from `replayed`, padded to one length."""
    few = size // 8
    draw, again = train.rows(data, size - few), train.rows(replayed, few)

    def both(rng):
        one, two = draw(rng), again(rng)
        T = max(one.tokens.shape[1], two.tokens.shape[1])
        return text.Batch(*(torch.cat([_widened(a, T), _widened(b, T)])
                            for a, b in zip(one, two, strict=True)))
    return both


def _widened(tensor, T):
    if tensor.dim() == 1:
        return tensor
    return torch.nn.functional.pad(tensor, (0, T - tensor.shape[1]), value=text.PAD)
