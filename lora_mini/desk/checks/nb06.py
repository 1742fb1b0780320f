"""Checks for notebook 06: Adam's bytes, LoRA's training loop, honest bases, the four words."""

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from lora_mini.desk.checks import answer, close, none_or
from lora_mini.lora import LoRALinear
from lora_mini.world import text, town, train
from lora_mini.world.gpt import GPT, Config
from lora_mini.world.styles import REGISTERS


def check_bytes(number):
    """The bytes of AdamW's memory for 18,432 trained numbers in float32."""
    answer(number, lambda n: n == 18_432 * 2 * 4, [
        (lambda n: n == 18_432 * 4, "AdamW keeps two numbers for each that trains"),
        (lambda n: n == 18_432 * 2, "those are numbers; a float32 number has four bytes"),
        (lambda n: n == 18_432 * 3 * 4, "that counts the trained numbers in, or their gradients"),
        (lambda n: 0 < n - 147_456 < 2_000, "nearly: leave out the step counters, and count bytes"),
        (lambda n: n == 121_856 * 2 * 4, "that would be for all the model; the rest is frozen"),
    ])


def check_train_lora(train_lora):
    """`train_lora(model, draw, rank, alpha, rate, steps)` must train an adapter, and nothing else."""
    def found():
        return none_or([_trained(train_lora, *case) for case in (
            ({"d_model": 16, "layers": 1, "heads": 2}, 2, 4, 6),
            ({"d_model": 24, "layers": 2, "heads": 3}, 3, 12, 9))])

    try:
        problems = found()
    except Exception as error:
        problems = error
    if isinstance(problems, Exception):
        def problems(error=problems):  # answer reports what it raises
            raise error
        words = ""
    else:
        words = next(filter(None, problems or ()), "")
    answer(problems, lambda found: not any(found), [(lambda found: True, words)])


def check_judged(judged):
    """`judged(low, high)` says better, worse, equal or open of a factor's interval, at 1.5."""
    ends = {(1.6, 2.0): "better", (0.4, 0.6): "worse", (0.9, 1.2): "equal", (1.1, 1.4): "equal",
            (0.7, 0.9): "equal", (0.5, 3.0): "open", (1.2, 1.9): "open", (0.5, 0.8): "open"}

    def says(*case, word):
        return lambda found: found[case] == word

    answer(lambda: none_or([judged(*case) for case in ends])
           and {case: judged(*case) for case in ends}, lambda found: found == ends, [
        (says(1.1, 1.4, word="better"), "from 1.1 to 1.4: that is certainly more than 1, and still too little to "
                                        "count"),
        (says(0.7, 0.9, word="worse"), "from 0.7 to 0.9: less than 1, and still too little to count"),
        (says(0.5, 3.0, word="equal"), "from 0.5 to 3 nearly everything is possible. Equal is a finding too: both "
                                       "ends must lie between 1/1.5 and 1.5"),
        (says(1.2, 1.9, word="better"), "from 1.2 to 1.9: the lower end does not reach 1.5"),
        (says(1.2, 1.9, word="equal"), "from 1.2 to 1.9: the upper end lies above 1.5"),
        (says(0.5, 0.8, word="worse"), "from 0.5 to 0.8: the upper end is not below 1/1.5"),
        (says(0.5, 0.8, word="equal"), "from 0.5 to 0.8: the lower end lies below 1/1.5, which is 0.67"),
        (says(0.4, 0.6, word="open"), "from 0.4 to 0.6: all of it lies below 1/1.5"),
        (lambda found: not set(found.values()) <= set(ends.values()),
         "return one of the four words: better, worse, equal, open"),
    ])


def check_report(report):
    """`report(excess)` chooses a rate on bases 1 to 3 and reports its mean on the others."""
    excess = {0.001: {1: 2.0, 2: 2.0, 3: 2.0, 11: 3.0, 12: 3.0},
              0.003: {1: 1.0, 2: 1.0, 3: 1.0, 11: 4.0, 12: 6.0}}
    three = {0.03: {1: 0.6, 2: 0.4, 3: 0.5, 5: 0.8, 6: 0.9, 7: 1.0},
             0.01: {1: 0.7, 2: 0.7, 3: 0.7, 5: 0.2, 6: 0.3, 7: 0.1},
             0.1: {1: 1.0, 2: 1.2, 3: 1.4, 5: 0.7, 6: 0.6, 7: 0.5}}

    def first(value):
        return lambda found: close(found[0], value)

    answer(lambda: none_or([report(dict(excess)), report(dict(three))]),
           lambda found: close(found[0], 5.0) and close(found[1], 0.9), [
        (first(2.4), "it reports 2.4. At the rate that looked best here, two bases that had no part in the "
                     "choice came to 4 and 6"),
        (first(2.6), "2.6 is the mean over all bases; report those that did not choose"),
        (lambda found: close(found[0], 0.003) or close(found[0], 0.001),
         "that is a rate; report the excess that it gets"),
        (first(3.0), "3.0 belongs to the rate 0.001. On bases 1 to 3 the rate 0.003 is the better one"),
        (first(1.0), "that reports the bases on which the rate was chosen"),
        (first(5.0), "right for two rates and five bases, but not for three rates and six: the best rate on "
                     "bases 1 to 3 may be any, and all bases but those report it"),
        (lambda found: True, "return one number, the mean excess at the chosen rate"),
    ])


def _trained(train_lora, sizes, rank, alpha, steps):
    """What is wrong with an adapter that was trained on a small GPT; "" if nothing, None for a stub."""
    torch.manual_seed(0)
    model = GPT(Config(vocabulary=len(text.VOCABULARY), **sizes))
    data = text.batch(town.sample_frames(8, 0), REGISTERS["medical"], 0)
    before = {name: (p, p.detach().clone()) for name, p in model.named_parameters()}
    start, drawn, wrong = train.loss(model, data.tokens, data.mask).item(), [], []

    def draw():
        drawn.append(data)
        return data

    def compare(optimizer, *_):  # the gradients at hand with those of the loss
        factors = [p for n, p in model.named_parameters() if "lora_" in n and p.grad is not None]
        if factors:
            right = torch.autograd.grad(train.loss(model, data.tokens, data.mask), factors)
            wrong.append(not all(torch.allclose(p.grad, g, atol=1e-6)
                                 for p, g in zip(factors, right, strict=True)))

    hook = register_optimizer_step_pre_hook(compare)
    try:
        returned = train_lora(model, draw, rank, alpha, 0.01, steps)
    finally:
        hook.remove()
    layers = {n: m for n, m in model.named_modules() if isinstance(m, LoRALinear)}
    if returned is None and not layers:
        return None
    if not layers:
        return "the model has no adapter: attach one"
    moved = [name for name, (p, old) in before.items() if not torch.equal(p, old)]
    thawed = [name for name, (p, _) in before.items() if p.requires_grad]
    still = [f"{n}.{f}" for n, m in layers.items() for f in ("lora_A", "lora_B")
             if getattr(m, f).grad is None and not getattr(m, f).any()]
    count = 6 * sizes["layers"]
    now = train.loss(model, data.tokens, data.mask).item()
    problems = (
        (moved, f"{moved[:1]} of the base has moved"),
        (thawed, f"{thawed[:1]} of the base is trainable"),
        (len(layers) != count, f"{len(layers)} layers have an adapter, expected all {count} linear ones of the "
                               "blocks"),
        (any((m.rank, m.alpha) != (rank, alpha) for m in layers.values()),
         f"the adapter should have rank {rank} and alpha {alpha}"),
        (not drawn, "no batch was drawn: each step needs one, draw()"),
        (not any(m.lora_B.any() for m in layers.values()),
         f"after {steps} steps every lora_B is still zero. What does the optimizer hold, and when does it step?"),
        (still, f"{still[:1]} has not moved"),
        (len(drawn) != steps, f"expected {steps} batches, one a step, got {len(drawn)}"),
        (wrong[:1] == [True], "at the first step the gradients are not those of train.loss(model, tokens, mask)"),
        (any(wrong), "from the second step on the gradients are not those of the batch at hand"),
        (len(wrong) != steps, f"expected {steps} steps of the optimizer, got {len(wrong)}"),
        (not now < start, f"the loss went from {start:.2f} to {now:.2f}: it should fall"),
        (not hasattr(returned, "__len__") or len(returned) != steps, f"return the losses, one a step: {steps}"),
        (not all(isinstance(x, float) for x in returned or ()), "return the losses as floats: loss.item()"),
    )
    return next((words for bad, words in problems if bad), "")
