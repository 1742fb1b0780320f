"""The curve and the text slider: what they send, say and refuse; test_browser.py looks at them."""

import base64
import io
import json
import re

import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pytest

from lora_mini.desk import curves as drawn
from lora_mini.desk import sliders
from lora_mini.desk.sliders import CurveSlider, TextSlider

NAMES = {"name": "new words", "xlabel": "rank", "ylabel": "excess"}
CURVES = [{"LoRA": [[0.1, 0.3], [0.123456, 0.123458], [0.05]]}, {"LoRA": [0.8, None, 0.4]}]
LINES = [{"full": 0.0201, "words": 0.03}, {"words": None, "full": 0.0345678}]


def made(notches=(0, 6), x=(1, 2, 8), curves=CURVES, lines=LINES, **options):
    return CurveSlider(notches, x, curves, "words", lines=lines, **NAMES | options)


def test_means_seeds_and_lines_are_sent_in_four_digits():
    plot = made().plot
    assert plot["curves"] == [
        [{"mean": [0.2, 0.1235, 0.05], "seeds": [[0.1, 0.3], [0.1235, 0.1235], [0.05]]}],
        [{"mean": [0.8, None, 0.4], "seeds": [[], [], []]}]]
    assert plot["lines"] == [[0.0201, 0.03], [0.03457, None]]  # by label, in whatever order
    assert plot["x"] == [1, 2, 8] and plot["notches"] == ["0", "6"]


def test_four_notches_six_ranks_and_four_seeds_are_under_four_kilobytes():
    y = np.random.default_rng(0).uniform(0.01, 1, (4, 6, 4))
    slider = made(range(4), 2.0 ** np.arange(6), [{"LoRA": notch} for notch in y],
                  [{"full": 0.0123456, "words": 0.02, "floor": 0.01}] * 4)
    assert len(json.dumps(slider.plot)) < 4000
    assert slider.plot["curves"][3][0]["mean"] == pytest.approx(y[3].mean(1), rel=1e-3)


def test_a_seed_that_is_missing_leaves_its_fellows_but_no_mean():
    curve = drawn.measured("LoRA", [[0.1, None], []], [1, 2])
    assert curve == {"mean": [None, None], "seeds": [[0.1], []]}


@pytest.mark.parametrize("low, high, expected", [
    (0.3, 0.31, [0.2, 0.5]), (0.2, 0.2, [0.1, 0.2, 0.5]),
    (1, 100, [0.5, 1, 2, 5, 10, 20, 50, 100, 200]), (0.0007, 0.0012, [0.0005, 0.001, 0.002])])
def test_the_axis_ends_at_round_numbers_beyond_what_was_measured(low, high, expected):
    assert drawn.ticks(low, high) == expected


def test_captions_give_both_ends_of_the_curve_and_the_lines_in_two_digits():
    assert made().plot["captions"] == [
        "new words: 0. At rank 1 and 8, excess: LoRA 0.2 and 0.05; full 0.02; words 0.03",
        "new words: 6. At rank 1 and 8, excess: LoRA 0.8 and 0.4; full 0.035; words not measured"]
    assert made(captions=["a", "b"], start=1).plot["captions"] == ["a", "b"]


def test_curves_and_lines_differ_by_colour_and_by_mark_or_dash():
    six = [{name: [1, 2, 3] for name in "abc"}] * 2
    plot = made(curves=six, lines=[{"d": 1, "e": 1, "f": 1}] * 2).plot
    both = plot["curve_styles"] + plot["line_styles"]
    assert len({style["colour"] for style in both}) == 6
    assert len({style["mark"] for style in plot["curve_styles"]}) == 3
    assert len({tuple(style["dash"]) for style in plot["line_styles"]}) == 3


@pytest.mark.parametrize("wrong, message", [
    ({"notches": [0, 6, 12]}, "curves: expected one dictionary for each of 3 notches, got 2"),
    ({"lines": LINES[:1]}, "lines: expected one dictionary for each of 2 notches, got 1"),
    ({"curves": [CURVES[0], {"DoRA": [1, 2, 3]}]}, r"curves at 6: .*\['LoRA'\].* got \['DoRA'\]"),
    ({"x": [1, 2]}, "LoRA: expected a y for each of 2 x, got 3"),
    ({"x": [1, 2, 2]}, "x must be two or more numbers above 0 that increase"),
    ({"x": [0, 1, 2]}, "x must be"), ({"x": [1, float("nan"), 2]}, "x must be"),
    ({"x": [1]}, "x must be"),
    ({"curves": [{"LoRA": [1, 0.0, 1]}] * 2}, "numbers above 0, or None, got 0.0"),
    ({"lines": [{"full": float("nan")}] * 2}, "numbers above 0, or None, got nan"),
    ({"curves": [{}] * 2}, "one curve or more"),
    ({"curves": [{name: [1, 2, 3] for name in "abcde"}] * 2}, "at most 6 curves and lines"),
    ({"curves": [{"LoRA": [None] * 3}] * 2, "lines": None}, "every y is None"),
    ({"captions": ["a"]}, "expected 2 captions, one a notch, got 1"),
    ({"start": 2}, "start must be between 0 and 1, got 2"),
])
def test_what_does_not_fit_is_refused_by_name(wrong, message):
    with pytest.raises(ValueError, match=message):
        made(**wrong)


def test_the_still_has_a_panel_a_notch_on_one_scale():
    fig = drawn.panels(made(range(5), curves=CURVES[:1] * 5, lines=None).plot)
    used = [ax for ax in fig.axes if ax.axison]
    assert [ax.get_title("left") for ax in used] == [f"new words: {k}" for k in range(5)]
    assert {ax.get_ylim() for ax in used} == {(0.02, 0.5)}
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["LoRA"]
    curve = next(line for line in used[0].lines if line.get_label() == "LoRA")
    assert list(curve.get_ydata()) == [0.2, 0.1235, 0.05]
    plt.close(fig)


def test_it_puts_out_the_widget_then_the_still_both_with_its_words(monkeypatch):
    shown = []
    monkeypatch.setattr(sliders, "display", lambda data, **_: shown.append(data))
    made()._ipython_display_()
    widget, still = shown
    assert widget["text/plain"] == still["text/plain"] == "[slider] words"
    assert "application/vnd.jupyter.widget-view+json" in widget and "text/html" not in widget
    picture = re.search('src="data:image/png;base64,([^"]*)"', still["text/html"])[1]
    pixels = matplotlib.image.imread(io.BytesIO(base64.b64decode(picture)))
    assert pixels.shape[1] > pixels.shape[0] > 100
    assert 'alt="words"' in still["text/html"] and not plt.get_fignums()


def test_its_letters_are_as_large_as_the_room_needs(monkeypatch):
    assert made().font == 0
    monkeypatch.setenv("LORA_MINI_FONT", "18")
    assert made().font == 18 and sliders.RankSlider(np.eye(3), "words", most=2).font == 18


def spoken(notches=(0, 0.5), texts=("Hi <you>.", "Two\nlines."), **options):
    return TextSlider(notches, texts, 'the "words"', name="strength", **options)


def test_a_text_slider_sends_every_text_and_its_still_shows_them_all(monkeypatch):
    shown = []
    monkeypatch.setattr(sliders, "display", lambda data, **_: shown.append(data))
    slider = spoken(captions=["a & b", "c"], start=1)
    assert (slider.notches, slider.texts, slider.captions, slider.notch) == (
        ["0", "0.5"], ["Hi <you>.", "Two\nlines."], ["a & b", "c"], 1)
    slider._ipython_display_()
    widget, still = shown
    assert widget["text/plain"] == still["text/plain"] == '[slider] the "words"'
    assert "application/vnd.jupyter.widget-view+json" in widget and "text/html" not in widget
    assert 'aria-label="the &quot;words&quot;"' in still["text/html"]
    assert "Hi &lt;you&gt;." in still["text/html"] and "a &amp; b" in still["text/html"]
    assert "Two\nlines." in still["text/html"] and "pre-wrap" in still["text/html"]
    assert spoken().captions == ["strength: 0", "strength: 0.5"]


def test_a_text_sliders_letters_are_as_large_as_the_room_needs(monkeypatch):
    assert spoken().font == 0 and "font-size" not in spoken().still["text/html"]
    monkeypatch.setenv("LORA_MINI_FONT", "18")
    assert spoken().font == 18 and "font-size: 18pt" in spoken().still["text/html"]


@pytest.mark.parametrize("wrong, message", [
    ({"texts": ["one"]}, "each of 2 notches, got 1 and 2"),
    ({"captions": ["one"]}, "each of 2 notches, got 2 and 1"),
    ({"notches": (), "texts": ()}, "each of 0 notches"),
    ({"start": 2}, "start must be between 0 and 1, got 2")])
def test_texts_that_do_not_fit_their_notches_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        spoken(**wrong)
