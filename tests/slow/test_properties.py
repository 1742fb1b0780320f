"""Random lives of an adapter against a dense oracle: attach, train, merge, move, save, take off.

200 lives in CI; `LORA_MINI_LIVES=5000 pytest tests/slow/test_properties.py` tries more. The oracle
knows W as it was before, reads A and B, and adds in float64: it asks no method of the layer.
"""

import copy
import math
import os

import hypothesis.strategies as some
import torch
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from safetensors.torch import load, save
from torch import nn

import lora_mini as lm

LIVES = int(os.environ.get("LORA_MINI_LIVES", 200))
NAMES = ("0", "2")
CLOSE = {torch.float32: 2e-4, torch.float64: 1e-10}
OPTIMISERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.05),
    "momentum": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, 0.01),
    "fused adamw": lambda p: torch.optim.AdamW(p, 0.01, fused=True),
    "foreach adamw": lambda p: torch.optim.AdamW(p, 0.01, foreach=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01),
}
adapted = precondition(lambda self: self.scales)
bare = precondition(lambda self: not self.scales)


class Life(RuleBasedStateMachine):
    @initialize(seed=some.integers(0, 1000), dtype=some.sampled_from(list(CLOSE)))
    def born(self, seed, dtype):
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).to(dtype)
        self.x = torch.randn(5, 6, dtype=torch.float64)
        self.strength, self.scales = 1.0, {}
        self.remember()

    # What must hold

    def remember(self):
        """The bits of W and b that nothing but a final merge may change."""
        self.frozen = {n: p.detach().clone() for n, p in self.originals().items()}

    def originals(self):
        found = {n.replace("base.", ""): p for n, p in self.model.named_parameters()}
        return {n: p for n, p in found.items() if "lora_" not in n}

    def dense(self, strength):
        """W + strength * scale * B A of every layer, in float64."""
        made = dict(self.model.named_parameters())
        weights = {name: self.frozen[f"{name}.weight"].double() for name in NAMES}
        for name, scale in self.scales.items():
            A, B = (made[f"{name}.lora_{which}"].detach().double() for which in "AB")
            weights[name] = weights[name] + strength * scale * (B @ A)
        return weights

    def oracle(self, strength):
        weights = self.dense(strength)
        hidden = self.x @ weights["0"].T + self.frozen["0.bias"].double()
        return torch.tanh(hidden) @ weights["2"].T + self.frozen["2.bias"].double()

    def output(self):
        return self.model(self.x.to(self.frozen["0.weight"].dtype))

    def close(self, found, expected):
        size = CLOSE[self.frozen["0.weight"].dtype] * (1 + expected.abs().max())
        assert (found.detach().double() - expected).abs().max() <= size

    @invariant()
    def the_output_is_the_oracles_recorded_or_not(self):
        expected = self.oracle(self.strength)
        with torch.no_grad():  # first: a recorded forward would drop a stale sum
            self.close(self.output(), expected)
        self.close(self.output(), expected)
        with torch.no_grad():
            self.close(self.output(), expected)
        with torch.inference_mode():
            self.close(self.output(), expected)

    @invariant()
    def what_is_frozen_keeps_its_bits(self):
        now = self.originals()
        assert now.keys() == self.frozen.keys()
        assert all(torch.equal(now[n], p) for n, p in self.frozen.items())

    @invariant()
    def just_the_factors_train(self):
        trains = {n for n, p in self.model.named_parameters() if p.requires_grad}
        factors = {f"{name}.lora_{which}" for name in self.scales for which in "AB"}
        assert trains == (factors or set(self.frozen))

    # What may happen

    @bare
    @rule(names=some.sampled_from([["0"], ["2"], ["0", "2"], "all-linear"]),
          rank=some.integers(1, 4), alpha=some.sampled_from([1, 3, 0.5, 8.0]),
          rslora=some.booleans())
    def attach(self, names, rank, alpha, rslora):
        chosen = lm.attach(self.model, names, rank, alpha, rslora=rslora)
        self.scales = dict.fromkeys(chosen, alpha / (math.sqrt(rank) if rslora else rank))
        self.strength = 1.0

    @adapted
    @rule(name=some.sampled_from(list(OPTIMISERS)), steps=some.integers(1, 3))
    def train(self, name, steps):
        optimiser = OPTIMISERS[name](list(lm.trainable_parameters(self.model)[0].values()))
        for _ in range(steps):
            optimiser.zero_grad()
            (self.output() - 1).square().mean().backward()
            optimiser.step()
            self.the_output_is_the_oracles_recorded_or_not()

    @adapted
    @rule(how=some.sampled_from(["data", "add_", "load", "replace"]), which=some.sampled_from("AB"),
          size=some.sampled_from([-0.3, 0.1, 0.7]))
    def write(self, how, which, size):
        layer = self.model.get_submodule(next(iter(self.scales)))
        factor = getattr(layer, f"lora_{which}")
        if how == "data":
            factor.data.add_(size)
        elif how == "replace":
            setattr(layer, f"lora_{which}", nn.Parameter(factor.detach() + size))
        elif how == "load":
            self.model.load_state_dict({n: p + size if "lora_" in n else p
                                        for n, p in self.model.state_dict().items()})
        else:
            with torch.no_grad():
                factor.add_(size)

    @adapted
    @rule()
    def merge(self):
        lm.merge(self.model)

    @adapted
    @rule()
    def unmerge(self):
        lm.unmerge(self.model)

    @adapted
    @rule(strength=some.sampled_from([0, 0.25, 1, -2.0]))
    def set_strength(self, strength):
        lm.set_strength(self.model, strength)
        self.strength = strength

    @adapted
    @rule(merge=some.sampled_from([None, lm.merge, lm.unmerge]))
    def switch_off(self, merge):
        with lm.disabled(self.model):
            self.close(self.output(), self.oracle(0))
            with lm.disabled(self.model):
                if merge:
                    merge(self.model)
            self.close(self.output(), self.oracle(0))

    @adapted
    @rule()
    def detach(self):
        lm.detach(self.model)
        self.scales = {}

    @adapted
    @rule()
    def merge_for_good(self):
        expected = self.dense(self.strength)
        lm.merge(self.model, keep_base=False)
        assert not any("lora_" in n for n, _ in self.model.named_parameters())
        for name, W in expected.items():
            self.close(self.model.get_submodule(name).weight, W)
        self.scales = {}
        self.remember()

    @rule()
    def deep_copy(self):
        old, self.model = self.model, copy.deepcopy(self.model)
        for parameter in old.parameters():
            parameter.data.zero_()  # nothing may be shared

    @rule()
    def save_and_load(self):
        file, strange = save(self.model.state_dict()), copy.deepcopy(self.model)
        for parameter in strange.parameters():
            parameter.data.add_(1)
        strange.load_state_dict(load(file))
        self.model = strange

    @rule(dtype=some.sampled_from(list(CLOSE)))
    def move(self, dtype):
        self.model.to(dtype)
        self.frozen = {n: p.to(dtype) for n, p in self.frozen.items()}

    @rule(training=some.booleans())
    def switch_mode(self, training):
        self.model.train(training)


Life.TestCase.settings = settings(max_examples=LIVES, stateful_step_count=20, deadline=None,
                                  derandomize=True, database=None)
test_a_life_follows_the_oracle = Life.TestCase
