"""Figures, sliders, bets and verdicts: what the notebooks put before the reader."""

import base64
import io
import json
import math
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import matplotlib.image
import matplotlib.pyplot as plt
import nbclient
import nbconvert
import nbformat
import numpy as np
import pytest
import torch

from lora_mini import svd
from lora_mini.desk import bets, figures, intervals, sliders, verdicts

# Figures


def drawn(data):
    """The pixels of the picture in an output."""
    picture = re.search('src="data:image/png;base64,([^"]*)"', data["text/html"])[1]
    return matplotlib.image.imread(io.BytesIO(base64.b64decode(picture)))


def test_the_photograph_is_the_mean_of_its_pixels_in_grey():
    X = figures.photograph()
    assert X.shape == (300, 256) and X.min() >= 0 and X.max() <= 255
    with figures.matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        rgb = matplotlib.image.imread(file, format="jpg").astype(float)
    corner = (0.299 * rgb[:2, :2, 0] + 0.587 * rgb[:2, :2, 1] + 0.114 * rgb[:2, :2, 2]).mean()
    assert X[0, 0] == pytest.approx(corner)


def test_show_puts_out_picture_words_and_caption_and_closes_the_figure(monkeypatch):
    seen = []
    monkeypatch.setattr(figures, "display", lambda data, **options: seen.append((data, options)))
    fig, ax = figures.axes(3, 2)
    ax.plot([1, 2])
    figures.show(fig, "A <line>.", alt='It rises from 1 to "2" & <3>.')
    (data, _), = seen
    assert set(data) == {"text/html", "text/plain"}  # a PNG beside it would be shown, and mute
    assert data["text/plain"] == "[figure] It rises from 1 to \"2\" & <3>.\nA <line>."
    assert 'to &quot;2&quot; &amp; &lt;3&gt;." width="288"' in data["text/html"]
    assert "<em>A &lt;line&gt;.</em></figcaption></figure>" in data["text/html"]
    assert drawn(data).shape[:2] == (260, 390) and not plt.fignum_exists(fig.number)


def test_figures_and_captions_grow_with_the_rooms_letters(monkeypatch):
    def shown():
        return figures.bundle(figures.axes(3, 2)[0], "figure", "words", "caption")

    small = shown()
    monkeypatch.setenv("LORA_MINI_FONT", "18")
    large = shown()
    assert small["text/plain"] == large["text/plain"]
    assert 'width="576"' in large["text/html"] and "font-size: 18pt" in large["text/html"]
    assert drawn(large).shape[0] == 2 * drawn(small).shape[0]
    for wrong in ("big", "nan", "100"):
        monkeypatch.setenv("LORA_MINI_FONT", wrong)
        with pytest.raises(ValueError, match=f"a number from 6 to 48, got '{wrong}'"):
            shown()


def test_a_learners_own_figures_still_show_after_the_courses(tmp_path):
    """The backend was once loaded inside a context that took its settings back: nothing showed."""
    cells = [nbformat.v4.new_code_cell(source) for source in (
        "from lora_mini.desk import show\nfrom lora_mini.desk.figures import axes\n"
        "show(axes(2, 2)[0], 'mine', alt='words')",
        "import matplotlib.pyplot as plt\nplt.plot([1, 2]);",
        "from ipywidgets import interact\n@interact(rank=(1, 4))\ndef look(rank=4):\n"
        "    plt.figure(figsize=(2, 2))\n    plt.plot([1, rank])")]
    client = nbclient.NotebookClient(nbformat.v4.new_notebook(cells=cells), timeout=120,
                                     resources={"metadata": {"path": str(tmp_path)}})
    done = client.execute()
    first, second, _ = ([set(o.data) for o in c.outputs if "data" in o] for c in done.cells)
    assert first == [{"text/html", "text/plain"}] and second == [{"image/png", "text/plain"}]
    inside = [o for state in client.widget_state.values() for o in state.get("outputs", ())]
    assert ["image/png" in o["data"] for o in inside if "data" in o] == [True]


def test_a_page_made_by_nbconvert_reads_the_words_out():
    data = figures.bundle(figures.axes(2, 2)[0], "figure", "It rises.", "A line.")
    cell = nbformat.v4.new_code_cell("", outputs=[nbformat.v4.new_output("display_data", data)])
    page, _ = nbconvert.HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    pictures = re.findall("<img[^>]*>", page)
    assert len(pictures) == 1 and 'alt="It rises."' in pictures[0] and "A line." in page


def test_the_same_figure_gives_the_same_bytes_and_no_setting_is_changed():
    before = dict(plt.rcParams)
    made = [figures.png(figures.fixed_row([np.eye(3) * 255] * 2, ["a", "b"])) for _ in range(2)]
    assert made[0] == made[1] and dict(plt.rcParams) == before


def test_a_fixed_row_wraps_into_columns_and_clips_to_its_scale():
    fig = figures.fixed_row((np.eye(4) for _ in range(5)), "abcde", columns=3, low=0, high=0.5)
    used = [ax for ax in fig.axes if ax.images]
    assert len(used) == 5 and len(fig.axes) == 6
    assert used[0].images[0].get_clim() == (0, 0.5)
    plt.close(fig)


# Sliders


@pytest.fixture
def X():
    return np.random.default_rng(0).uniform(0, 255, (12, 9))


def unpacked(slider):
    """B (m, most) and A (most, n) as the browser sees them."""
    left = np.frombuffer(slider.left, "<i2").reshape(slider.most, slider.m).astype(np.float64)
    right = np.frombuffer(slider.right, "<i2").reshape(slider.most, slider.n)
    return left.T * np.array(slider.scales), right


def test_the_sliders_payload_adds_up_to_the_truncation_at_every_rank(X):
    B, A = unpacked(sliders.RankSlider(X, "words", most=9))
    for r in range(1, 10):
        assert np.abs(B[:, :r] @ A[:r] - svd.low_rank(X, r)).max() < 0.1  # of 255 grey levels


def test_the_photographs_payload_is_within_a_tenth_of_a_grey_level_at_both_ends():
    photo = figures.photograph()
    slider = sliders.RankSlider(photo, "words")
    B, A = unpacked(slider)
    for r in (1, 64):
        assert np.abs(B[:, :r] @ A[:r] - svd.low_rank(photo, r)).max() < 0.1
    assert len(slider.left) + len(slider.right) == 2 * 64 * (300 + 256)


def test_captions_count_numbers_and_errors_as_by_hand(X):
    slider = sliders.RankSlider(X, "words", most=9, rank=3)
    error = np.linalg.norm(X - svd.low_rank(X, 3)) / np.linalg.norm(X)
    assert slider.captions[3] == (f"rank 3: 63 numbers instead of 108 (58.3%), "
                                  f"relative error {error:.3f}")
    assert slider.captions[0].endswith("relative error 1.000")
    assert slider.captions[9].endswith("relative error 0.000") and len(slider.captions) == 10


def test_the_frozen_picture_is_sent_as_grey_levels_and_shown_beneath(X):
    slider = sliders.RankSlider(X, "words", most=2, frozen=np.full(X.shape, 99.6))
    assert slider.frozen == bytes([100]) * X.size
    with pytest.raises(ValueError, match=r"shape \(12, 9\), got \(9, 12\)"):
        sliders.RankSlider(X, "words", most=2, frozen=X.T)
    with pytest.raises(ValueError, match="between 1 and"):
        sliders.RankSlider(X, "words", most=10)


def test_the_sliders_still_is_the_fixed_row_and_its_words(X):
    still = sliders.RankSlider(X, "the words", most=8, rank=5).still
    assert still["text/plain"] == "[slider] the words"
    pixels = drawn(still)
    assert pixels.shape[1] > pixels.shape[0] > 20
    assert 'alt="the words"' in still["text/html"] and "image/png" not in still


# Bets


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LORA_MINI_HOME", str(tmp_path / "home é"))
    return tmp_path / "home é"


def test_a_bet_is_noted_and_settled_in_place(home, capsys):
    bets.bet("x", guess=30)
    bets.settle("x", 40, unit="percent")
    bets.settle("x", 31, unit="percent")
    said = capsys.readouterr().out.splitlines()
    assert said == ["Your bet: 30. It is settled further down.",
                    "The answer: 40 percent. Your bet: 30 percent: off by 10 percent, close.",
                    "The answer: 31 percent. Your bet: 30 percent: off by 1 percent, close."]
    bets.settle("x", 41)
    assert "not close" in capsys.readouterr().out
    assert json.loads((home / "bets" / "x.json").read_text("utf-8")) == {
        "guess": 30, "outcome": 41.0, "close": False}


def test_no_bet_never_blocks_and_writes_nothing(home, capsys):
    bets.bet("x", guess=None)
    bets.settle("x", 0.0157, unit="times")
    bets.settle("y", 3, only_if_placed=True)
    assert capsys.readouterr().out.splitlines() == [
        "No bet yet: put your guess in place of None and run this again, or just read on.",
        "The answer: 0.0157 times. You placed no bet."]
    assert not home.exists()


def test_a_choice_is_right_or_not_and_a_wrong_kind_is_refused(home, capsys):
    bets.bet("x", guess="A", choices=("A", "B"))
    bets.settle("x", "B")
    bets.settle("x", "A")
    bets.bet("x", guess="C", choices=("A", "B"))
    bets.bet("y", guess="many")
    bets.bet("y", guess=True)
    said = capsys.readouterr().out
    assert "not this time" in said and "right" in said
    assert "expected one of 'A', 'B', got 'C'" in said
    assert "expected a number, got 'many'" in said and "got True" in said
    assert bets._read("x")["guess"] == "A" and not bets._read("y")


def test_none_takes_an_earlier_bet_back(home, capsys):
    bets.bet("x", 3)
    bets.bet("x", None)
    bets.settle("x", 3)
    assert capsys.readouterr().out.splitlines()[1:] == [
        "Your bet is taken back.", "The answer: 3. You placed no bet."]


@pytest.mark.parametrize("guess, kept", [
    (np.float64(2.5), 2.5), (np.int64(7), 7), (np.float32(0.5), 0.5), (np.array(3), 3),
    (torch.tensor(1.5), 1.5), (Fraction(1, 4), 0.25), (10**20, 1e20), (-0.0, 0.0)])
def test_whatever_is_a_number_can_be_bet(home, capsys, guess, kept):
    bets.bet("x", guess)
    assert bets._read("x") == {"guess": kept}
    bets.settle("x", 1e20)
    assert "The answer" in capsys.readouterr().out


@pytest.mark.parametrize("guess", [
    float("nan"), float("inf"), 10**400, np.array([1, 2]), torch.ones(2), [3], {}, 1j, np.True_,
    object(), np.nan, "5"])
def test_what_cannot_be_bet_gets_a_sentence_and_the_earlier_bet_stands(home, capsys, guess):
    bets.bet("x", 3)
    bets.bet("x", guess)
    bets.bet({"x": 4, "y": guess})
    bets.bet("x", guess, choices=("A", "B"))
    said = capsys.readouterr().out
    assert said.count("can't be noted") == 3 and said.count("Your bet") == 1
    assert bets._read("x") == {"guess": 3} and not bets._read("y")


@pytest.mark.parametrize("name", [3, None, "", ("x",), np.array([1, 2])])
def test_a_name_that_is_no_text_gets_a_sentence(home, capsys, name):
    bets.bet(name, 3)
    assert "its name must be a text" in capsys.readouterr().out


def test_many_bets_at_once(home, capsys):
    bets.bet({"C1": "holds", "C2": None}, choices=verdicts.WORDS)
    assert capsys.readouterr().out.startswith("1 of 2 bets placed.")
    assert bets._read("C1") and not bets._read("C2")


@pytest.mark.parametrize("damage", [
    "{", "[1]", '{"x": 3}', "\x00", "3", "null", '{"guess": NaN}', '{"guess": [1]}',
    '{"guess": true}', '{"guess": 1' + "0" * 400 + "}", "[" * 100])
def test_a_damaged_file_is_kept_aside_and_said_so(home, capsys, damage):
    bets.bet("x", guess=1)
    (home / "bets" / "x.json").write_text(damage, "utf-8")
    bets.settle("x", 1)
    assert "damaged" in capsys.readouterr().out
    assert (home / "bets" / "x.damaged").read_text("utf-8") == damage
    bets.bet("x", guess=2)
    assert bets._read("x")["guess"] == 2


def test_where_nothing_can_be_written_the_course_goes_on(tmp_path, monkeypatch, capsys):
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("LORA_MINI_HOME", str(tmp_path / "a file" / "below"))
    bets.bet("x", guess=1)
    said = capsys.readouterr().out
    assert "can't be kept" in said and "Your bet: 1" not in said
    bets.settle("x", 1)
    assert "The answer: 1." in capsys.readouterr().out


def test_without_a_home_folder_the_course_goes_on(monkeypatch, capsys):
    monkeypatch.delenv("LORA_MINI_HOME", raising=False)

    def homeless(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    bets.bet("x", guess=1)
    bets.bet("x", guess=None)
    bets.settle("x", 1)
    said = capsys.readouterr().out
    assert "can't be kept" in said and "Your bet: 1" not in said and "The answer: 1" in said


def test_a_tilde_means_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("LORA_MINI_HOME", "~/bets of mine")
    assert bets.home() == tmp_path / "bets of mine"


@pytest.mark.parametrize("name", ["a/b", "..", "50 % of \"all\": <é>?*|", "con", "x" * 300])
def test_a_name_never_leaves_its_folder(home, capsys, name):
    bets.bet(name, 3)
    kept = [path for path in home.rglob("*") if path.is_file()]
    assert {path.parent for path in kept} <= {home / "bets"}
    assert kept or "can't be kept" in capsys.readouterr().out


def test_two_processes_at_once_lose_no_bet(home):
    code = ("import sys; from lora_mini.desk.bets import bet\n"
            "for i in range(60): bet(f'{sys.argv[1]} {i}', i)")
    both = [subprocess.Popen([sys.executable, "-c", code, name], stdout=subprocess.DEVNULL)
            for name in "ab"]
    assert [process.wait() for process in both] == [0, 0]
    assert all(bets._read(f"{name} {i}") == {"guess": i} for name in "ab" for i in range(60))
    assert len(list((home / "bets").iterdir())) == 120


def test_where_the_interval_reaches_the_rival_it_is_too_close_to_call(home, capsys):
    bets.bet("x", "A", choices=("A", "B"))
    bets.settle("x", "A", lead=[0.2, -0.1, 0.3])
    assert json.loads((home / "bets" / "x.json").read_text("utf-8"))["close"] is None
    bets.settle("x", "A", lead=[0.2, 0.21, 0.22])
    bets.settle("y", "A", lead=[-1.0, 1.0])
    said = " ".join(capsys.readouterr().out.split())
    assert "Too close to call over 3 runs: the means say A, but the interval of their lead" in said
    assert "reaches 0. Your bet: A: neither won nor lost. The answer: A." in said
    assert "Your bet: A: right." in said
    assert said.endswith("You placed no bet.")


class Run:
    def __init__(self, whole):
        self.whole = whole


def test_from_stopped_runs_nothing_is_settled_seen_or_judged(home, capsys):
    runs = Run(False)
    bets.bet("x", 3)
    bets.bet("C1", "holds", choices=verdicts.WORDS)
    capsys.readouterr()
    bets.settle("x", 3, of=runs)
    bets.settle("x", float("nan"))
    verdicts.expect("it falls", True, of=runs)
    verdicts.verdict("C1", **{fact: True for fact in GOOD["C1"]}, of=runs)
    said = capsys.readouterr().out
    assert said.count("was stopped") == 4 and "Verdict: C1" not in said and "Seen" not in said
    assert bets._read("x") == {"guess": 3} and bets._read("C1") == {"guess": "holds"}
    verdicts.expect("it falls", True, of=Run(True))
    assert capsys.readouterr().out == "Seen here: it falls.\n"


# Verdicts

GOOD = {"C1": ("base_unchanged", "only_factors_moved", "in_place_round_trip_exact"),
        "C2": ("update_has_at_most_rank_r", "fewer_numbers", "dense_update_has_at_most_rank_r"),
        "C19": ("suit_untouched", "patch_is_thin", "patch_only_at_named_layers",
                "few_places_inside_a_layer"),
        "C6": ("one_base_for_all", "swapped_below_a_second", "merged_it_takes_no_more_operations",
               "merged_it_still_serves_other_adapters"),
        "C16": ("same_weights_give_the_same_bytes", "a_small_part_of_the_base",
                "a_line_diff_shows_what_changed"),
        "C3": ("GPT3_at_rank_4_on_q_and_v_to_a_tenth", "on_all_linear_layers", "at_rank_16",
               "on_8_billion_at_rank_4"),
        "C4": ("GPT3_in_16_bits_without_activations", "eight_billion_with_256_tokens",
               "the_same_with_4096_tokens_recomputed", "GPT3_with_SGD"),
        "C7": ("an_8_billion_model_fits_in_16_bits_if_recomputed", "in_full_it_does_not",
               "with_1024_tokens_kept", "on_four_bits_it_learns_as_well",
               "a_65_billion_model_fits_in_four_bits")}
CONDITIONS = {**{claim: {names[-1]} for claim, names in GOOD.items()},
              "C3": set(GOOD["C3"][1:]), "C4": set(GOOD["C4"][1:]), "C7": set(GOOD["C7"][2:])}


@pytest.mark.parametrize("claim", GOOD)
def test_each_fact_reversed_turns_the_verdict(claim):
    facts = dict.fromkeys(GOOD[claim], True)
    assert str(verdicts.judge(claim, **facts)) == f"{claim} holds."
    for name in GOOD[claim]:
        word = "holds when" if name in CONDITIONS[claim] else "misleading"
        reversed_ = verdicts.judge(claim, **facts | {name: False})
        assert reversed_.word == word
        assert verdicts.claims()[claim]["facts"][name]["else"] in str(reversed_)
        assert verdicts.judge(claim, **facts | {name: None}).word == "not decided"


def test_a_broken_core_outweighs_all_else_and_reads_as_a_sentence():
    names = GOOD["C1"]
    everything = verdicts.judge("C1", **dict.fromkeys(names, False))
    assert everything.word == "misleading" and "; and " in everything.reason
    assert str(everything).startswith("C1 misleading because training changed")
    missing = verdicts.judge("C1", **{names[0]: True, names[1]: None, names[2]: False})
    assert str(missing) == "C1 not decided here: only_factors_moved was not measured."


def test_unknown_claims_and_facts_are_refused():
    with pytest.raises(ValueError, match="unknown claim 'C99': the table has C1, C2, C19, "):
        verdicts.judge("C99")
    with pytest.raises(ValueError, match="unknown claim 'C99'"):
        verdicts.verdict("C99", x=True)
    with pytest.raises(ValueError, match="C2 is judged by update_has"):
        verdicts.judge("C2", fewer_numbers=True)


def test_every_row_of_the_table_is_complete():
    common = {"says", "home", "kind", "statistic", "source", "source_value", "changes"}
    for name, row in verdicts.claims().items():
        assert common <= set(row) and not row["changes"].endswith("."), name
        if row["kind"] == "logic":
            roles = [fact["role"] for fact in row["facts"].values()]
            assert "margin" in row and "core" in roles and set(roles) <= {"core", "condition"}
            assert row["how"] in ("measured", "computed")
        else:
            assert row["kind"] in ("measured", "missing")
            assert set(row) - {"note"} == common, name


# Verdicts over bases

JUDGED = ("C5", "C8", "C9", "C10", "C11", "C12", "C13", "C14", "C17", "C18",
          "C20", "C21")
C13 = tuple(verdicts.contrasts("C13"))  # four contrasts of the kind "ratio": better or equal holds
C12 = tuple(verdicts.contrasts("C12"))  # two that hold if better, two if equal: shares
BETTER, WORSE, EQUAL, OPEN = ([middle + x for x in (-0.02, 0.01, 0.02, -0.01)]
                              for middle in (1.0, -1.0, 0.0, math.log(1.51)))
KINDS = {"better": BETTER, "worse": WORSE, "equal": EQUAL, "open": OPEN}


@pytest.mark.parametrize("claim", JUDGED)
def test_a_claim_has_at_most_six_contrasts_each_whole(claim):
    found = verdicts.contrasts(claim)
    assert 3 <= len(found) <= 6
    for rules in found.values():
        assert rules["kind"] in verdicts.MARGINS and rules["margin"] in (1.5, 0.2, 1.1)
        assert set(rules["holds"]) < {"better", "worse", "equal"} and rules["subject"]


def test_every_measured_claim_is_judged_and_a_prediction_is_no_claim():
    table = verdicts.claims()
    assert {name for name, row in table.items() if row["kind"] == "measured"} <= set(JUDGED)
    assert not {"P1", "P2", "P3"} & set(table)
    with pytest.raises(ValueError, match="'C1' has no contrasts: C5, C8"):
        verdicts.contrasts("C1")


@pytest.mark.parametrize("came, values", KINDS.items())
def test_an_outcome_is_what_the_whole_interval_says(came, values):
    assert verdicts.outcome(values, math.log(1.5))[0] == came
    swapped = {"better": "worse", "worse": "better"}.get(came, came)
    assert verdicts.outcome([-x for x in values], math.log(1.5))[0] == swapped


def test_the_margin_and_the_number_of_contrasts_decide_to_the_edge():
    # s = 1, four values: half the interval is 3.182 / 2 at 95 percent, 5.392 / 2 for four
    spread = [x * (3 / 5) ** 0.5 for x in (-1.5, -0.5, 0.5, 1.5)]
    assert np.std(spread, ddof=1) == pytest.approx(1)
    for reach, many in ((3.1824 / 2, 1), (5.3919 / 2, 4)):
        for slack, came in ((0.001, "better"), (-0.002, "open")):
            values = [x + 1 + reach + slack for x in spread]
            assert verdicts.outcome(values, 1, many)[0] == came
    assert verdicts.outcome([0.5, 0.5], 0.5)[0] == "better"
    assert verdicts.outcome([0.4999, 0.4999], 0.5)[0] == "equal"
    assert verdicts.outcome(None, 0.5) == ("open", None)


@pytest.mark.parametrize("kinds, word, text", [
    (("better", "equal", "equal", "better"), "holds", "C13 holds for 8 of 64 directions, 0"),
    (("worse", "worse", "open", "worse"), "misleading", "C13 fails for 8 of 64"),
    (("equal", "equal", "worse", "equal"), "holds when", "C13 holds for 8 of 64 directions, 0"),
    (("equal", "open", "worse", "equal"), "holds when", "C13 holds for 8 of 64 directions, 0"),
    (("open",) * 4, "not decided", "C13 is open for 8 of 64 directions, 0 new words; 16 of"),
    (("worse", "open", "open", "open"), "misleading", "C13 fails for 8 of 64"),
])
def test_made_up_data_of_all_four_kinds(kinds, word, text):
    effects = {name: KINDS[kind] for name, kind in zip(C13, kinds, strict=True)}
    found = verdicts.weigh("C13", effects)
    assert found.word == word and str(found).startswith(text) and str(found).endswith(".")
    assert tuple(found.conditions.values()) == kinds
    for kind, name in zip(kinds, C13, strict=True):  # none is hidden by another
        part = {"worse": "fails", "open": "open for"}.get(kind, "holds")
        assert name in str(found).split(part)[1].split(". It ")[0]


def test_reversed_data_reverse_the_verdict_and_halves_of_a_claim_hold_by_their_own_rule():
    kept = {name: [0.0, 0.01, -0.01] for name in C12}  # preserved, but no better than the rival
    assert verdicts.weigh("C12", kept).word == "holds when"
    lead = kept | dict.fromkeys(C12[:2], [0.5, 0.51, 0.52])
    assert verdicts.weigh("C12", lead).word == "holds"
    lost = {name: [-0.5, -0.51, -0.52] for name in C12}
    assert verdicts.weigh("C12", lost).word == "misleading"
    more = kept | dict.fromkeys(C12[2:], [0.5, 0.51, 0.52])  # more than all cannot be preserved
    assert verdicts.weigh("C12", more).word == "misleading"


def test_false_alarms_stay_below_five_percent_a_claim_and_power_is_there():
    """A thousand made-up records of sixteen bases: at the margin itself, and at 2 and 1 times."""
    rng, many = np.random.default_rng(0), 6
    reach = math.log(1.5)

    def called(middle, spread, what):  # how often at least one of six contrasts is called so
        runs = rng.normal(middle, spread, (1000, many, 16))
        return np.mean([any(verdicts.outcome(values, reach, many)[0] == what for values in run)
                        for run in runs])
    assert called(reach, 0.3, "better") < 0.05 and called(-reach, 0.3, "worse") < 0.05
    assert called(reach, 0.3, "equal") < 0.05
    one = rng.normal(math.log(2.2), 0.3, (1000, 16))
    assert np.mean([verdicts.outcome(v, reach, many)[0] == "better" for v in one]) > 0.8
    same = rng.normal(0, 0.3, (1000, 16))
    assert np.mean([verdicts.outcome(v, reach, many)[0] == "equal" for v in same]) > 0.8


def test_a_claim_of_one_kind_is_not_judged_as_the_other():
    with pytest.raises(ValueError, match="C12 is of the kind 'measured'.*effects"):
        verdicts.judge("C12", x=True)
    with pytest.raises(ValueError, match="C1 is of the kind 'logic'.*facts"):
        verdicts.verdict("C1", {"a": BETTER})
    with pytest.raises(ValueError, match="C13 is weighed by 8 of 64 .*; got none"):
        verdicts.weigh("C13", {})
    with pytest.raises(ValueError, match="got a"):
        verdicts.weigh("C13", {"a": BETTER})


def test_a_measured_verdict_prints_its_intervals_and_settles_the_bet(home, capsys):
    bets.bet("C13", guess="holds", choices=verdicts.WORDS)
    verdicts.verdict("C13", dict(zip(C13, (EQUAL, BETTER, WORSE, None), strict=True)))
    said = " ".join(capsys.readouterr().out.split())
    # 2.718 = e; s = 0.01826, t of 3 degrees of freedom at 1 - 0.05 / 4 is 5.392
    assert "16 of 64 directions, 0 new words: better, factor 2.72 [2.59, 2.86]" in said
    assert "8 of 64 directions, 12 new words: worse, factor 0.37" in said
    assert "16 of 64 directions, 12 new words: not measured" in said
    assert "Verdict: C13 holds for 8 of 64 directions, 0 new words" in said
    assert "not this time" in said
    assert verdicts.seen([0.25] * 3, {"kind": "share", "margin": 0.2}, 2, "x") == \
        "x: better, +0.25 [+0.25, +0.25]"
    assert verdicts.seen([-0.198] * 3, {"kind": "share", "margin": 0.2}, 2, "x") == \
        "x: equal, -0.20 [-0.198, -0.198]"  # a bound never prints as the margin
    for factor, words in ((1.498, "equal, factor 1.50 [1.498, 1.498]"),
                          (1 / 1.502, "worse, factor 0.67 [0.666, 0.666]"),
                          (1.494, "equal, factor 1.49 [1.49, 1.49]")):
        assert verdicts.seen([math.log(factor)] * 3, {"kind": "ratio", "margin": 1.5}, 2,
                             "x") == f"x: {words}"
    assert verdicts.seen([0.0] * 3, {"kind": "ratio", "margin": 1.5}, 1, "x").endswith(
        "both learned it as well as the base knows its own styles")


# Intervals

def test_the_interval_is_students_by_hand():
    found = intervals.interval([1.0, 2.0, 3.0])  # s = 1, t of 2 degrees of freedom = 4.303
    assert (found.mean, found.n) == (2.0, 3)
    assert found.high - 2.0 == pytest.approx(4.3027 / 3**0.5, rel=1e-4)
    assert found.high - 2.0 == pytest.approx(2.0 - found.low)
    assert str(found) == "+2.000 [-0.484, +4.484], n = 3"


@pytest.mark.parametrize("confidence, freedom, t", [  # printed tables of Student's t
    (0.95, 1, 12.706), (0.95, 3, 3.1824), (0.95, 15, 2.1314), (0.99, 7, 3.4995),
    (1 - 0.05 / 4, 15, 2.8366), (1 - 0.05 / 6, 15, 3.0363)])
def test_students_t_as_in_the_tables(confidence, freedom, t):
    assert intervals.student(confidence, freedom) == pytest.approx(t, rel=2e-4)


@pytest.mark.parametrize("confidence", [0.5, 0.95, 1 - 0.05 / 4, 0.999])
def test_students_t_of_three_degrees_inverts_its_closed_form(confidence):
    x = intervals.student(confidence, 3) / 3**0.5
    assert 2 / math.pi * (x / (1 + x * x) + math.atan(x)) == pytest.approx(confidence, abs=1e-6)


def test_the_prediction_interval_is_wider_and_never_below_its_floor():
    values = [1.0, 2.0, 3.0]
    assert intervals.prediction(values).high - 2.0 == pytest.approx(
        4.3027 * (1 + 1 / 3) ** 0.5, rel=1e-4)
    same = intervals.prediction([2.0, 2.0, 2.0], floor=0.25)
    assert (same.low, same.high) == (1.75, 2.25)
    assert same.holds(1.75) and not same.holds(2.26)
    assert intervals.prediction(map(float, "123")) == intervals.prediction(values)


def test_about_95_of_100_intervals_hold_the_truth():
    rng = np.random.default_rng(0)
    runs = rng.normal(5.0, 2.0, (2000, 9))
    hits = [intervals.interval(run[:8]).holds(5.0) for run in runs]
    next_ones = [intervals.prediction(run[:8]).holds(run[8]) for run in runs]
    assert np.mean(hits) == pytest.approx(0.95, abs=0.015)
    assert np.mean(next_ones) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("values", [[1.0], [], [1.0, float("nan")], [math.inf, 1.0]])
def test_intervals_need_two_finite_values(values):
    with pytest.raises(ValueError, match="two finite values or more, one a run, got"):
        intervals.interval(values)


def test_verdict_prints_facts_and_settles_a_bet_but_raises_nothing(home, capsys):
    bets.bet("C19", guess="holds", choices=verdicts.WORDS)
    verdicts.verdict("C19", suit_untouched=np.True_, patch_is_thin=True,
                     patch_only_at_named_layers=True, few_places_inside_a_layer=False)
    said = capsys.readouterr().out
    assert "few places inside a layer: no" in said
    assert "Verdict: C19 holds when 'seams' means whole layers" in " ".join(said.split())
    assert "Your bet: holds: not this time" in said


def test_expect_says_what_was_seen(capsys):
    verdicts.expect("it falls", True)
    verdicts.expect("it falls", np.False_)
    assert capsys.readouterr().out == "Seen here: it falls.\nNOT seen here: it falls.\n"


# Imports run one way


def test_the_desk_knows_no_model_and_only_sliders_import_widgets():
    code = ("import sys, lora_mini.desk.figures, lora_mini.desk.bets, lora_mini.desk.verdicts;"
            "assert 'anywidget' not in sys.modules and 'ipywidgets' not in sys.modules;"
            "import lora_mini.svd; assert 'lora_mini.desk.sliders' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)
