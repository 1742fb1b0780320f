"""The record behind notebook 07: novelty, rank, scale and targets, each cell at its best rate."""

from lora_mini.lab import sweep, trials
from lora_mini.world import base
from lora_mini.world.styles import FACT_BITS, register

NEW = (0, 6, 12, 24)  # notches of the dial: content words that the base never saw
TASKS = {f"{k} new words": register("legal", new_words=k) for k in NEW} | {
    "new order": register("legal", new_order=True)}
RANKS = (1, 2, 4, 8, 16)
FACTS = {"task": "facts", "facts": 64, "size": 64}  # an entry comes once a batch, on average
SMALL = {"task": "facts", "facts": 128, "size": 32}  # once in four batches
BUDGETS = {4: {"attention": 9, "MLP": 7}, 16: {"attention": 36, "MLP": 29}}  # as all-linear's
TARGETS = {"attention": ["q_proj", "k_proj", "v_proj", "o_proj"], "MLP": ["up_proj", "down_proj"]}
LAWS = {  # alpha for a rank, so that all three scales are 4 at rank 4
    "alpha / r": lambda r: 16,
    "alpha / sqrt(r)": lambda r: 8 * r**0.5,
    "constant": lambda r: 4 * r,
}


def cells():
    """{part: its cells}."""
    lora = [f"LoRA r={r}" for r in RANKS]
    dial = [{"method": m, "task": f"{k} new words"} for k in NEW
            for m in ("full", "blocks", *lora, "LoRA r=1+words")]
    dial += [{"method": m, "task": "new order"} for m in ("full", "LoRA r=1", "LoRA r=8")]
    new = {"task": "24 new words"}
    ranks = {r for rank, same in BUDGETS.items() for r in (rank, *same.values())}
    return {
        "dial": dial,
        "facts": [{"method": m} | FACTS for m in ("full", "blocks", *lora)],
        "small batches": [{"method": m} | SMALL for m in ("full", "blocks", "LoRA r=8",
                                                          "LoRA r=64")],
        "scales": [{"method": f"LoRA r={r}", "law": law, "alpha": LAWS[law](r)} | new
                   for law in LAWS for r in (1, 16, 64)],
        "targets": [{"method": f"LoRA r={r}", "targets": where} | new
                    for where in TARGETS for r in sorted(ranks)
                    if r in BUDGETS or r in [same[where] for same in BUDGETS.values()]],
    }


def make(jobs=2, only=None):
    """The whole record, as a dictionary, or only one part of it."""
    with sweep.workers(run, jobs) as runner:
        done = {part: sweep.sweep(runner, part, found, rates) for part, found in cells().items()
                if only in (part, None)}
    return done | {"base": base.describe()["digest"]}


def rates(cell):
    """Where the search for the rate begins."""
    return (3e-3, 1e-2, 3e-2) if "LoRA" in cell["method"] else (1e-3, 3e-3, 1e-2)


def run(cell, rate, seed):
    """One run: excess and exact match; for facts the bits that are missing and those known."""
    method, options = cell["method"], {"alpha": cell.get("alpha", 16)}
    try:
        if cell["task"] == "facts":
            *_, bits = trials.memorize(base.shipped(), method, cell["facts"], rate, seed,
                                       size=cell["size"], **options)
            return {"target": FACT_BITS * cell["facts"] - bits, "bits": bits}
        where = TARGETS.get(cell.get("targets"), "all-linear")
        _, done = trials.tune(base.shipped(), method, TASKS[cell["task"]], rate, seed,
                              targets=where, checkpoints=(200,), **options)
    except FloatingPointError:
        return {"target": None, "bits" if cell["task"] == "facts" else "exact": 0.0}
    return {"target": done.target, "exact": done.exact}
