"""Figures in one hand: one accent colour, thin grey rules, a caption, and its content in words.

Colours are Okabe and Ito's (2008), which stay apart under every common colour blindness.
"""

import base64
import io
import os
from html import escape

import matplotlib.cbook
import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display
from PIL import Image

ACCENT, SECOND, THIRD, GREY = "#0072B2", "#D55E00", "#009E73", "#8a8a8a"
SHARP, COARSE = 130, 80  # pixels an inch in the file: for lines, for pictures; a page shows 96
RANKS = (1, 2, 4, 8, 16)  # the fixed row beneath every rank slider
POINTS = 9  # the letters of a figure, unless LORA_MINI_FONT says otherwise

STYLE = {
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.prop_cycle": plt.cycler(color=[ACCENT, SECOND, THIRD, "#CC79A7", "#E69F00", "#56B4E9"]),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "figure.constrained_layout.use": True,
    "font.size": POINTS,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}


def font():
    """LORA_MINI_FONT, the size of letters in points for a room with a projector; None if not set.

    Raises ValueError if it is no number between 6 and 48.
    """
    said = os.environ.get("LORA_MINI_FONT", "").strip()
    if not said:
        return None
    try:
        points = float(said)
    except ValueError:
        points = 0.0
    if not 6 <= points <= 48:
        raise ValueError(f"LORA_MINI_FONT must be points, a number from 6 to 48, got {said!r}")
    return points


def axes(width=5.0, height=3.0, columns=1, rows=1, dpi=SHARP, **options):
    """`plt.subplots` in the course's style, in inches: (figure, axes). Changes no setting.

    The figure is made outside the context: to make it, matplotlib may have to load its backend,
    and the settings that a notebook's backend makes as it loads must last.
    """
    scale = (font() or POINTS) / POINTS
    fig = plt.figure(figsize=(width, height), dpi=dpi * scale, layout="constrained")
    with plt.rc_context(STYLE):
        return fig, fig.subplots(rows, columns, **options)


def picture(ax, X, title="", low=0.0, high=255.0, cmap="gray"):
    """Paint the matrix X (m, n) on `ax` without ticks; values outside low..high are clipped."""
    ax.imshow(X, cmap=cmap, vmin=low, vmax=high, interpolation="nearest")
    ax.set_title(title)
    ax.set(xticks=[], yticks=[])
    ax.grid(False)


def fixed_row(pictures, titles, width=7.5, columns=None, **options):
    """Pictures of one size in rows, with a title each, as a figure. `options` go to `picture`."""
    pictures = list(pictures)
    columns = columns or len(pictures)
    rows = -(-len(pictures) // columns)
    m, n = pictures[0].shape
    height = rows * (width / columns * m / n + 0.35)
    fig, grid = axes(width, height, columns, rows=rows, dpi=COARSE, squeeze=False)
    for ax in grid.flat[len(pictures):]:
        ax.set_axis_off()
    for ax, X, title in zip(grid.flat[:len(pictures)], pictures, titles, strict=True):
        picture(ax, X, title, **options)
    return fig


def envelope(points):
    """The (x, y) points that no other beats in both, sorted: the Pareto envelope, small is good."""
    return sorted(p for p in points if not any(q[0] < p[0] and q[1] < p[1] for q in points))


def png(fig):
    """The figure as (base64 PNG, width on the page in pixels); closes it, or it would show twice.

    With a palette of 64 colours, to stay small. LORA_MINI_FONT enlarges the figure as a whole.
    """
    fig.canvas.draw()
    image = Image.fromarray(np.asarray(fig.canvas.buffer_rgba())).convert("RGB").quantize(64)
    width = round(fig.get_figwidth() * 96 * (font() or POINTS) / POINTS)
    plt.close(fig)
    out = io.BytesIO()
    image.save(out, format="png", optimize=True)
    return base64.b64encode(out.getvalue()).decode(), width


def bundle(fig, kind, alt, caption=""):
    """The data of an output that shows the figure and its caption; to a screen reader, says `alt`.

    In HTML, as JupyterLab shows a PNG without its alternative text. The plain text is "[kind] alt"
    and the caption, and the tests compare it: put rounded facts in.
    """
    picture, width = png(fig)
    size = "" if font() is None else f' style="font-size: {font():g}pt"'
    words = f"<figcaption{size}><em>{escape(caption)}</em></figcaption>" if caption else ""
    return {
        "text/html": f'<figure style="margin: 0"><img alt="{escape(alt)}" width="{width}" '
                     'style="max-width: 100%; height: auto; background: white" '
                     f'src="data:image/png;base64,{picture}">{words}</figure>',
        "text/plain": f"[{kind}] {alt}" + (f"\n{caption}" if caption else ""),
    }


def show(fig, caption, alt):
    """Put out a figure, its caption beneath, and `alt`: what the picture says, with its figures."""
    display(bundle(fig, "figure", alt, caption), raw=True)


def photograph():
    """The portrait of Grace Hopper that ships with matplotlib, in grey: (300, 256), 0 to 255.

    The mean of each 2 x 2 pixels; grey as in ITU-R BT.601: 0.299 R + 0.587 G + 0.114 B.
    """
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        rgb = matplotlib.image.imread(file, format="jpg")
    grey = rgb.astype(np.float64) @ [0.299, 0.587, 0.114]
    return grey.reshape(300, 2, 256, 2).mean(axis=(1, 3))
