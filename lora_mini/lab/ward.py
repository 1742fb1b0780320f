"""Where patients are made and looked at: one base, one register, one loop, and the probes.

A probe asks a Patient one question and gives one number; none of them knows the cause. The causes
are in `specimens`, the reports and the words in `zoo`.
"""

import copy
import functools
import math
import random
import warnings

import torch
from torch import nn

import lora_mini as lm
from lora_mini import audit
from lora_mini.audit.forward import at_rest
from lora_mini.lab import trials
from lora_mini.lab.patients import Patient, Start, adam, factors, layers
from lora_mini.world import base, measure, text, town, train
from lora_mini.world.styles import register

STEPS, RANK, ALPHA = 100, 8, 16
HARDLY = 0.1  # of what the sound adapter does, or of what the twin does
MUCH = 0.03  # nats a token, of an excess


class Ward:
    """A base and what is trained on it: 256 sentences of the legal register, a hundred steps.

    model: a GPT; by default the base that ships. All runs compute on the CPU, with one thread.
    """

    def __init__(self, model=None, steps=STEPS, seed=40):
        self.base = (base.shipped() if model is None else model).eval()
        self.steps, self.seed, self.legal, self.kept = steps, seed, register("legal"), {}
        data = text.batch(town.sample_frames(256, seed), self.legal, seed)
        self.draw = train.rows(data, 32)
        self.batch = data.tokens[:16, :-1]

    def fresh(self):
        """A copy of the base."""
        return copy.deepcopy(self.base)

    def adapted(self, targets="all-linear", rank=RANK, alpha=ALPHA, **options):
        """A copy of the base with a new adapter, the same each time."""
        model = self.fresh()
        torch.manual_seed(self.seed)
        lm.attach(model, targets, rank, alpha, **options)
        return model

    def step(self, model, optimizer, rng, counts):
        """One step of training on 32 sentences; the loss."""
        tokens, mask, _ = self.draw(rng)
        optimizer.zero_grad()
        loss = train.loss(model, tokens, counts(tokens, mask))
        loss.backward()
        optimizer.step()
        return loss.item()

    def trained(self, start):
        """The Patient that a Start becomes by training."""
        rng, losses = random.Random(self.seed), []
        start.model.train()
        with train.threads(1), torch.enable_grad(), warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            for _ in range(self.steps):
                losses.append(self.step(start.model, start.optimizer, rng, start.counts))
                if train.stopped():
                    break
        words = dict.fromkeys(str(w.message).split(". ")[0] for w in said)
        return Patient(start.model.eval(), losses, start.optimizer, self.before, said=tuple(words),
                       counts=start.counts)

    def unreached(self, start):
        """(names of what should train and gets no gradient from one batch, how many should)."""
        tokens, mask, _ = self.draw(random.Random(self.seed))
        start.model.train()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            train.loss(start.model, tokens, mask).backward()
        should = {n: p for n, p in start.model.named_parameters() if p.requires_grad}
        return [n for n, p in should.items() if p.grad is None], len(should)

    def ends_counted(self, start):
        """(how many ends count in the loss of one batch, how many there are)."""
        tokens, mask, _ = self.draw(random.Random(self.seed))
        ends = tokens == text.END
        return int(start.counts(tokens, mask)[ends].sum()), int(ends.sum())

    def smoked(self, start):
        """The points that fail in an audit's smoke test of a Start."""
        rng = random.Random(self.seed)

        def step(model, optimizer):
            model.train()
            self.step(model, optimizer, rng, start.counts)
        with train.threads(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            points = audit.smoke_test(lambda: (start.model, start.optimizer), step)
        return [point for point in points if not point.ok]

    @functools.cached_property
    def before(self):
        """The Snapshot of the base: what training must be compared with."""
        return audit.snapshot(self.base, self.batch)

    def once(self, name, make):
        """What `make()` gave the first time that it was not stopped; see `train.together`."""
        found = self.kept[name] if name in self.kept else make()
        if not train.stopped():
            self.kept[name] = found
        return found

    @property
    def sound(self):
        """The Patient that lacks nothing: to copy, to save and to merge, not to change."""
        def make():
            model = self.adapted()
            return self.trained(Start(model, adam(model)))
        return self.once("sound", make)

    @property
    def saved(self):
        """What a file would hold of the sound adapter: {name: tensor}."""
        return factors(self.sound.model)

    @functools.cached_property
    def test(self):
        """The Sayings of 48 new frames."""
        return trials.frames(self.legal, 48, self.seed, "test")

    def adapted_share(self, patient):
        """The share of the numbers in the blocks' linear layers whose layer has an adapter."""
        if patient.merged:
            return math.nan
        sizes = {n: m.weight.numel() for n, m in self.base.named_modules()
                 if isinstance(m, nn.Linear) and m is not self.base.head}
        names = {n for n, _ in layers(patient.model)}
        return sum(size for n, size in sizes.items() if n in names) / sum(sizes.values())

    def zero_share(self, patient):
        """The share of the adapted layers whose B is zero."""
        found = [not m.lora_B.any() for _, m in layers(patient.model)]
        return sum(found) / len(found) if found else math.nan

    def scale(self, patient):
        """The largest scale of a layer, over alpha / rank."""
        found = [m.scaling * m.rank / m.alpha for _, m in layers(patient.model)]
        return max(found, default=math.nan)

    def felt(self, patient):
        """How far the logits are from the base's, in shares of how far the sound adapter's are."""
        return self._gap(patient.model, self.base) / self._gap(self.sound.model, self.base)

    def moved(self, patient):
        """How many tensors of the base changed that should not have.

        Of a merged model those of the layers that had an adapter may.
        """
        then, now = patient.before.base, audit.snapshot(patient.model).base
        may = {f"{n}.weight" for n, _ in layers(patient.twin)} if patient.merged else set()
        return sum(then[n] != now.get(n, then[n]) for n in then if n not in may)

    def shaky(self, patient):
        """The largest difference between the logits of one batch, asked twice."""
        return (self.logits(patient.model) - self.logits(patient.model)).abs().max().item()

    def apart(self, patient):
        """How far the logits are from the twin's, in shares of how far the twin's are from those
        with its adapter off; NaN without a twin."""
        if patient.twin is None:
            return math.nan
        with lm.disabled(copy.deepcopy(patient.twin)) as off:
            return self._gap(patient.model, patient.twin) / self._gap(patient.twin, off)

    def excess(self, patient):
        """Nats per token over the sentences' own, on new frames, in eval mode."""
        with train.threads(1), at_rest(patient.model):
            return measure.excess(patient.model, self.test).total

    @torch.no_grad()
    def ends(self, patient):
        """Nats that the end of a sentence costs, on average."""
        tokens, _, _ = self.draw(random.Random(self.seed))
        with at_rest(patient.model):
            each = train.token_losses(patient.model, tokens)
        return each[tokens[:, 1:] == text.END].mean().item()

    def stops(self, patient, n=24):
        """The share of answers that end by themselves."""
        return (self.answers(patient, n) == text.END).any(dim=1).double().mean().item()

    def answers(self, patient, n=1):
        """Greedy answers to n new frames, as rows of tokens."""
        asked = town.sample_frames(n, self.seed, "test")
        rows = torch.tensor([text.encode(town.prompt(frame, self.legal)) for frame in asked])
        with at_rest(patient.model):
            return patient.model.generate(rows, self.base.config.context - rows.shape[1])

    @torch.no_grad()
    def logits(self, model):
        """The logits of the ward's batch, from a model in the mode in which it stands."""
        return model(self.batch).float()

    def _gap(self, one, two):
        return (self.logits(one) - self.logits(two)).norm().item()


PROBES = {  # method of a Ward: (in words, the number is alarming)
    "adapted_share": ("share adapted", lambda x: x < 0.15),
    "zero_share": ("share of B at zero", lambda x: x > 0),
    "scale": ("scale / due", lambda x: abs(x - 1) > 1e-6),
    "moved": ("base moved", lambda x: x > 0),
    "felt": ("felt", lambda x: x < HARDLY),
    "shaky": ("asked twice", lambda x: x > 1e-3),
    "apart": ("from the twin", lambda x: x > HARDLY),
    "stops": ("answers that end", lambda x: x < 0.5),
    "ends": ("nats an end", lambda x: x > 2),
    "excess": ("excess", lambda x: x > MUCH),
}
