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
the median over the turns, in brackets the quartiles; a ratio is formed turn by turn, so the
quotient of two medians need not be it. `again` is the same arm once more: how far it is from 1 is
noise. Times are of this machine: only ratios travel, and not always far. FLOP and bytes are not
measured: they are counted, from the operations that PyTorch executes. *FLOP* are those of matrix
products; *moved* is what each operation reads and writes, as if no cache kept anything; *kept* is
what autograd holds for the way back.

- *SmolLM2* is a Llama of 135 million numbers, 30 blocks of width 576, 210 adapted layers; *the
  town's GPT* the course's own, 122,000 numbers, 2 blocks of width 64, 12 adapted layers. There
  Python's own time between operations counts, too.
- `4 x 128 tokens` are 4 rows of 128, read at once; 16 x 1 is a batch of one token each. Of keys and
  values nothing is kept from pass to pass.
- A *step* is forward, loss, backward and fused AdamW. Rank 8, alpha 16, no dropout, all linear
  layers but the head. *full* trains every number, embedding, head and norms included. A frozen W
  saves one of a step's three products: hence two thirds.
- *Four bits* are Q4_1 in SmolLM2, NF4 in the town's GPT; all else is in float32.
- Not measured: 16 bits, a GPU, more threads than one, PEFT under torch.compile, generation with a
  cache.
"""
PARTS = {
    "step": ("A training step", """
Over full fine-tuning's time; last, ours over this arm (of DoRA and PiSSA ours of their kind).
`naive` forms W + s B A by autograd, `ours, plain` is our layer without its fused path, which serves
float32 without dropout or autocast, from so many tokens on that folding pays. `compiled` goes
through torch.compile, which takes up to a minute before the first step; its counts are those of the
model as it is. Checked alike: factors are drawn anew, the same in all arms but `full`; of every
factor's gradient the distance from ours over its length, DoRA and PiSSA among themselves."""),
    "inference": ("A pass forward", """
Over the base's time, without gradients; last, ours over this arm, merged over merged. An adapter
beside the base costs. Merged, PEFT's and loralib's stand in W itself; ours beside W, twice the
memory, so that unmerging gives W back to the bit, and each pass looks whether the factors have
changed (`equal`); or `for good`, as plain layers. Checked alike: outputs, over the largest."""),
    "mixed": ("Several adapters in one batch", """
A pass over the time that ours takes for the same batch with one adapter, `one`. `mixed` enters
`with adapters.rows(model, names)`, which gives each row its adapter, for each pass; `entering
alone` is that with no pass inside; `mixed, eight passes` enters once for eight. `PEFT` is its
`adapter_names`, `PEFT, one` PEFT without them. `loop` switches and calls the model once for each
adapter."""),
    "switch": ("Another adapter becomes the active one", """
In milliseconds. loralib knows one adapter: the factors of another are copied over it."""),
    "files": ("Saved and loaded", """
In milliseconds, as safetensors. `ours` also reads the whole base for its fingerprint, by which a
wrong base is refused later; loading takes the adapter off again. `naive` writes and copies the
factors, and checks nothing."""),
    "memory": ("Memory of a step", """
In megabytes (10^6 bytes), each arm in a process of its own: resident before the step and at most
during it, looked at each millisecond; the most that tensors hold at once; what
`ledger.step_bytes` predicts of that: what autograd keeps it counts in one pass forward, gradients,
moments and what lives for a moment it predicts. It can't foresee what an operation needs inside
itself (PEFT's DoRA needs less than it thinks), the allocator's reserve, nor Python and its
libraries: so tensors, not the process, whose size before also tells of imports and loading."""),
    "svd": ("The randomised SVD", """
Rank 16, float32; ten directions more and two power iterations, both ours and PyTorch's. Error: in
the Frobenius norm, over the least that this rank can have, which is known as the singular values
are; of large matrices the full one was only timed. `flat` is the control: nothing to find."""),
}


def table(head, body):
    lines = [" | ".join(map(str, head)), " | ".join(["---"] + ["---:"] * (len(head) - 1)),
             *(" | ".join(map(str, row)) for row in body)]
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def page(found):
    """The page, as Markdown, of what a run has found."""
    rows = found["rows"]
    parts = [HEAD, where(found), "## Goals\n\nSet before; all on SmolLM2. *open*: the limit lies "
             "between the quartiles.\n\n" + table(("goal", "found", "holds"), [
                 (goal, figure, "yes" if holds == "yes" else f"**{holds}**")
                 for goal, figure, holds, _ in goals(rows)])]
    if missed := [(goal, pair) for goal, _, holds, pair in goals(rows) if pair and holds == "no"]:
        parts.append(behind(missed))
    if slower := losses(rows):
        parts.append("Where a peer takes less time than ours, all quartiles of ours over it above "
                     "1 (in brackets the median):\n\n" + slower)
    if chosen(rows, part="growth"):
        parts.append("## How cost grows\n\n![" + alt(rows) + "](benchmark.png)\n\nThe first three: "
                     "an MLP of four layers, a step; width 256, rank 8, 1,024 tokens, but for what "
                     "grows. The fourth:\nSmolLM2, 16 x 8 tokens, a logarithmic axis. Bars are "
                     "quartiles, dotted lines the counted FLOP.\n")
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
    return ("Behind those that do not hold: counts over those of what the arm is held against; "
            "and operators that take\na larger share of its time (in brackets the share there, if "
            "among the eight largest). Python's own time\nbetween operators is in no profile.\n\n"
            + table(("goal", "bytes moved", "flop", "operators"), body))


def rival(arm):
    """Ours that does what this arm does, or None."""
    if arm.startswith("full") or arm.startswith("base") or arm == "ours":
        return None
    name, _, kind = arm.partition(", ")
    if name == "ours" and kind not in ("again", "plain"):
        return None
    return f"ours, {kind}" if kind in ("DoRA", "PiSSA", "merged") else "ours"


def losses(rows):
    """A list of the arms beside which ours is slower."""
    body = []
    for part in ("step", "inference", "switch", "files", "svd"):
        for mine in groups(chosen(rows, part=part), "model", "rows", "tokens", "what", "size"):
            first = mine[0]
            for name in dict.fromkeys(row["arm"] for row in mine):
                ours = rival(name)
                if not ours or name.startswith("ours"):
                    continue
                if (found := over(mine, ours, name)) and found[0] > 1:
                    at = ", ".join(filter(None, (
                        first.get("what"), first.get("size") and f"{first['size']}",
                        f"{first['rows']} x {first['tokens']}" if first.get("tokens") else "")))
                    body.append((PARTS[part][0], f"{first['model']} {at}".strip(), name,
                                 found[1]))
    lines = []
    for mine in groups([dict(zip(("part", "at", "arm", "much"), row, strict=True))
                        for row in body], "part", "at"):
        arms = ", ".join(f"{row['arm']} ({row['much']:.2f})" for row in mine)
        lines.append(f"- {mine[0]['part']}, {mine[0]['at']}: {arms}\n")
    return "".join(lines)


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
    return f"{rounded(middle)} [{rounded(low)}, {rounded(high)}]"


def rounded(value):
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


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
                     *counted(row, first, keys), against(mine, row["arm"])) for row in mine]
            far = f"gradients or outputs differ by at most {mine[0]['alike']:.0e}"
            yield (f"{shape(mine[0])}; {far}\n\n"
                   + table(("arm", "ms", f"over {base}", *keys, "ours over it"), body))
    return tables


def against(rows, arm):
    """Ours over this arm, in words; nothing where ours does not do the same."""
    found = rival(arm) and over(rows, rival(arm), arm)
    return words(found) if found else ""


def mixtures(rows):
    for mine in groups(rows, "model", "rows", "tokens"):
        first = one(mine, arm="one")
        numbers = sorted({row["adapters"] for row in mine})
        body = []
        for arm in dict.fromkeys(row["arm"] for row in mine if row["arm"] != "one"):
            several = [one(mine, arm=arm, adapters=n) for n in numbers]
            at_most = [row for row in several if row][-1]
            body.append((arm, *(words(over([row, first], arm, "one")) if row else ""
                                for row in several), *counted(at_most, first, ("flop", "moved"))))
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


SHOWN = {"step": ("full", "ours", "PEFT", "ours, plain", "ours, four bits"),
         "inference": ("base", "ours", "PEFT", "ours, merged"),
         "mixed": ("mixed", "one"), "switch": (), "files": ()}  # whose operators are on the page


def profiles(rows):
    """Where the time goes, for the arms that goals are about."""
    body, most = [], max(row.get("adapters", 1) for row in rows)
    for row in rows:
        if row["model"] == "SmolLM2" and row["arm"] in SHOWN[row["part"]] \
                and row.get("adapters", most) in (1, most):
            top = list(row["operators"].items())[:5]
            number = f", {row['adapters']}" if "adapters" in row else ""
            body.append((f"{row['part']}: {row['arm']}{number}", f"{row['rows']} x {row['tokens']}",
                         ", ".join(f"{name} {share:.0%}" for name, share in top)))
    return ("## Where the time goes\n\nOn SmolLM2, by operator, of the processor's own time in "
            "three calls under the profiler, which slows short operators down. The others stand in "
            "`results.json`.\n\n" + table(("arm", "tokens", "operators"), body))


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
