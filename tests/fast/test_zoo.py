"""Every specimen of the zoo is red when broken, green when mended, and where it is said to be."""

import copy
import math
import random
import re

import pytest
import torch

import build
from lora_mini import audit, detach
from lora_mini.audit.findings import SECTIONS
from lora_mini.lab import beside, chart, firstaid, zoo
from lora_mini.lab.patients import Patient, layers
from lora_mini.lab.ward import PROBES, Ward
from lora_mini.world import text, train

LESSON = build.ROOT / "lessons" / "14_bug_zoo.py"
BY_NAME = {s.name: s for s in zoo.SPECIMENS}


@pytest.fixture(scope="module")
def ward():
    return Ward(steps=30)  # too few to learn all, enough to tell broken from mended


@pytest.fixture(scope="module")
def patients(ward):
    """{name: (broken, mended)}."""
    return {s.name: (s.broken(ward), s.mended(ward)) for s in zoo.SPECIMENS}


def test_there_are_fourteen_with_names_of_their_own_and_reports():
    assert len(BY_NAME) == len(zoo.SPECIMENS) == 14
    for s in zoo.SPECIMENS:
        assert s.reports and all(re.fullmatch(r"[\w.-]+/[\w.-]+#\d+", r) for r in s.reports)
        assert s.group in zoo.GROUPS and s.probe in PROBES
        assert s.remedy[-1] != "." and s.cause[-1] == s.symptom[-1] == "."
    with pytest.raises(ValueError, match="there are reentrant checkpointing"):
        zoo.named("a bug that nobody has")


@pytest.mark.parametrize("name", BY_NAME)
def test_it_is_red_when_broken_and_green_when_mended(ward, patients, name):
    broken, mended = patients[name]
    assert BY_NAME[name].red(ward, broken)
    assert not BY_NAME[name].red(ward, mended)


@pytest.mark.parametrize("name", BY_NAME)
def test_an_audit_finds_nothing_in_the_mended_ones(ward, patients, name):
    assert zoo.heard(ward, patients[name][1]) == []
    assert zoo.shown(ward, patients[name][1]) == []


def test_broken_and_mended_are_shown_with_the_same_kinds_of_things(patients):
    for name, both in patients.items():
        broken, mended = ([p.file is None, p.counts is None] for p in both)
        assert broken == mended and not all(broken), name


@pytest.mark.parametrize("name, words", [
    ("reentrant checkpointing", "reentrant checkpointing gets an input without grad"),
    ("optimizer too early", "B is not in the optimizer"),
    ("a base left trainable", "the base trains"),
    ("merged twice", "the base's parameters changed"),
    ("the rank not divided by", "16, where alpha and rank make 0.5"),
    ("dropout awake", "dropout is in another mode than the model"),
])
def test_an_audit_names_the_cause_where_it_lies_in_the_model(ward, patients, name, words):
    assert words in "; ".join(map(str, zoo.heard(ward, patients[name][0])))


@pytest.mark.parametrize("name, words", [
    ("no end in the loss", "the end of the sentence is masked away"),
    ("names that don't fit", "'base_model.model.' in place of 'base_model.model.base_model.'"),
    ("alpha lost", "the file doesn't say its alpha"),
    ("merged twice", "merged twice: the file has W + 2 s B A"),
    ("merged into four bits", "neither the base's nor the sum"),
    ("merged into a tied head", "an adapter sits on one side of a tie: head"),
])
def test_an_audit_names_the_cause_where_it_lies_beside_the_model(ward, patients, name, words):
    assert words in "; ".join(map(str, zoo.shown(ward, patients[name][0])))


@pytest.mark.parametrize("name", BY_NAME)
def test_what_an_audit_must_be_given_and_what_it_can_not_find_is_said(ward, patients, name):
    alone, more = (hear(ward, patients[name][0]) for hear in (zoo.heard, zoo.shown))
    assert alone or BY_NAME[name].given
    assert bool(alone or more) != bool(BY_NAME[name].unseen)


def test_a_small_update_is_lost_in_a_file_that_is_right_but_for_rounding(ward, patients):
    broken = patients["swallowed in 16 bits"][0]
    assert {t.dtype for t in broken.file.values()} == {torch.bfloat16}
    for name, layer in layers(broken.twin):
        right = layer.base.weight + layer.update()
        assert torch.equal(broken.file[f"{name}.weight"], right.bfloat16())
    assert ward.apart(broken) > 0.1 and zoo.shown(ward, broken) == []


def test_the_labelled_form_gives_the_towns_loss_and_logits(ward):
    tokens, mask, _ = ward.draw(random.Random(0))
    model = beside.Labelled(ward.sound.model)
    with torch.no_grad():
        out = model(tokens, tokens.masked_fill(mask == 0, beside.MASKED))
        due = train.loss(ward.sound.model, tokens, mask).item()
        assert out["loss"].item() == pytest.approx(due)
        assert torch.equal(out["logits"], ward.sound.model(tokens[:, :-1]))
    assert model.training is ward.sound.model.training is False


def test_a_base_that_has_no_end_token_in_its_config_can_not_be_asked_for_it(ward, patients):
    model = beside.Labelled(patients["no end in the loss"][0].model)
    del model.config.eos_token_id
    tokens = ward.draw(random.Random(0))[0]
    labels = tokens.masked_fill(tokens == text.END, beside.MASKED)
    batch = {"input_ids": tokens, "labels": labels.masked_fill(tokens == text.PAD, beside.MASKED)}
    assert audit.audit(model, batch=batch) == []


def test_a_smoke_test_finds_what_shows_in_three_steps(ward):
    found = {s.name for s in zoo.SPECIMENS if s.smoke(ward)}
    assert found == {"reentrant checkpointing", "optimizer too early", "a base left trainable"}
    assert zoo.named("alpha lost").smoke(ward) is None


def test_mended_and_sound_are_one_where_only_the_bug_differs(ward, patients):
    sound = ward.sound.model.state_dict()
    for name in ("optimizer too early", "a copied rate", "no end in the loss"):
        mended = patients[name][1].model.state_dict()
        assert all(torch.equal(t, mended[n]) for n, t in sound.items()), name


def test_the_base_that_ships_is_never_changed(ward, patients):
    then = ward.before.base
    assert audit.snapshot(ward.base).base == then


def variables(ward, specimen, patient, mended):
    """What the names in a specimen's line stand for."""
    start = specimen.make(ward, mended) if patient.losses else None
    tokens, mask, _ = ward.draw(random.Random(0))
    counted = start.counts(tokens, mask) if start else mask
    base = copy.deepcopy(patient.twin)
    if base is not None and layers(base):
        detach(base)
    return {"model": patient.model, "batch": ward.batch, "optimizer": patient.optimizer,
            "apart": patient.twin, "base": base, "logits": ward.logits, "end": text.END,
            "labels": torch.where(counted.bool(), tokens, -100)}


ALARMING = {  # which answer of a specimen's line tells of the bug; any at all, if not said
    "another model's names": lambda names: len(names) < 6,
    "a copied rate": lambda rates: max(rates) < 1e-4,
    "the rank not divided by": lambda scales: scales[0] != 16 / 32,
    "alpha lost": lambda scales: scales[0] != 2,
    "no end in the loss": lambda found: not found.any(),
    "merged into four bits": lambda lost: 0.1 < lost < 1,
}


@pytest.mark.parametrize("name", sorted(BY_NAME.keys() - {
    "names that don't fit", "merged twice", "swallowed in 16 bits"}))
def test_the_first_probe_of_the_page_tells_broken_from_mended(ward, patients, name):
    specimen, alarming = BY_NAME[name], ALARMING.get(name, bool)
    with torch.no_grad():
        broken, mended = (eval(specimen.line, variables(ward, specimen, patient, well))
                          for patient, well in zip(patients[name], (False, True), strict=True))
    assert alarming(broken) and not alarming(mended)


def test_the_first_probes_of_names_of_a_second_merge_and_of_a_small_update(ward, patients):
    names, twice, small = (zoo.named(n).line for n in (
        "names that don't fit", "merged twice", "swallowed in 16 bits"))
    model = ward.adapted()
    wrong = {f"base_model.{n}": t for n, t in ward.saved.items()}
    assert len(eval(names, {"model": model, "tensors": wrong})) == 48  # as many are missing
    assert eval(names, {"model": model, "tensors": ward.saved}) == []
    some = dict(list(ward.saved.items())[:-1])
    assert eval(names, {"model": model, "tensors": some}) == [list(ward.saved)[-1]]
    name, layer = layers(ward.sound.model)[0]
    W0, U = ward.base.get_submodule(name).weight, layer.update()
    merged = layers(patients["merged twice"][0].model)[0][1].base.weight
    assert eval(twice, {"W": merged, "W0": W0, "U": U}).item() == pytest.approx(1, abs=1e-4)
    assert eval(twice, {"W": layer.base.weight, "W0": W0, "U": U}) == 0
    shares = [eval(small, {"W": layer.base.weight, "U": strength * layer.update()}).item()
              for strength in (0.001, 0.01, 1)]
    assert 1 > shares[0] > shares[1] > shares[2] > 0


def test_a_second_merge_is_seen_in_16_bits_where_rounding_is_as_long_as_the_update(ward):
    name, layer = layers(ward.sound.model)[0]
    W0, U = ward.base.get_submodule(name).weight.double(), 0.02 * layer.update().double()
    line = zoo.named("merged twice").line
    said = [eval(line, {"W": (W0 + k * U).bfloat16().double(), "W0": W0, "U": U})
            for k in (0, 1, 2)]
    assert [round(x.item()) for x in said] == [0, 1, 2]
    assert ((W0 + U).bfloat16() - W0 - U).norm() > 0.3 * U.norm()


def test_the_probe_of_gradients_tells_recomputed_blocks_from_an_early_optimizer(ward, patients):
    line = zoo.named("reentrant checkpointing").line
    recomputed, early = (patients[n][0].model for n in (
        "reentrant checkpointing", "optimizer too early"))
    assert ward.zero_share(Patient(recomputed)) == ward.zero_share(Patient(early)) == 1
    assert len(eval(line, {"model": recomputed})) == 24 and eval(line, {"model": early}) == []


def test_the_probe_of_rates_reads_what_a_schedule_began_with(ward):
    optimizer = torch.optim.AdamW(ward.fresh().parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 1e-6, total_iters=2)
    optimizer.step(), schedule.step(), schedule.step()
    assert optimizer.param_groups[0]["lr"] < 1e-4
    assert eval(zoo.named("a copied rate").line, {"optimizer": optimizer}) == [3e-3]


def test_ends_that_count_are_none_in_the_broken_one_and_all_in_the_mended_one(ward):
    make = zoo.named("no end in the loss").make
    assert [ward.ends_counted(make(ward, mended)) for mended in (False, True)] \
        == [(0, 32), (32, 32)]


def test_the_probes_say_what_their_names_say(ward):
    sound = ward.sound
    assert [getattr(ward, p)(sound) for p in ("adapted_share", "zero_share", "scale", "moved")] \
        == [1, 0, 1, 0]
    assert ward.felt(sound) == 1 and ward.shaky(sound) == 0 and math.isnan(ward.apart(sound))
    assert ward.apart(Patient(ward.fresh(), twin=sound.model)) == pytest.approx(1)
    assert ward.apart(Patient(sound.model, twin=sound.model)) == 0
    bare = Patient(ward.fresh(), before=ward.before, twin=sound.model)
    assert bare.merged and all(map(math.isnan, (
        ward.adapted_share(bare), ward.zero_share(bare), ward.scale(bare))))
    assert ward.felt(bare) == 0 and ward.excess(bare) > 10 * ward.excess(sound)


def test_excess_and_answers_leave_the_modes_as_they_are(ward):
    model = ward.adapted(dropout=0.1)
    model.blocks[0].train()
    modes = [m.training for m in model.modules()]
    ward.excess(Patient(model)), ward.stops(Patient(model), 2)
    assert [m.training for m in model.modules()] == modes and any(modes) and not all(modes)


def test_every_section_that_the_page_names_is_in_the_notebook():
    titles = re.findall(r"^# #+ (.+)$", LESSON.read_text("utf-8"), re.M)
    for s in zoo.SPECIMENS:
        assert any(title.startswith(s.section) for title in titles), s.section


def test_the_page_is_what_the_zoo_says(ward, patients):
    made = firstaid.page(ward, {name: broken for name, (broken, _) in patients.items()})
    assert build.PAGE.read_text("utf-8") == made, "run python build.py page"


def test_the_links_of_the_page_lead_somewhere():
    page = build.PAGE.read_text("utf-8")
    headings = {firstaid.anchor(h) for h in re.findall(r"^#+ (.+)$", page, re.M)}
    inner = re.findall(r"\]\(#([^)]+)\)", page)
    assert len(inner) == 14 and set(inner) <= headings
    for link in set(re.findall(r"\]\((\.\./[^)]+)\)", page)):
        assert (build.PAGE.parent / link).resolve().exists(), link
    assert "|" not in page  # no tables: it is read on phones, too


def test_a_probe_finds_what_alarms_it_broken_and_not_mended():
    names = ("a", "b", "c")
    broken = {(p, n): n != "a" for p in PROBES for n in names}
    mended = {(p, n): n == "c" for p in PROBES for n in names}
    assert chart.finds(broken, mended) == {p: ["b"] for p in PROBES}
    dots = chart.chart(broken, mended).axes[0].lines
    open_ones = [d for d in dots if d.get_markerfacecolor() == "none"]
    assert len(dots) == 2 * len(PROBES) and len(open_ones) == len(PROBES)


def test_what_alarms_is_asked_of_each_patient_by_each_probe(ward):
    found = chart.alarmed(ward, {"sound": ward.sound})
    assert len(found) == len(PROBES)
    assert {probe for (probe, _), red in found.items() if red} <= {"excess"}  # after thirty steps


def test_a_run_that_is_stopped_makes_one_step_and_is_not_kept(capsys):
    ward = Ward(steps=5)
    with train.together() as runs:
        runs.whole = False
        assert len(ward.sound.losses) == 1
    assert ward.kept == {} and "Stopped" in capsys.readouterr().out
    assert len(ward.sound.losses) == 5 and ward.sound is ward.sound


def test_each_section_that_a_finding_names_is_on_the_page():
    page = build.PAGE.read_text("utf-8")
    there = {firstaid.anchor(title) for title in re.findall(r"^#+ (.+)$", page, re.M)}
    assert set(SECTIONS.values()) <= there


@pytest.mark.parametrize("name", BY_NAME)
def test_what_an_audit_finds_leads_to_the_page_and_one_finding_to_the_very_section(
        ward, patients, name):
    broken, one = patients[name][0], BY_NAME[name]
    found = zoo.heard(ward, broken) + zoo.shown(ward, broken)
    due = {firstaid.anchor(one.name), firstaid.anchor(one.group)}
    assert not found or {finding.more.partition("#")[2] for finding in found} & due
    assert all(finding.more in str(finding) for finding in found)
