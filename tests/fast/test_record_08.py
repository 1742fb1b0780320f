"""Record "inside" and what it rests on: updates taken apart, against oracles and planted faults."""

from statistics import fmean

import numpy as np
import pytest
import torch

import lora_mini as lm
from lora_mini.desk import verdicts
from lora_mini.lab import contrasts, inside, opened, record, trials
from lora_mini.world import base
from lora_mini.world.gpt import GPT, Config

REC = record.load("inside")
RNG = np.random.default_rng(0)


def cell(what, new, rank, part="total"):
    return np.array(contrasts.cell("inside", what=what, new=new, rank=rank)[part])


def small(seed=0):
    torch.manual_seed(seed)
    return GPT(Config(12, context=8, d_model=8, heads=2, layers=1)).eval()


def test_updates_of_an_adapter_are_scale_times_B_times_A():
    model, tuned = small(), small()
    lm.attach(tuned, "all-linear", rank=2, alpha=5)
    with torch.no_grad():
        for layer in tuned.modules():
            if isinstance(layer, lm.LoRALinear):
                layer.lora_B.normal_()
    found = inside.updates(model, tuned)
    layer = tuned.blocks[0].up_proj
    by_hand = 2.5 * (layer.lora_B @ layer.lora_A).detach().double().numpy()
    assert len(found) == 6
    np.testing.assert_allclose(found["blocks.0.up_proj"], by_hand, atol=1e-6)


def test_a_model_with_its_own_matrices_placed_says_the_same_and_is_left_alone():
    model, tokens = small(), torch.arange(6).view(2, 3)
    before = model(tokens)
    zeros = {name: 0 * W for name, W in inside.matrices(model).items()}
    assert torch.equal(inside.placed(model, inside.matrices(model))(tokens), before)
    assert not torch.allclose(inside.placed(model, zeros)(tokens), before)
    assert torch.equal(model(tokens), before)


def test_an_update_placed_densely_equals_the_adapter():
    model, tokens = small(), torch.arange(6).view(2, 3)
    lm.attach(model, "all-linear", rank=2, alpha=5)
    torch.nn.init.normal_(model.blocks[0].attention.q_proj.lora_B)
    plain = inside.placed(model, inside.matrices(model))
    assert not any(isinstance(m, lm.LoRALinear) for m in plain.modules())
    torch.testing.assert_close(plain(tokens), model(tokens))


def test_noise_has_the_shape_and_the_norm_and_parts_add_up():
    X = RNG.standard_normal((7, 5))
    noise = inside.noise_like(X, RNG)
    assert noise.shape == X.shape and np.linalg.norm(noise) == pytest.approx(np.linalg.norm(X))
    np.testing.assert_allclose(inside.strongest(X, 5), X)
    np.testing.assert_allclose(inside.random_part(X, 5, RNG), X)
    assert not inside.strongest(X, 0).any() and not inside.random_part(X, 0, RNG).any()
    assert np.linalg.matrix_rank(inside.random_part(X, 2, RNG)) == 2
    parts = [np.linalg.norm(inside.random_part(X, 2, RNG)) ** 2 for _ in range(400)]
    assert fmean(parts) == pytest.approx(2 / 5 * np.linalg.norm(X) ** 2, rel=0.1)


def test_phi_is_the_mean_squared_cosine_of_the_principal_angles_and_max_over_d_by_chance():
    V1, V2 = (np.linalg.qr(RNG.standard_normal((9, k)))[0].T for k in (2, 3))
    cosines = np.linalg.svd(V1 @ V2.T, compute_uv=False)
    assert inside.phi(V1, V2) == pytest.approx(np.mean(cosines**2))
    assert inside.phi(V1, np.eye(9)) == pytest.approx(1)
    draws = [inside.phi(V1, np.linalg.qr(RNG.standard_normal((9, 3)))[0].T) for _ in range(500)]
    assert fmean(draws) == pytest.approx(3 / 9, rel=0.1)


def test_a_planted_direction_is_an_intruder_and_an_old_one_is_not():
    W0 = np.diag([5.0, 4, 3, 2, 1])
    one = np.ones(5) / 5**0.5
    assert inside.intruders(W0, W0[::-1].T @ W0, top=3) == []
    assert inside.intruders(W0, W0 + 50 * np.outer(one, one), top=3)[0] == 0
    gone = inside.shrunk(W0, [1], 0.25)
    np.testing.assert_allclose(np.sort(np.diag(gone)), [1, 1, 2, 3, 5])


def test_the_record_says_what_made_it_and_has_sixteen_bases_everywhere():
    assert REC["about"]["command"] == "python -m lora_mini.lab inside"
    assert REC["about"]["plan"] == record.plan_hash("inside")
    assert len(REC["own"]) == 16
    for cells in REC["cells"]:
        assert len(cells["total"]) == len(cells["content"]) == 16
    for part in ("spectra", "shared", "amplified", "intruders", "healed", "start"):
        assert {len(each) for found in REC[part].values() for each in found.values()} == {16}


@pytest.mark.parametrize("new", opened.NEW)
def test_the_opened_models_pay_what_those_of_record_arms_pay(new):
    """The bases were made anew, on another machine: only some came out the same."""
    arms = np.array(contrasts.cell("arms", arm="full", new=new, examples=256)["total"])
    ratios = np.log(cell("whole", new, 8) / arms)
    assert abs(ratios.mean()) < np.log(1.05) and (np.abs(ratios) < np.log(1.5)).all()
    np.testing.assert_array_equal(cell("whole", new, 8), cell("whole", new, 16))


@pytest.mark.parametrize("new", opened.NEW)
def test_curves_meet_where_nothing_and_where_everything_is_kept(new):
    for part in ("total", "content"):
        for (one, k), (two, also) in ((("cut", 64), ("whole", 8)), (("random", 64), ("cut", 64)),
                                      (("random", 0), ("cut", 0)), (("only", 0), ("blocks", 0))):
            np.testing.assert_allclose(cell(one, new, k, part), cell(two, new, also, part),
                                       rtol=0.01)


def test_both_ablations_leave_far_more_than_the_tuned_model_and_less_than_the_base():
    for new in opened.NEW:
        base_pays, whole = cell("only", new, 0), cell("whole", new, 8)
        for half in (cell("cut", new, 0), cell("only", new, 64)):
            assert (half > 3 * whole).all() and (half < base_pays / 2).all()


def test_a_start_of_A_is_the_one_that_a_run_with_that_seed_draws():
    before = base.load_base(path=base.SHIPPED)
    start = opened.start_of(before, "LoRA r=2", 7)
    after, _ = trials.tune(before, "LoRA r=2", opened.task(0), 1e-9, 3, init=7, examples=8, steps=1,
                           size=8, checkpoints=(1,), report=False)
    assert len(start) == 12
    assert opened.moved(after, start)["change"] < 1e-6
    assert opened.moved(after, opened.start_of(before, "LoRA r=2", 8))["change"] > 1


def test_random_directions_have_the_strength_that_the_formula_says_and_none_beats_its_own():
    W = RNG.standard_normal((9, 7)) @ np.diag([5, 4, 3, 2, 1, 1, 1.0])
    drawn = [inside.strengths(W, RNG.standard_normal(W.shape), 3) for _ in range(400)]
    within, own, chance = np.array(drawn).T
    assert np.sqrt(np.mean(within**2)) == pytest.approx(chance[0], rel=0.1)
    assert inside.strengths(W, W, 3)[0] == pytest.approx(own[0]) and (within < own).all()
    thin = np.outer(RNG.standard_normal(9), RNG.standard_normal(7))
    assert inside.strengths(W, thin, 3)[2] == pytest.approx(np.linalg.norm(W) / 63**0.5)


def test_the_bound_of_an_amplification_holds_and_noise_stays_at_one():
    for where, found in REC["amplified"].items():
        assert (np.array(found["ratio"]) < found["bound"]).all()
        assert "r=1" in where or max(found["bound"]) < 8
        if "noise" in where:
            assert fmean(found["ratio"]) == pytest.approx(1, abs=0.05)


def test_noise_shares_directions_as_chance_says_and_the_two_sides_are_told_apart():
    for new in opened.NEW:
        noise = REC["shared"][f"noise and noise, {new}"]
        for side in ("left", "right"):
            assert fmean(noise[f"{side} 8"]) == pytest.approx(8 / 64, abs=0.01)
    U, V = (np.linalg.qr(RNG.standard_normal((64, 16)))[0] for _ in range(2))
    one, two = {"a": U[:, :8] @ V[:, :8].T}, {"a": U[:, :8] @ V[:, 8:].T}
    found = opened.shared(one, two)
    assert found["left 8"] == pytest.approx(1) and found["right 8"] == pytest.approx(0, abs=1e-9)


def test_intruders_are_counted_beside_noise_of_the_same_norm():
    W0, one = {"a": np.diag(np.arange(12.0, 0, -1))}, np.ones(12) / 12**0.5
    found = opened.counted(W0, {"a": 50 * np.outer(one, one)}, np.random.default_rng(0))
    assert found["count"][1] >= 1 and found["at_norm"][0] == 0
    assert found["norm"] == pytest.approx(50 / np.linalg.norm(W0["a"]))
    for cells in REC["intruders"].values():
        assert all(a <= b <= c for a, b, c in cells["count"])


def test_every_remedy_starts_at_the_same_adapter_and_the_plain_one_ends_near_the_base():
    for found in REC["healed"].values():
        for base_paths in zip(*found.values(), strict=True):
            assert len({tuple(path[0]) for path in base_paths}) == 1
        assert min(path[-1][2] for path in found["scaled"]) > 0.9


def test_a_verdict_on_c13_turns_with_its_data():
    effects = contrasts.effects("C13")
    names = list(effects)
    assert set(verdicts.weigh("C13", effects).conditions.values()) <= {"equal", "worse", "open"}
    worse = {name: [x - 2 for x in values] for name, values in effects.items()}
    assert verdicts.weigh("C13", worse).word == "misleading"
    assert verdicts.weigh("C13", {name: [0.01, 0.0] * 8 for name in names}).word == "holds"
    dull = {name: [-x for x in effects[names[2]]] for name in names}  # the other way round
    assert set(verdicts.weigh("C13", dull).conditions.values()) == {"better"}


def test_c13_compares_the_cut_model_with_the_whole_one_base_by_base():
    floors = [own["total"] for own in REC["own"]]
    tasks = ((0, 8), (0, 16), (12, 8), (12, 16))
    for name, (new, rank) in zip(contrasts.effects("C13"), tasks, strict=True):
        by_hand = np.log(np.maximum(cell("whole", new, rank), floors)
                         / np.maximum(cell("cut", new, rank), floors))
        np.testing.assert_allclose(contrasts.effects("C13")[name], by_hand)
