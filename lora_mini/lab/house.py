"""The record behind C21: a house style taught to SmolLM2 by training, and asked for by prompts.

The style is that of `voice`. Trained arms read 60 examples twice, each at its best rate: the rates
were tried on 48 of them, and judged by the loss on the other 12. Prompted arms train nothing and
get the rules as a system prompt, with 0, 3 or 8 of the examples behind it; their wording is chosen
as the rates are, by the rules kept on those 12. All answer the 24 other questions. Beside the style
stands what the model knew: nats on a text about another thing, the share of plain questions
answered rightly. See `contrasts_15.toml` for what is judged.
"""

import random
from pydoc_data.topics import topics
from statistics import fmean

import torch

import lora_mini as lm
from lora_mini.lab import smollm, sweep, tutor, voice
from lora_mini.variants import DoRALinear

ARMS = ("LoRA r=8", "DoRA r=8", "full")
PROMPTED = {"base": None, "rules": 0, "rules and 3 examples": 3, "rules and 8 examples": 8}
CHOOSE, REPORT = (1,), (11, 12, 13)  # seeds of A and of the order; the base is one
TAUGHT = 48  # of 60 examples, while a rate or a wording is chosen
STRENGTHS = (0.25, 0.5, 1.5)  # beside 0, the base, and 1, as it was trained
GENERAL = ("comparisons", "import", "objects")  # of what Python ships about itself, English prose
PLAIN = (  # a question, and a word that belongs in its answer
    ("What is the capital of France?", "Paris"), ("What is the capital of Japan?", "Tokyo"),
    ("How many days are in a week?", "seven|7"), ("What color is the sky on a clear day?", "blue"),
    ("What is the opposite of hot?", "cold"), ("How many legs does a spider have?", "eight|8"),
    ("Which planet is known as the Red Planet?", "Mars"), ("What do bees make?", "honey"),
    ("What is frozen water called?", "ice"), ("What is 2 plus 3?", "five|5"),
    ("Who wrote Romeo and Juliet?", "Shakespeare"), ("Which animal says meow?", "cat"),
    ("In which direction does the sun rise?", "east"), ("What gas do plants take in?", "carbon"),
    ("What is the largest ocean on Earth?", "Pacific"),
    ("How many months are in a year?", "twelve|12"))
REPLAYED = (  # asked of the base before; its own answers are mixed in where an arm replays
    "What is the capital of Italy?", "How many hours are in a day?", "What color is grass?",
    "What is the opposite of day?", "How many legs does a dog have?", "What do cows give us?",
    "Which planet is the largest?", "What is 4 plus 4?", "Who painted the Mona Lisa?",
    "Which animal barks?", "What is the largest continent?", "Name a fruit that is yellow.",
    "What do we call a baby cat?", "Why do we sleep?", "What is a library?", "What is rain?")


def make(jobs, journal):
    """"cells": what each arm says; "kept" has a number a question, the mean over seeds."""
    with sweep.workers(run, jobs, journal) as pool:
        cells = sweep.sweep(pool, "house", [{"arm": arm} for arm in ARMS], rates,
                            choose=CHOOSE, report=REPORT)
        lora, _, full = (cell["best"] for cell in cells)
        more = [{"arm": "LoRA r=8, replay", "best": lora},  # and at one rate more, for both
                {"arm": "LoRA r=8, gentler", "best": sweep.GRID[sweep.GRID.index(lora) - 1]},
                {"arm": "full, hotter", "best": sweep.GRID[sweep.GRID.index(full) + 1]}]
        asked = prompts(pool)
        told = iter(pool("the rest", [
            *(({"arm": cell["arm"]}, cell["best"], seed) for cell in more for seed in REPORT),
            *(({"arm": "LoRA r=8", "strengths": True}, lora, seed) for seed in REPORT),
            *((cell, 0.0, seed) for cell in asked for seed in seeds(cell))]))
        cells += [cell | sweep.columns([next(told) for _ in REPORT]) for cell in more]
        scaled = [next(told) for _ in REPORT]
        cells += [cell | sweep.columns([next(told) for _ in seeds(cell)]) for cell in asked]
    base = next(cell for cell in cells if cell["arm"] == "base")
    strengths = [sorted([_point(base, 0, 0), _point(cells[0], i, 1), *found])
                 for i, found in enumerate(scaled)]
    for cell in cells:
        cell["kept"] = [round(fmean(each), 4) for each in zip(*cell["kept"], strict=True)]
    return {"cells": cells, "strengths": strengths}


def prompts(pool):
    """The cells of the prompted arms, each in the wording that keeps most rules."""
    cells = [{"arm": arm, "wording": w} for arm, count in PROMPTED.items()
             for w in range(1 if count is None else len(voice.ASKED))]
    found = sweep.by_seed(pool, "wordings", [(cell, 0.0) for cell in cells], CHOOSE, False)
    tried = [cell | said for cell, [said] in zip(cells, found, strict=True)]
    best = [min((cell for cell in tried if cell["arm"] == arm), key=lambda cell: cell["chooses"])
            for arm in PROMPTED]
    return [{"arm": cell["arm"], "wording": cell["wording"], "tried":
             [each["chooses"] for each in tried if each["arm"] == cell["arm"]]} for cell in best]


def seeds(cell):
    """Those that a prompted arm reports on: one, where they draw nothing."""
    return REPORT if PROMPTED[cell["arm"]] else REPORT[:1]


def _point(cell, i, strength):
    return [strength, fmean(cell["kept"][i]), cell["general"][i], cell["knows"][i]]


def rates(cell):
    """Where the search for a rate begins."""
    first = 1e-5 if cell["arm"] == "full" else 1e-3
    i = sweep.GRID.index(first)
    return sweep.GRID[i:i + 3]


def run(cell, rate, seed, report=True):
    """One arm: "chooses" is the loss on the last 12 examples, after training on the others, or the
    share of rules that a prompt does not keep there; with `report` all is taught, and `summary`."""
    arm = cell["arm"]
    model, tokenizer = smollm.load()
    if arm in PROMPTED:
        said = asked(cell, seed, report)
        if report:
            return summary(model, tokenizer, *said)
        prompts = [tutor.prompt(tokenizer, question, *said)
                   for question, _ in voice.examples()[TAUGHT:]]
        return {"chooses": 1 - voice.score(tutor.answers(model, tokenizer, prompts))}
    rows = [tutor.encode(tokenizer, *pair) for pair in voice.examples()]
    if arm.endswith("replay"):
        rows += tutor.replayed(model, tokenizer, REPLAYED)
    ready(model, arm, seed)
    taught, kept_back = (rows, []) if report else (rows[:TAUGHT], rows[TAUGHT:])
    try:
        done = tutor.fit(model, taught, rate, seed=seed, progress=False)
    except FloatingPointError:
        return {"chooses": None}
    if not done.whole:
        raise KeyboardInterrupt
    if not report:
        return {"chooses": tutor.held_out(model, kept_back)}
    if cell.get("strengths"):
        return [weaker(model, tokenizer, strength) for strength in STRENGTHS]
    return {"chooses": None, "loss": fmean(done.losses[-5:])} | summary(model, tokenizer)


def ready(model, arm, seed):
    """Make trainable what the arm trains."""
    torch.manual_seed(seed)
    if not arm.startswith("full"):
        kinds = {"layer": DoRALinear} if arm.startswith("DoRA") else {}
        lm.attach(model, "all-linear", rank=8, alpha=16, **kinds)
    return model


def asked(cell, seed, report=True):
    """(system prompt, pairs before the question) of a prompted arm; the seed draws the pairs."""
    if (count := PROMPTED[cell["arm"]]) is None:
        return None, []
    shown = voice.examples() if report else voice.examples()[:TAUGHT]
    return voice.ASKED[cell["wording"]], random.Random(seed).sample(shown, count)


def summary(model, tokenizer, system=None, before=()):
    """"kept": the share of rules that each of the 24 answers keeps; "rules": of each rule; "held":
    nats a token on the course's own answers; "tokens": read for an answer; "ended": the share of
    answers that ended by themselves; "general", "knows"."""
    pairs = voice.examples("test")
    prompts = [tutor.prompt(tokenizer, question, system, before) for question, _ in pairs]
    ended = []
    said = tutor.answers(model, tokenizer, prompts, ended=ended)
    found = [voice.kept(answer) for answer in said]
    rows = [(start + end, [tutor.IGNORED] * len(start) + end) for start, (_, answer) in
            zip(prompts, pairs, strict=True) if (end := tokenizer(
                answer + tokenizer.eos_token, add_special_tokens=False).input_ids)]
    return {"kept": [fmean(keeps.values()) for keeps in found],
            "rules": {rule: fmean(keeps[rule] for keeps in found) for rule in voice.RULES},
            "ended": fmean(ended),
            "held": tutor.held_out(model, rows), "tokens": fmean(map(len, prompts)),
            "general": general(model, tokenizer), "knows": knows(model, tokenizer),
            "said": said[:4]}


def weaker(model, tokenizer, strength):
    """[strength, share of rules kept, nats on the general text, share of plain questions]."""
    lm.set_strength(model, strength)
    prompts = [tutor.prompt(tokenizer, question) for question, _ in voice.examples("test")]
    said = voice.score(tutor.answers(model, tokenizer, prompts))
    return [strength, said, general(model, tokenizer), knows(model, tokenizer)]


def general(model, tokenizer, window=256):
    """Nats a token on text that Python ships about itself, in windows; 12 of them."""
    text = "\n".join(topics[name] for name in GENERAL)
    ids = tokenizer(text, add_special_tokens=False).input_ids[:12 * window]
    rows = [(ids[i:i + window], ids[i:i + window]) for i in range(0, len(ids), window)]
    return tutor.held_out(model, rows, size=4)


def knows(model, tokenizer):
    """The share of plain questions whose answer has the word."""
    prompts = [tutor.prompt(tokenizer, question) for question, _ in PLAIN]
    said = tutor.answers(model, tokenizer, prompts, most=48)
    return fmean(any(word.lower() in answer.lower() for word in words.split("|"))
                 for answer, (_, words) in zip(said, PLAIN, strict=True))
