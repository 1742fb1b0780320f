"""One arm's memory, in a process of its own: python benchmarks/memory.py MODEL ARM THREADS.

Prints JSON: megabytes (10^6 bytes) that the process held before the step and at most during it,
looked at each millisecond; the most bytes that tensors hold at once; what the ledger predicts after
one pass forward; of full and ours bytes of the adapted layers' weights, held and in float32.
"""

import json
import sys

import torch
from arms import ARMS, RANK, adapted, inner, stepper
from subjects import SmolLM2, Town
from turns import afresh, most_resident, resident

from lora_mini.lab.peak import peak_bytes
from lora_mini.ledger import step_bytes
from lora_mini.lora import LoRALinear

SUBJECTS = {"SmolLM2": SmolLM2, "town": Town}


def measured(subject, arm, rows, tokens):
    """The figures of one arm, or {} where it can't be made."""
    made = adapted(subject.make, RANK, [arm])
    if not made:
        return {}
    model, loss = made[arm], subject.loss(rows, tokens)
    go = stepper(model, loss)
    go()  # the optimizer's moments are there from now on
    before = resident()
    most = max(most_resident(go) for _ in range(3))
    moments = [t for state in go.optimizer.state.values() for t in state.values()]
    peak = peak_bytes(go, model, *moments)
    return {"resident_before": round(before), "resident_most": round(most), "peak": peak,
            "predicted": step_bytes(model, lambda: loss(model)),
            **(weights(model) if arm.startswith(("full", "ours", "naive")) else {})}


def weights(model):
    """{"held": bytes of the linear layers' own weights, "float32": as many in float32}."""
    bases = [m.base if isinstance(m, LoRALinear) else m for m in inner(model).values()]
    held = sum(t.numel() * t.element_size() for m in bases
               for n, t in (*m.named_parameters(recurse=False), *m.named_buffers(recurse=False))
               if n != "bias" and "lora" not in n)
    return {"held": held, "float32": 4 * sum(m.in_features * m.out_features for m in bases)}


def memories(names, small, threads):
    """Rows of results, each arm in a fresh process."""
    for model, options in names.items():
        for arm in options:
            found = afresh(model, arm, threads, *(["small"] if small else []))
            if found:
                yield {"part": "memory", "model": SUBJECTS[model].name, "arm": arm, "rank": RANK,
                       **found}


def main(model, arm, threads="1", small=""):
    if arm not in ARMS:
        sys.exit(f"expected one of {', '.join(ARMS)}, got {arm}")
    if model == "town":
        subject, rows, tokens = Town(), 32, None
    else:
        subject, rows, tokens = SmolLM2(bool(small)), 4, 16 if small else 128
    torch.set_num_threads(int(threads))
    print(json.dumps(measured(subject, arm, rows, tokens) | {"rows": rows, "tokens": tokens}))


if __name__ == "__main__":
    main(*sys.argv[1:])
