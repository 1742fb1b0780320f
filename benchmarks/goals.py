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


def words(found, digits=2):
    """"0.87 [0.85, 0.90]" of (lower quartile, median, upper quartile)."""
    low, middle, high = (f"{value:.{digits}f}" for value in found)
    return f"{middle} [{low}, {high}]"


def most(found, limit):
    """Whether these quartiles lie at or below a limit: "yes", "no", or "open" if it lies between.
    """
    low, _, high = found
    return "yes" if high <= limit else "no" if low > limit else "open"


def goals(rows):
    """[(goal, figure, "yes", "no" or "open", rows)] of all that was measured; rows: that of the arm
    that was timed, and that of what it was held against."""
    return [*_step(rows), *_mixed(rows), *_switch(rows), *_merged(rows), *_svd(rows),
            *_four_bits(rows)]


def _step(rows):
    of = {"part": "step", "model": REAL}
    if found := over(rows, "ours", "PEFT", **of):
        yield ("a step takes at most 0.95 of PEFT's", words(found, 3), most(found, 0.95),
               [one(rows, arm=name, **of) for name in ("ours", "PEFT")])
    if over(rows, "ours", "full", **of) and over(rows, "PEFT", "full", **of):
        full, *two = (one(rows, arm=name, **of)["ms"] for name in ("full", "ours", "PEFT"))
        nearer = quartiles([abs(b / a - 2 / 3) - abs(c / a - 2 / 3)
                            for a, b, c in zip(full, *two, strict=True)])
        said = "; ".join(f"{name} {words(over(rows, name, 'full', **of), 3)}"
                         for name in ("ours", "PEFT"))
        yield ("and is nearer to two thirds of full fine-tuning's than PEFT's is", said,
               most(nearer, 0), [one(rows, arm=name, **of) for name in ("ours", "full")])


def _mixed(rows):
    for found in chosen(rows, part="mixed", model=REAL, arm="one"):
        of = {"part": "mixed", "model": REAL, "rows": found["rows"], "tokens": found["tokens"]}
        many = max(row["adapters"] for row in chosen(rows, **of))
        loop = one(rows, arm="loop", adapters=many, **of)
        for arm in ("mixed", "mixed, eight passes"):
            if mine := one(rows, arm=arm, adapters=many, **of):
                got, told = (ratio(row["ms"], found["ms"]) for row in (mine, loop))
                how = "entered for each pass" if arm == "mixed" else "eight passes after entering"
                yield (f"{many} adapters in one batch of {found['rows']} x {found['tokens']} "
                       f"tokens, {how}: at most 1.3 times one adapter's time",
                       f"{words(got, 3)}; a loop {told[1]:.1f}", most(got, 1.3), [mine, found])


def _switch(rows):
    if found := one(rows, part="switch", model=REAL, arm="ours"):
        low, middle, high = quartiles(found["ms"])
        yield (f"switching among {found['adapters']} adapters takes at most 10 ms",
               f"{middle:.1f} [{low:.1f}, {high:.1f}] ms", most((low, middle, high), 10), [])


def _merged(rows):
    for base in chosen(rows, part="inference", model=REAL, arm="base"):
        of = {"part": "inference", "model": REAL, "rows": base["rows"], "tokens": base["tokens"]}
        noise = over(rows, "base, again", "base", **of)
        for arm in ("ours, merged for good", "ours, merged"):
            if noise and (found := over(rows, arm, "base", **of)):
                same = ("yes" if noise[0] <= found[1] <= noise[2] else
                        "no" if found[0] > noise[2] else "open")
                yield (f"{arm}: {base['rows']} x {base['tokens']} tokens take what the base takes, "
                       "within the noise (the base beside itself)",
                       f"{words(found, 3)}; noise {words(noise, 3)}", same,
                       [one(rows, arm=arm, **of), base])


def _svd(rows):
    if not (every := chosen(rows, part="svd", arm="ours")):
        return
    size = max(row["size"] for row in every)
    found = over(rows, "ours", "full", part="svd", model="1 / k", size=size)
    yield (f"the randomised SVD at rank 16 of {size} x {size} (1 / k) takes at most a twentieth of "
           "the full one's time", words(found, 4), most(found, 1 / 20), [])
    worst = max(row["error"] for row in every if row["size"] == size and row["model"] != "flat")
    yield ("with an error of at most 1.1 times the least, on decaying spectra", f"{worst:.3f}",
           most([worst] * 3, 1.1), [])


def _four_bits(rows):
    if found := one(rows, part="memory", model=REAL, arm="ours, four bits"):
        share, off = found["held"] / found["float32"], found["predicted"] / found["peak"]
        yield ("a four-bit base holds its layers' weights in less than a fifth of float32's bytes",
               f"{share:.3f}", most([share] * 3, 0.2), [])
        yield ("and the ledger predicts the peak of its step within 10 percent",
               f"{off:.3f} of what was seen", most([abs(off - 1)] * 3, 0.1), [])
