"""Low-rank algebra against numpy.linalg, closed forms, and counts that fit on paper."""

import numpy as np
import pytest

from lora_mini import svd


@pytest.fixture
def X():
    return np.random.default_rng(0).standard_normal((7, 5))


def test_low_rank_has_the_rank_asked_for_and_the_error_of_the_dropped_values(X):
    values = np.linalg.svd(X, compute_uv=False)
    for rank in range(1, 6):
        Y = svd.low_rank(X, rank)
        assert np.linalg.matrix_rank(Y) == rank
        dropped = np.sqrt(np.sum(values[rank:] ** 2))
        assert np.linalg.norm(X - Y) == pytest.approx(dropped, abs=1e-12)


def test_low_rank_of_a_diagonal_matrix_keeps_the_large_entry():
    kept = svd.low_rank(np.diag([3.0, 4.0]), 1)
    np.testing.assert_allclose(kept, np.diag([0.0, 4.0]), atol=1e-12)


def test_factors_multiply_to_the_truncation_and_share_its_size(X):
    B, A = svd.factors(X, 2)
    assert B.shape == (7, 2) and A.shape == (2, 5)
    U, S, Vt = np.linalg.svd(X)
    np.testing.assert_allclose(B @ A, U[:, :2] * S[:2] @ Vt[:2], atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(B, axis=0), np.linalg.norm(A, axis=1))


def test_energy_kept_of_3_4_is_9_of_25_in_squares():
    assert svd.energy_kept([4.0, 3.0], 1) == pytest.approx(16 / 25)
    assert svd.energy_kept([4.0, 3.0], 0) == 0
    assert svd.energy_kept([4.0, 3.0], 2) == 1
    assert svd.energy_kept([0.0, 0.0], 1) == 1


def test_energy_gives_the_relative_error_of_the_truncation(X):
    values = np.linalg.svd(X, compute_uv=False)
    error = np.linalg.norm(X - svd.low_rank(X, 3)) / np.linalg.norm(X)
    assert np.sqrt(1 - svd.energy_kept(values, 3)) == pytest.approx(error)


@pytest.mark.parametrize("error, rank", [(0.61, 1), (0.59, 2), (0.0, 2), (1.0, 0)])
def test_rank_for_error_of_4_3_turns_at_three_fifths(error, rank):
    assert svd.rank_for_error([4.0, 3.0], error) == rank


def test_rank_for_error_agrees_with_truncating_one_rank_at_a_time(X):
    values = np.linalg.svd(X, compute_uv=False)
    for error in (0.1, 0.3, 0.6, 0.9):
        rank = svd.rank_for_error(values, error)
        assert np.linalg.norm(X - svd.low_rank(X, rank)) <= error * np.linalg.norm(X)
        if rank > 1:
            below = svd.low_rank(X, rank - 1)
            assert np.linalg.norm(X - below) > error * np.linalg.norm(X)


def test_effective_rank_counts_equal_values_and_ignores_scale():
    assert svd.effective_rank([2.0, 2.0, 2.0, 0.0]) == pytest.approx(3)
    assert svd.effective_rank([5.0]) == pytest.approx(1)
    p = np.array([0.75, 0.25])
    assert svd.effective_rank(8 * p) == pytest.approx(np.prod(p**-p))


def test_randomized_svd_meets_numpy_where_the_spectrum_falls():
    rng = np.random.default_rng(1)
    U, V = (np.linalg.qr(rng.standard_normal((n, 40)))[0] for n in (90, 60))
    X = (U * 0.7 ** np.arange(40)) @ V.T
    u, s, vt = svd.randomized_svd(X, 6)
    np.testing.assert_allclose(s, 0.7 ** np.arange(6), rtol=1e-6)
    np.testing.assert_allclose((u * s) @ vt, svd.low_rank(X, 6), atol=1e-5)
    np.testing.assert_allclose(u.T @ u, np.eye(6), atol=1e-10)


def test_power_iterations_help_where_the_spectrum_is_flat():
    X = np.random.default_rng(2).standard_normal((80, 60))
    exact = np.linalg.svd(X, compute_uv=False)[:5]
    found = [svd.randomized_svd(X, 5, power_iterations=q)[1] for q in (0, 2, 6)]
    gaps = [np.abs(s - exact).max() for s in found]
    assert gaps[0] > 2 * gaps[1] > 4 * gaps[2]


@pytest.mark.parametrize("rank", [0, -1, 6, 2.0, "2"])
def test_a_wrong_rank_is_refused_with_the_range(X, rank):
    with pytest.raises(ValueError, match=r"between 1 and min\(m, n\) = 5"):
        svd.truncated_svd(X, rank)


@pytest.mark.parametrize("matrix, words", [
    ([1.0, 2.0], "two axes"), (np.zeros((0, 3)), "at least one entry"),
    ([[1.0, np.nan]], "NaN"), ([[np.inf, 1.0]], "infinity"),
])
def test_what_has_no_svd_is_refused(matrix, words):
    with pytest.raises(ValueError, match=words):
        svd.low_rank(matrix, 1)


@pytest.mark.parametrize("call, words", [
    (lambda: svd.energy_kept([1.0, 2.0], 1), "largest first"),
    (lambda: svd.energy_kept([2.0, -1.0], 1), "none negative"),
    (lambda: svd.energy_kept([2.0, 1.0], 3), "between 0 and 2"),
    (lambda: svd.rank_for_error([1.0], 1.5), "between 0 and 1"),
    (lambda: svd.effective_rank([0.0]), "zero matrix"),
    (lambda: svd.randomized_svd(np.eye(3), 1, oversample=-1), "0 or more"),
])
def test_other_bad_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_integers_and_float32_are_taken_as_they_come():
    np.testing.assert_allclose(svd.low_rank([[1, 2], [2, 4]], 1), [[1, 2], [2, 4]])
    assert svd.low_rank(np.eye(3, dtype=np.float32), 1).dtype == np.float32


@pytest.mark.parametrize("size", [1e-200, 1e-160, 1e160, 1e200, 1e307])
def test_sizes_whose_squares_leave_the_range_of_a_float_change_nothing(X, size):
    values = np.linalg.svd(X, compute_uv=False)
    values = values / values[0]
    assert svd.energy_kept(size * values, 2) == pytest.approx(svd.energy_kept(values, 2))
    assert svd.rank_for_error(size * values, 0.5) == svd.rank_for_error(values, 0.5)
    assert svd.effective_rank(size * values) == pytest.approx(svd.effective_rank(values))
    for found in (svd.truncated_svd(size * X / 10, 2), svd.randomized_svd(size * X / 10, 2)):
        exact = np.linalg.svd(X / 10, compute_uv=False)[:2]
        np.testing.assert_allclose(found[1] / size, exact, rtol=0.02)


def test_the_power_of_two_that_randomized_svd_takes_out_costs_no_digit(X):
    one, other = svd.randomized_svd(X, 2), svd.randomized_svd(X * 2.0**300, 2)
    np.testing.assert_array_equal(one[1] * 2.0**300, other[1])
    np.testing.assert_array_equal(one[0], other[0])
    assert svd.randomized_svd(np.zeros((4, 3)), 1)[1] == 0
    assert svd.randomized_svd(np.eye(4, 3, dtype=np.float32), 1)[1].dtype == np.float32


def test_a_spectrum_wider_than_floats_counts_as_what_is_seen_of_it():
    assert svd.effective_rank([1.0, 1e-320, 0.0]) == pytest.approx(1)
    assert svd.effective_rank([1e300, 1e300, 1e-300]) == pytest.approx(2)
    assert svd.energy_kept([1e-300, 1e-320], 1) == pytest.approx(1)


@pytest.mark.parametrize("function", [
    lambda S: svd.energy_kept(S, 1), lambda S: svd.rank_for_error(S, 0.1), svd.effective_rank])
@pytest.mark.parametrize("S", [[np.nan, 1.0], [2.0, np.nan], [np.inf, 1.0], [[1.0]], []])
def test_singular_values_must_be_finite_and_on_one_axis(function, S):
    with pytest.raises(ValueError, match="one axis, finite"):
        function(S)


@pytest.mark.parametrize("call", [
    lambda: svd.low_rank(np.eye(3) * 1j, 1), lambda: svd.randomized_svd(np.eye(3) + 0j, 1),
    lambda: svd.effective_rank([1j]), lambda: svd.low_rank([["a", "b"]], 1),
    lambda: svd.energy_kept([None], 1)])
def test_what_is_not_real_is_refused_not_cut(call):
    with pytest.raises(ValueError, match="expected real numbers, got an array of dtype"):
        call()
