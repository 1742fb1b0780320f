"""How cost grows with width, rank, tokens and adapters, drawn beside the counts."""

import io

from goals import REAL, chosen, one
from turns import ratio

from lora_mini.desk.figures import ACCENT, GREY, SECOND, THIRD, axes

COLOURS = {"ours": ACCENT, "PEFT": SECOND, "naive": GREY, "loralib": "#CC79A7",
           "torchtune": "#E69F00", "loop": THIRD}
MARKS = dict(zip(COLOURS, "osv^Dx", strict=True))
MIDDLE = {"width": 256, "rank": 8, "tokens": 1024}  # the others, held, while one of them grows


def lines(rows):
    """{axis: {arm: [(value on the axis, median, lower and upper quartile, the counted ratio)]}}."""
    found = {}
    growth = chosen(rows, part="growth")
    for axis in MIDDLE:
        held = {key: value for key, value in MIDDLE.items() if key != axis}
        mine = sorted(chosen(growth, **held), key=lambda row: row[axis])
        arms = found.setdefault(axis, {})
        for row in mine:
            full = one(mine, arm="full", **{axis: row[axis]})
            if row["arm"] != "full":
                arms.setdefault(row["arm"], []).append(_point(row, full, row[axis]))
    mixed = chosen(rows, part="mixed", model=REAL)
    tokens = max((row["tokens"] for row in mixed), default=0)
    mixed = chosen(mixed, tokens=tokens)
    first = one(mixed, arm="one")
    for row in mixed:
        name = "ours" if row["arm"] == "mixed" else row["arm"]
        if name in COLOURS:
            found.setdefault("adapters", {}).setdefault(name, []).append(
                _point(row, first, row["adapters"]))
    return {axis: arms for axis, arms in found.items() if arms.get("ours")}


def _point(row, base, value):
    low, middle, high = ratio(row["ms"], base["ms"])
    return value, middle, low, high, row["flop"] / base["flop"]


def draw(rows):
    """The picture as a PNG's bytes."""
    every = lines(rows)
    fig, panels = axes(8.6, 5.6, columns=2, rows=2)
    for ax, (axis, arms) in zip(panels.flat, every.items(), strict=False):
        for name, points in arms.items():
            x, middle, low, high, count = zip(*points, strict=True)
            ax.plot(x, middle, f"{MARKS[name]}-", color=COLOURS[name], label=name, ms=4)
            ax.vlines(x, low, high, color=COLOURS[name], lw=1)
            if name in ("ours", "naive"):
                ax.plot(x, count, ":", color=COLOURS[name], lw=1.2,
                        label=f"{name}: FLOP, counted")
        ax.set_xscale("log", base=2)
        ax.set_xticks(x, [f"{value:,}" for value in x])
        ax.set_xlabel({"width": "width d", "rank": "rank r", "tokens": "tokens",
                       "adapters": "adapters in a batch"}[axis])
        ax.set_ylabel("over one adapter" if axis == "adapters" else "over full fine-tuning")
        if axis in ("width", "adapters"):
            ax.legend(fontsize=7)
        if axis == "adapters":
            ax.set_yscale("log")
            ax.set_yticks(ticks := (1, 2, 4, 8), map(str, ticks))
            ax.minorticks_off()
    for ax in list(panels.flat)[len(every):]:
        ax.set_axis_off()
    out = io.BytesIO()
    fig.savefig(out, format="png", dpi=100, metadata={"Software": None})
    return out.getvalue()
