# %% [markdown]
# # 7. Turn two dials, and choose rank, alpha and targets
#
# "Which rank do I need?" You will turn two dials, how much is new and how many examples there are, and
# measure what each rank makes of it, beside a model that knows nothing.
#
# At the end of this notebook you will be able to
# - **read** a map of both dials, and say where fine-tuning gains nothing from the base;
# - **tell** a rank that is too low from a wrong place to train;
# - **find out** why an adapter trains and learns nothing, and choose layers, alpha and rate (second reading);
# - **count** what a higher rank costs, and **plan** six runs.
#
# You need notebooks 04, 05 and 06. About 105 minutes to study; the core path about 45, the rest is marked as
# a second reading.

# %% [markdown]
# **Three questions before you start.** Answer aloud, then unfold.
#
# <details><summary>1. What are content and chance? (05)</summary>
#
# The two parts of the excess: on the words that the frame fixes, and on those that it leaves open.
# </details>
# <details><summary>2. Which model is the control, and what does it tell? (06)</summary>
#
# One with random weights, tuned on the same examples. Only what an arm does better does it owe to the base.
# </details>
# <details><summary>3. When are two arms equal, and not just undecided? (06)</summary>
#
# When the whole interval of their ratio lies between 1/1.5 and 1.5.
# </details>

# %%
import math
from statistics import fmean, median
from textwrap import fill

import numpy as np

import lora_mini as lm
from lora_mini.desk import bet, expect, settle, show, verdict

# %%
from lora_mini.desk.figures import ACCENT, GREY, SECOND, THIRD, axes
from lora_mini.desk.intervals import interval, prediction
from lora_mini.desk.sliders import CurveSlider
from lora_mini.lab import contrasts, record, trials
from lora_mini.world import base, text, town, train
from lora_mini.world.styles import register

model = base.load_base(path=base.SHIPPED)
frame = town.Frame("baker", "carry", "wagon", "judge", "garden", "dawn")
for k in (0, 24):
    said = town.best(frame, register("legal", new_words=k))
    print(fill(f"{k:2d} new words: {said}", 78, subsequent_indent=" " * 14))

# %% [markdown]
# ## Two dials
# Turn both:
# - **New words.** At setting $k$, the legal register replaces $k$ of its content words with words that the
#   base has never seen: *lessee* for baker, *conveyance* for wagon. Each has its rows in embedding and head;
#   they are still as they were drawn.
# - **Examples.** 64, 256 or 1,024. In 200 steps of 32 sentences these are read 100, 25 and six times.
#
# LoRA adapts the linear layers in the blocks alone.
#
# ### Bets 1 to 3
# 24 words are new, each arm at its best rate; the mean of sixteen bases.
# 1. 1,024 examples. Who pays less: `"LoRA"` at rank 8, or `"scratch"`, the model with random weights?
# 2. LoRA at rank **1**: its excess with 64 examples, divided by that with 1,024?
# 3. 256 examples. Who pays less on what the frame fixes: `"words"`, where only embedding and head train; or
#    `"LoRA"` at rank 64, which can make any update of the blocks' matrices?

# %%
bet("07 LoRA or scratch", guess=None, choices=("LoRA", "scratch"))
bet("07 rank 1 with 64 over 1,024 examples", guess=None)
bet("07 words or LoRA", guess=None, choices=("words", "LoRA"))

# %%
chart = record.load("map")
print(record.label(chart))
NEW, EXAMPLES = (0, 6, 12, 24), (64, 256, 1024)
FOUR = {"LoRA r=8": "LoRA, rank 8", "LoRA r=1": "LoRA, rank 1", "full": "full fine-tuning",
        "scratch": "random weights"}


def at(arm, new, examples):
    return contrasts.cell("map", arm=arm, new=new, examples=examples)["total"][0]


def corner(arm, examples):  # 24 new words, sixteen bases
    where = "arms" if examples == 256 else "corners"
    return contrasts.cell(where, arm=arm, new=24, examples=examples)["total"]


lead = [math.log(a / b) for a, b in zip(corner("LoRA r=8", 1024), corner("scratch", 1024), strict=True)]
gain = fmean(corner("LoRA r=1", 64)) / fmean(corner("LoRA r=1", 1024))

# %%
settle("07 LoRA or scratch", "LoRA" if fmean(lead) < 0 else "scratch", lead=lead)
settle("07 rank 1 with 64 over 1,024 examples", gain, unit="times")

# %% [markdown]
# ## The map
# Drag one dial (or click on it and use the arrow keys); the other one is the axis.

# %%
CurveSlider(
    NEW, EXAMPLES, [{label: [at(arm, k, n) for n in EXAMPLES] for arm, label in FOUR.items()} for k in NEW],
    alt="Excess over examples at four notches; with 64 and 1,024 examples: " + "; ".join(
        f"{k} new words, " + ", ".join(f"{label} {at(arm, k, 64):.3f} and {at(arm, k, 1024):.3f}"
                                       for arm, label in FOUR.items()) for k in (0, 24)) + ".",
    name="new words", xlabel="examples", ylabel="excess, nats per token")

# %%
fig, panels = axes(7.6, 2.5, 4, sharey=True)
for ax, (arm, label) in zip(panels, FOUR.items(), strict=True):
    cells = np.array([[at(arm, k, n) for n in EXAMPLES] for k in NEW])
    ax.imshow(np.log10(cells), cmap="cividis_r", vmin=-2.7, vmax=-0.6, aspect="auto")
    for (row, column), value in np.ndenumerate(cells):
        star = "*" if arm != "scratch" and value > at("scratch", NEW[row], EXAMPLES[column]) / 1.5 else ""
        ax.text(column, row, f"{1000 * value:.0f}{star}", ha="center", va="center",
                color="white" if value > 0.025 else "black")
    ax.set(title=label, xticks=range(3), yticks=range(4), xlabel="examples")
    ax.set_xticklabels([f"{n:,}" for n in EXAMPLES])
    ax.set_yticklabels(NEW)
    ax.grid(False)
panels[0].set_ylabel("new words")
show(fig, "Recorded, one base, one run a cell: excess in thousandths of a nat per token; dark is worse. A "
          "star: not better than random weights by a factor of 1.5, so no gain from the base is shown.",
     alt="Excess in thousandths with 24 new words and 64, 256, 1,024 examples: " + "; ".join(
         f"{label} " + ", ".join(f"{1000 * at(arm, 24, n):.0f}" for n in EXAMPLES)
         for arm, label in FOUR.items()) + ".")

# %% [markdown]
# One base, one run: how much of that is luck? Its last row on sixteen bases (in thousandths; added after
# looking; your bets were about these):

# %%
for arm, label in FOUR.items():
    print(f"{label:18s}" + ", ".join(f"{n:,} examples {1000 * fmean(corner(arm, n)):4.0f}" for n in EXAMPLES))

# %% [markdown]
# - **Few examples, nothing new:** here the base is worth most, ten times with 64 examples in full.
# - **Many examples, new words:** LoRA at rank 8 pays more than twice what random weights pay, on the map's
#   base four times. That full fine-tuning gains nothing there either was this base's luck.
# - **Rank 1, new words:** 1,024 examples gain nothing over 256. That 256 gain nothing over 64 was luck, too.
#
# (In 200 steps; more of them: below.)
#
# ## You repeat it
# Six runs with 24 new words on your base:

# %%
new24, live, landed = register("legal", new_words=24), {}, []


# %% tags=["measured"]
with train.together() as six:  # the stop button ends all of them
    for arm, examples in (("scratch", 256), ("scratch", 1024), ("LoRA r=8", 256), ("LoRA r=8", 1024),
                          ("LoRA r=1", 64), ("LoRA r=1", 1024)):
        where = "arms" if examples == 256 else "corners"
        rate = contrasts.cell(where, arm=arm, new=24, examples=examples)["best"]
        _, done = trials.tune(model, arm, new24, rate, seed=40, examples=examples)
        live[arm, examples] = done.test.total
        near = prediction(map(math.log, corner(arm, examples)))
        landed.append(near.holds(math.log(done.test.total)))
        print(f"{arm:9s}{examples:6,d} examples, rate {rate:g}: excess {done.test.total:.3f}, predicted "
              f"{math.exp(near.low):.3f} to {math.exp(near.high):.3f}")

# %%
expect("all six landed where sixteen bases predict, or all but one", sum(landed) >= 5, of=six)
expect("with 1,024 examples random weights pay less than LoRA r=8",
       live["scratch", 1024] < live["LoRA r=8", 1024], of=six)

# %% [markdown]
# ## Rank or place?
# Now sixteen bases, 256 examples, more arms. *Blocks* trains the matrices that LoRA adapts; rank 64 can make
# any update of them. *Words* trains embedding and head alone, *r=8+words* copies of both beside the adapter
# (`modules_to_save`).

# %%
SET = ("scratch", "LoRA r=1", "LoRA r=8", "LoRA r=16", "LoRA r=64", "blocks", "words", "LoRA r=8+words",
       "full")


def cell(arm, new, **more):
    return contrasts.cell("arms", arm=arm, new=new, examples=256, **more)


def mean(arm, new, part="total"):
    return fmean(cell(arm, new)[part])


def least(arm, new):  # content at the rate and checkpoint where it is least, mean of the three that chose
    seen = [rows for tried in cell(arm, new)["tried"].values() for rows in zip(*tried["path"], strict=True)]
    return min(fmean(row[1] for row in rows) for rows in seen)


# %%
settle("07 words or LoRA", min(("words", "LoRA r=64"), key=lambda arm: mean(arm, 24, "content")).split()[0],
       lead=[math.log(b / a) for a, b in zip(cell("words", 24)["content"], cell("LoRA r=64", 24)["content"],
                                             strict=True)])

# %%
fig, panels = axes(7.6, 3.5, 3, sharey=True)
for ax, new in zip(panels, (0, 12, 24), strict=True):
    rows = range(len(SET))[::-1]
    for part, marker, colour, up in (("chance", "o", SECOND, 0.15), ("content", "s", ACCENT, -0.15)):
        ax.plot([mean(arm, new, part) for arm in SET], [row + up for row in rows], marker, color=colour,
                mfc="none" if part == "chance" else colour, label=part)
    ax.plot([least(arm, new) for arm in SET], [row - 0.15 for row in rows], "|", color=ACCENT, ms=9,
            label="content at its least")
    ax.hlines((2.5, 7.5), 3e-4, 0.3, color=GREY, lw=0.8)
    ax.set(xscale="log", xlim=(3e-4, 0.3), title=f"{new} new words", xlabel="nats per token")
panels[0].set_yticks(rows, SET)
fig.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
show(fig, "Recorded, mean of sixteen bases, each arm at its best rate. The small bar is the least content at "
          "any rate and checkpoint that was tried (three bases). Between the lines only the blocks train.",
     alt="Content and its least with 24 new words: " + ", ".join(
         f"{arm} {mean(arm, 24, 'content'):.4f} and {least(arm, 24):.4f}" for arm in SET) + ".")

# %% [markdown]
# - **No new words.** What starts from the base pays .001 to .002 of content. Next to random weights it spares
#   you above all coins learned by heart: .005 of chance instead of .026 for full fine-tuning.
# - **New words, the place.** Between the lines, no rank, and none of the 16 or 20 rates and checkpoints
#   tried, brought the content below .0047 with 12 new words, or .0086 with 24. Where embedding and head
#   train, it has been at .003 and less.
# - **New words, the rank.** Within the blocks it counts from 1 to 8 (2 and 4 were not tried), and little
#   beyond: with 24 new words the content is .090 at rank 1, .015 at rank 8, and .011 at rank 64.
# - **The rates were chosen for the sum:** judge a place by the bars.
#
# So **ask first where to train, and then at which rank.** With nothing new the copies are no help: rank 8
# pays 1.4 times as much with them. And with 24 new words rank 8 without them shows no gain from the base.

# %% [markdown]
# ### Or too few steps? (second reading)
# Perhaps LoRA is only slow? When we had seen all this, we gave four arms 800 steps (*recorded*, eight bases,
# 24 new words, rates of their own):

# %%
for examples in (256, 1024):
    for arm in ("scratch", "words", "LoRA r=8", "LoRA r=64"):
        c = contrasts.cell("longer", arm=arm, examples=examples)
        paths = [rows for t in c["tried"].values() for rows in zip(*t["path"], strict=True)]
        print(f"{examples:5,d}, {arm:9s} step {fmean(c['step']):3.0f}: content {fmean(c['content']):.4f}, "
              f"chance {fmean(c['chance']):.4f}; least content "
              f"{min(fmean(row[1] for row in rows) for rows in paths):.4f}")

# %% [markdown]
# Not just slow: with 1,024 examples rank 8 pays .0176 in all, where it paid .0187 after 200 steps, and its
# least content, of three bases, stays at .007 or more. Embedding and head come to .0006.
#
# ### Exercise 1: complete (6 minutes)
# "Raise the rank until it no longer helps" needs a rule. `excess` maps each rank to its mean excess. Return
# the smallest rank that pays at most `margin` times what the best one pays.

# %% tags=["exercise"]
from lora_mini.desk.checks.nb07 import check_rank_needed


def rank_needed(excess, margin):
    # <solution>
    limit = margin * min(excess.values())
    return min(rank for rank, x in excess.items() if x <= limit)
    # </solution>


check_rank_needed(rank_needed)

# %%
RANKS = (1, 8, 16, 64)
for new in (0, 12, 24):  # the same rule
    paid = {r: mean(f"LoRA r={r}", new) for r in RANKS}
    enough = min(r for r in RANKS if paid[r] <= 1.5 * min(paid.values()))
    print(f"{new:2d} new words: " + ", ".join(f"r={r} {x:.4f}" for r, x in paid.items())
          + f"; rank {enough} is enough")

# %%
verdict("C14", contrasts.effects("C14"))

# %% [markdown]
# *Equal* means as near as rank 64, in content; it does not mean near. With 24 new words rank 64 pays .71 of
# rank 8's content; embedding and head alone pay half of that. And 8 is an eighth of our width.
#
# ## A third dial: the width
# Bases that are 128 and 256 wide, each arm with rates of its own.

# %%
WIDE = {64: "arms", 128: "width128", 256: "width256"}
print(record.label(record.load("width256")))


def over(d, new, arm, rival, part="total"):  # what the rival pays over what the arm pays, base by base
    return interval(contrasts.effect(WIDE[d], part, "ratio", {"arm": arm}, {"arm": rival},
                                     {"new": new, "examples": 256}))


print(f"\nnew words  width  bases  scratch/full  {'full/LoRA r=8':>18s}  {'in content':>18s}")
for new in (0, 12):
    for d in WIDE:
        pairs = (over(d, new, "LoRA r=8", "full", part) for part in ("total", "content"))
        words = (f"{math.exp(x.mean):.2f} [{math.exp(x.low):.2f}, {math.exp(x.high):.2f}]" for x in pairs)
        base_gain = over(d, new, "full", "scratch")
        print(f"{new:9d}{d:7d}{base_gain.n:7d}{math.exp(base_gain.mean):14.1f}"
              + "".join(f"{w:>20s}" for w in words))

# %% [markdown]
# (A map: intervals of 95 percent each, no verdict; four bases at width 256.) By the sum LoRA is not shown to
# be behind at any width. By content, with 12 new words, it is ahead at 64 (at full's larger rate behind, as
# notebook 06 showed), far behind at 128, and undecided at 256: nobody who has seen one width, or one rate,
# may say "LoRA". With 12 new words full fine-tuning's gain from the base grows with the width, 1.4, 2.6, 3.8
# times; with none it hardly does.
#
# ## What does a rank cost?
# *Computed* from shapes; what PyTorch keeps for the backward pass is *measured* on one batch of 32.

# %%
batch = text.batch(town.sample_frames(32, 0), register("legal"), 0)
saved, kept = {}, {}
for r in (1, 2, 4, 8, 16, 32, 64):
    adapted = trials.prepare(model, f"LoRA r={r}")
    _, count = lm.trainable_parameters(adapted)
    saved[r], kept[r] = 4 * count, trials.saved_for_backward(adapted, batch)
whole = 4 * sum(p.numel() for p in model.parameters())
kept_full = trials.saved_for_backward(trials.prepare(model, "full"), batch)

# %%
fig, ax = axes(5.4, 3.0)
ax.plot(kept.keys(), kept.values(), "s--", color=SECOND, ms=5)
ax.plot(saved.keys(), [3 * b for b in saved.values()], "^-", color=THIRD, ms=5)
ax.plot(saved.keys(), saved.values(), "o-", color=ACCENT, ms=5)
ax.axhline(whole, color=GREY, ls=":", lw=1.5)
for label, x, y, colour in (("kept for the backward pass", 1, 1.4 * kept[1], SECOND),
                            ("the base itself", 1, 1.15 * whole, GREY),
                            ("gradients and AdamW's memory", 8, 3.9 * saved[8], THIRD),
                            ("the adapter, as a file", 9, 0.55 * saved[8], ACCENT)):
    ax.text(x, y, label, color=colour, ha="right" if "gradients" in label else "left")
ax.set(xscale="log", yscale="log", xlabel="rank", ylabel="bytes")
ax.set_xticks(list(saved), [str(r) for r in saved])
ax.minorticks_off()
show(fig, "LoRA on all linear layers. File, gradients and AdamW's memory grow with the rank. What is kept "
          "for the backward pass is much larger, and hardly grows.",
     alt=f"Bytes at ranks 1 and 16: adapter {saved[1]:,} and {saved[16]:,}; kept for the backward pass "
         f"{kept[1] / 1e6:.1f} and {kept[16] / 1e6:.1f} MB, {kept_full / 1e6:.1f} MB in full fine-tuning.")

# %%
expect("from rank 1 to 16 the file grows sixteenfold, what is kept by less than a quarter",
       saved[16] == 16 * saved[1] and kept[16] < 1.25 * kept[1])

# %% [markdown]
# Claim C20 says that higher ranks "use more memory": file and optimiser do; what is kept for the backward
# pass, the larger part, hardly grows.

# %% [markdown]
# ## New facts (second reading)
# Facts can be new, too. Each of 64 combinations of who, what and when has a docket entry to learn by heart:
# one of 8 places, of 8 deeds, of 4 adjectives, 8 bits, 512 in all. In each of 400 batches an entry comes
# about once.
#
# ### Bet 4
# How many of the 512 bits does LoRA at rank 1 know afterwards?

# %%
bet("07 bits at rank 1", guess=None)

# %%
known = {c["arm"]: fmean(c["bits"]) for c in record.load("facts")["cells"]}
print(fill("bits known of 512, mean of eight bases: "
           + ", ".join(f"{arm} {bits:.0f}" for arm, bits in known.items()), 78))

# %%
settle("07 bits at rank 1", known["LoRA r=1"], unit="bits")

# %% [markdown]
# And the control, which is not in the record?

# %% tags=["measured"]
with train.together() as one:
    *_, alone = trials.memorize(model, "scratch", 64, 3e-3, seed=40)
print(f"random weights know {alone:.0f} bits")

# %%
expect("random weights learn nearly all of it: here no gain from the base can show", alone > 500, of=one)

# %% [markdown]
# ### An adapter that trains and learns nothing
# 128 facts in batches of 32, each once in four batches. Rank 64, a rate of 0.001, 400 steps.
#
# ### Exercise 2: predict (3 minutes)
# Only the three words of an entry count in the loss. What does a model pay, in nats per word, that knows that
# a place, a deed and an adjective come, but not which?

# %% tags=["exercise"]
from lora_mini.desk.checks.nb07 import check_guesser

# <stub>
# guesser = None  # nats per word
# </stub>
# <solution>
guesser = (math.log(8) + math.log(8) + math.log(4)) / 3
# </solution>
check_guesser(guesser)

# %% tags=["measured"]
with train.together() as two:
    _, history, bits = trials.memorize(model, "LoRA r=64", 128, 1e-3, seed=40, size=32)
    _, longer, more = trials.memorize(model, "LoRA r=64", 128, 3e-3, seed=40, size=32, steps=1600)
fig, ax = axes(5.4, 2.8)
for run, knows, colour in ((longer, more, SECOND), (history, bits, ACCENT)):
    steps = range(20, len(run.losses) + 1, 20)
    ax.plot(steps, [fmean(run.losses[i - 20:i]) for i in steps], color=colour,
            label=f"{len(run.losses):,} steps: {knows:.0f} bits known")
ax.axhline(math.log(8 * 8 * 4) / 3, color=GREY, ls="--", lw=1, label="what a guesser pays")
ax.set(xscale="log", ylim=(0, 6), xlabel="step", ylabel="loss, nats per word")
ax.legend(fontsize=8)
show(fig, f"Measured. Both losses fall from {history.losses[0]:.0f}. The one of 400 steps (rate 0.001) ends "
          "where somebody stands who only guesses. The other one (rate 0.003) stays there, and then learns.",
     alt=f"Loss after 400 steps {fmean(history.losses[-20:]):.2f}, {bits:.0f} of 1,024 bits; after 1,600 "
         f"steps {fmean(longer.losses[-20:]):.2f}, {more:.0f} bits.")

# %%
expect("with a rate of 0.001 and 400 steps nothing is known", bits < 50, of=two)
expect("with 0.003 and 1,600 steps nine tenths are known", more > 920, of=two)

# %% [markdown]
# The loss fell from 11 to 2, and is no better than a guesser's: the adapter has learned the form and no
# entry. (Bits below zero: sure and wrong.) **Never read a loss without a guesser's beside it.** Now, which of
# the usual suspects was it? (*Recorded*, one base.)

# %%
RATES = ("0.001", "0.003", "0.01", "0.03")
print(f"{'bits of 1,024 (loss), by rate':34s}" + "".join(f"{rate:>11s}" for rate in RATES))
for c in record.load("starved")["cells"]:
    shown = (c["tried"].get(rate) for rate in RATES)
    print(f"{c['arm']:10s}{c['steps']:5,d} steps, {'clipped' if c['clip'] else 'not clipped':12s}" + "".join(
        f"{t['bits'][0]:5.0f} ({t['loss'][0]:.1f})" if t else f"{'':11s}" for t in shown))

# %% [markdown]
# - **Too little room?** No. 1,600 steps teach rank 64 1,005 bits, about as many as full fine-tuning learns in
#   400.
# - **Clipping?** Hardly. At the best rate it helps with 400 steps, 368 bits against 193; with 1,600 it makes
#   no difference.
# - **The rate?** In part. With 0.01 instead of 0.001, 400 clipped steps teach 368 bits instead of none. At
#   0.03 all is lost.
# - **The steps?** Yes. At 0.003, four times as many turn 96 bits into 1,005.

# %%
verdict("C20", contrasts.effects("C20"))

# %% [markdown]
# With 12 new words, and for facts, 8 is better than 1; nowhere is 64 better than 8 by a factor of 1.5
# (nearest with 24 new words: see C14).
#
# ## Which layers? (second reading)
# A block has four matrices in its attention (64 x 64) and two in its MLP, the small network behind it (256 x
# 64 and 64 x 256). All of them train more numbers than attention alone: compare at equal numbers, too.
#
# ### Exercise 3: find the bug (4 minutes)
# Which rank gives attention alone as many trained numbers as all linear layers have at `rank`? The function
# reasons: six layers against four. Correct it.

# %% tags=["exercise"]
from lora_mini.desk.checks.nb07 import check_attention_rank


def attention_rank(rank, shapes):  # shapes: name to (d_out, d_in), the layers of one block
    attention = [name for name in shapes if name in ("q_proj", "k_proj", "v_proj", "o_proj")]
    # <stub>
    # return rank * len(shapes) // len(attention)
    # </stub>
    # <solution>
    return rank * sum(map(sum, shapes.values())) // sum(sum(shapes[name]) for name in attention)
    # </solution>


check_attention_rank(attention_rank)

# %% [markdown]
# ### Bet 5
# 12 new words, equal numbers. Which pays the least content: `"attention"` at rank 36, `"MLP"` at rank 29, or
# `"all"` at rank 16?

# %%
bet("07 targets at equal numbers", guess=None, choices=("attention", "MLP", "all"))

# %%
SETS = {"equal rank": {"attention": 16, "MLP": 16, "all": 16},
        "equal numbers, about 37,000": {"attention": 36, "MLP": 29, "all": 16}}


def content(where, r):
    return cell(f"LoRA r={r}", 12, targets=None if where == "all" else where)["content"]


numbers = {where: content(where, r) for where, r in SETS["equal numbers, about 37,000"].items()}

# %%
settle("07 targets at equal numbers", min(numbers, key=lambda where: fmean(numbers[where])),
       lead=[math.log(min(a, m) / e) for a, m, e in zip(*numbers.values(), strict=True)])

# %%
fig, columns = axes(6.6, 2.6, 2, sharey=True)
for ax, (title, ranks) in zip(columns, SETS.items(), strict=True):
    for x, (where, r) in enumerate(ranks.items()):
        found = content(where, r)
        ax.plot([x] * len(found), found, "o", color=ACCENT if where == "all" else GREY, ms=4, alpha=0.5)
        ax.plot([x - 0.25, x + 0.25], [median(found)] * 2, color="black", lw=1.2)
    ax.set(title=title, yscale="log", xlim=(-0.5, 2.5))
    ax.set_xticks(range(3), [f"{where}\nr={r}" for where, r in ranks.items()], fontsize=8)
columns[0].set_ylabel("content, nats per token")
show(fig, "Recorded, 12 new words: sixteen bases and their median, each arm at its best rate.",
     alt="Median content: " + "; ".join(f"{title} " + ", ".join(
         f"{w} {median(content(w, r)):.4f}" for w, r in s.items()) for title, s in SETS.items()) + ".")

# %%
held = {}
for where in ("attention", "MLP", "all-linear"):
    adapted = trials.prepare(model, "LoRA r=16", targets=where)
    held[where] = trials.saved_for_backward(adapted, batch)
    print(f"LoRA r=16 on {where:10s} keeps {held[where] / 1e6:.2f} MB for the backward pass")
memory = math.log(held["attention"] / held["all-linear"])

# %%
verdict("C9", contrasts.effects("C9") | {"memory: bytes kept for the backward pass": [memory] * 2})

# %% [markdown]
# With 12 new words all layers pay half of what attention alone pays. With 6 they don't, and there the rate
# decides: two were tied, and the gentler one reports. (At the other one they paid .0036 of content, attention
# .0057, on the three bases that choose.) And they keep a third more for the backward pass. (In the MLP alone
# some bases land far off; the bet goes by means, the figure by medians.)
#
# On billions the MLP gave most of the gain (Biderman et al. 2024, Schulman et al. 2025).
#
# ## When the rank grows, what happens to alpha? (second reading)
# Others scale by alpha/sqrt(r) (Kalajdzievski 2023), or keep the scale constant ("alpha is twice the rank").
# With 12 new words, let all three give rank 8 the scale 2, and sweep the rate at ranks 1 and 64.
#
# ### Bet 6
# With a constant scale, from rank 1 to rank 64, the best rate: `"stays"`, falls to `"a tenth"`, or falls to
# `"a hundredth"`?

# %%
bet("07 best rate with a constant scale", guess=None, choices=("stays", "a tenth", "a hundredth"))

# %%
LAWS = ("alpha / r", "alpha / sqrt(r)", "constant")


def scaled(law, r):  # at rank 8 all three are the same run
    return cell("LoRA r=8", 12) if r == 8 else record.find(record.load("scales")["cells"], law=law,
                                                           arm=f"LoRA r={r}")


def tried(law, r, rate):
    return fmean(scaled(law, r)["tried"][f"{rate:g}"]["chooses"])


falls = scaled("constant", 1)["best"] / scaled("constant", 64)["best"]

# %%
settle("07 best rate with a constant scale", {1: "stays", 10: "a tenth", 100: "a hundredth"}.get(
    round(falls), "something else"))

# %%
fig, (left, right) = axes(7.4, 2.9, 2)
for law, colour, marker in zip(LAWS, (ACCENT, SECOND, THIRD), "os^", strict=True):
    looks = {"color": colour, "marker": marker, "ms": 5, "label": law}
    left.plot((1, 8, 64), [tried(law, r, 0.01) for r in (1, 8, 64)], **looks)
    right.plot((1, 8, 64), [scaled(law, r)["best"] for r in (1, 8, 64)], **looks)
for ax, title, label, marks in ((left, "at one rate, 0.01", "excess, nats per token", (0.02, 0.05, 0.1)),
                                (right, "the best rate", "rate", (0.001, 0.01, 0.1))):
    ax.set(xscale="log", yscale="log", title=title, xlabel="rank", ylabel=label)
    ax.set_xticks((1, 8, 64), ["1", "8", "64"])
    ax.set_yticks(marks, [f"{m:g}" for m in marks])
    ax.minorticks_off()
left.legend(fontsize=8)
show(fig, "Recorded, 12 new words, mean of the three bases that choose. At rank 8 the laws are one run.",
     alt="Best rates at ranks 1, 8, 64: " + "; ".join(
         f"{law} " + ", ".join(f"{scaled(law, r)['best']:g}" for r in (1, 8, 64)) for law in LAWS) + ".")

# %%
for law in LAWS:
    print(f"{law:16s}at its best rate: " + ", ".join(
        f"rank {r} {tried(law, r, scaled(law, r)['best']):.4f}" for r in (1, 8, 64)))

# %% [markdown]
# At its best rate the laws differ by 8 percent at rank 64, by 28 at rank 1 (three bases). What differs more
# is *where that rate is*: with alpha/r it falls to a third up to rank 8, then stays; with alpha/sqrt(r) it
# goes on falling; with a constant scale it falls to a hundredth. Chen, Villar and Hayou (2026, abstract) find
# both, as A, B and the scale start: a best rate that hardly moves, and one that falls with the rank.
#
# And one setting more or less? Twice the alpha, weight decay, no warm-up, one start of $A$ for all bases:

# %%
for c in record.load("settings")["cells"]:
    what = [f"{key} {c[key]}" for key in ("alpha", "weight_decay", "warmup", "init") if key in c]
    print(f"{' '.join(what) or 'as everywhere here':19s} best rate {c['best']:<6g} "
          f"excess {fmean(c['total']):.4f}")

# %% [markdown]
# (*Recorded*, 12 new words, rank 8, eight bases.) None moves the excess by more than 5 percent.
#
# ## Which learning rate? (second reading)
# Schulman et al. (2025) found LoRA's best rate at about ten times full's. Here, for each arm: all rates that
# pay at most 1.5 times what its best one pays, and in brackets the *cliff*, the first above that pays ten
# times as much.

# %%
def usable(arm, new):
    paid = {float(rate): fmean(seen["chooses"]) for rate, seen in cell(arm, new)["tried"].items()}
    near = [rate for rate in paid if paid[rate] <= 1.5 * min(paid.values())]
    cliff = [rate for rate in paid if rate > max(near) and paid[rate] > 10 * min(paid.values())]
    return f"{min(near):g} to {max(near):g}" + (f" ({min(cliff):g})" if cliff else "")


print(f"{'':16s}" + "".join(f"{f'{new} new words':>21s}" for new in (0, 12, 24)))
for arm in ("full", "words", "LoRA r=1", "LoRA r=8", "LoRA r=64", "LoRA r=8+words"):
    print(f"{arm:16s}" + "".join(f"{usable(arm, new):>21s}" for new in (0, 12, 24)))

# %%
def factor(name, new):
    lora, full = (contrasts.cell(name, arm=arm, new=new, examples=256)["best"]
                  for arm in ("LoRA r=8", "full"))
    return f"{lora / full:.0f}"


print("best rate of LoRA r=8 over full's, by new words")
for d, name in WIDE.items():
    found = [f"{new} {factor(name, new)}" for new in (0, 12, *((24,) if d == 64 else ()))]
    print(f"width {d:3d}: " + ", ".join(found))

# %% [markdown]
# By the rates that report, the factor is 10 to 33, and 3 with 24 new words. But there full fine-tuning's
# rates ten times apart do about as well. LoRA's cliff, where it was met, lies between 0.03 and 0.1.
#
# ## The decision page
# One side of paper; sixteen bases, 200 steps, 256 examples unless it says otherwise. (*A new combination*:
# all words known. *A new order*: the parts come as no style has them.)

# %%
PAGE = (("a new combination", "blocks, rank 8", "LoRA r=8", {"new": 0}),
        ("the same, 64 examples", "blocks, rank 8", "LoRA r=8", {"new": 0, "examples": 64}),
        ("the same, 1,024 examples", "blocks, rank 8", "LoRA r=8", {"new": 0, "examples": 1024}),
        ("a new order", "blocks, rank 1", "LoRA r=1", {"new": 0, "order": True}),
        ("12 new words", "blocks, rank 8", "LoRA r=8", {"new": 12}),
        ("12 new words", "rank 8, embedding, head", "LoRA r=8+words", {"new": 12}),
        ("24 new words", "blocks, rank 8", "LoRA r=8", {"new": 24}),
        ("24 new words", "rank 8, embedding, head", "LoRA r=8+words", {"new": 24}))
print(f"{'what is new':25s}{'what trains':24s}{'excess':>7s}{'random':>8s}")
for news, where, arm, task in PAGE:
    paid = [fmean(contrasts.cell("arms", arm=a, **{"examples": 256} | task)["total"])
            for a in (arm, "scratch")]
    print(f"{news:25s}{where:24s}{paid[0]:7.4f}{paid[1]:8.4f}"
          + ("  no gain shown" if paid[0] > paid[1] / 1.5 else ""))

# %% [markdown]
# 1. **Ask what is new, and where.** For a new combination or order the blocks are enough. For many new words
#    train embedding and head, too (in PEFT `modules_to_save`, or `trainable_token_indices`).
# 2. **Ask what the examples alone are worth.** Where a control does as well, the base gives you nothing.
# 3. **Rank 8 on all linear layers**; attention alone if memory for the backward pass is short.
# 4. **A fixed alpha over r:** then a rate that you know serves at other ranks, or nearly.
# 5. **Sweep the rate**, half a decade apart, until the best lies inside.
# 6. **Put a guesser's loss beside yours.** If you stand there, take more steps or a larger rate before you
#    take a higher rank.
#
# **If you have six runs:** three rates in two places, the blocks with and without embedding and head? Three
# ranks at two rates? In hindsight, on the three bases that choose:

# %%
THREE = ("0.003", "0.01", "0.03")
PLANS = {"three rates, two places": [(arm, rate) for arm in ("LoRA r=8", "LoRA r=8+words") for rate in THREE],
         "rank 8, every rate tried": [("LoRA r=8", None)],
         "ranks 8, 16, 64, two rates": [(f"LoRA r={r}", rate) for r in (8, 16, 64) for rate in THREE[1:]],
         "(every arm of the record)": [(arm, None) for arm in SET]}
print(f"{'best excess':28s}" + "".join(f"{f'{new} new words':>15s}" for new in (0, 12, 24)))
for plan, runs in PLANS.items():
    best = [min(fmean(seen["chooses"]) for arm, only in runs for rate, seen in cell(arm, new)["tried"].items()
                if only in (None, rate)) for new in (0, 12, 24)]
    print(f"{plan:28s}" + "".join(f"{x:15.4f}" for x in best))

# %% [markdown]
# No plan is best everywhere. With nothing new and with 12 new words they lie within a factor of 1.4; with 24,
# where rank 8 alone shows no gain, two places win clearly. So try both places.
#
# ## From this town to seven billion
# - **Rates.** There LoRA's best is 1e-4 to 5e-4, ten times full's, and moves by less than a factor of 2 from
#   rank 4 to 512 (Schulman et al. 2025).
# - **Rank.** 8 is 12.5 percent of our width of 64, and 0.2 percent of 4,096. There code needed rank 256
#   (Biderman et al. 2024), and reinforcement learning rank 1 (Schulman et al. 2025).
# - **Words.** A tokenizer cuts new words into known pieces. Copies of embedding and head are a billion
#   numbers (Llama 3 8B: 2 x 128,256 x 4,096).
#
# ## What you have done
# - You **read** a map: the base is worth most with few examples and nothing new; with 1,024 examples and new
#   words LoRA lost to random weights.
# - You **told** rank from place: from 1 to 8 the rank counts; what is left with new words, embedding and head
#   bring.
# - You **found out** why a loss can fall while nothing is learned; that all layers beat attention with 12 new
#   words; that alpha's law moves the best rate.
# - You **counted** the cost: file and optimiser grow with the rank, what is kept hardly. And you **planned**
#   six runs.
#
# **On your own.** Give rank 1 four times the steps, with 24 new words and 1,024 examples (`steps=800,
# checkpoints=(200, 400, 800)`): is it full, or slow?
#
# **In practice.** Tokenise some of your data with the base's tokenizer: words that it cuts into pieces tell
# where your own dial stands.
#
# **Further reading.**
# - Hu et al., *LoRA* (2021), tables 5 and 6: which matrices, which rank; no MLP among them.
# - Schulman et al., *LoRA without regret* (2025): all layers, the factor ten, and what a rank can hold.
# - Biderman et al., *LoRA learns less and forgets less* (2024): where rank 256 was needed.
# - Chen, Villar and Hayou, *Learning rate scaling across LoRA ranks* (arXiv 2602.06204, 2026).
