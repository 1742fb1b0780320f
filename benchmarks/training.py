"""A training step, beside its peers: the language models, and an MLP of growing size."""

from arms import ARMS, LORA, RANK, adapted, check_alike, stepper
from subjects import MLP
from turns import counts, in_turns, operators

from lora_mini.ledger import saved_bytes

WIDTHS, RANKS, TOKENS = (64, 128, 256, 512, 1024), (1, 2, 8, 32, 128), (32, 128, 512, 2048, 8192)
MIDDLE = {"width": 256, "rank": RANK, "tokens": 1024}  # where the three lines cross


def predicted(tokens, d, rank, kind="lora"):
    """Products of one inner layer's step, ours over full: from the counts in lora_mini/step.py."""
    fold, thin, big = rank * d * d, 2 * tokens * rank * d, tokens * d * d
    updates = {"lora": min(fold, thin) + min(fold, thin / 2),  # on the way there, and back to x
               "dora": 2 * fold, "pissa": 4 * fold}[kind]  # PiSSA's fold has rank 2 r
    return (2 * big + updates + 2 * thin) / (3 * big)  # two thin products each for A and B


def step(part, subject, names, rows, tokens, turns, rank=RANK, profile=False, **about):
    """Rows of results: one for each arm that this machine can make, checked alike, in turns."""
    loss = subject.loss(rows, tokens)
    models = adapted(subject.make, rank, names)
    far = check_alike(models, loss)
    steps = {name: stepper(model, loss) for name, model in models.items()}
    times = in_turns(steps, turns)
    about = {"part": part, "model": subject.name, "rows": rows, "tokens": tokens, "rank": rank,
             "alike": float(f"{far:.1g}"), **about}
    for name, model in models.items():
        # The counts come last: their tensors must not be in the way of a clock.
        yield {**about, "arm": name, "ms": times[name], **counts(steps[name]),
               "kept": saved_bytes(model, lambda m=model: loss(m)),
               **({"operators": operators(steps[name])} if profile else {})}


def models_step(subjects, turns, profile=False):
    """Every arm on the two models; not all on the real one. PiSSA's step is LoRA's with a constant
    taken off."""
    for subject in subjects:
        real = subject.name == "SmolLM2"  # which would take minutes to compile
        names = [n for n in ARMS if not real or "PiSSA" not in n and "compiled" not in n]
        rows, tokens = (4, 16 if subject.small else 128) if real else (32, 0)
        yield from step("step", subject, names, rows, tokens, turns, profile=profile)


def growth(turns, quick=False):
    """An MLP's step as rank, width or tokens grow, the other two held."""
    lines = {"width": WIDTHS, "rank": RANKS, "tokens": TOKENS}
    for axis, values in lines.items():
        for value in values[:2] if quick else values:
            at = MIDDLE | {axis: value}
            if at == MIDDLE and axis != "width" and not quick:
                continue  # measured once, on the line of widths
            yield from step("growth", MLP(at["width"]), ["full", *LORA], 1, at["tokens"], turns,
                            rank=at["rank"], width=at["width"],
                            count=round(predicted(at["tokens"], at["width"], at["rank"]), 4))
