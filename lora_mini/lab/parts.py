"""What is recorded, part by part: cells of arms and tasks, each at its own rate, over bases.

A cell's task: `register`, how many words are `new` to the base (or the `order` is), how many
`examples`. Every arm gets the same examples, steps, clipping and validation frames. See `trials`
for the arms, `sweep` for how a rate is chosen, `contrasts.toml` for what is judged.
"""

from lora_mini.lab import bases, sweep, trials
from lora_mini.lab.sweep import GRID
from lora_mini.world import measure, train
from lora_mini.world.styles import ANY, FACT_BITS, register, under

SET = ("scratch", "words", "blocks", "full", "LoRA r=1", "LoRA r=8", "LoRA r=16", "LoRA r=64",
       "LoRA r=8+words")
FEW = ("scratch", "full", "blocks", "LoRA r=1", "LoRA r=8", "LoRA r=64")
TUNED = ("alpha", "targets", "clip", "replay", "weight_decay", "warmup", "init", "steps",
         "checkpoints")  # of `tune`
BAR = 0.010  # nats over the sentences' own: what counts as "fits" when forgetting is compared
STRENGTHS = tuple(round(0.1 * i, 1) for i in range(11))
FACTS = 64
LAWS = {  # alpha for a rank, so that all three scales are 2 at rank 8
    "alpha / r": lambda r: 16,
    "alpha / sqrt(r)": lambda r: 16 * (r / 8)**0.5,
    "constant": lambda r: 2 * r,
}
VARIANTS = ("rsLoRA r=8", "LoRA+ r=8", "LoRA+4 r=8", "PiSSA r=8",
            "LoRA-FA r=16")  # LoRA-FA at rank 16 trains about as many numbers as LoRA at 8


def cells_of(arms, new=0, examples=256, **more):
    """A cell for each arm, under one task."""
    return [{"arm": arm, "new": new, "examples": examples} | more for arm in arms]


def attention(*ranks, where="attention", **task):
    """Cells of LoRA on a block's attention, or on its MLP, alone."""
    return cells_of([f"LoRA r={r}" for r in ranks], **task, targets=where)


def rates(cell):
    """Where the search for a rate begins."""
    kind = cell["arm"].split()[0]
    first = {"LoRA+": 3e-4, "LoRA+4": 1e-3, "scratch": 1e-3, "words": 1e-3, "biases": 1e-2,
             "head": 3e-3}.get(kind, 1e-3 if "LoRA" in kind or "DoRA" in kind else 3e-4)
    i = GRID.index(3e-4 if kind == "PiSSA" else first)
    return GRID[i:i + 4]


def task(cell):
    """The Style that a cell's arm is tuned on."""
    style = register(cell.get("register", "legal"), cell["new"], cell.get("order", False))
    return under(style, cell.get("asked", ANY))


def run(cell, rate, seed, report=True):
    """One run on the base of a seed: what `numbers` says of it."""
    base = bases.base_of(seed, cell.get("width", 64), cell.get("styles", ""),
                         cell.get("device", "cpu"))
    options = {key: cell[key] for key in TUNED if key in cell}
    try:
        _, done = trials.tune(base, cell["arm"], task(cell), rate, seed, report=report,
                              examples=cell["examples"], watch_old=cell.get("watch", False),
                              **options)
    except FloatingPointError:
        return {"chooses": None}
    if not done.whole:
        raise KeyboardInterrupt
    return numbers(done, report)


def numbers(done, report=True):
    """A Trial as a dictionary: "chooses" is the total on validation at the best checkpoint.

    "path": a row a checkpoint: step, content and chance on validation, then, if they were watched,
    nats and share still valid of the old sentences.
    """
    found = {"chooses": min(seen.total for _, seen, _ in done.path), "step": done.step, "path": [
        [step, seen.content, seen.chance, *((old.total, old.valid) if old else ())]
        for step, seen, old in done.path]}
    if report:
        found |= {"content": done.test.content, "chance": done.test.chance,
                  "total": done.test.total, "valid": done.test.valid, "last": done.last.total,
                  "train": done.train, "old": done.old.total, "old_valid": done.old.valid,
                  "ms": 1000 * done.seconds_per_step}
    return found


def watched(model, styles, held_out, rate, seed, steps, every):
    """Train on new sentences of styles; the model is left at its best checkpoint on `held_out`:
    {"chooses": the total there, "step"}; {"chooses": None} if the run blew up."""
    kept, path = trials.Best(model), []

    def look(model):
        path.append(measure.excess(model, held_out).total)
        kept.look(path[-1])
    try:
        history = train.fit(model, train.fresh(styles), steps=steps, rate=rate, clip=1.0, seed=seed,
                            evaluate=look, every=every, progress=False)
    except FloatingPointError:
        return {"chooses": None}
    if not history.whole:
        raise KeyboardInterrupt
    kept.restore()
    return {"chooses": min(path), "step": every * (1 + path.index(min(path)))}


def memorized(cell, rate, seed, report=True):
    """One run on facts: the share of their bits that is missing, those known, the last losses."""
    try:
        _, history, bits = trials.memorize(
            bases.base_of(seed), cell["arm"], cell["facts"], rate, seed, size=cell["size"],
            steps=cell["steps"], clip=cell["clip"])
    except FloatingPointError:
        return {"chooses": None}
    if not history.whole:
        raise KeyboardInterrupt
    missing = 1 - bits / FACT_BITS / cell["facts"]
    return {"chooses": missing, "total": missing, "bits": bits,
            "loss": sum(history.losses[-20:]) / 20}


def own(seed, width=64, styles="", device="cpu"):
    """What a base pays on its own styles, under their own tags: the f of a contrast."""
    score = trials.old_styles(bases.base_of(seed, width, styles, device), seed,
                              but=() if not styles else set(trials.STYLES) - set(styles.split()))
    return {"content": score.content, "chance": score.chance, "total": score.total,
            "valid": score.valid}


def owned(cell, seeds, jobs, journal):
    """What the bases of these seeds, of the cell's kind, pay on their own styles."""
    kind = cell.get("width", 64), cell.get("styles", ""), cell.get("device", "cpu")
    plans = [(seed, *kind) for seed in seeds]
    with sweep.workers(own, jobs, journal) as run:
        return run("own styles", plans)


def arms():
    """The set: who comes how near, and at what price."""
    watched = {"watch": True}
    return [
        *cells_of([*SET, "DoRA r=8", "biases", "head"], **watched), *attention(16, 36),
        *cells_of([*SET, "DoRA r=8"], new=12), *attention(16, 36, new=12),
        *attention(16, 29, where="MLP", new=12), *cells_of(SET, new=24), *attention(16, 36, new=24),
        *cells_of(["LoRA r=16"], new=6), *attention(16, new=6),
        *cells_of(FEW, examples=64), *cells_of(["scratch", "full", "LoRA r=8", "LoRA r=64"], new=12,
                                               examples=64),
        *cells_of(["scratch", "full", "LoRA r=8"], examples=1024),
        *(cell for name in ("medical", "support") for cell in
          cells_of(["scratch", "words", "full", "LoRA r=8"], register=name)),
        *cells_of(["scratch", "full", "LoRA r=1", "LoRA r=8"], order=True),
    ]


def chart():
    """The map over both dials, on one base: no verdict rests on it."""
    return [cell for new in (0, 6, 12, 24) for examples in (64, 256, 1024)
            for cell in cells_of(["scratch", "full", "LoRA r=1", "LoRA r=8"], new, examples)]


def corners():
    """Two corners of the map, over all bases. Added after record "map" was seen, to learn what of
    it is one base's luck: no verdict rests on it."""
    return [cell for examples in (64, 1024)
            for cell in cells_of(["scratch", "full", "LoRA r=1", "LoRA r=8"], 24, examples)]


def longer():
    """Four times the steps in the map's last row: is it the place, or are the steps too few? A map,
    added after looking."""
    return [cell for examples in (256, 1024) for cell in cells_of(
        ["scratch", "words", "LoRA r=8", "LoRA r=64"], 24, examples, steps=800,
        checkpoints=(50, 100, 200, 400, 800))]


def facts():
    """Facts to learn by heart: each comes once a batch."""
    return [{"arm": arm, "facts": FACTS, "size": FACTS, "steps": 400, "clip": 1.0}
            for arm in ("full", "blocks", "LoRA r=1", "LoRA r=8", "LoRA r=16", "LoRA r=64")]


def starved():
    """Facts that come once in four batches: clipped or not, 400 steps or 1,600. A map."""
    return [{"arm": arm, "facts": 128, "size": 32, "steps": steps, "clip": clip}
            for arm, steps in (("full", 400), ("LoRA r=64", 400), ("LoRA r=64", 1600))
            for clip in (None, 1.0)]


def scales():
    """Laws of the scale: which rate suits which rank; at rank 8 they are one. A map, on three
    bases."""
    return [cell | {"law": law} for law, alpha in LAWS.items() for r in (1, 64)
            for cell in cells_of([f"LoRA r={r}"], new=12, alpha=alpha(r))]


def rivals():
    """LoRA and DoRA, clipped and not, on a grid that is finer near the best."""
    return [cell for new in (0, 12) for clip in (1.0, None)
            for cell in cells_of(["LoRA r=8", "DoRA r=8"], new, clip=clip)]


def variants():
    """The other variants, all clipped: a map, on fewer bases."""
    return [cell for new in (0, 12) for cell in cells_of(VARIANTS, new, clip=1.0)]


def narrow():
    """A base that has read a single style."""
    return cells_of(["scratch", "full", "LoRA r=8", "LoRA r=64", "LoRA r=8+words"], styles="plain")


def width(d):
    """The trend over width: LoRA at 8, at an eighth of the width and at all of it."""
    ranks, device = dict.fromkeys((8, d // 8, d)), str(train.device())
    return [cell for new in (0, 12) for cell in cells_of(
        ["scratch", "full", "blocks", *(f"LoRA r={r}" for r in ranks)], new, width=d,
        device=device)]


def settings():
    """What one setting more or less does, each with rates of its own: alpha, decay, warm-up, A."""
    return [cell for more in ({}, {"alpha": 32}, {"weight_decay": 0.1}, {"warmup": 0},
                              {"init": 0}) for cell in cells_of(["LoRA r=8"], new=12, **more)]
