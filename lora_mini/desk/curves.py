"""What a CurveSlider draws: measured curves, checked, rounded and put into words."""

import math

import numpy as np

from lora_mini.desk.figures import GREY, STYLE, axes

COLOURS = STYLE["axes.prop_cycle"].by_key()["color"]
MARKS = "os^Dvp"  # of the curves, which differ without their colours too
DASHES = ((6, 3), (2, 3), (9, 3, 2, 3), (12, 4), (4, 2, 1, 2), (1, 4))  # and so do the lines


def plot(notches, x, curves, lines, captions=None, **names):
    """All that is drawn, as a dictionary for JSON; names: name, xlabel, ylabel. See CurveSlider."""
    notches, x = [str(notch) for notch in notches], [float(v) for v in x]
    lines = [{}] * len(notches) if lines is None else lines
    if len(x) < 2 or not (x[0] > 0 and min(np.diff(x)) > 0):
        raise ValueError(f"x must be two or more numbers above 0 that increase, got {x}")
    curved, lined = labels("curves", curves, notches), labels("lines", lines, notches)
    if not curved or len(curved + lined) > len(COLOURS):
        raise ValueError(f"expected one curve or more, and at most {len(COLOURS)} curves and lines "
                         f"together, got {curved} and {lined}")
    curves = [[measured(label, mine[label], x) for label in curved] for mine in curves]
    lines = [[digits(mine[label]) for label in lined] for mine in lines]
    ys = [y for mine in curves for c in mine for y in sum(c["seeds"], c["mean"])]
    ys = [y for y in sum(lines, ys) if y is not None]
    if not ys:
        raise ValueError("nothing to draw: every y is None")
    done = names | {
        "notches": notches, "x": x, "ticks": ticks(min(ys), max(ys)),
        "curves": curves, "curve_styles": [
            {"label": label, "colour": colour, "mark": mark}
            for label, colour, mark in zip(curved, COLOURS, MARKS, strict=False)],
        "lines": lines, "line_styles": [
            {"label": label, "colour": colour, "dash": dash}
            for label, colour, dash in zip(lined, COLOURS[len(curved):], DASHES, strict=False)],
    }
    captions = [caption(done, k) for k in range(len(notches))] if captions is None else captions
    if len(captions) != len(notches):
        raise ValueError(f"expected {len(notches)} captions, one a notch, got {len(captions)}")
    return done | {"captions": list(captions)}


def labels(what, dicts, notches):
    """The labels of the curves or lines, which all notches must share."""
    if not notches or len(dicts) != len(notches):
        raise ValueError(f"{what}: expected one dictionary for each of {len(notches)} notches, "
                         f"got {len(dicts)}")
    for notch, mine in zip(notches, dicts, strict=True):
        if set(mine) != set(dicts[0]):
            raise ValueError(f"{what} at {notch}: expected the labels {list(dicts[0])}, as at "
                             f"{notches[0]}, got {list(mine)}")
    return list(dicts[0])


def measured(label, values, x):
    """A curve: {"mean": y or None at each x, "seeds": [[y, ...] at each x]}; see CurveSlider.

    Where a seed is missing there is no mean: those that are left may be the lucky ones.
    """
    if len(values) != len(x):
        raise ValueError(f"{label}: expected a y for each of {len(x)} x, got {len(values)}")
    seeds = [[digits(y) for y in v] if np.ndim(v) else [digits(v)] for v in values]
    means = [digits(np.mean(ys)) if ys and None not in ys else None for ys in seeds]
    return {"mean": means, "seeds": [[y for y in ys if y is not None] if np.ndim(v) else []
                                     for ys, v in zip(seeds, values, strict=True)]}


def digits(y, count=4):
    """y in so many digits, or None."""
    if y is not None and not 0 < y < math.inf:
        raise ValueError(f"a logarithmic axis takes numbers above 0, or None, got {y}")
    return y if y is None else float(f"{y:.{count}g}")


def ticks(low, high):
    """Round numbers on a logarithmic axis, from the last below low to the first above high."""
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    round_ = [float(f"{step}e{d}") for d in decades for step in (1, 2, 5)]
    first, last = max(v for v in round_ if v < low), min(v for v in round_ if v > high)
    return [v for v in round_ if first <= v <= last]


def caption(plot, k):
    """Notch k in a line: each curve at both ends, each line, in two digits."""
    def said(y):
        return "not measured" if y is None else f"{digits(y, 2):g}"

    parts = [f"{style['label']} {said(curve['mean'][0])} and {said(curve['mean'][-1])}"
             for style, curve in zip(plot["curve_styles"], plot["curves"][k], strict=True)]
    parts += [f"{style['label']} {said(y)}"
              for style, y in zip(plot["line_styles"], plot["lines"][k], strict=True)]
    return (f"{plot['name']}: {plot['notches'][k]}. At {plot['xlabel']} {plot['x'][0]:g} and "
            f"{plot['x'][-1]:g}, {plot['ylabel']}: " + "; ".join(parts))


def panels(plot):
    """The same without a browser: a small panel for each notch, four in a row, as a figure."""
    x, notches, y_ticks = plot["x"], plot["notches"], plot["ticks"]
    columns = min(4, len(notches))
    rows = -(-len(notches) // columns)
    fig, grid = axes(7.6, 2 * rows + 0.5, columns, rows=rows, squeeze=False, sharey=True)
    for ax in grid.flat[len(notches):]:
        ax.set_axis_off()
    for k, (ax, notch) in enumerate(zip(grid.flat, notches, strict=False)):
        for mine in plot["curves"]:
            _draw(ax, x, mine[0]["mean"], color=GREY, linewidth=0.6)
        for style, curve in zip(plot["curve_styles"], plot["curves"][k], strict=True):
            for at, ys in zip(x, curve["seeds"], strict=True):
                _draw(ax, [at] * len(ys), ys, marker=".", color=style["colour"], linestyle="",
                      alpha=0.35, markersize=4)
            _draw(ax, x, curve["mean"], marker=style["mark"], color=style["colour"], markersize=4,
                  zorder=3, label=style["label"])
        for style, y in zip(plot["line_styles"], plot["lines"][k], strict=True):
            _draw(ax, (x[0], x[-1]), (y, y), color=style["colour"], linewidth=1.3,
                  linestyle=(0, style["dash"]), label=style["label"])
        ax.set(xscale="log", yscale="log", ylim=(y_ticks[0], y_ticks[-1]), xlabel=plot["xlabel"])
        ax.set_title(f"{plot['name']}: {notch}", loc="left", fontsize=10)
        ax.set_xticks(x, [f"{v:g}" for v in x], fontsize=8)
        ax.set_yticks(y_ticks, [f"{v:g}" for v in y_ticks])
        ax.minorticks_off()
    for ax in grid[:, 0]:
        ax.set_ylabel(plot["ylabel"])
    fig.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2,
               frameon=False, fontsize=9)
    return fig


def _draw(ax, x, ys, **style):
    ax.plot(x, [np.nan if y is None else y for y in ys], **style)
