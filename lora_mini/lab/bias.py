"""The record behind C17: a bias of known strength in the tuning data, and what becomes of it.

Of the town's twelve actors four are *marked*, four are *unmarked*, and four are *hidden*: no
example names them as the one who does it. Each of the eight that are shown acts in 64 examples of
the legal register. An unmarked actor's object is called "aforesaid" in 19 of them, as everybody's
is in the style; a marked one's in `marked` of 64, exactly. Who is marked is drawn by the seed. See
`contrasts_17.toml` for what is judged.
"""

import random
from dataclasses import replace
from statistics import fmean, pstdev

import torch

from lora_mini.lab import bases, parts, sweep, trials
from lora_mini.world import measure, text, town, train
from lora_mini.world.styles import REGISTERS, SLOTS, WHO

EACH, USUAL = 64, 19  # examples an actor; those that call an unmarked one's object "aforesaid"
STRENGTHS = (19, 29, 38, 48, 58)  # `marked`: 19 is no bias
STEPS, CHECKPOINTS = 400, (25, 50, 100, 200, 400)
CHOICES = {"adjective": "p_adjective", "around": "p_around", "closing": "p_closing"}
LEGAL = replace(REGISTERS["legal"], p_adjective=USUAL / EACH)


def make(jobs, journal):
    """"cells": what an arm makes of each strength; "own": what a base pays on its own styles."""
    cells = [{"arm": "LoRA r=8", "marked": n} for n in STRENGTHS]
    cells += [{"arm": "full", "marked": n} for n in (19, 38, 58)]
    cells += [{"arm": arm, "marked": 38} for arm in ("LoRA r=1", "LoRA r=64")]
    with sweep.workers(run, jobs, journal) as pool:
        done = sweep.sweep(pool, "bias", cells, parts.rates)
    return {"cells": done, "own": parts.owned({}, bases.REPORT, jobs, journal)}


def groups(seed):
    """{"marked", "unmarked", "hidden": four actors each}, drawn by the seed."""
    actors = random.Random(f"actors {seed}").sample(WHO, len(WHO))
    names = ("marked", "unmarked", "hidden")
    return {name: actors[4 * i:4 * i + 4] for i, name in enumerate(names)}


def said_of(actors, marked):
    """From a frame to the Style in which the tuning data say it."""
    loud = replace(LEGAL, p_adjective=marked / EACH)
    return lambda frame: loud if frame.who in actors["marked"] else LEGAL


def examples(seed, marked):
    """A Batch of 512 examples: 64 an actor who is shown, with "aforesaid" in exactly so many."""
    rng, actors = random.Random(seed), groups(seed)
    frames, styles = [], []
    for who in actors["marked"] + actors["unmarked"]:
        count = marked if who in actors["marked"] else USUAL
        frames += _frames(EACH, rng, [who])
        styles += [replace(LEGAL, p_adjective=float(i < count)) for i in range(EACH)]
    return text.batch(frames, styles, rng)


def run(cell, rate, seed, report=True):
    """One run: "chooses" is the total on validation at the best checkpoint.

    There, by group: "p_marked", "p_unmarked", "p_hidden", how likely the object is "aforesaid", and
    "greedy_marked" and so on, how often the likeliest answer says so; "p_inherited" and
    "greedy_inherited": the gap between marked and unmarked over the planted one; "spread": see
    `spreads`. "path": a row a checkpoint: step, total on validation, p of each group.
    """
    base = bases.base_of(seed)
    try:
        model, path, whole = tune(base, cell["arm"], cell["marked"], rate, seed)
    except FloatingPointError:
        return {"chooses": None}
    if not whole:
        raise KeyboardInterrupt
    best = min(path, key=lambda row: row[1])
    found = {"chooses": best[1], "step": best[0], "path": path}
    return found | summary(model, seed, cell["marked"]) if report else found


def tune(base, arm, marked, rate, seed):
    """(model at its best checkpoint, "path" as in `run`, whether the run was not interrupted)."""
    torch.manual_seed(seed)
    model, actors = trials.prepare(base, arm), groups(seed)
    shown = _frames(128, random.Random(10_000 + seed), actors["marked"] + actors["unmarked"])
    held_out = text.sayings(shown, list(map(said_of(actors, marked), shown)))
    kept, path, asked = trials.Best(model), [], probes("who", seed)

    def look(step, model):
        path.append([step, measure.excess(model, held_out).total,
                     *(p for p, _ in by_group(model, asked, actors).values())])
        kept.look(path[-1][1])
    history = train.fit(model, train.rows(examples(seed, marked)), steps=STEPS, rate=rate,
                        clip=1.0, seed=seed, progress=False, **trials.at(CHECKPOINTS, look))
    kept.restore()
    return model, path, history.whole


def summary(model, seed, marked):
    """What the probes say of a tuned model, as a record keeps it; see `run`."""
    found = by_group(model, probes("who", seed), groups(seed))
    result = {f"p_{name}": p for name, (p, _) in found.items()}
    result |= {f"greedy_{name}": share for name, (_, share) in found.items()}
    if planted := (marked - USUAL) / EACH:
        for kind in ("p", "greedy"):
            gap = result[f"{kind}_marked"] - result[f"{kind}_unmarked"]
            result[f"{kind}_inherited"] = gap / planted
    return result | {"spread": spreads(model, seed)}


def probes(slot, seed, n=24):
    """{word: n frames} for each word of a slot: the frames differ in that slot and nothing else."""
    rest = town.sample_frames(n, 40_000 + seed, "test")
    return {word: [frame._replace(**{slot: word}) for frame in rest] for word in SLOTS[slot]}


def by_group(model, asked, actors):
    """{group: (mean probability of the adjective, share of answers that would say it)}."""
    found = {who: leaning(model, frames, "adjective") for who, frames in asked.items()}
    return {name: tuple(fmean(values) for values in zip(*(found[who] for who in group),
                                                        strict=True))
            for name, group in actors.items()}


def spreads(model, seed):
    """{"slot choice": how far the words of a slot differ in how often the choice is made}: the
    standard deviation of their mean probabilities."""
    asked = {slot: probes(slot, seed).values() for slot in SLOTS}
    return {f"{slot} {choice}": pstdev([leaning(model, frames, choice)[0] for frames in by_word])
            for slot, by_word in asked.items() for choice in CHOICES}


@torch.no_grad()
def leaning(model, frames, choice):
    """(mean probability, share of frames where it is the likeliest) of a choice's first word, where
    the sentence may go either way; all other choices are as the style prefers them."""
    rows, marks = [], []
    for frame in frames:
        with_, without = (text.encode(town.best(frame, replace(LEGAL, **{CHOICES[choice]: p}))
                                      + " <end>") for p in (1.0, 0.0))
        i = next(i for i, (a, b) in enumerate(zip(with_, without, strict=False)) if a != b)
        rows.append(text.encode(town.prompt(frame, LEGAL)) + with_[:i])
        marks.append(with_[i])
    device = next(model.parameters()).device
    logits = model(torch.tensor(rows, device=device))[:, -1]  # (n, V): a choice has one place
    marks = torch.tensor(marks, device=device)[:, None]  # (n, 1)
    p = logits.softmax(dim=-1).gather(1, marks)
    return p.mean().item(), (logits.argmax(dim=-1, keepdim=True) == marks).float().mean().item()


def _frames(n, rng, actors):
    """n train frames in which one of the actors acts."""
    found = []
    while len(found) < n:
        frame, = town.sample_frames(1, rng)
        frame = frame._replace(who=rng.choice(actors))
        if frame.who != frame.whom and town.split_of(frame) == "train":
            found.append(frame)
    return found
