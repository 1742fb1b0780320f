"""Low-rank algebra in NumPy: what a matrix keeps when only its first r singular directions stay.

Shapes, in every function: X (m, n); U (m, r), S (r,), Vt (r, n); X is near U @ diag(S) @ Vt.
Notebooks 01 and 02 build these by hand, then use them from here.
"""

import numpy as np


def truncated_svd(X, rank):
    """The first `rank` singular triplets of X: U (m, rank), S (rank,), Vt (rank, n).

    Their product is the nearest matrix of that rank, in the Frobenius and the spectral norm
    (Eckart and Young 1936; Mirsky 1960).

    Raises ValueError if X is not a finite matrix or rank is not in 1..min(m, n).
    """
    X = _matrix(X)
    _check_rank(rank, X.shape)
    U, S, Vt = np.linalg.svd(X, full_matrices=False)
    return U[:, :rank], S[:rank], Vt[:rank]


def low_rank(X, rank):
    """The nearest matrix of rank `rank` to X, as a full (m, n) array. Raises as `truncated_svd`."""
    U, S, Vt = truncated_svd(X, rank)
    return (U * S) @ Vt


def factors(X, rank):
    """The same matrix as two thin factors in LoRA's letters: B (m, rank) and A (rank, n).

    B = U sqrt(S), A = sqrt(S) Vt, so `B @ A` equals `low_rank(X, rank)`. Raises as `truncated_svd`.
    """
    U, S, Vt = truncated_svd(X, rank)
    root = np.sqrt(S)
    return U * root, root[:, None] * Vt


def energy_kept(S, rank):
    """The share of the squared Frobenius norm that the first `rank` singular values S hold, 0 to 1.

    The relative error of the truncation is sqrt(1 - energy). A zero matrix has nothing to lose: 1.
    """
    S = _singular_values(S)
    if not 0 <= rank <= len(S):
        raise ValueError(f"rank must be between 0 and {len(S)}, the number of singular values, "
                         f"got {rank}")
    return float(np.sum(S[:rank] ** 2) / np.sum(S**2)) if S[0] else 1.0


def rank_for_error(S, error):
    """The smallest rank whose truncation is off by at most `error`, relative in the Frobenius norm.

    error 0.1 means ||X - X_r|| <= 0.1 ||X||. Raises ValueError unless 0 <= error <= 1.
    """
    S = _singular_values(S)
    if not 0 <= error <= 1:
        raise ValueError(f"error is relative and must lie between 0 and 1, got {error}")
    tail = np.append(np.cumsum(S[::-1] ** 2)[::-1], 0.0)  # tail[r]: what rank r leaves out
    return int(np.argmax(tail <= error**2 * tail[0]))


def effective_rank(S):
    """How many singular values carry the matrix, as a number between 1 and len(S).

    exp of the entropy of S / sum(S) (Roy and Vetterli 2007, section 3): r for r equal values.
    Raises ValueError for a zero matrix, which has none.
    """
    S = _singular_values(S)
    if not S[0]:
        raise ValueError("a zero matrix has no effective rank: all its singular values are 0")
    p = S / S.sum()
    p = p[p > 0]
    return float(np.exp(-np.sum(p * np.log(p))))


def randomized_svd(X, rank, *, oversample=10, power_iterations=2, seed=0):
    """The first `rank` triplets of X from a few products with random vectors, without a full SVD.

    Halko, Martinsson and Tropp 2011: algorithm 4.4 (the range, with its power iterations) and 5.1.
    Cost: about (2 + 2 power_iterations) m n (rank + oversample) multiplications.
    Raises as `truncated_svd`, and ValueError for a negative oversample or power_iterations.
    """
    X = _matrix(X)
    _check_rank(rank, X.shape)
    size = np.frexp(np.abs(X).max())[1]  # a power of two: taken out and put back without rounding,
    X = np.ldexp(X, -size)  # it keeps the products from overflowing
    if oversample < 0 or power_iterations < 0:
        raise ValueError("oversample and power_iterations must be 0 or more, "
                         f"got {oversample} and {power_iterations}")
    columns = min(rank + oversample, *X.shape)
    start = np.random.default_rng(seed).standard_normal((X.shape[1], columns)).astype(X.dtype)
    Q, _ = np.linalg.qr(X @ start)  # (m, columns)
    for _ in range(power_iterations):  # each pass damps the small directions once more
        Q, _ = np.linalg.qr(X.T @ Q)
        Q, _ = np.linalg.qr(X @ Q)
    U, S, Vt = np.linalg.svd(Q.T @ X, full_matrices=False)  # a small problem: (columns, n)
    return Q @ U[:, :rank], np.ldexp(S[:rank], size), Vt[:rank]


def _matrix(X):
    X = np.asarray(X)
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(f"expected a matrix with two axes and at least one entry, got {X.shape}")
    _check_real(X)
    X = X if X.dtype in (np.float32, np.float64) else X.astype(np.float64)
    if not np.isfinite(X).all():
        raise ValueError("the matrix holds NaN or infinity: its SVD does not exist")
    return X


def _check_rank(rank, shape):
    if not isinstance(rank, (int, np.integer)) or not 1 <= rank <= min(shape):
        raise ValueError(f"rank must be a whole number between 1 and min(m, n) = {min(shape)}, "
                         f"got {rank!r}")


def _check_real(X):
    if X.dtype.kind not in "fiub":
        raise ValueError(f"expected real numbers, got an array of dtype {X.dtype}")


def _singular_values(S):
    """Singular values, checked, and divided by the largest so that no square over- or underflows:
    what is computed from them here is the same for c S, whatever c > 0 is."""
    S = np.asarray(S)
    _check_real(S)
    S = S.astype(np.float64)
    if S.ndim != 1 or not len(S) or not np.isfinite(S).all() or (S < 0).any() \
            or (np.diff(S) > 0).any():
        raise ValueError("expected singular values: one axis, finite, none negative, largest first")
    return S / S[0] if S[0] else S
