"""Sliders that live in the browser: a picture by its rank, measured curves, and answers."""

from html import escape
from pathlib import Path

import anywidget
import numpy as np
import traitlets
from IPython.display import display

from lora_mini.desk import curves as drawn
from lora_mini.desk.figures import RANKS, bundle, fixed_row, font
from lora_mini.svd import energy_kept, factors

HERE = Path(__file__).parent


def script(name):
    """The browser's half of a slider, with what both share before it."""
    return "".join((HERE / part).read_text("utf-8") for part in ("widget.js", name))


class Slider(anywidget.AnyWidget):
    """A widget that puts out `self.still` behind itself, as a second output.

    Where the widget lives, its style sheet hides the still; on a page without widgets, or whose
    widgets were not saved, the still is what there is to see. It lives without a kernel: so the
    sign of a broken connection is hidden, too.
    """

    _css = """
.jupyter-widgets-disconnected:has(> .rank-slider, > .curve-slider, > .text-slider)::before {
  display: none; }
.jp-OutputArea-child:has(.rank-slider, .curve-slider, .text-slider) + .jp-OutputArea-child {
  display: none; }
"""
    font = traitlets.Float(0).tag(sync=True)  # points, or 0 for the page's own

    def __init__(self, **values):
        super().__init__(font=font() or 0, **values)

    def _ipython_display_(self):
        data, metadata = self._repr_mimebundle_()
        display(data | {"text/plain": self.still["text/plain"]}, metadata=metadata, raw=True)
        display(self.still, raw=True)


def captions(S, shape, ranks):
    """The line under the picture at each rank: numbers stored, their share, relative error.

    S: all singular values of a matrix of `shape` (m, n).
    """
    m, n = shape
    lines = []
    for r in ranks:
        error = np.sqrt(max(0.0, 1 - energy_kept(S, r)))
        share = r * (m + n) / (m * n)
        lines.append(f"rank {r}: {r * (m + n):,} numbers instead of {m * n:,} ({share:.1%}), "
                     f"relative error {error:.3f}")
    return lines


def pack(rows):
    """Each row as 16-bit integers and one scale: half the bytes of float32, off by at most 2e-5.

    rows (r, n) -> bytes of int16 (r, n), and r scales so that rows = int16 * scale.
    """
    scales = np.abs(rows).max(axis=1) / 32767
    scales[scales == 0] = 1.0
    return np.round(rows / scales[:, None]).astype("<i2").tobytes(), scales.tolist()


class RankSlider(Slider):
    """A picture at a rank that the reader moves: frozen + the first `rank` terms of X.

    The browser holds the thin factors, and adds one rank-one term per step.

    X (m, n) is sent once, as B (m, most) and A (most, n) in 16 bits; `frozen` (m, n) as bytes, if
    given. `alt` says what the fixed row shows; that row is what a page without a kernel displays.
    Raises ValueError if `most` is not in 1..min(m, n), or `frozen` has another shape than X.
    """

    _esm = script("slider.js")
    m = traitlets.Int().tag(sync=True)
    n = traitlets.Int().tag(sync=True)
    most = traitlets.Int().tag(sync=True)
    rank = traitlets.Int(4).tag(sync=True)
    row = traitlets.List(traitlets.Int()).tag(sync=True)
    captions = traitlets.List(traitlets.Unicode()).tag(sync=True)
    left = traitlets.Bytes().tag(sync=True)  # most x m: the columns of B, packed
    right = traitlets.Bytes().tag(sync=True)  # most x n: the rows of A, packed
    scales = traitlets.List(traitlets.Float()).tag(sync=True)  # one a layer, for both
    frozen = traitlets.Bytes().tag(sync=True)  # m x n grey levels, or nothing

    def __init__(self, X, alt, *, most=64, rank=4, frozen=None):
        X = np.asarray(X, np.float64)
        if frozen is not None and np.shape(frozen) != X.shape:
            raise ValueError(f"frozen must have X's shape {X.shape}, got {np.shape(frozen)}")
        B, A = factors(X, most)
        base = np.zeros(X.shape) if frozen is None else np.asarray(frozen, np.float64).round()
        row = [r for r in RANKS if r <= most]
        still = fixed_row([base + B[:, :r] @ A[:r] for r in row], [f"r = {r}" for r in row])
        self.still = bundle(still, "slider", alt)
        (left, left_scales), (right, right_scales) = pack(B.T), pack(A)
        S = np.linalg.svd(X, compute_uv=False)
        super().__init__(
            m=X.shape[0], n=X.shape[1], most=most, rank=min(rank, most), row=row,
            captions=captions(S, X.shape, range(most + 1)),
            left=left, right=right,
            scales=[b * a for b, a in zip(left_scales, right_scales, strict=True)],
            frozen=b"" if frozen is None else base.clip(0, 255).astype(np.uint8).tobytes(),
        )


class CurveSlider(Slider):
    """Measured curves over x on logarithmic axes; the reader moves what else was varied, `name`.

    curves: for each notch {label: at each x one y, or a list of y by seed}; means are joined.
    lines: for each notch {label: y}, drawn level. None stands for a y that was not measured.
    The first curve at the other notches stays as grey ghosts. `captions`, one a notch, are made if
    not given; `alt` says what the fixed row of all notches shows.
    Raises ValueError if something does not fit the notches, x or the axes.
    """

    _esm = script("curves.js")
    plot = traitlets.Dict().tag(sync=True)
    notch = traitlets.Int().tag(sync=True)

    def __init__(self, notches, x, curves, alt, *, name, xlabel, ylabel, lines=None, start=0,
                 captions=None):
        plot = drawn.plot(notches, x, curves, lines, captions,
                          name=name, xlabel=xlabel, ylabel=ylabel)
        if not 0 <= start < len(plot["notches"]):
            raise ValueError(f"start must be between 0 and {len(plot['notches']) - 1}, got {start}")
        self.still = bundle(drawn.panels(plot), "slider", alt)
        super().__init__(plot=plot, notch=start)


class TextSlider(Slider):
    """What was said at each notch of what was varied, `name`; the reader moves it.

    texts, captions: one a notch; the caption stands beneath, and is read out. `alt` says what the
    texts come to; a page without a kernel shows them all, under one another.
    Raises ValueError where the numbers of notches, texts and captions differ.
    """

    _esm = script("texts.js")
    name = traitlets.Unicode().tag(sync=True)
    notches = traitlets.List(traitlets.Unicode()).tag(sync=True)
    texts = traitlets.List(traitlets.Unicode()).tag(sync=True)
    captions = traitlets.List(traitlets.Unicode()).tag(sync=True)
    notch = traitlets.Int().tag(sync=True)

    def __init__(self, notches, texts, alt, *, name, captions=None, start=0):
        notches = [str(notch) for notch in notches]
        captions = [f"{name}: {n}" for n in notches] if captions is None else list(captions)
        if not 0 < len(notches) == len(texts) == len(captions):
            raise ValueError(f"expected a text and a caption for each of {len(notches)} notches, "
                             f"got {len(texts)} and {len(captions)}")
        if not 0 <= start < len(notches):
            raise ValueError(f"start must be between 0 and {len(notches) - 1}, got {start}")
        size = "" if font() is None else f' style="font-size: {font():g}pt"'
        rows = "".join(f"<dt><em>{escape(under)}</em></dt><dd style=\"white-space: pre-wrap\">"
                       f"{escape(text)}</dd>" for under, text in zip(captions, texts, strict=True))
        self.still = {"text/html": f'<dl aria-label="{escape(alt)}"{size}>{rows}</dl>',
                      "text/plain": f"[slider] {alt}"}
        super().__init__(name=name, notches=notches, texts=list(texts), captions=captions,
                         notch=start)
