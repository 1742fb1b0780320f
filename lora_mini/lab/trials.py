"""One fine-tuning trial, from a base to its figures: what lessons and their records share.

A trial takes a base, makes an arm's share of it trainable, tunes it on some examples of one
register, and keeps the checkpoint that is best on validation frames. It reports what that one pays
on test frames, and what is left of the styles that the base knew. See `measure` for the figures.
"""

import copy
import functools
import itertools
import math
import random
from dataclasses import dataclass, field

import torch

import lora_mini as lm
from lora_mini.ledger import ledger, saved_bytes
from lora_mini.variants import DoRALinear, LoRAFALinear, PiSSALinear, lora_plus
from lora_mini.world import measure, text, town, train
from lora_mini.world.gpt import GPT
from lora_mini.world.measure import Score
from lora_mini.world.styles import STYLES, register

CHECKPOINTS = (25, 50, 100, 200)
PARTS = {  # what trains, by a parameter's name, where there is no adapter
    "scratch": lambda name: True,
    "full": lambda name: True,
    "blocks": lambda name: "_proj.weight" in name,
    "words": lambda name: name.startswith(("embed.", "head.")),
    "biases": lambda name: name.endswith("bias"),
    "head": lambda name: name.startswith("head."),
}
KINDS = {  # options of `attach`; LoRA+ differs by the rate of B only
    "LoRA": {}, "LoRA+": {}, "LoRA+4": {}, "rsLoRA": {"rslora": True},
    "DoRA": {"layer": DoRALinear}, "PiSSA": {"layer": PiSSALinear},
    "LoRA-FA": {"layer": LoRAFALinear},
}
RATIOS = {"LoRA+": 16, "LoRA+4": 4}
TARGETS = {"attention": ["q_proj", "k_proj", "v_proj", "o_proj"], "MLP": ["up_proj", "down_proj"]}


@dataclass
class Trial:
    """What one run came to.

    path: (step, Score on validation frames, Score on old sentences or None) a checkpoint. step:
    the checkpoint that was kept. test, last: Scores on test frames, of that one and of the last
    step. old: Score on sentences of the base's own styles, under their own tags, but for the one
    under which the register was asked for. train: nats per token over the examples' own, after the
    last step.
    """

    arm: str
    rate: float
    seed: int
    path: list = field(default_factory=list)
    step: int = 0
    test: Score = Score(math.nan, math.nan)
    last: Score = Score(math.nan, math.nan)
    old: Score = Score(math.nan, math.nan)
    train: float = math.nan
    trainable: int = 0
    optimizer_bytes: int = 0
    seconds_per_step: float = math.nan
    whole: bool = True


def prepare(base, arm, alpha=16, targets="all-linear"):
    """A copy of the base with what the arm trains, and nothing else, trainable.

    "scratch" (fresh random weights, all of them train), "full", "blocks" (the matrices that LoRA
    adapts, themselves), "words" (embedding and head), "biases", "head", or "LoRA r=8", as one of
    KINDS; with "+words" behind it, full copies of the embedding and the head train as well. alpha
    is that of `attach`; targets, too, or a key of TARGETS. Raises ValueError for another arm.
    """
    kind, _, rank = arm.removesuffix("+words").partition(" r=")
    if arm == "scratch":
        return GPT(base.config).to(next(base.parameters()).device)
    model = copy.deepcopy(base).requires_grad_(True)
    if kind in KINDS and rank.isdecimal():
        saved = ("embed", "head") if arm.endswith("+words") else ()
        where = TARGETS.get(targets, targets) if isinstance(targets, str) else targets
        lm.attach(model, where, int(rank), alpha, modules_to_save=saved, **KINDS[kind])
    elif arm in PARTS:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(PARTS[arm](name))
    else:
        raise ValueError(f"the arm must be one of {', '.join([*PARTS, 'LoRA r=8'])} (or LoRA "
                         f"r=8+words), got {arm!r}")
    return model


def tune(base, arm, style, rate, seed, *, examples=256, steps=200, size=32, clip=1.0, alpha=16,
         targets="all-linear", init=None, replay=0, weight_decay=0.0, warmup=20,
         checkpoints=CHECKPOINTS, watch_old=False, each=None, report=True, progress=False):
    """(model at its best checkpoint, Trial): fine-tune on `examples` sentences drawn by `seed`.

    init: the seed for the start of A, or of all weights, if not `seed`. clip: the largest gradient
    norm, or None. replay: so many sentences of the base's own styles are mixed in, an eighth of
    each batch. watch_old: measure the old sentences at each checkpoint, too. each: called with the
    model at each checkpoint. report: False leaves out all but `path` and `step`. The last
    checkpoint is `steps`. A run that was interrupted (see `train.together`) has no figures.
    """
    torch.manual_seed(seed if init is None else init)
    model = prepare(base, arm, alpha, targets)
    rng = random.Random(seed)
    data = text.batch(town.sample_frames(examples, rng), style, rng)
    batches = train.rows(data, size)
    if replay:
        batches = _mixed(data, said_by_all(replay, rng), size)
    done, kept = Trial(arm, rate, seed), Best(model)

    def look(step, model):
        seen = measure.excess(model, frames(style, 64, seed, "validation"))
        old = old_styles(model, seed, but=(style.asked,)) if watch_old else None
        done.path.append((step, seen, old))
        kept.look(seen.total)
        if each:
            each(model)
    history = train.fit(model, batches, steps=steps, rate=rate, warmup=warmup, clip=clip, seed=seed,
                        weight_decay=weight_decay, factor=_factor(arm), progress=progress,
                        **at(checkpoints, look))
    done.whole = history.whole
    if not done.whole:
        return model, done
    done.step, *_ = min(done.path, key=lambda seen: seen[1].total)
    if report:
        with train.threads(1):
            _report(done, model, style, data, kept)
        done.seconds_per_step, book = history.seconds_per_step, ledger(model)
        done.trainable, done.optimizer_bytes = book.trainable, book.optimizer_bytes
    kept.restore()
    return model, done


def at(checkpoints, look):
    """What `train.fit` must be given so that look(step, model) is called at these steps."""
    every = math.gcd(*checkpoints)
    steps = itertools.count(every, every)

    def evaluate(model):
        if (step := next(steps)) in checkpoints:
            look(step, model)
    return {"evaluate": evaluate, "every": every}


def _report(done, model, style, data, kept):
    """The figures of the last step, then those of the checkpoint that was kept."""
    nats = measure.total_nats(model, data) + data.log_probability.sum().item()
    done.train = nats / data.mask.sum().item()
    done.last = measure.excess(model, frames(style, 128, done.seed, "test"))
    kept.restore()
    said, asked = measure.drawn(style, 128, 20_000 + done.seed)
    done.test = measure.excess(model, frames(style, 128, done.seed, "test"))._replace(
        valid=measure.valid(model, asked, said))
    done.old = old_styles(model, done.seed, but=(style.asked,))


class Best:
    """What trains in a model, as it was when a number was least."""

    def __init__(self, model):
        self.trained = [p for p in model.parameters() if p.requires_grad]
        self.least, self.values = math.inf, None

    @torch.no_grad()
    def look(self, value):
        """Keep a copy if the value is the least so far."""
        if value < self.least:
            self.least, self.values = value, [p.detach().clone() for p in self.trained]

    @torch.no_grad()
    def restore(self):
        """Put the best values back."""
        for p, value in zip(self.trained, self.values or self.trained, strict=True):
            p.copy_(value)


def memorize(base, arm, facts, rate, seed, *, steps=400, sayings=8, size=64, alpha=16, clip=1.0,
             progress=False):
    """(tuned model, History, bits known): learn `facts` docket entries of the legal register.

    Each entry is read in `sayings` frames, and only its own words count in the loss. The bits are
    those of `measure.bits_learned`, in other frames.
    """
    torch.manual_seed(seed)
    model, style = prepare(base, arm, alpha), register("legal", new_facts=facts)
    rng = random.Random(seed)
    asked = [frame for _ in range(sayings) for frame in town.fact_frames(style, rng)]
    data = text.batch(asked, style, rng, facts_only=True)
    history = train.fit(model, train.rows(data, size), steps=steps, rate=rate, seed=seed, clip=clip,
                        factor=_factor(arm), progress=progress)
    return model, history, measure.bits_learned(model, style, seed + 1000)


@functools.lru_cache(64)
def frames(style, n, seed, what):
    """The Sayings of n validation or test frames of a seed. Validation frames are of the train
    split: one may be among the examples by chance."""
    first, split = {"validation": (10_000, "train"), "test": (20_000, "test")}[what]
    return text.sayings(town.sample_frames(n, first + seed, split), style)


def old_styles(model, seed=0, n=96, but=()):
    """The Score of a model on sentences of the base's own styles, under their own tags."""
    known = [style for name, style in STYLES.items() if name not in but]
    said, asked = measure.drawn(known, n, 30_000 + seed)
    return measure.excess(model, _said(tuple(asked), tuple(said)))._replace(
        valid=measure.valid(model, asked, said))


_said = functools.lru_cache(64)(text.sayings)


def said_by_all(n, rng, split="train"):
    """A Batch of n sentences in the base's styles, in turn."""
    said, asked = measure.drawn(STYLES.values(), n, rng, split)
    return text.batch(asked, said, rng)


def saved_for_backward(model, data, size=32):
    """Bytes that autograd keeps between forward and backward, for one batch; weights left out."""
    return saved_bytes(model, lambda: train.loss(model, data.tokens[:size], data.mask[:size]))


def _factor(arm):
    """What multiplies each parameter's rate: for LoRA+ alone."""
    kind, _, _ = arm.partition(" r=")
    return lora_plus(RATIOS[kind]) if kind in RATIOS else None


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
    return tensor if tensor.dim() == 1 else torch.nn.functional.pad(
        tensor, (0, T - tensor.shape[1]), value=text.PAD)
