"""The record behind C18: LoRA on random weights, and LoRA where examples never end.

"random": a model that has read nothing learns the twelve styles in 400 steps, always on new
sentences. What trains is the arm's share; the rest stays as it was drawn. "unlimited": a base
learns the legal register in 500 steps, always on new sentences, so that nothing can be learned by
heart. See `contrasts_13.toml` for what is judged.
"""

import torch

import lora_mini as lm
from lora_mini.lab import bases, parts, sweep, trials
from lora_mini.world import measure, text
from lora_mini.world.gpt import GPT
from lora_mini.world.styles import STYLES

RANDOM, UNLIMITED = "random weights", "unlimited examples"
STEPS = {RANDOM: 400, UNLIMITED: 500}
EVERY = 50  # steps to a look at the validation frames
REST = "embedding, head, norms, biases"  # all but the blocks' matrices
WORDS = "LoRA r=8 and embedding, head"
ARMS = ("full", REST, f"LoRA r=8 and {REST}", "LoRA r=8", "LoRA r=64")


def make(jobs, journal):
    """"cells": what each arm pays; "own": what a base pays on its own styles."""
    cells = [{"task": RANDOM, "arm": arm} for arm in ARMS]
    cells += [{"task": UNLIMITED, "arm": arm, "new": new} for new in (0, 12)
              for arm in ("full", "LoRA r=8")]
    with sweep.workers(run, jobs, journal) as pool:
        done = sweep.sweep(pool, "fresh", cells, rates)
    return {"cells": done, "own": parts.owned({}, bases.REPORT, jobs, journal)}


def make_words(jobs, journal):
    """"cells": LoRA on random weights with embedding and head, and no norms and biases, beside it.

    Added after record "fresh" was seen, to learn what of the rest does it. No verdict rests on it.
    """
    with sweep.workers(run, jobs, journal) as pool:
        return {"cells": sweep.sweep(pool, "words", [{"task": RANDOM, "arm": WORDS}], rates)}


def rates(cell):
    """Where the search for a rate begins."""
    i = sweep.GRID.index(1e-3 if cell["arm"] == "full" else 3e-3)
    return sweep.GRID[i - 1:i + 3]


def ready(arm, base):
    """A model of the base's size with what the arm trains trainable; PyTorch draws its start."""
    if not arm.endswith((REST, WORDS)):
        return trials.prepare(base, arm)
    model = GPT(base.config)
    if arm == REST:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("_proj.weight" not in name)
    else:
        lm.attach(model, "all-linear", 8, 16)
        for name, parameter in model.named_parameters():
            if name.startswith(("embed.", "head.")) if arm == WORDS \
                    else "_proj.base.weight" not in name:
                parameter.requires_grad_(True)
    return model


def run(cell, rate, seed, report=True):
    """One run at its best checkpoint: "total", "content", "chance" on frames of its own."""
    start = bases.base_of(seed)
    torch.manual_seed(seed)  # after the base: to make a model draws numbers
    if cell["task"] == RANDOM:
        model = ready(cell["arm"], GPT(start.config))
        styles, test = list(STYLES.values()), None
        said, asked = measure.drawn(styles, 96, 10_000 + seed, "train")
        held_out = text.sayings(asked, said)
    else:
        style = parts.task({"new": cell["new"]})
        model, styles = trials.prepare(start, cell["arm"]), style
        held_out, test = (trials.frames(style, 128, seed, what) for what in ("validation", "test"))
    found = parts.watched(model, styles, held_out, rate, seed, STEPS[cell["task"]], EVERY)
    if report and found["chooses"] is not None:
        score = trials.old_styles(model, seed) if test is None else measure.excess(model, test)
        found |= {"content": score.content, "chance": score.chance, "total": score.total,
                  "trains": sum(p.numel() for p in model.parameters() if p.requires_grad)}
    return found
