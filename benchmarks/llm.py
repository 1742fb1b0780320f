"""A training step of a real language model, SmolLM2-135M: python benchmarks/llm.py (some minutes).

Ours, PEFT and full fine-tuning take turns, step by step, on 4 x 64 tokens with AdamW; rank 8 on all
210 layers, the base in float32 and, ours, in its own four bits. Medians over the turns, by the
clock and by the processor's time, which a busy machine moves less; only their ratios travel.
`--memory ARM` measures one arm in a process of its own: the most bytes that tensors hold at once,
and the most that the process held (its resident size), after loading and after training.
"""

import argparse
import random
import resource
import statistics
import subprocess
import sys
import time

import torch

import lora_mini as lm
from lora_mini.lab import smollm
from lora_mini.lab.peak import peak_bytes

ROWS, TOKENS, RANK, ALPHA = 4, 64, 8, 16
ARMS = ("full", "PEFT", "ours", "ours, four bits")


def model_of(arm):
    model, tokenizer = smollm.load(bits=4 if "four" in arm else None)
    if arm == "PEFT":
        import peft

        model = peft.get_peft_model(model, peft.LoraConfig(
            r=RANK, lora_alpha=ALPHA, target_modules="all-linear"))
    elif arm != "full":
        lm.attach(model, "all-linear", rank=RANK, alpha=ALPHA)
    return model.train()


def stepper(model):
    """(a function that makes one step on a batch that stays the same, its optimizer)."""
    ids = torch.randint(100, 40_000, (ROWS, TOKENS), generator=torch.Generator().manual_seed(0))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)

    def step():
        optimizer.zero_grad()
        model(ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()
    return step, optimizer


def turns(threads, count):
    """{arm: list of (seconds by the clock, seconds of the processor) of a step}."""
    torch.set_num_threads(threads)
    steps = {arm: stepper(model_of(arm))[0] for arm in ARMS}
    for step in steps.values():
        step()
    times = {arm: [] for arm in ARMS}
    for turn in range(count):
        order = list(ARMS)
        random.Random(turn).shuffle(order)
        for arm in order:
            start = time.perf_counter(), time.process_time()
            steps[arm]()
            times[arm].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return times


def memory(arm):
    """(tensors' peak of a step, the process's peak before training, and after), in MB."""
    model = model_of(arm)
    (step, optimizer), before = stepper(model), resident()
    step(), step()  # the optimizer's moments are there from now on
    most = resident()
    moments = [t for state in optimizer.state.values() for t in state.values()]
    return peak_bytes(step, model, *moments) / 1e6, before, most


def resident():
    """The most megabytes that the process has held so far."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1e6 if sys.platform == "darwin" else 1e3)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--memory", choices=ARMS)
    options = parser.parse_args()
    if options.memory:
        tensors, before, most = memory(options.memory)
        print(f"{options.memory:16s} {tensors:12.0f} {before:12.0f} {most:12.0f}")
        return
    print(f"{'MB':16s} {'tensors':>12s} {'loaded':>12s} {'peak':>12s}", flush=True)
    for arm in ARMS:  # first: a child's resident size begins with its parent's
        subprocess.run([sys.executable, __file__, "--memory", arm], check=True)
    for threads in options.threads:
        print(f"{threads} threads, {ROWS} x {TOKENS} tokens: seconds a step, median (quartiles); "
              "of the processor")
        times = turns(threads, options.turns)
        for arm, seconds in times.items():
            (low, middle, high), (a, b, c) = (statistics.quantiles(part, n=4)
                                              for part in zip(*seconds, strict=True))
            print(f"  {arm:16s} {middle:6.2f} ({low:.2f} to {high:.2f})   "
                  f"{b:6.2f} ({a:.2f} to {c:.2f})", flush=True)


if __name__ == "__main__":
    main()
