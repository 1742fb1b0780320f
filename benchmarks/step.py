"""A training step of LoRA beside its peers: python benchmarks/step.py (about six minutes).

The arms take turns, step by step, in a new order each time, so that a busy machine slows all alike;
medians and quartiles over the turns. "plain" is our layer without its fused path, "naive" forms
W + s B A and lets autograd do the rest, "full" trains the matrices themselves. Times are of this
machine: only their ratios travel. PEFT and loralib join in where they are installed. With
`--family dora` or `--family pissa` the same for these, and our LoRA beside them.
"""

import argparse
import copy
import itertools
import os
import platform
import random
import statistics
import subprocess
import sys
import threading
import time

import torch
import torch.nn.functional as F
from torch import nn

import lora_mini as lm
from lora_mini.lora import LoRALinear
from lora_mini.variants import DoRALinear, PiSSALinear

WIDTHS, RANKS, TOKENS = (64, 128, 256, 512, 1024), (1, 8, 64), (32, 256, 1024, 4096)
LAYERS, ALPHA = 4, 16


class Naive(LoRALinear):
    """W + s B A through autograd, every time."""

    def _apart(self, x):
        return F.linear(x, self.base.weight + self.update(), self.bias)


def plain(kind):
    """The layer as it is taught, whatever would fit the fused path."""
    return type("Plain", (kind,), {"_apart": kind._plain})


def with_peft(**options):
    def attach(model, rank):
        from peft import LoraConfig, get_peft_model

        names = [n for n, m in model.named_modules()
                 if isinstance(m, nn.Linear) and "head" not in n]
        config = LoraConfig(r=rank, lora_alpha=ALPHA, target_modules=names, **options)
        return get_peft_model(model, config)
    return attach


def with_loralib(model, rank):
    import loralib

    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and "head" not in name:
            made = loralib.Linear(module.in_features, module.out_features, r=rank,
                                  lora_alpha=ALPHA, bias=module.bias is not None)
            made.load_state_dict(module.state_dict(), strict=False)
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, made)
    loralib.mark_only_lora_as_trainable(model)
    return model


def with_ours(kind):
    def attach(model, rank):
        names = [n for n, m in model.named_modules()
                 if isinstance(m, nn.Linear) and "head" not in n]
        lm.attach(model, names, rank, ALPHA, layer=kind)
        return model
    return attach


def family(kind, others, **options):
    """{name: what makes a model an arm}: a kind of layer of ours, the same plain, and PEFT's."""
    return {"full": lambda model, rank: model, "ours": with_ours(kind),
            "plain": with_ours(plain(kind)), "PEFT": with_peft(**options), **others}


FAMILIES = {
    "lora": family(LoRALinear, {"naive": with_ours(Naive), "loralib": with_loralib}),
    "dora": family(DoRALinear, {"LoRA": with_ours(LoRALinear)}, use_dora=True),
    "pissa": family(PiSSALinear, {"LoRA": with_ours(LoRALinear)}, init_lora_weights="pissa"),
}


def mlp(width):
    torch.manual_seed(0)
    parts = [part for _ in range(LAYERS) for part in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(*parts[:-1])


def mlp_loss(tokens, width):
    x, y = torch.randn(tokens, width), torch.randn(tokens, width)
    return lambda model: F.mse_loss(model(x), y)


def town():
    """The town's GPT and a batch of 32 sentences."""
    from lora_mini.world import base, text, town, train
    from lora_mini.world.styles import REGISTERS

    rng = random.Random(0)
    data = text.batch(town.sample_frames(32, rng), REGISTERS["medical"], rng)
    return copy.deepcopy(base.shipped()), lambda model: train.loss(model, data.tokens, data.mask)


def stepper(model, loss):
    """A function that makes one step of AdamW (fused) on whatever trains."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)

    def go():
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()
    return go


def arms(make, rank, of):
    """{name: a step} of every arm that this machine can make."""
    found = {}
    for name, change in of.items():
        model, loss = make()
        try:
            found[name] = stepper(change(model.requires_grad_(True), rank), loss)
        except ImportError:
            continue
    return found


def compete(steps, seconds):
    """Milliseconds a step, in turns: {name: (median, lower quartile, upper quartile)}."""
    times, end = {name: [] for name in steps}, time.perf_counter() + seconds
    rng = random.Random(0)
    for turn in itertools.count():
        for name in rng.sample(list(steps), len(steps)):
            start = time.perf_counter()
            steps[name]()
            times[name].append(1000 * (time.perf_counter() - start))
        if turn >= 8 and time.perf_counter() > end:
            break
    found = {}
    for name, all_times in times.items():
        low, middle, high = statistics.quantiles(all_times[2:], n=4)
        found[name] = middle, low, high
    return found


def predicted(tokens, d, rank, kind="lora"):
    """Products of one inner layer's step, ours over full: from the counts in lora_mini/step.py."""
    fold, thin, big = rank * d * d, 2 * tokens * rank * d, tokens * d * d
    updates = {"lora": min(fold, thin) + min(fold, thin / 2),  # on the way there, and back to x
               "dora": 2 * fold, "pissa": 4 * fold}[kind]  # PiSSA's fold has rank 2 r
    return (2 * big + updates + 2 * thin) / (3 * big)  # two thin products each for A and B


def peak(change, width, rank, tokens):
    """Peak resident MiB of ten steps above what stood before, in a process of its own (Linux)."""
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    loss, seen, done = mlp_loss(tokens, width), [], threading.Event()
    go = stepper(change(mlp(width), rank), loss)
    before = resident()

    def watch():
        while not done.wait(0.0005):
            seen.append(resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(10):
        go()
    done.set()
    watcher.join()
    return max(seen) - before


def row(title, steps, seconds, count=None):
    found = compete(steps, seconds)
    base = found["full"][0]
    cells = " ".join(f"{name} {m / base:5.2f} [{a / base:.2f}, {b / base:.2f}]" for name, (m, a, b)
                     in found.items() if name != "full")
    said = "" if count is None else f"  count {count:.2f}"
    if "PEFT" in found:
        said = f"  PEFT/ours {found['PEFT'][0] / found['ours'][0]:.2f}" + said
    print(f"{title:26s} full {base:8.2f} ms  {cells}{said}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=FAMILIES, default="lora")
    parser.add_argument("--seconds", type=float, default=15, help="for each row")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="two rows, to see that it runs")
    parser.add_argument("--peak", nargs=4, help=argparse.SUPPRESS)  # name width rank tokens
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    of = FAMILIES[options.family]
    if options.peak:
        print(peak(of[options.peak[0]], *map(int, options.peak[1:])))
        return
    print(f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}, torch "
          f"{torch.__version__}, {options.threads} thread(s); steps in steps of full fine-tuning, "
          "median [quartiles]; count: products, ours over full")
    rows = [(w, 8, 1024) for w in WIDTHS] + [(256, r, 1024) for r in RANKS if r != 8]
    rows += [(256, 8, t) for t in TOKENS if t != 1024]
    for width, rank, tokens in rows[:1] if options.quick else rows:
        made = arms(lambda w=width, t=tokens: (mlp(w), mlp_loss(t, w)), rank, of)
        row(f"width {width}, r {rank}, tokens {tokens}", made, options.seconds,
            predicted(tokens, width, rank, options.family))
    row("the town's GPT, r 8", arms(town, 8, of), 2 * options.seconds)
    if sys.platform == "linux":
        for name in ("full", "ours") if options.quick else of:
            run = [sys.executable, __file__, "--family", options.family,
                   "--peak", name, "512", "8", "2048"]
            said = subprocess.run(run, capture_output=True, text=True)
            if said.returncode == 0:
                print(f"peak above start, width 512, r 8, 2048 tokens: {name:8s} "
                      f"{float(said.stdout):6.1f} MiB")


if __name__ == "__main__":
    main()
