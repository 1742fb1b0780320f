"""The bases that records rest on: one a seed, made once, kept in the reader's own folder.

A measurement is repeated over bases: `base_of(seed)` for the seeds of CHOOSE, which choose rates,
and of REPORT. The base that ships is none of them.
"""

import functools
import os
from pathlib import Path

from lora_mini.world import base, make_base

CHOOSE, REPORT = (1, 2, 3), tuple(range(11, 27))
SHIPPED = 0  # the seed of the base that ships


def folder():
    """Where bases and the journal of runs are kept."""
    return Path(os.environ.get("LORA_MINI_HOME") or "~/.lora_mini").expanduser() / "lab"


@functools.lru_cache(2)
def base_of(seed, width=64, styles="", device="cpu"):
    """The base of a seed; styles: the names of those that it reads, apart by spaces, or all."""
    if (seed, width, styles) == (SHIPPED, 64, ""):
        return base.load_base(device, base.SHIPPED)
    name = "_".join(["base", *styles.split(), str(width), str(seed)])
    path = folder() / f"{name}.safetensors"
    if not path.exists():
        read = {"styles": styles.split(), "steps": 400} if styles else {}
        model, history = make_base.make_base(seed=seed, width=width, device=device, progress=False,
                                             **read)
        if not history.whole:
            raise KeyboardInterrupt
        base.save_base(model, path, command=f"lab.bases.base_of({seed}, {width}, {styles!r})",
                       seed=seed)
    return base.load_base(device, path)
