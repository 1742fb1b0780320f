"""One loop for all that the course trains, and where it trains.

Nothing here knows a layer: a model is whatever maps tokens (B, T) to logits (B, T, V). Batches go
to the model's own device. Losses are in nats per token. What was learned is in measure.py.
"""

import contextlib
import math
import os
import random
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from tqdm import tqdm

from lora_mini.world import memory, text, town
from lora_mini.world.styles import Style


def device():
    """Where to train: LORA_MINI_DEVICE if it is set, else the first there is of cuda, mps, cpu."""
    if name := os.environ.get("LORA_MINI_DEVICE"):
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def preset():
    """"laptop" or "gpu": LORA_MINI_PRESET if it is set, else "gpu" on cuda.

    On "gpu", `fit` computes in bfloat16 where that is safe (autocast); the weights stay as they
    are, and so does all that is measured. Raises ValueError for another name.
    """
    name = os.environ.get("LORA_MINI_PRESET") or ("gpu" if device().type == "cuda" else "laptop")
    if name not in ("laptop", "gpu"):
        raise ValueError(f"LORA_MINI_PRESET must be laptop or gpu, got {name!r}")
    return name


@contextlib.contextmanager
def threads(count):
    """Inside, PyTorch computes with so many threads: on a busy machine the town's model is many
    times slower with two than with one."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_open = []  # of each `together` that we are in: did all its runs come to their end?


@contextlib.contextmanager
def together():
    """Runs that are judged together: the stop button (Ctrl+C) ends this one and all that follow.

    with train.together() as runs: ... Those that follow come back untrained, so that no later cell
    meets a missing name; and `expect`, `verdict` and `settle`, told `of=runs`, judge nothing. A
    second Ctrl+C is a KeyboardInterrupt.
    """
    def stop(number, frame):
        if not runs.whole:
            raise KeyboardInterrupt
        runs.whole = False

    runs, hears = SimpleNamespace(whole=True), threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, stop) if hears else None  # other threads get no signals
    _open.append(runs)
    try:
        yield runs
    finally:
        _open.pop()
        if hears:
            signal.signal(signal.SIGINT, before or signal.default_int_handler)
        if not runs.whole:
            print("Stopped: nothing of this cell trains on or is judged. To have it, run it again.")


def stopped():
    """Whether a `together` that we are in was stopped."""
    return not all(runs.whole for runs in _open)


@dataclass
class History:
    """What a run of `fit` went through."""

    losses: list = field(default_factory=list)  # one a step
    evaluations: list = field(default_factory=list)  # (steps made, what evaluate returned)
    seconds: float = 0.0  # evaluations left out
    interrupted: bool = False

    @property
    def whole(self):
        """Did it come to its end?"""
        return not self.interrupted

    @property
    def seconds_per_step(self):
        return self.seconds / max(len(self.losses), 1)


def fit(model, batches, *, steps, rate, warmup=20, clip=None, seed=0, weight_decay=0.0,
        factor=None, evaluate=None, every=100, progress=None):
    """Train what is trainable in `model` with AdamW (Loshchilov and Hutter 2019): a History.

    batches: a function from a `random.Random` to one batch, (tokens, mask, ...), as `fresh` and
    `rows` make them. rate and warmup: see `rate_at`. clip: the largest gradient norm, or None.
    seed: for data and dropout. factor: from a parameter's name to what multiplies its rate.
    evaluate: a function of the model, called each `every` steps and after the last. progress: a bar
    for what takes over 2 s; None: in a terminal or notebook, if LORA_MINI_PROGRESS is not 0.

    It computes with one thread (see `threads`). An interruption (Ctrl+C, the stop button) ends the
    run; the History says so. For several runs in one cell see `together`. Raises ValueError or
    TypeError for bad arguments, FloatingPointError for a loss that isn't finite, and MemoryError.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    _check(trained, batches, steps, rate)
    torch.manual_seed(seed)
    rng, history, training = random.Random(seed), History(), model.training
    optimizer = torch.optim.AdamW(
        _groups(trained, factor), weight_decay=weight_decay,
        fused=all(p.device.type in ("cpu", "cuda") for p in trained.values()))  # one call for all
    model.train()
    try:
        with threads(1), memory.advice(model):
            for step in bar(steps, progress):
                if stopped():
                    raise KeyboardInterrupt
                start = time.perf_counter()
                now = rate_at(step, steps, rate, warmup)
                for group in optimizer.param_groups:
                    group["lr"] = now * group["factor"]
                history.losses.append(_step(model, optimizer, batches(rng), clip, step, now))
                history.seconds += time.perf_counter() - start
                if evaluate and ((step + 1) % every == 0 or step + 1 == steps):
                    history.evaluations.append((step + 1, evaluate(model)))
    except KeyboardInterrupt:
        history.interrupted = True
    finally:
        optimizer.zero_grad()
        model.train(training)
    return history


def rate_at(step, steps, rate, warmup):
    """The learning rate of a step, 0 to steps - 1: up in a line for `warmup` steps, to `rate`, then
    down along half a cosine, to a hundredth of it."""
    if step < warmup:
        return rate * (step + 1) / warmup
    done = (step - warmup) / max(steps - 1 - warmup, 1)  # 0 to 1
    return rate * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)


def _check(trained, batches, steps, rate):
    if not trained:
        raise ValueError("the model has no trainable parameter: is all of it frozen?")
    if not callable(batches):
        raise TypeError("batches must be a function of a random.Random, as fresh(...) or rows(...) "
                        f"makes it, got {type(batches).__name__}")
    if steps < 1 or not 0 < rate < math.inf:
        raise ValueError(f"steps must be at least 1 and rate positive, got {steps} and {rate}")


def _groups(trained, factor):
    """The parameters by what multiplies their rate, as AdamW's groups."""
    groups = {}
    for name, parameter in trained.items():
        groups.setdefault(factor(name) if factor else 1.0, []).append(parameter)
    return [{"params": params, "factor": times} for times, params in groups.items()]


def _step(model, optimizer, batch, clip, step, rate):
    optimizer.zero_grad()
    with precision(model):
        value = loss(model, batch[0], batch[1])
    if not math.isfinite(number := value.item()):
        raise FloatingPointError(
            f"the loss is {number} at step {step}, at a rate of {rate:.1e}: start again from a "
            "fresh model, with a lower rate, a longer warmup, or clip=1.0")
    value.backward()
    if clip is not None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return number


def loss(model, tokens, mask):
    """The mean of -log p over the tokens whose mask is 1: tokens (B, T), mask (B, T) -> scalar."""
    each = token_losses(model, tokens)
    counts = mask[:, 1:].to(each.device)
    return (each * counts).sum() / counts.sum()


def token_losses(model, tokens):
    """-log p of every token but the first, given those before it: (B, T) -> (B, T - 1)."""
    tokens = tokens.to(next(model.parameters()).device)
    logits = model(tokens[:, :-1])  # (B, T - 1, V)
    each = F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten(), reduction="none")
    return each.view(len(tokens), -1)


def precision(model):
    """What `fit` computes a loss in: bfloat16 by autocast on "gpu", else as the weights are."""
    if preset() == "laptop":
        return contextlib.nullcontext()
    return torch.autocast(next(model.parameters()).device.type, dtype=torch.bfloat16)


def bar(steps, progress=None):
    """The numbers of the steps, with a bar in notebooks and terminals, or as `progress` says."""
    notebook = "ipykernel" in sys.modules
    usual = os.environ.get("LORA_MINI_PROGRESS") != "0" and (notebook or sys.stderr.isatty())
    return tqdm(range(steps), disable=not (usual if progress is None else progress), delay=2,
                leave=False, unit="step", file=sys.stdout if notebook else sys.stderr)


def fresh(styles, size=32):
    """Batches for `fit`: `size` new train frames each time, each in one of the styles by chance."""
    styles = [styles] if isinstance(styles, Style) else list(styles)

    def draw(rng):
        frames = town.sample_frames(size, rng)
        return text.batch(frames, [rng.choice(styles) for _ in frames], rng)
    return draw


def rows(data, size=32):
    """Batches for `fit`: `size` different rows of one Batch each time, trimmed to their longest.

    Raises ValueError if there are fewer rows.
    """
    if len(data.tokens) < size:
        raise ValueError(f"size must be at most the number of rows, {len(data.tokens)}, got {size}")
    lengths = (data.tokens != text.PAD).sum(dim=1)  # (N,)

    def draw(rng):
        pick = torch.tensor(rng.sample(range(len(lengths)), size))
        T = lengths[pick].max()
        return text.Batch(data.tokens[pick, :T], data.mask[pick, :T], data.log_probability[pick])
    return draw
