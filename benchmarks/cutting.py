"""The randomised SVD beside the full one, on matrices whose singular values are known."""

import numpy as np
import torch
from turns import in_turns

from lora_mini import svd

RANK = 16
SPECTRA = {
    "1 / k": lambda k: 1 / k,
    "1 / sqrt k": lambda k: k**-0.5,
    "exp(-k / 8)": lambda k: np.exp(-k / 8),
    "flat": lambda k: np.ones_like(k),  # the control: nothing to find
}


def known(size, spectrum, seed=0):
    """(X (size, size) in float32, its singular values), with random singular vectors."""
    rng = np.random.default_rng(seed)
    s = spectrum(np.arange(1, size + 1, dtype=np.float64))
    U, V = (np.linalg.qr(rng.standard_normal((size, size), dtype=np.float32))[0] for _ in range(2))
    return (U * s.astype(np.float32)) @ V.T, s


def excess(X, s, triplets):
    """The error of U S Vt, in the Frobenius norm, over the least that a rank can have."""
    U, S, Vt = triplets
    least = np.sqrt(np.sum(s[len(S):] ** 2))
    return float(np.linalg.norm(X - (U * S) @ Vt) / least)


def theirs(X):
    """PyTorch's, which PEFT's PiSSA uses: as many directions and passes as ours."""
    U, S, V = torch.svd_lowrank(torch.from_numpy(X), q=RANK + 10, niter=2)
    return U[:, :RANK].numpy(), S[:RANK].numpy(), V[:, :RANK].numpy().T


def svds(sizes, turns):
    """Times, counts and errors. The full one's time does not depend on the spectrum: it is taken
    on the first alone, in fewer turns from 2,048 on."""
    for size in sizes:
        for name, spectrum in SPECTRA.items():
            X, s = known(size, spectrum)
            acts = {"ours": lambda X=X: svd.randomized_svd(X, RANK),
                    "torch.svd_lowrank": lambda X=X: theirs(X)}
            errors = {arm: excess(X, s, act()) for arm, act in acts.items()}
            if name == "1 / k":
                acts["full"] = lambda X=X: svd.truncated_svd(X, RANK)
                errors["full"] = None if size > 1024 else excess(X, s, acts["full"]())
            times = in_turns(acts, min(turns, 3) if size > 1024 and "full" in acts else turns)
            flop = 2 * (2 + 2 * 2) * size**2 * (RANK + 10)  # what its docstring says, times two
            for arm, ms in times.items():
                yield {"part": "svd", "model": name, "size": size, "rank": RANK, "arm": arm,
                       "ms": ms, "error": errors[arm] and round(errors[arm], 4),
                       **({} if arm == "full" else {"flop": flop})}
