"""The records of 09: complete, fair, and turned by planted faults; C10; what the lesson builds."""

import json
import math
from statistics import correlation, fmean

import numpy as np
import pytest
import torch

import lora_mini as lm
from lora_mini import variants
from lora_mini.desk import verdicts
from lora_mini.lab import bases, contrasts, inside, parts, record, stability, sweep, trials
from lora_mini.world.gpt import GPT, Config

NAMES = ("variants", "hot", "drift", "scales")
FOUND = {name: record.load(name) for name in NAMES}
VARIANTS, HOT = FOUND["variants"]["cells"], FOUND["hot"]["cells"]
RIVALS = ("LoRA r=8", "DoRA r=8")
SWAPPED = {"better": "worse", "worse": "better", "equal": "equal", "open": "open"}


def named(cell):
    """What a cell says of itself, without its results."""
    return {key: value for key, value in cell.items() if key in
            ("arm", "new", "examples", "clip", "alpha", "law", "times")}


def means(cell):
    """Rate to the mean over the bases that chose."""
    return {float(rate): math.inf if None in seen["chooses"] else fmean(seen["chooses"])
            for rate, seen in cell["tried"].items()}


@pytest.mark.parametrize("name", NAMES)
def test_a_record_says_what_made_it_and_what_was_to_be_judged(name):
    about = FOUND[name]["about"]
    assert about["command"] == f"python -m lora_mini.lab {name}"
    assert about["by"] and len(about["code"]) == 12 and about["plan"] == record.plan_hash(name)


def test_every_variant_is_there_once_rivals_on_sixteen_bases_the_others_on_eight():
    assert [named(cell) for cell in VARIANTS] == parts.rivals() + parts.variants()
    for cell in VARIANTS:
        count = 16 if cell["arm"] in RIVALS else 8
        for key in ("content", "chance", "total", "valid", "last", "train"):
            assert len(cell[key]) == count and all(map(math.isfinite, cell[key])), named(cell)
        assert {len(seen["chooses"]) for seen in cell["tried"].values()} == {len(bases.CHOOSE)}
    assert len(FOUND["variants"]["own"]) == 16


def test_the_best_rate_lies_inside_what_was_tried_and_rivals_have_the_rates_between():
    for cell in VARIANTS:
        found = means(cell)
        best = min(sorted(found), key=found.get)
        assert min(found) < best < max(found), named(cell)
        assert cell["best"] == sweep.chosen({float(r): seen for r, seen in cell["tried"].items()})
        if cell["arm"] in RIVALS:
            i = sweep.FINE.index(best)
            assert {sweep.FINE[i - 1], sweep.FINE[i + 1]} <= set(found), named(cell)


def test_equal_numbers_and_equal_ranks_are_what_the_lesson_says():
    base = bases.base_of(bases.SHIPPED)
    count = {arm: lm.trainable_parameters(trials.prepare(base, arm))[1]
             for arm in (*RIVALS, *parts.VARIANTS, "LoRA r=16")}
    d_out = sum(layer.base.out_features for layer in trials.prepare(base, "LoRA r=8").modules()
                if isinstance(layer, lm.LoRALinear))
    assert count["LoRA-FA r=16"] == count["LoRA r=8"] == count["LoRA r=16"] / 2
    assert count["DoRA r=8"] - count["LoRA r=8"] == d_out


def test_reversed_data_reverse_every_contrast_of_c10():
    effects = contrasts.effects("C10")
    came = verdicts.weigh("C10", effects).conditions
    turned = {name: [-x for x in values] for name, values in effects.items()}
    after = verdicts.weigh("C10", turned).conditions
    assert after == {name: SWAPPED[word] for name, word in came.items()}


@pytest.mark.parametrize("fault, word", [(3.0, "holds"), (-3.0, "misleading")])
def test_a_fault_planted_in_the_effects_turns_the_verdict_on_c10(fault, word):
    effects = {name: [x + fault for x in xs] for name, xs in contrasts.effects("C10").items()}
    assert verdicts.weigh("C10", effects).word == word


def planted(monkeypatch, change):
    """The records as they would be if `change` had been done to each cell."""
    found = json.loads(json.dumps(FOUND))
    for name in ("variants", "hot"):
        for cell in found[name]["cells"]:
            change(name, cell)
    monkeypatch.setattr(contrasts, "load", found.get)


def test_rivals_that_change_places_change_every_word(monkeypatch):
    before = verdicts.weigh("C10", contrasts.effects("C10")).conditions
    names = dict(zip(RIVALS, reversed(RIVALS), strict=True))
    planted(monkeypatch, lambda name, cell: cell.update(arm=names.get(cell["arm"], cell["arm"])))
    after = verdicts.weigh("C10", contrasts.effects("C10")).conditions
    assert after == {name: SWAPPED[word] for name, word in before.items()}


def test_a_dora_that_pays_a_third_is_better_at_quality_alone(monkeypatch):
    def third(name, cell):
        if name == "variants" and cell["arm"] == "LoRA r=8":
            cell["total"] = [3 * x for x in cell["total"]]
    hot = {n: w for n, w in verdicts.weigh("C10", contrasts.effects("C10")).conditions.items()
           if "ruined" in n}
    planted(monkeypatch, third)
    came = verdicts.weigh("C10", contrasts.effects("C10"))
    quality = {n: w for n, w in came.conditions.items() if "ruined" not in n}
    assert set(quality.values()) == {"better"} and came.word == "holds when"
    assert hot.items() <= came.conditions.items()


@pytest.mark.parametrize("clip, contrast", [
    (1.0, "not ruined at ten times the rate, clipped"),
    (None, "not ruined at ten times the rate, not clipped")])
@pytest.mark.parametrize("sound, word", [
    ([1.0] * 16, "better"), ([0.0] * 16, "equal"), ([0.0, 1.0] * 8, "open")])
def test_runs_that_are_saved_or_lost_turn_the_half_about_stability(monkeypatch, clip, contrast,
                                                                  sound, word):
    planted(monkeypatch, lambda name, cell: name == "hot" and cell["clip"] == clip and cell.update(
        sound=sound if cell["arm"] == "DoRA r=8" else [0.0] * 16))
    assert verdicts.weigh("C10", contrasts.effects("C10")).conditions[contrast] == word


def test_hot_runs_are_at_ten_times_the_recorded_rate_and_ruined_above_half_a_nat():
    assert [(cell["arm"], cell["clip"]) for cell in HOT] == [
        (arm, clip) for clip in (1.0, None) for arm in RIVALS]
    for cell in HOT:
        best = contrasts.cell("variants", arm=cell["arm"], new=12, clip=cell["clip"])["best"]
        assert cell["rate"] == pytest.approx(10 * best)
        assert cell["sound"] == [float(t is not None and t < 0.5) for t in cell["total"]]
        assert len(cell["sound"]) == 16


@pytest.mark.parametrize("total, sound", [(0.4, 1.0), (0.6, 0.0), (None, 0.0)])
def test_a_run_that_blew_up_is_ruined(monkeypatch, total, sound):
    found = {"chooses": None} if total is None else {"total": total, "valid": 1.0}
    monkeypatch.setattr(parts, "run", lambda *plan: found)
    assert stability.hot({}, 0.1, 11)["sound"] == sound


def tied(points):
    return correlation(*zip(*points, strict=True))


def rows(M):
    return np.linalg.norm(M, axis=1, keepdims=True)


def test_drift_has_each_matrix_at_each_moment_and_its_noise():
    assert [cell["arm"] for cell in FOUND["drift"]["cells"]] == list(stability.DRIFTS)
    for cell in FOUND["drift"]["cells"]:
        for what in ("points", "noise"):
            assert len(cell[what]) == 16 and {len(points) for points in cell[what]} == {48}
        assert fmean(map(tied, cell["noise"])) > 0.9


def test_noise_alone_ties_length_and_direction_and_a_planted_trade_off_does_not():
    rng = np.random.default_rng(0)
    W = rng.standard_normal((40, 30))
    noise = inside.noise_like(W, rng)
    sizes = np.linspace(0.1, 1, 10)
    grown = [variants.magnitude_direction(W, W + size * noise) for size in sizes]
    assert tied(grown) > 0.95
    stretched = []  # the further a row turns, the less its length changes
    for size in sizes:
        turned = W + size * (noise - (noise * W).sum(axis=1, keepdims=True) / rows(W)**2 * W)
        stretched.append(variants.magnitude_direction(
            W, (2 - size) * rows(W) * turned / rows(turned)))
    assert tied(stretched) < -0.9


def test_the_scales_are_three_laws_that_agree_at_rank_8_on_three_bases():
    cells = FOUND["scales"]["cells"]
    assert [named(cell) for cell in cells] == parts.scales()
    assert {law: alpha(8) for law, alpha in parts.LAWS.items()} == dict.fromkeys(parts.LAWS, 16)
    for cell in cells:
        r = int(cell["arm"].partition("r=")[2])
        power = {"alpha / r": 1, "alpha / sqrt(r)": 0.5, "constant": 0}[cell["law"]]
        assert cell["alpha"] / r == pytest.approx(2 * (8 / r) ** power)
        assert {len(seen["chooses"]) for seen in cell["tried"].values()} == {3}
        assert cell["best"] == sweep.chosen({float(r): s for r, s in cell["tried"].items()})


def small():
    torch.manual_seed(0)
    return GPT(Config(12, context=8, d_model=8, heads=2, layers=1)).eval()


def test_rslora_is_lora_with_another_alpha():
    tokens, outputs = torch.arange(6).view(2, 3), []
    for alpha, rslora in ((16, True), (16 * math.sqrt(2), False)):
        model = small()
        torch.manual_seed(1)
        lm.attach(model, "all-linear", rank=2, alpha=alpha, rslora=rslora)
        for layer in model.modules():
            if isinstance(layer, lm.LoRALinear):
                torch.nn.init.constant_(layer.lora_B, 0.1)
        outputs.append(model(tokens))
    torch.testing.assert_close(*outputs)


def as_peft(rank=2):
    """(ours, a model whose W is replaced by the rest, with plain LoRA at PiSSA's start)."""
    ours, theirs = small(), small()
    lm.attach(ours, "all-linear", rank=rank, alpha=5, layer=variants.PiSSALinear)
    lm.attach(theirs, "all-linear", rank=rank, alpha=5)
    with torch.no_grad():
        for mine, plain in zip(ours.modules(), theirs.modules(), strict=True):
            if isinstance(mine, variants.PiSSALinear):
                plain.lora_A.copy_(mine.start_A)
                plain.lora_B.copy_(mine.start_B)
                plain.base.weight -= mine.scaling * mine.start_B @ mine.start_A
    return ours, theirs


def test_pissa_with_the_rest_in_Ws_place_trains_alike_but_has_lost_its_base():
    tokens, base = torch.arange(6).view(2, 3), small()
    models = as_peft()
    for model in models:
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            model(tokens).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(*(model(tokens) for model in models), atol=1e-5, rtol=1e-4)
    with lm.disabled(models[0]), lm.disabled(models[1]):
        assert torch.equal(models[0](tokens), base(tokens))
        assert not torch.allclose(models[1](tokens), base(tokens), atol=1e-3)
