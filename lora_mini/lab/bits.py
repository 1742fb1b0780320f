"""The record behind notebook 11: bases of few bits, LoRA on them, and where its adapter goes then.

The matrices of a base's blocks are rounded as in `quant`: to four bits (NF4), and to three and two
by the same recipe. The rest stays as it is. "own styles": what rounding took is trained back, on
sentences of the base's own styles. Else the register is learned, and the adapter is used in several
places. See `contrasts_11.toml` for what is judged.
"""

import copy

import torch

import lora_mini as lm
from lora_mini.lab import bases, inside, parts, sweep, trials
from lora_mini.quant import FP4, INT4, NF4, normal_float, rounded
from lora_mini.world import measure, text
from lora_mini.world.styles import STYLES

BITS = (32, 4, 3, 2)
NEW = (0, 12)
OWN, EVERY, STEPS = "own styles", 25, 200
UNTRAINED = "nothing trained"
ROUNDS = (0, 1, 5)  # of `near`
KINDS = {"NF4": NF4, "INT4": INT4, "FP4": FP4}


def in_bits(base, bits):
    """A copy of a GPT whose blocks' matrices are rounded to so many bits; 32 leaves them alone."""
    return copy.deepcopy(base) if bits == 32 else in_levels(base, normal_float(bits))


@torch.no_grad()
def in_levels(base, levels):
    """A copy of a GPT whose blocks' matrices are rounded to these levels."""
    model = copy.deepcopy(base)
    for name, layer in model.named_modules():
        if name.endswith("_proj"):
            layer.weight.copy_(rounded(layer.weight, levels))
    return model


def make(jobs, journal):
    """"cells": what was learned on which bits, and paid where; "own": what a base pays; "kinds":
    what it pays under other levels of four bits, a map."""
    learned = [{"arm": "LoRA r=8", "bits": bits, "new": new, "examples": 256}
               for new in NEW for bits in BITS]
    back = [{"arm": arm, "bits": bits, "task": OWN} for bits in BITS
            for arm in (["LoRA r=8", "words"] + (["LoRA r=64"] if bits < 4 else []))]
    back.append({"arm": "scratch", "bits": 32, "task": OWN})
    with sweep.workers(learn, jobs, journal) as run:
        done = sweep.sweep(run, "registers", learned, parts.rates)
    cells = [placed for cell in done for placed in spread(cell)]
    with sweep.workers(recover, jobs, journal) as run:
        cells += sweep.sweep(run, OWN, back, parts.rates)
    bare = [{"arm": UNTRAINED, "bits": bits, "rounds": rounds, "task": OWN}
            for bits in BITS for rounds in (ROUNDS if bits < 32 else (0,))]
    with sweep.workers(untrained, jobs, journal) as run:
        found = iter(run(UNTRAINED, [(cell["bits"], cell["rounds"], seed) for cell in bare
                                     for seed in bases.REPORT]))
        bare = [cell | sweep.columns([next(found) for _ in bases.REPORT]) for cell in bare]
    with sweep.workers(of_kind, jobs, journal) as run:
        found = iter(run("kinds", [(kind, seed) for kind in KINDS for seed in bases.REPORT]))
        kinds = {kind: sweep.columns([next(found) for _ in bases.REPORT]) for kind in KINDS}
    own = [{key: bare[0][key][i] for key in ("content", "chance", "total", "valid")}
           for i in range(len(bases.REPORT))]
    return {"cells": cells + bare, "kinds": kinds, "own": own}


def spread(cell):
    """One cell for each place in which an adapter was used: "used" and "in_bits" say which."""
    named = {key: cell[key] for key in ("arm", "bits", "new", "examples")}
    first = named | {"used": "there", "in_bits": cell["bits"]} | {
        key: value for key, value in cell.items() if key not in (*named, "elsewhere")}
    rows = [first]
    for key in cell["elsewhere"][0]:
        used, bits = key.split(", ")
        scores = [place[key] for place in cell["elsewhere"]]
        rows.append(named | {"used": used, "in_bits": int(bits), "content": [s[0] for s in scores],
                             "total": [s[1] for s in scores]})
    return rows


def learn(cell, rate, seed, report=True):
    """One run of a register on a base of few bits; "elsewhere": what the adapter pays, [content,
    total], "moved" onto the base in other bits, and "merged" and rounded to bits."""
    before, style = bases.base_of(seed), parts.task(cell)
    try:
        model, done = trials.tune(in_bits(before, cell["bits"]), cell["arm"], style, rate, seed,
                                  report=report)
    except FloatingPointError:
        return {"chooses": None}
    if not done.whole:
        raise KeyboardInterrupt
    found = parts.numbers(done, report)
    return found | ({"elsewhere": elsewhere(before, model, cell["bits"], style, seed)}
                    if report else {})


def elsewhere(before, model, bits, style, seed):
    """{"moved, 4": [content, total], ...}: an adapter from a base in `bits`, used in others."""
    test, found = trials.frames(style, 128, seed, "test"), {}
    for other in BITS:
        if other != bits:
            moved, onto = copy.deepcopy(model), in_bits(before, other)
            with torch.no_grad():
                for name, layer in moved.named_modules():
                    if isinstance(layer, lm.LoRALinear):
                        layer.base.weight.copy_(onto.get_submodule(name).weight)
            found[f"moved, {other}"] = _pays(moved, test)
        if other != 32 and bits in (32, other):
            merged = copy.deepcopy(model)
            lm.merge(merged, keep_base=False)
            found[f"merged, {other}"] = _pays(in_bits(merged, other), test)
    return found


def _pays(model, sayings):
    score = measure.excess(model, sayings)
    return [score.content, score.total]


def recover(cell, rate, seed, report=True):
    """One run that trains a rounded base on new sentences of its own styles."""
    base = in_bits(bases.base_of(seed), cell["bits"])
    torch.manual_seed(seed)  # after the base: to make a model draws numbers
    model = trials.prepare(base, cell["arm"])
    said, asked = measure.drawn(STYLES.values(), 96, 10_000 + seed, "train")
    found = parts.watched(model, STYLES.values(), text.sayings(asked, said), rate, seed, STEPS,
                          EVERY)
    return found | (scored(model, seed) if report and found["chooses"] is not None else {})


def untrained(bits, rounds, seed):
    """A base in so many bits, on its own styles; "off": how far its weights are."""
    before = bases.base_of(seed)
    model = near(before, bits, rounds) if rounds else in_bits(before, bits)
    return scored(model, seed) | {"off": error(before, model)}


@torch.no_grad()
def near(base, bits, rounds, rank=8):
    """A copy of a GPT whose matrices are Q + B A: Q rounded to bits, B A of a rank, by so many
    rounds of LoftQ (Li et al. 2023, algorithm 1): Q from W - B A, then B A from W - Q."""
    model = copy.deepcopy(base)
    for name, layer in model.named_modules():
        if name.endswith("_proj"):
            W, BA = layer.weight.clone(), 0
            for _ in range(rounds):
                Q = rounded(W - BA, normal_float(bits))
                BA = torch.from_numpy(inside.strongest((W - Q).numpy(), rank))
            layer.weight.copy_(Q + BA)
    return model


def of_kind(kind, seed):
    """A base in four bits of a kind, on its own styles; "off": how far its weights are."""
    before = bases.base_of(seed)
    model = in_levels(before, KINDS[kind])
    return scored(model, seed) | {"off": error(before, model)}


def error(before, after):
    """The norm of the difference over the norm, of the blocks' matrices together."""
    old, new = (torch.cat([p.detach().flatten() for name, p in model.named_parameters()
                           if "_proj.weight" in name]) for model in (before, after))
    return ((new - old).norm() / old.norm()).item()


def scored(model, seed):
    """What a model pays on the base's own styles."""
    score = trials.old_styles(model, seed)
    return {"content": score.content, "chance": score.chance, "total": score.total,
            "valid": score.valid}
