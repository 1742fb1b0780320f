"""Checks for notebook 14: a loader that looks, what the loss counts, an optimizer in time."""

import numpy as np
import torch
from torch import nn

import lora_mini as lm
from lora_mini.desk.checks import answer, none_or
from lora_mini.lora import LoRALinear

PREFIX = "base_model.model."


def check_load(load):
    """`load(model, tensors)` fills every factor, prefix or not, and raises if the names don't fit."""
    def tried(change):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))
        lm.attach(model, ["0", "2"], rank=2, alpha=5)
        here = model.state_dict()
        tensors = {n: torch.randn(t.shape) for n, t in here.items() if "lora_" in n}
        wanted = {n: t.clone() for n, t in tensors.items()}
        base = {n: t.clone() for n, t in here.items() if n not in wanted}
        try:
            returned = load(model, change(tensors))
        except Exception as error:
            return error
        now = model.state_dict()
        if not all(torch.equal(now[n], t) for n, t in base.items()):
            return "base"
        filled = all(torch.equal(now[n], t) for n, t in wanted.items())
        return "filled" if filled else "stub" if returned is ... else "silent"

    def found():
        seen = {
            "plain": tried(lambda t: t),
            "prefix": tried(lambda t: {PREFIX + n: v for n, v in t.items()}),
            "renamed": tried(lambda t: {n.replace("lora_", "lora.down_"): v for n, v in t.items()}),
            "missing": tried(lambda t: dict(list(t.items())[:-1])),
            "more": tried(lambda t: t | {"7.lora_A": torch.zeros(2, 6)}),
        }
        if isinstance(seen["plain"], Exception):
            raise seen["plain"]
        return None if "stub" in seen.values() else seen

    def raised(seen, case):
        return isinstance(seen[case], (ValueError, KeyError, RuntimeError))

    def right(seen):
        return seen["plain"] == seen["prefix"] == "filled" and all(
            raised(seen, case) for case in ("renamed", "missing", "more"))

    answer(found, right, [
        (lambda seen: "base" in seen.values(), "a number of the base was changed: load the factors only"),
        (lambda seen: seen["plain"] != "filled", "with the model's own names the factors don't arrive"),
        (lambda seen: isinstance(seen["prefix"], Exception),
         f"names that begin with {PREFIX!r} should load, and it raised"),
        (lambda seen: seen["prefix"] != "filled",
         f"names that begin with {PREFIX!r}: no error, and no factor has changed"),
        (lambda seen: not raised(seen, "renamed"), "other names in place of lora_A and lora_B: no error (raise a "
                                                   "ValueError)"),
        (lambda seen: not raised(seen, "missing"), "one factor is missing from the tensors: no error"),
        (lambda seen: not raised(seen, "more"), "the tensors hold a factor for a layer that is not there: no error"),
    ])


def check_counts(counts):
    """`counts(tokens, lengths, end)` is 1 on each row's words and its own end, 0 on the padding."""
    end = 1
    tokens = torch.tensor([[5, 7, 9, end, end, end], [4, 4, 8, 6, 3, end], [2, end, end, end, end, end]])
    lengths = torch.tensor([4, 6, 2])
    right = np.array([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0]])

    def like(seen, mask):
        return np.shape(seen) == mask.shape and bool((np.asarray(seen) == mask).all())

    def found():
        seen = counts(tokens.clone(), lengths.clone(), end)
        return seen if seen is None or seen is ... else np.asarray(seen)

    no_end = (tokens != end).int().numpy()
    answer(found, lambda seen: like(seen, right), [
        (lambda seen: np.shape(seen) != right.shape, "the mask has the shape of the tokens, (B, T)"),
        (lambda seen: like(seen, no_end), "a sentence of three words has three tokens that count: who learns to stop?"),
        (lambda seen: like(seen, np.ones_like(right)), "now all padding counts as well"),
        (lambda seen: like(seen, 1 - right), "that is the padding: turn it round"),
        (lambda seen: (np.asarray(seen) * (1 - right)).any(), "some padding counts"),
        (lambda seen: True, "each row counts its first `lengths` tokens, and the last of them is its end"),
    ])


def check_ready(ready):
    """`ready(model, rate)` attaches, and returns AdamW over just what trains then."""
    def found():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))
        optimizer = ready(model, 0.02)
        if optimizer is None or optimizer is ...:
            return optimizer
        held = [id(p) for g in optimizer.param_groups for p in g["params"]]
        trains = [id(p) for p in model.parameters() if p.requires_grad]
        adapted = [m for m in model.modules() if isinstance(m, LoRALinear)]
        return none_or([set(held), set(trains), len(adapted), optimizer.param_groups[0]["lr"],
                        {id(p) for p in model.parameters()}])

    answer(found, lambda s: s[0] == s[1] and s[2] == 2 and s[3] == 0.02, [
        (lambda s: not s[2], "the model has no adapter"),
        (lambda s: s[2] != 2, "both linear layers should be adapted"),
        (lambda s: not s[0] & s[1], "of all that trains the optimizer holds nothing"),
        (lambda s: s[1] - s[0], "some of what trains is not in the optimizer"),
        (lambda s: s[0] - s[1], "the optimizer also holds what is frozen: leave that out"),
        (lambda s: s[3] != 0.02, "the rate is not the one that was asked for"),
    ])
