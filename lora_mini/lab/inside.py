"""What is inside an update: spectra, shared directions, amplification, intruders.

An update is W_tuned - W_0, one NumPy matrix (d_out, d_in) for each adapted matrix of the blocks.
Notebook 08 writes the short ones out, then takes them from here.
"""

import copy

import numpy as np
import torch


@torch.no_grad()
def matrices(model):
    """The blocks' matrices by name, as float64; an adapter's update is added in."""
    return {name: layer.weight.cpu().double().numpy() for name, layer in model.named_modules()
            if name.endswith("_proj")}


def updates(before, after):
    """after - before, matrix by matrix: two GPTs, of which `after` may have an adapter."""
    old, new = matrices(before), matrices(after)
    return {name: new[name] - old[name] for name in old}


@torch.no_grad()
def placed(model, weights):
    """A copy of a GPT in which the named matrices are `weights` (NumPy); the model is left alone.

    An adapter on a named matrix goes: the copy has an `nn.Linear` there, with the old bias.
    """
    model = copy.deepcopy(model)
    for name, W in weights.items():
        layer, (parent, _, child) = model.get_submodule(name), name.rpartition(".")
        plain = getattr(layer, "base", layer)
        plain.weight.copy_(torch.from_numpy(W).to(plain.weight.dtype))
        setattr(model.get_submodule(parent), child, plain)
    return model


def noise_like(X, rng):
    """Gaussian noise of X's shape and Frobenius norm."""
    noise = rng.standard_normal(X.shape)
    return noise * np.linalg.norm(X) / np.linalg.norm(noise)


def strongest(X, rank):
    """X with its `rank` strongest directions only; rank 0 is a matrix of zeros."""
    U, S, Vt = np.linalg.svd(X, full_matrices=False)
    return (U[:, :rank] * S[:rank]) @ Vt[:rank]


def random_part(X, rank, rng):
    """X on `rank` random directions (orthonormal) of its own row space: the control."""
    U, S, Vt = np.linalg.svd(X, full_matrices=False)
    mix, _ = np.linalg.qr(rng.standard_normal((len(S), rank)))  # (k, rank)
    return (U * S) @ mix @ (mix.T @ Vt)


def phi(V1, V2):
    """How far two subspaces are one, 0 to 1: ||V1 V2^T||_F^2 / min(i, j) (Hu et al., section 7.2).

    V1 (i, d) and V2 (j, d) have orthonormal rows. By chance it is max(i, j) / d.
    """
    return np.sum((V1 @ V2.T) ** 2) / min(len(V1), len(V2))


def directions(X, rank):
    """The first right singular vectors of X (m, n), as rows: (rank, n)."""
    return np.linalg.svd(X, full_matrices=False)[2][:rank]


def strength_within(W, U, Vt):
    """||U^T W V||_F: how strongly W acts from the directions Vt (r, d_in) to U (d_out, r)."""
    return np.linalg.norm(U.T @ W @ Vt.T)


def strengths(W, X, rank):
    """How strongly W acts along the first directions of X, along its own, and along as many random
    ones: there the root of the mean square is k |W| / sqrt(m n)."""
    U, S, Vt = np.linalg.svd(X, full_matrices=False)
    k = min(rank, int(np.sum(S > 1e-5 * S[0])))  # an adapter may have fewer
    own = np.linalg.norm(np.linalg.svd(W, compute_uv=False)[:k])
    return (strength_within(W, U[:, :k], Vt[:k]), own,
            k * np.linalg.norm(W) / np.prod(W.shape)**0.5)


def intruders(W0, W, top=10, threshold=0.6):
    """Which of W's `top` left singular vectors are new: a list of their numbers.

    New means that the |cosine| to every left singular vector of W0 is below the threshold
    (Shuttleworth et al. 2024, algorithm 1).
    """
    U0, U = (np.linalg.svd(M, full_matrices=False)[0] for M in (W0, W))
    closest = np.abs(U0.T @ U[:, :top]).max(axis=0)
    return np.flatnonzero(closest < threshold).tolist()


def shrunk(W, which, factor):
    """W with the singular values of the numbered directions times `factor`."""
    U, S, Vt = np.linalg.svd(W, full_matrices=False)
    S = S.copy()
    S[list(which)] *= factor
    return (U * S) @ Vt
