"""The cost of LoRA on a CPU, beside its peers: python benchmarks/run.py (an hour).

    python benchmarks/run.py                      all parts; writes benchmarks/results.json
    python benchmarks/run.py --only mixed switch  these parts; the others' results stay
    python benchmarks/run.py --quick              tiny sizes, to see that it runs
    python benchmarks/run.py --profile            with each arm's operators, by their share of time
    python benchmarks/run.py --report             docs/benchmark.md and .png anew; measures nothing

Ours, PEFT, loralib, torchtune and a naive layer, those that are installed, in turns; every arm is
first checked to compute what ours does. What is a part, and what its columns mean, stands in
docs/benchmark.md, which a run writes, too, unless --out names another file.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from arms import ARMS, absent
from cutting import svds
from memory import memories
from serving import files, inference, mixed, switching
from subjects import SmolLM2, Town
from training import growth, models_step
from turns import machine

RESULTS = Path(__file__).with_name("results.json")
MANY = (1, 2, 4, 8, 16)


def parts(quick, turns, profile, threads):
    """{name: function that gives its rows of results}."""
    town, real = Town(), SmolLM2(small=quick)
    tokens, many = (2, (1, 4)) if quick else (8, MANY)
    shapes = [(16, 1), (16, tokens)]

    def both(measure, *given):
        for subject in (town, real):
            yield from measure(subject, *given, turns, profile)
    left_out = ("PiSSA", "plain", "compiled", "again")
    remembered = [arm for arm in ARMS if not any(word in arm for word in left_out)]
    if quick:
        remembered = ["full", "ours", "ours, four bits"]
    return {
        "step": lambda: models_step((town, real), turns, profile),
        "growth": lambda: growth(turns, quick),
        "inference": lambda: both(inference, [(1, 1), (16, tokens)]),
        "mixed": lambda: both(mixed, shapes, many),
        "switch": lambda: both(switching, max(many)),
        "files": lambda: both(files),
        "memory": lambda: memories({"SmolLM2": remembered}, quick, threads),
        "svd": lambda: svds((128, 256) if quick else (512, 1024, 2048, 4096), turns),
    }


def measure(options):
    """Write all results, {"machine": ..., "absent": ..., "rows": [...]}, anew after each part."""
    torch.set_num_threads(options.threads)
    every = parts(options.quick, options.turns, options.profile, options.threads)
    chosen = options.only or list(every)
    found = {"rows": []}
    if options.only and options.out.exists():
        found = json.loads(options.out.read_text("utf-8"))
        found["rows"] = [row for row in found["rows"] if row["part"] not in chosen]
    start = time.perf_counter()
    for name in chosen:
        for row in every[name]():
            found["rows"].append(row)
            said = {k: v for k, v in row.items() if k not in ("ms", "operators")}
            print(json.dumps(said), min(row.get("ms", [0])), flush=True)
        print(f"{name}: {time.perf_counter() - start:.0f} s so far", file=sys.stderr)
        found["rows"].sort(key=lambda row: list(every).index(row["part"]))
        lines = ",\n".join("  " + json.dumps(row) for row in found["rows"])
        about = {"machine": machine(options.threads), "quick": options.quick,
                 "turns": options.turns, "beside": options.beside,
                 "absent": found.get("absent", {}) | absent}
        head = json.dumps(about, indent=1)[:-2]
        options.out.write_text(f'{head},\n "rows": [\n{lines}\n ]\n}}\n', "utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    names = list(parts(True, 1, False, 1))
    parser.add_argument("--only", nargs="+", choices=names, help="these parts")
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=0, help="11 without --quick")
    parser.add_argument("--profile", action="store_true", help="operators, too")
    parser.add_argument("--beside", default="", help="what else the machine does, for the page")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.turns = options.turns or (3 if options.quick else 11)
    if options.quick and options.out == RESULTS:
        options.out = RESULTS.with_name("quick.json")
    if not options.report:
        measure(options)
    if options.out == RESULTS:
        import report

        report.write(RESULTS)


if __name__ == "__main__":
    main()
