"""docs/benchmark.md and its picture, from a run's results: nothing is measured, nothing typed."""

import json
from pathlib import Path

from goals import chosen, goals, one, over, words
from turns import quartiles

DOCS = Path(__file__).resolve().parents[1] / "docs"
HEAD = """# What LoRA costs on a CPU, beside its peers

Made by `python benchmarks/run.py --report` from `benchmarks/results.json`; without `--report`
it measures anew, on your machine. Arms that compute the same take turns, in a new
order each turn, after they have been checked to give the same gradients or outputs. A figure is
the median over the turns, in brackets the quartiles; a ratio is formed turn by turn. Times are of
this machine: only ratios travel, and not always far. FLOP and bytes are not measured: they are
counted, from the operations that PyTorch executes. *FLOP* are those of matrix products; *moved*
is what each operation reads and writes, as if no cache kept anything; *kept* is what autograd
holds for the way back.
"""
PARTS = {
    "step": ("A training step", """
Rank 8 on all linear layers but the head, AdamW (fused), the base in float32 or, where said, in
four bits; over full fine-tuning's time. `naive` forms W + s B A by autograd, `ours, plain` is our
layer without its fused path. `compiled` goes through torch.compile, which takes up to a minute
before the first step; its counts are those of the model as it is."""),
    "inference": ("A pass forward", """
Over the base's time, without gradients. An adapter beside the base costs; merged, PEFT's and
loralib's stand in W itself, ours beside W, or `for good`, as plain layers."""),
    "mixed": ("Several adapters in one batch", """
Over the time that the same batch takes with one adapter. `mixed` enters `adapters.rows` for each
pass, `PEFT` is its `adapter_names`, `loop` switches and calls the model once for each adapter.
`entering alone` is what entering and leaving costs with no pass between."""),
    "switch": ("Another adapter becomes the active one", """
In milliseconds. loralib knows one adapter: the factors of another are copied over it."""),
    "files": ("Saved and loaded", """
In milliseconds, as safetensors. `ours` also reads the whole base for its fingerprint, by which a
wrong base is refused later; loading takes the adapter off again. `naive` writes and copies the
factors, and checks nothing."""),
    "memory": ("Memory of a step", """
In megabytes (10^6 bytes), each arm in a process of its own: resident before the step and at most
during it, looked at each millisecond; the most that tensors hold at once; what
`ledger.step_bytes` predicts of that, after one pass forward. It can't foresee what an operation
needs inside itself, the allocator's reserve, nor Python and its libraries: so tensors, not the
process."""),
    "svd": ("The randomised SVD", """
Rank 16, float32. Error: in the Frobenius norm, over the least that this rank can have, which is
known as the singular values are; of large matrices the full one was only timed."""),
}


def table(head, body):
    lines = [" | ".join(map(str, head)), " | ".join(["---"] + ["---:"] * (len(head) - 1)),
             *(" | ".join(map(str, row)) for row in body)]
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def page(found):
    """The page, as Markdown, of what a run has found."""
    rows = found["rows"]
    parts = [HEAD, where(found), "## Goals\n\n" + table(
        ("goal", "found", "holds"),
        [(goal, figure, "yes" if holds else "**no**") for goal, figure, holds, _ in goals(rows)])]
    if missed := [(goal, pair) for goal, _, holds, pair in goals(rows) if pair and not holds]:
        parts.append(behind(missed))
    if chosen(rows, part="growth"):
        parts.append("## How cost grows\n\n![" + alt(rows) + "](benchmark.png)\n")
    for part, (title, about) in PARTS.items():
        if mine := chosen(rows, part=part):
            parts.append(f"## {title}\n{about}\n\n" + "\n".join(TABLES[part](mine)))
    if profiled := [row for row in rows if row.get("operators")]:
        parts.append(profiles(profiled))
    return "\n".join(parts)


def behind(missed):
    """What the arms of missed goals do beyond what they are held against."""
    body = []
    for goal, (mine, other) in missed:
        usual = other.get("operators", {})
        more = [f"{name} {share:.0%}" + (f" ({usual[name]:.0%})" if name in usual else "")
                for name, share in mine.get("operators", {}).items()
                if share - usual.get(name, 0) >= 0.01]
        body.append((goal.split(":")[0], f"{mine['moved'] / other['moved']:.2f}",
                     f"{mine['flop'] / other['flop']:.2f}", ", ".join(more) or "none"))
    return ("Behind those that do not hold: counts over those of what the arm is held against, and "
            "operators,\nof the arm's eight dearest, whose share of the time is larger than there "
            "(that share in brackets, where\nit is among the eight). Python's own time between "
            "operators is in no profile.\n\n"
            + table(("goal", "bytes moved", "flop", "operators"), body))


def where(found):
    about = found["machine"]
    versions = ", ".join(f"{name} {v}" for name, v in about["versions"].items())
    memory = f", {about['memory_gb']} GB" if about["memory_gb"] else ""
    said = (f"{about['processor']}, {about['cores']} cores, {about['architecture']}{memory}, "
            f"{about['system']}; Python {about['python']}, {versions}; {about['threads']} "
            f"thread(s), {found['turns']} turns, {about['date']}.")
    if found.get("beside"):
        said += f" Beside it ran: {found['beside']}."
    if found["quick"]:
        said = "**A trial run on tiny sizes: nothing follows from it.** " + said
    absent = "".join(f"\n- not in this run: {arm} ({' '.join(why.split())[:160]})"
                     for arm, why in found["absent"].items())
    return said + "\n" + absent + ("\n" if absent else "")


def ms(row):
    low, middle, high = quartiles(row["ms"])
    return f"{middle:.4g} [{low:.4g}, {high:.4g}]"


def counted(row, base, keys):
    """Counts over the base's; of no base, in millions."""
    return [f"{row[key] / base[key]:.2f}" if base and base.get(key) else f"{row[key] / 1e6:.3g} M"
            for key in keys]


def shape(row):
    tokens = f"{row['rows']} x {row['tokens']} tokens" if row["tokens"] else \
        f"{row['rows']} sentences"
    return f"**{row['model']}, {tokens}**"


def groups(rows, *keys):
    """Rows that agree in these keys, together, in the order in which they come."""
    found = {}
    for row in rows:
        found.setdefault(tuple(row.get(key) for key in keys), []).append(row)
    return found.values()


def beside(base, keys):
    def tables(rows):
        for mine in groups(rows, "model", "rows", "tokens"):
            first = one(mine, arm=base)
            body = [(row["arm"], ms(row), words(over(mine, row["arm"], base)),
                     *counted(row, first, keys)) for row in mine]
            far = f"gradients or outputs differ by at most {mine[0]['alike']:.0e}"
            yield (f"{shape(mine[0])}; {far}\n\n"
                   + table(("arm", "ms", f"over {base}", *keys), body))
    return tables


def mixtures(rows):
    for mine in groups(rows, "model", "rows", "tokens"):
        first = one(mine, arm="one")
        numbers = sorted({row["adapters"] for row in mine})
        body = []
        for arm in dict.fromkeys(row["arm"] for row in mine if row["arm"] != "one"):
            several = [one(mine, arm=arm, adapters=n) for n in numbers]
            body.append((arm, *(words(over([row, first], arm, "one")) for row in several),
                         *counted(several[-1], first, ("flop", "moved"))))
        yield f"{shape(mine[0])}; one adapter: {ms(first)} ms\n\n" + table(
            ("adapters", *numbers, f"flop at {numbers[-1]}", "moved"), body)


def plain(*keys):
    def tables(rows):
        for mine in groups(rows, "model", "what"):
            title = ", ".join(filter(None, (mine[0]["model"], mine[0].get("what"))))
            yield f"**{title}**\n\n" + table(
                ("arm", "ms", *keys), [(row["arm"], ms(row), *(f"{row[k]:,}" for k in keys))
                                       for row in mine])
    return tables


def memory(rows):
    body = [(row["arm"], row["resident_before"], row["resident_most"], f"{row['peak'] / 1e6:.0f}",
             f"{row['predicted'] / 1e6:.0f}", f"{row['predicted'] / row['peak']:.3f}",
             f"{row['held'] / 1e6:.0f}" if "held" in row else "") for row in rows]
    yield f"{shape(rows[0])}\n\n" + table(
        ("arm", "resident before", "at most", "tensors", "predicted", "ratio", "layers' weights"),
        body)


def svds(rows):
    for mine in groups(rows, "size"):
        yield f"**{mine[0]['size']} x {mine[0]['size']}**\n\n" + table(
            ("spectrum", "arm", "ms", "error"),
            [(row["model"] if row["arm"] != "full" else "any", row["arm"], ms(row),
              "" if row["error"] is None else f"{row['error']:.3f}") for row in mine])


TABLES = {"step": beside("full", ("flop", "moved", "kept")),
          "inference": beside("base", ("flop", "moved")), "mixed": mixtures, "switch": plain(),
          "files": plain("bytes"), "memory": memory, "svd": svds}


def profiles(rows):
    """Where the time goes, for the arms that goals are about."""
    body, most = [], max(row.get("adapters", 1) for row in rows)
    for row in rows:
        if row["model"] == "SmolLM2" and row.get("adapters", most) in (1, most):
            at = f"{row['rows']} x {row['tokens']}" if "rows" in row else ""
            top = list(row["operators"].items())[:5]
            number = f", {row['adapters']}" if "adapters" in row else ""
            body.append((f"{row['part']}: {row['arm']}{number}", at,
                         ", ".join(f"{name} {share:.0%}" for name, share in top)))
    return ("## Where the time goes\n\nOn SmolLM2, by operator, of the processor's own time in one "
            "call under the profiler, which slows short operators down.\n\n"
            + table(("arm", "tokens", "operators"), body))


def alt(rows):
    """What the picture says, with its figures."""
    from picture import lines

    said = []
    for axis, arms in lines(rows).items():
        points = arms["ours"]
        said.append(f"{axis} from {points[0][0]:,} to {points[-1][0]:,}: ours from "
                    f"{points[0][1]:.2f} to {points[-1][1]:.2f}")
    return "Four panels, a step over full fine-tuning's, or a batch over one adapter's. " \
        + "; ".join(said) + "."


def write(results, folder=DOCS):
    """Write benchmark.md and benchmark.png."""
    from picture import draw

    found = json.loads(results.read_text("utf-8"))
    (folder / "benchmark.md").write_text(page(found), "utf-8")
    if chosen(found["rows"], part="growth"):
        (folder / "benchmark.png").write_bytes(draw(found["rows"]))
