"""Record 08 and what it rests on: updates taken apart, against oracles and planted faults."""

from statistics import fmean

import numpy as np
import pytest
import torch

import lora_mini as lm
from lora_mini.desk import verdicts
from lora_mini.lab import inside, nb08, record, sweep
from lora_mini.world import base
from lora_mini.world.gpt import GPT, Config

REC = record.load("08")
RNG = np.random.default_rng(0)


def runs(method, task):
    return next(r for r in REC["runs"] if (r["method"], r["task"]) == (method, task))


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


def test_a_subspace_starts_at_the_model_and_its_map_has_orthogonal_columns():
    model, tokens = small(), torch.arange(6).view(2, 3)
    sub = inside.Subspace(model, 10, seed=3)
    assert torch.equal(sub(tokens), model(tokens))
    total = sum(p.numel() for p in model.parameters())
    P = np.zeros((total, 10))
    P[np.arange(total), sub.owner.numpy()] = sub.sign.numpy()
    gram = P.T @ P
    assert not (gram - np.diag(np.diag(gram))).any() and np.ptp(np.diag(gram)) <= 1
    with torch.no_grad():
        sub.z.normal_()
    moved = torch.cat([(sub.weights()[n] - p).flatten() for n, p in model.named_parameters()])
    np.testing.assert_allclose(moved.detach().numpy(), P @ sub.z.detach().numpy(), atol=1e-6)
    torch.testing.assert_close(sub.settled()(tokens), sub(tokens))
    assert [n for n, p in sub.named_parameters() if p.requires_grad] == ["z"]


def test_a_subspace_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="d must be between 1 and"):
        inside.Subspace(small(), 0, seed=0)


def test_the_record_names_its_base_and_its_seeds():
    assert REC["base"] == base.describe()["digest"]
    assert REC["about"]["command"] == "python -m lora_mini.lab 08"
    for cell in REC["runs"]:
        assert cell["seeds"] == list(sweep.REPORT)
        assert len(cell["target"]) == len(sweep.REPORT) >= 8


def test_the_rates_are_those_that_record_07_found_best():
    found = record.load("07")
    for task, rates in nb08.RATES.items():
        for method in nb08.METHODS:
            best = record.find(found["dial"], method=method, task=task)["best"]
            assert rates[method] == best
    best = record.find(found["scales"], method="LoRA r=64", law="alpha / r")["best"]
    assert nb08.RATES["24 new words"]["LoRA r=64"] == best


def test_rates_of_the_subspaces_were_chosen_on_seeds_that_are_not_reported():
    assert not set(sweep.CHOOSE) & set(sweep.REPORT)
    for cell in REC["subspaces"]:
        mean = {float(rate): fmean(t["target"]) for rate, t in cell["tried"].items()
                if None not in t["target"]}
        assert cell["best"] == min(mean, key=mean.get)
        assert all(len(t["target"]) == len(sweep.CHOOSE) for t in cell["tried"].values())
        assert len(cell["target"]) == len(sweep.REPORT)


def shares(added=0.0):
    return {task: [fmean(seed) + added for seed in runs("full", task)["share"]]
            for task in nb08.TASKS}


def test_a_fault_planted_in_the_data_flips_the_verdict_on_c13():
    assert verdicts.weigh("C13", shares()).word == "misleading"
    assert verdicts.weigh("C13", shares(0.25)).word == "holds"
