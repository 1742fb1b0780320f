"""The goals, each a figure and whether it holds: computed from the results, nothing typed."""

from turns import quartiles, ratio

REAL = "SmolLM2"


def chosen(rows, /, **about):
    """The rows that agree with all of `about`."""
    return [row for row in rows if all(row.get(key) == value for key, value in about.items())]


def one(rows, /, **about):
    found = chosen(rows, **about)
    return found[0] if found else None


def over(rows, arm, other, /, **about):
    """Quartiles of arm's times over other's, or None where one of them is absent."""
    mine, theirs = (one(rows, arm=name, **about) for name in (arm, other))
    return ratio(mine["ms"], theirs["ms"]) if mine and theirs else None


def words(found):
    """"0.87 [0.85, 0.90]" of (lower quartile, median, upper quartile)."""
    low, middle, high = found
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def goals(rows):
    """[(goal, figure, whether it holds, rows)] of all that was measured; rows: that of the arm
    that was timed, and that of what it was held against."""
    return [*_step(rows), *_mixed(rows), *_switch(rows), *_merged(rows), *_svd(rows),
            *_four_bits(rows)]


def _step(rows):
    of = {"part": "step", "model": REAL}
    if found := over(rows, "ours", "PEFT", **of):
        yield (f"a step on {REAL} takes at most 0.95 of PEFT's", words(found), found[1] <= 0.95,
               [one(rows, arm=name, **of) for name in ("ours", "PEFT")])
    ours, theirs = (over(rows, name, "full", **of) for name in ("ours", "PEFT"))
    if ours and theirs:
        yield ("and is nearer to two thirds of full fine-tuning's than PEFT's is",
               f"{words(ours)}; PEFT {words(theirs)}",
               abs(ours[1] - 2 / 3) < abs(theirs[1] - 2 / 3),
               [one(rows, arm=name, **of) for name in ("ours", "full")])


def _mixed(rows):
    for found in chosen(rows, part="mixed", model=REAL, arm="one"):
        of = {"part": "mixed", "model": REAL, "rows": found["rows"], "tokens": found["tokens"]}
        most = max(row["adapters"] for row in chosen(rows, **of))
        loop = one(rows, arm="loop", adapters=most, **of)
        for arm in ("mixed", "mixed, eight passes"):
            if mine := one(rows, arm=arm, adapters=most, **of):
                got, told = (ratio(row["ms"], found["ms"]) for row in (mine, loop))
                how = "entered for each pass" if arm == "mixed" else "eight passes after entering"
                yield (f"{most} adapters in one batch of {found['rows']} x {found['tokens']} "
                       f"tokens, {how}: at most 1.3 times one adapter's time",
                       f"{words(got)}; a loop {told[1]:.1f}", got[1] <= 1.3, [mine, found])


def _switch(rows):
    if found := one(rows, part="switch", model=REAL, arm="ours"):
        low, middle, high = quartiles(found["ms"])
        yield (f"switching among {found['adapters']} adapters on {REAL} takes less than 10 ms",
               f"{middle:.1f} [{low:.1f}, {high:.1f}] ms", middle < 10, [])


def _merged(rows):
    for base in chosen(rows, part="inference", model=REAL, arm="base"):
        of = {"part": "inference", "model": REAL, "rows": base["rows"], "tokens": base["tokens"]}
        for arm in ("ours, merged for good", "ours, merged"):
            if found := over(rows, arm, "base", **of):
                same = found[0] <= 1 <= found[2] or abs(found[1] - 1) <= 0.03
                yield (f"{arm}: {base['rows']} x {base['tokens']} tokens take what the base takes "
                       "(the quartiles hold 1, or the median is within 3 percent)", words(found),
                       same, [one(rows, arm=arm, **of), base])


def _svd(rows):
    if not (every := chosen(rows, part="svd", arm="ours")):
        return
    size = max(row["size"] for row in every)
    found = over(rows, "full", "ours", part="svd", model="1 / k", size=size)
    yield (f"the randomised SVD at rank 16 of {size} x {size} is at least 20 times as fast as the "
           "full one", words(found), found[1] >= 20, [])
    worst = max(row["error"] for row in every if row["size"] == size and row["model"] != "flat")
    yield ("with an error of at most 1.1 times the least, on decaying spectra", f"{worst:.3f}",
           worst <= 1.1, [])


def _four_bits(rows):
    if found := one(rows, part="memory", model=REAL, arm="ours, four bits"):
        share, off = found["held"] / found["float32"], found["predicted"] / found["peak"]
        yield ("a four-bit base holds its layers' weights in less than a fifth of float32's bytes",
               f"{share:.3f}", share < 0.2, [])
        yield ("and the ledger predicts the peak of its step within 10 percent",
               f"{off:.3f} of what was seen", abs(off - 1) <= 0.1, [])
