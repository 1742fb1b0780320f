"""The ledger of claims: nothing typed, nothing lost, and what the reader left beside it."""

import json
import math
import re
import shutil
from statistics import fmean, stdev

import jupytext
import matplotlib.pyplot as plt
import pytest

import build
from lora_mini.desk import bets, page, verdicts
from lora_mini.desk.intervals import student
from lora_mini.lab import claims, contrasts, record, replay

FOUND = claims.ledger()
ROWS = {row["claim"]: row for row in FOUND["claims"]}
TOLD = json.loads(claims.SPOKEN.read_text("utf-8"))
EXPECTED_MISSING = []  # strictly: what is recorded is taken out of here


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LORA_MINI_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


# What is in it


def test_no_claim_is_missing_but_those_that_are_named_above():
    assert [name for name, row in ROWS.items() if row["word"] == "missing"] == EXPECTED_MISSING
    assert list(ROWS) == [f"C{number}" for number in range(1, 22)]
    assert set(verdicts.claims()) == set(ROWS)


def test_every_claim_says_all_that_the_ledger_promises():
    for name, row in ROWS.items():
        assert all(row[key] for key in ("says", "statistic", "source", "source_value", "changes"))
        if row["word"] != "missing":
            assert row["word"] in verdicts.WORDS and bool(row["facts"]) != bool(row["conditions"])
            assert row["notebook"] and row["heading"] and row["verdict"].startswith(f"{name} ")
            for made in row["records"]:
                assert re.fullmatch(r"\d{4}-\d\d-\d\d", made["date"]) and all(made["by"]), name
            assert row["records"] and row["how"] != "missing"


def test_no_record_is_old():
    assert [name for name, row in ROWS.items() if row["old"]] == []


def test_a_condition_is_that_of_its_record_worked_out_by_hand():
    row = next(each for each in ROWS["C5"]["conditions"] if each["condition"] ==
               "24 new words, 256 examples")
    full, lora = (contrasts.cell("arms", arm=arm, new=24, examples=256)["total"]
                  for arm in ("full", "LoRA r=8"))
    floor = [own["total"] for own in record.load("arms")["own"]]
    logs = [math.log(max(a, f) / max(b, f)) for a, b, f in zip(full, lora, floor, strict=True)]
    reach = student(1 - 0.05 / 6, 15) * stdev(logs) / 4
    for key, value in (("effect", 0), ("low", -reach), ("high", reach)):
        assert row[key] == pytest.approx(math.exp(fmean(logs) + value), rel=1e-3)
    assert (row["bases"], row["record"], row["margin"], row["kind"]) == (16, "arms", 1.5, "factor")


def test_shares_stay_differences_and_a_live_contrast_has_no_bases():
    share = ROWS["C12"]["conditions"][0]
    values = contrasts.effects("C12")[share["condition"]]
    assert share["kind"] == "share" and share["effect"] == pytest.approx(fmean(values), abs=1e-3)
    live = [each for each in ROWS["C9"]["conditions"] if each["record"] == "live"]
    assert [each["bases"] for each in live] == [None] and live[0]["margin"] == 1.1


def test_each_verdict_is_the_one_that_its_notebook_has_printed():
    """The committed notebooks hold what `verdict` said when they were built: another path to it."""
    for name, row in ROWS.items():
        path = build.ROOT / "notebooks" / f"{row['notebook']}.ipynb"
        if row["word"] != "missing" and path.exists():
            assert f"Verdict: {row['verdict']}" in claims._printed(json.loads(
                path.read_text("utf-8"))), name


# Missing, and old


def test_a_claim_whose_record_is_gone_is_missing(monkeypatch):
    def gone(name):
        raise FileNotFoundError(name)

    monkeypatch.setattr(contrasts, "load", gone)
    row = claims.row("C5", TOLD["C5"])
    assert row["word"] == row["how"] == "missing" and not row["conditions"]
    assert claims.prediction("P1")["contrasts"] == []


@pytest.mark.parametrize("claim", ["C1", "C9"])
def test_a_claim_of_which_no_notebook_has_spoken_is_missing(claim):
    assert claims.row(claim, {})["word"] == "missing"


@pytest.mark.parametrize("claim", [name for name in TOLD if "facts" in TOLD[name]])
def test_a_fact_reversed_turns_a_claim_of_logic(claim):
    core = next(name for name, fact in verdicts.claims()[claim]["facts"].items()
                if fact["role"] == "core")
    told = TOLD[claim] | {"facts": TOLD[claim]["facts"] | {core: False}}
    assert claims.row(claim, told)["word"] == "misleading" != ROWS[claim]["word"]


@pytest.mark.parametrize("outside, is_old", [(0, False), (9, False), (10, True)])
def test_a_record_is_old_when_too_many_of_its_points_no_longer_land(outside, is_old):
    assert claims.old({"code": "x", "replayed": {"outside": outside, "of": 60}}) == is_old
    assert not claims.old({"code": "any other hash"})


def test_a_replay_notes_what_came_out_and_leaves_the_rest_to_the_letter(tmp_path, monkeypatch):
    source = record.HERE / "records" / "facts.json"
    (tmp_path / "records").mkdir()
    shutil.copy(source, tmp_path / "records")
    monkeypatch.setattr(record, "HERE", tmp_path)
    monkeypatch.setattr(record, "code_hash", lambda name: "0123456789ab")

    def workers(runner, jobs):
        class Pool:
            def __enter__(self):
                return lambda what, plans: [cell["total"][0] for _, cell in plans]

            def __exit__(self, *_):
                pass
        return Pool()

    monkeypatch.setattr(replay.sweep, "workers", workers)
    replay.main(["facts"])
    about, before = (json.loads((p / "records" / "facts.json").read_text("utf-8"))["about"]
                     for p in (tmp_path, build.ROOT / "lora_mini" / "lab"))
    note = about.pop("replayed")
    assert about == {key: value for key, value in before.items() if key != "replayed"}
    assert note["of"] == len(record.load("facts")["cells"]) and note["code"] == "0123456789ab"
    one, other = (path.read_text("utf-8").splitlines()
                  for path in (source, tmp_path / "records" / "facts.json"))
    assert one[:1] + one[2:] == other[:1] + other[2:]


def test_a_record_that_write_has_not_written_is_not_noted_in(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "HERE", tmp_path)
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "x.json").write_text('{"about": {"code": "a"}}')
    with pytest.raises(ValueError, match="expected the line"):
        record.note("x", date="2026-01-01")


# What the notebooks have told


def test_what_is_told_stands_in_the_notebooks():
    now = claims.read(build.ROOT)
    assert {name: {k: v for k, v in each.items() if k not in ("date", "by")}
            for name, each in now.items()} == {
        name: {k: v for k, v in each.items() if k not in ("date", "by")}
        for name, each in TOLD.items()}, "run python build.py claims"


def test_a_verdicts_place_is_the_last_section_above_its_cell():
    for lesson in build.all_lessons():
        section = ""
        for cell in jupytext.reads(lesson.read_text("utf-8"), fmt="py:percent").cells:
            if cell.cell_type == "markdown":
                named = [title for title in re.findall(r"^##+ (.+)$", cell.source, re.M)
                         if not title.startswith(("Exercise", "Bet"))]
                section = (named or [section])[-1]
            for claim in re.findall(r'^verdict\("(C\d+)"', cell.source, re.M):
                assert (TOLD[claim]["notebook"], TOLD[claim]["heading"]) == (lesson.stem, section)
    assert set(TOLD) == {name for name, row in ROWS.items() if row["word"] != "missing"} | {
        name for name in EXPECTED_MISSING if name in TOLD}


def made_up(root, said, lesson='# ## One\n# ### Exercise 1: x\nverdict("C1", a=b)\n'):
    for folder in ("lessons", "notebooks"):
        (root / folder).mkdir()
    (root / "lessons" / "77_toy.py").write_text(lesson)
    outputs = [{"text": [line + "\n"]} for line in said]
    (root / "notebooks" / "77_toy.ipynb").write_text(json.dumps(
        {"cells": [{"outputs": outputs}, {}], "metadata": {}}))
    return claims.read(root)["C1"]


SAYS = verdicts.claims()["C1"]["says"]
FIRST = SAYS[:SAYS.index(" ", 50)]


def test_facts_are_read_as_they_were_printed_over_line_ends_too(tmp_path):
    told = made_up(tmp_path, [f'C1: "{FIRST}', f'{SAYS[len(FIRST) + 1:]}"',
                              "  base unchanged: no", "  only",
                              "  factors moved: yes", "  in place round trip exact: not measured",
                              "Verdict: C1 is", "  base unchanged: yes"])
    assert told == {"notebook": "77_toy", "heading": "One", "date": None, "by": None, "facts": {
        "base_unchanged": False, "only_factors_moved": True, "in_place_round_trip_exact": None}}


@pytest.mark.parametrize("said", [[], [f'C1: "{SAYS}"', "No verdict: a run above was stopped."],
                                  [f'C1: "{SAYS}"', "  base unchanged: yes", "Verdict: C1"],
                                  ["  base unchanged: yes"]])
def test_what_was_not_printed_whole_is_not_told(tmp_path, said):
    assert "facts" not in made_up(tmp_path, said)


# Predictions and disputes


def test_every_prediction_is_there_with_what_was_said():
    planned = {name for name in verdicts.planned() if name.startswith("P")}
    assert {each["prediction"] for each in FOUND["predictions"]} == planned
    for guess in FOUND["predictions"]:
        for each in guess["contrasts"]:
            rules = verdicts.contrasts(guess["prediction"])[each["condition"]]
            assert each["said"] == rules["holds"]


def test_both_sides_of_a_dispute_are_told_and_what_the_town_measured():
    assert len(FOUND["disputes"]) == 4
    for each in FOUND["disputes"]:
        assert len(each["sides"]) >= 2 and each["town"] and each["cannot"].endswith(".")
    said = json.dumps(FOUND["disputes"])
    for paper in ("LoRA Without Regret", "2602.04118", "2512.23165", "2602.04998", "2602.06204",
                  "2405.09673"):
        assert paper in said
    rates = [line for each in FOUND["disputes"] for line in each["town"] if "best rates" in line]
    best = contrasts.cell("arms", arm="LoRA r=64", new=12, examples=256)["best"]
    assert f"LoRA r=64 {best:g}" in rates[1]


# The pages


def test_the_pages_are_what_records_and_notebooks_say():
    build.check_claims()


def test_a_page_that_was_touched_is_noticed(monkeypatch, tmp_path):
    pages = build.claims_pages()
    for path, text in pages.items():
        (tmp_path / path.name).write_text(text, "utf-8")
    monkeypatch.setattr(build, "claims_pages", lambda: {
        tmp_path / path.name: text for path, text in pages.items()})
    build.check_claims()
    for path in pages:
        (tmp_path / path.name).write_text(pages[path].replace("1.16", "1.61"), "utf-8")
        with pytest.raises(build.LessonError, match=f"{path.name} differs.*build.py claims"):
            build.check_claims()
        (tmp_path / path.name).write_text(pages[path], "utf-8")


def test_the_data_are_plain_json_and_hold_the_ledger():
    def refuse(constant):
        raise AssertionError(constant)

    text = (build.ROOT / "docs" / "claims.json").read_text("utf-8")
    assert json.loads(text, parse_constant=refuse) == json.loads(json.dumps(FOUND))


def test_the_page_has_every_claim_condition_and_source():
    text = (build.ROOT / "docs" / "claims.md").read_text("utf-8")
    for name, row in ROWS.items():
        part = text.split(f"\n## {name}\n")[1].split("\n## ")[0]
        assert row["says"] in part and row["source_value"] in part and row["changes"] in part
        assert re.sub("[<>`]", "", row["note"][1:]) in re.sub("[<>`]", "", part)
        for each in row["conditions"]:
            assert re.sub("[<>`]", "", each["words"]) in re.sub("[<>`]", "", part)
        assert ("Nothing is recorded" in part) == (row["word"] == "missing")
    for guess in FOUND["predictions"]:
        assert guess["says"] in text
        assert all(each["words"] in text for each in guess["contrasts"])
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.count("|") - line.count("\\|") == 4 for line in tables)
    assert "<any>" in text and not re.search(r"(?<!`)<(any|plain)>", text)


def test_three_verdicts_with_their_figures_stand_in_the_readme_before_the_start():
    text = (build.ROOT / "README.md").read_text("utf-8").split("\n## Start")[0]
    block = page.BLOCK.search(text)[0]
    assert block.count("\n- *") == 3 and len(re.findall(r"\[[-+.\d]+, [-+.\d]+\]", block)) >= 4
    spoilt = text.replace(block, "<!-- claims -->\nnonsense\n<!-- end of claims -->")
    assert page.readme(spoilt, FOUND["claims"]) == text


def test_a_verdict_in_a_line_counts_what_holds_fails_and_is_open():
    def line(word, *holds):
        return page.brief({"word": word, "conditions": [{"holds": each} for each in holds],
                           "facts": []})

    assert line("holds", True, True) == "holds in all 2 conditions"
    assert line("holds when", True, False, None, None) == \
        "holds in 1 of 4 conditions, fails in 1, open in 2"
    assert line("misleading", False, None) == \
        "misleading: holds in none of 2 conditions, fails in 1, open in 1"
    assert line("not decided", None) == "not decided" and line("missing") == "missing"
    assert page.brief(ROWS["C15"]) == "holds"
    assert page.brief(ROWS["C1"]).startswith("holds when the update is kept beside W")


# The forest plot and the table


@pytest.mark.parametrize("kind", ["factor", "share"])
def test_the_forest_has_a_mark_for_each_contrast_in_its_place_and_its_look(kind):
    fig, alt = page.forest(FOUND["claims"], kind)
    drawn = [line for line in fig.axes[0].lines if line.get_marker() in "><so" and
             len(line.get_xdata()) == 1]
    shown = [each for row in FOUND["claims"] for each in row["conditions"] if each["kind"] == kind]
    edge = page.EDGE[kind]
    low = 1 / edge if kind == "factor" else -edge
    assert [line.get_xdata()[0] for line in drawn] == [
        min(max(each["effect"], low), edge) for each in shown]
    assert [(line.get_marker(), line.get_color()) for line in drawn] == [
        page.MARKS[each["outcome"]] for each in shown]
    for row in FOUND["claims"]:
        assert (f"{row['claim']} " in alt) == bool(page.counted(row, kind))
    texts = [text.get_text() for text in fig.axes[0].texts]
    assert all(each["condition"] in texts for each in shown)
    plt.close(fig)


def test_marks_differ_without_their_colours():
    assert len({mark for mark, _ in page.MARKS.values()}) == 4 == len(
        {colour for _, colour in page.MARKS.values()})


def test_the_readers_own_stand_in_the_table_and_not_in_what_is_compared():
    made = {"date": "2026-01-02", "by": "me"}
    own = {"C5": made | {"word": "holds", "sentence": "C5 holds for <x>."},
           "C1": made | {"word": "holds when", "sentence": "C1 holds when y."}}
    bare = page.table(FOUND["claims"])
    placed = {"C12": {"guess": "<holds>", "outcome": "misleading"}, "C7": {"guess": "holds"}}
    full = page.table(FOUND["claims"], own, placed)
    assert full["text/plain"] == bare["text/plain"] and "yours inside" not in bare["text/html"]
    assert full["text/html"].count("yours inside") == 4
    assert "Yours, another verdict: C5 holds for &lt;x&gt;. (2026-01-02, me)" in full["text/html"]
    assert "Yours, the same: C1 holds when y." in full["text/html"]
    assert "Your bet: &lt;holds&gt;; it came to: misleading." in full["text/html"]
    assert "Your bet: holds; it came to: not settled yet." in full["text/html"]
    assert "&lt;plain&gt;" in bare["text/html"] and "<plain>" not in bare["text/html"]
    assert bare["text/html"].count("<details>") == 21
    assert '<a href="06_fine_tuning.ipynb#A-verdict%2C-by-hand">' in bare["text/html"]


# What verdicts and bets leave in the reader's own folder


FACTS = dict.fromkeys(verdicts.claims()["C1"]["facts"], True)


def test_a_verdict_leaves_what_it_said_with_the_date_and_the_machine(home, capsys):
    verdicts.verdict("C1", **FACTS)
    effects = contrasts.effects("C12")
    verdicts.verdict("C12", effects)
    left = verdicts.spoken()
    assert set(left) == {"C1", "C12"}
    assert left["C1"]["facts"] == FACTS and left["C1"]["sentence"] == "C1 holds."
    assert left["C12"]["effects"] == effects and left["C12"]["word"] == "misleading"
    for each in left.values():
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", each["date"]) and "torch" in each["by"]
    assert "kept" not in capsys.readouterr().out
    assert {path.name for path in (home / "verdicts").iterdir()} == {"C1.json", "C12.json"}
    verdicts.verdict("C1", **FACTS | {"base_unchanged": False})
    assert verdicts.spoken()["C1"]["word"] == "misleading"


def test_where_nothing_can_be_kept_the_verdict_is_spoken(tmp_path, monkeypatch, capsys):
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("LORA_MINI_HOME", str(tmp_path / "a file" / "below"))
    verdicts.verdict("C1", **FACTS)
    said = capsys.readouterr().out
    assert "Verdict: C1 holds." in said and "can't be kept" in said
    assert verdicts.spoken() == {} and bets.noted() == {} and bets.kept("bets") == []


def test_stopped_runs_leave_no_verdict(home):
    verdicts.verdict("C1", of=type("Run", (), {"whole": False}), **FACTS)
    assert verdicts.spoken() == {} and not home.exists()


@pytest.mark.parametrize("damage", ["", "{", "[]", "3", "null", '{"word": "holds"}', "\x00",
                                    "[" * 10**5, "[[1]]"])
def test_a_damaged_verdict_is_passed_over(home, damage):
    verdicts.verdict("C1", **FACTS)
    (home / "verdicts" / "C2.json").write_text(damage, "utf-8")
    (home / "verdicts" / "C99.json").write_text((home / "verdicts" / "C1.json").read_text())
    (home / "verdicts" / "C3.json").write_bytes(b"\xff\xfe\xff")
    assert set(verdicts.spoken()) == {"C1"}


def test_bets_of_all_kinds_are_counted_and_damaged_ones_passed_over(home, capsys):
    numbers = {"a": (10, 10), "b": (1, 100), "c": (-3, 3), "d": (0, 2), "e/é ?": (30, 20),
               "open": (5, None)}
    for name, (guess, answer) in numbers.items():
        bets.bet(name, guess)
        if answer is not None:
            bets.settle(name, answer)
    bets.bet("choice", "A", choices=("A", "B"))
    bets.settle("choice", "A")
    bets.bet("unsure", "A", choices=("A", "B"))
    bets.settle("unsure", "A", lead=[-1.0, 1.0])
    bets.bet({"C1": "holds", "C5": "misleading", "C9": None}, choices=verdicts.WORDS)
    verdicts.verdict("C1", **FACTS)
    (home / "bets" / "broken.json").write_text("{")
    (home / "bets" / "odd.json").write_text('{"guess": 3, "outcome": ["x"], "close": "yes"}')
    capsys.readouterr()
    noted = bets.noted()
    assert "broken" not in noted and "damaged" in capsys.readouterr().out
    assert bets.score(noted) == {"numbers": (7, 6, 1), "choices": (2, 2, 1), "verdicts": (2, 1, 1)}
    assert [(name, factor) for name, _, _, factor in bets.furthest(noted)] == [
        ("c", math.inf), ("d", math.inf), ("b", 100.0)]
    assert bets.furthest(noted, 9)[-1] == ("e/é ?", 30, 20.0, 1.5)


def test_with_an_empty_folder_there_is_nothing_and_no_sentence(home, capsys):
    assert bets.noted() == {} and verdicts.spoken() == {} and bets.furthest({}) == []
    assert bets.score({}) == dict.fromkeys(("numbers", "choices", "verdicts"), (0, 0, 0))
    assert capsys.readouterr().out == "" and not home.exists()


def test_the_notebook_shows_what_a_folder_of_bets_and_verdicts_holds(home, capsys):
    """The cells of notebook 16 up to the reader's bets, with a made-up folder and damaged files."""
    bets.bet("04 percentage trained", 50)
    bets.settle("04 percentage trained", 2.0)
    bets.bet("06 who keeps more", "LoRA", choices=("full", "LoRA"))
    bets.settle("06 who keeps more", "full")
    bets.bet({"C1": "holds"}, choices=verdicts.WORDS)
    verdicts.verdict("C1", **FACTS)
    (home / "bets" / "x.json").write_text("{")
    (home / "verdicts" / "C2.json").write_text("{")
    lesson = build.ROOT / "lessons" / "16_claims.py"
    space = {"__name__": "__main__"}
    for cell in build.assemble(lesson, "solved").cells:
        if cell.cell_type == "code" and not cell.source.startswith(("bet(", "fig, alt")):
            capsys.readouterr()
            exec(compile(cell.source, lesson.name, "exec"), space)
            said = capsys.readouterr().out
            if cell.source.startswith("own ="):
                assert re.search(r"^C1: holds; \d{4}-", said)
            if cell.source.startswith(build.COVER) and "others" in cell.source:
                assert said.startswith("NOT seen here")  # the made-up verdict is another
            if cell.source.startswith("placed ="):
                break
    words = " ".join(said.split())
    assert "numbers 1 placed, 1 settled, 0 right or close" in words and "damaged" not in words
    assert "choices 1 placed, 1 settled, 0 right" in words and "verdicts 1 placed" in words
    assert "04 percentage trained: you said 50, it was 2, 25 times apart" in words
    assert "You placed none" not in words and (home / "bets" / "x.damaged").exists()
