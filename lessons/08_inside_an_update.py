# %% [markdown]
# # 8. Open an update and look inside
#
# LoRA says that the update of a matrix is a product of two thin ones. Is that how updates *are*? You will
# look inside the updates of full fine-tuning and of LoRA, and put a control beside everything.
#
# At the end of this notebook you will be able to
# - **measure** how many directions an update fills, and compare it with noise of the same size;
# - **distinguish** what an update holds from what its job needs, and from what a low rank can learn;
# - **compare** the directions of two updates, on both sides, with chance and with their start (second
#   reading);
# - **test** two published pictures, amplification and intruders, with controls (second reading).
#
# You need notebooks 02 and 06. About 80 minutes to study; the core path about 40, the rest is marked as a
# second reading.

# %% [markdown]
# **Three questions before you start.** Answer aloud, then unfold.
#
# <details><summary>1. What does the squared Frobenius norm say about singular values? (02)</summary>
#
# It is the sum of their squares. Each direction holds its share of this *energy*.
# </details>
# <details><summary>2. Which matrix of rank r lies nearest to a given one? (02)</summary>
#
# Its truncated SVD, which keeps the $r$ strongest directions.
# </details>
# <details><summary>3. When does a difference between two arms count? (06)</summary>
#
# When its whole interval over sixteen bases lies beyond a factor of 1.5. If the interval lies inside, the two
# are equal; else the question is open.
# </details>

# %%
import copy
import math
from statistics import fmean

import numpy as np

# %%
import torch

from lora_mini import svd
from lora_mini.desk import bet, expect, settle, show, verdict
from lora_mini.desk.figures import ACCENT, GREY, SECOND, THIRD, axes, fixed_row
from lora_mini.desk.intervals import interval, prediction
from lora_mini.desk.sliders import RankSlider
from lora_mini.lab import contrasts, inside, opened, record, trials
from lora_mini.lab.opened import FACTORS, NORMS, RANKS, STRENGTHS
from lora_mini.world import base, measure, train

model = base.load_base(path=base.SHIPPED)
old = inside.matrices(model)
print(f"{len(old)} matrices, 64 singular values in each: {sorted({W.shape for W in old.values()})}")

# %% [markdown]
# Those are the matrices of the two blocks: queries, keys, values and outputs of the attention, and the two
# layers of the network behind it. For each, the *update* is $\Delta W = W_{tuned} - W_0$.
#
# There are two tasks: the legal register with 0 new words, and with 12. (A *new word* is one that the base
# has never seen.) Full fine-tuning changes more than the twelve matrices: embedding, head, norms and biases
# move, too. We call those *the rest*.
#
# ### Bets 1 to 4
# What percentage of the energy do the **8 strongest** of 64 directions hold:
# 1. in pure Gaussian noise, 64 x 64;
# 2. in the update of full fine-tuning, 0 new words, mean of twelve matrices and sixteen recorded bases?
#
# Now take a fully tuned model apart, 12 new words; the answers are means over the same bases.
#
# 3. Once only the twelve matrices are as tuned, and the rest as in the base; once only the rest is as tuned.
#    Which half pays less by itself, by a factor of 1.5 or more in the excess: `"matrices"`, `"rest"`, or
#    `"neither"`?
# 4. All is as tuned, but each update is cut to its 8 strongest directions. How many times the excess of the
#    whole model does it pay?

# %%
bet("08 percent of noise in 8 of 64 directions", guess=None)
bet("08 percent of the full update in 8 directions", guess=None)
bet("08 which half alone", guess=None, choices=("matrices", "rest", "neither"))
bet("08 times the excess with 8 of 64 directions", guess=None)

# %%
noise = np.random.default_rng(0).standard_normal((64, 64))
S = np.linalg.svd(noise, compute_uv=False)

# %%
settle("08 percent of noise in 8 of 64 directions", 100 * svd.energy_kept(S, 8), unit="percent")

# %%
print("directions for 90 percent of the energy:", svd.rank_for_error(S, 0.1**0.5))

# %% [markdown]
# An eighth of the directions holds far more than an eighth of the energy: the singular values of noise fall,
# too. From now on we compare every update with *noise of its own shape and norm*. (The norm counts below.)

# %%
def noise_like(X, rng):
    noise = rng.standard_normal(X.shape)
    return noise * np.linalg.norm(X) / np.linalg.norm(noise)


one, two = (make(noise, np.random.default_rng(1)) for make in (noise_like, inside.noise_like))
print("the package's noise_like gives the same numbers:", np.array_equal(one, two))

# %% [markdown]
# ## Four updates, live, and a record
# On each of sixteen bases both arms were tuned at the rate of notebook 06 and kept at their best checkpoint.
# You do the same on yours. Each excess should land where the record predicts, at 95 percent, so one of four
# may miss.

# %%
rec = record.load("inside")
print(record.label(rec))


def cell(arm, new, part="total"):  # of the tuned models, as they are: one entry a base
    return contrasts.cell("arms", arm=arm, new=new, examples=256)[part]


# %% tags=["measured"]
tuned, live, landed = {}, {}, []
with train.together() as four:  # the stop button ends all of them
    for new in (0, 12):
        for arm in ("full", "LoRA r=8"):
            rate = contrasts.cell("arms", arm=arm, new=new, examples=256)["best"]
            tuned[arm, new], _ = trials.tune(model, arm, opened.task(new), rate, seed=40, report=False)
            test = trials.frames(opened.task(new), 128, 40, "test")
            live[arm, new] = measure.excess(tuned[arm, new], test)
            near = prediction(map(math.log, cell(arm, new)))
            landed.append(near.holds(math.log(live[arm, new].total)))
            print(f"{new:2d} new words, {arm:9s} rate {rate:<6g} excess {live[arm, new].total:.4f}")
updates = {key: inside.updates(model, after) for key, after in tuned.items()}

# %%
expect("all four runs landed where the record predicts, or all but one", sum(landed) >= 3, of=four)

# %%
kept = {name: np.mean(found["kept"], axis=0) for name, found in rec["spectra"].items()}

# %%
settle("08 percent of the full update in 8 directions", 100 * kept["full, 0"][4], unit="percent")

# %% tags=["measured"]
def share(matrices, rank=8):  # of the energy in the strongest directions, mean over the matrices
    return fmean(svd.energy_kept(np.linalg.svd(X, compute_uv=False), rank) for X in matrices.values())


shares = {new: share(updates["full", new]) for new in (0, 12)}
for new, value in shares.items():
    print(f"{new:2d} new words: 8 of 64 directions of your own full update hold {value:.3f}")

# %%
expect("both landed where the record predicts", all(
    prediction([k[4] for k in rec["spectra"][f"full, {new}"]["kept"]], floor=0.02).holds(shares[new])
    for new in (0, 12)), of=four)

# %%
fig, columns = axes(7.4, 2.9, 2, sharey=True)
looks = {"full": ("o", SECOND), "LoRA r=8": ("s", ACCENT)}
for ax, new in zip(columns, (0, 12), strict=True):
    for arm, (marker, colour) in looks.items():
        ax.plot(np.transpose(rec["spectra"][f"{arm}, {new}"]["kept"]), color=colour, lw=0.6, alpha=0.3)
        ax.plot(kept[f"{arm}, {new}"], marker, color=colour, ms=5, label=arm)
    ax.plot(kept[f"noise, {new}"], "x--", color=GREY, label="noise")
    ax.axhline(0.9, color=GREY, ls=":", lw=1)
    ax.set_xticks(range(len(RANKS)), RANKS)
    ax.set(title=f"{new} new words", xlabel="directions kept, of 64")
columns[0].set(ylabel="share of the energy")
columns[1].legend(fontsize=8)
show(fig, "Recorded. Energy in the strongest directions, mean of twelve matrices; thin lines are bases. The "
          "dotted line is 90 percent. Full fine-tuning lies between noise and LoRA, which from 8 on is at 1 "
          "as it is made so.",
     alt="Share of 8 directions: " + "; ".join(
         f"{new} new words, full {kept[f'full, {new}'][4]:.2f}, noise {kept[f'noise, {new}'][4]:.2f}"
         for new in (0, 12)) + "; LoRA at rank 8, 1.")

# %%
for new in (0, 12):
    need = {arm: fmean(rec["spectra"][f"{arm}, {new}"]["ninety"]) for arm in ("full", "LoRA r=8", "noise")}
    print(f"{new:2d} new words, directions for 90 percent: "
          + ", ".join(f"{arm} {count:.1f}" for arm, count in need.items()))

# %% [markdown]
# Say that an update *fills* as many directions as hold 90 percent of its energy. Full updates are neither "of
# low rank" nor "like noise": they fill 11 to 15 where noise fills 38. And of its 8 directions LoRA fills
# about four. What a random product of rank 8 fills:

# %%
draws = np.random.default_rng(0)
thin = [draws.standard_normal((64, 8)) @ draws.standard_normal((8, 64)) for _ in range(50)]
print(f"{fmean(svd.rank_for_error(np.linalg.svd(X, compute_uv=False), 0.1**0.5) for X in thin):.1f}")

# %% [markdown]
# More than LoRA's.
#
# Drag the rank: one of your own updates, grey for 0; below, noise of the same norm.

# %%
X = updates["full", 0]["blocks.1.attention.o_proj"]
unit = 40 / X.std()
RankSlider(unit * X, "The update at ranks 1, 2, 4, 8 and 16: at first stripes, then finer and finer detail.",
           frozen=np.full(X.shape, 128), rank=1)

# %%
pure = unit * inside.noise_like(X, np.random.default_rng(0))
fig = fixed_row([128 + inside.strongest(pure, r) for r in (1, 2, 4, 8, 16)],
                [f"noise, r = {r}" for r in (1, 2, 4, 8, 16)])
show(fig, "Noise of the same norm, at the same ranks: paler, because each rank holds less.",
     alt="Noise cut to rank 1, 2, 4, 8 and 16: weak stripes, then detail; paler than the update.")

# %% [markdown]
# ## What the job needs
# What an update *holds* is one question, what its *job* needs another. Keep the $k$ strongest directions of
# each of the twelve updates, put the sums $W_0 + \Delta W_k$ into the model, and measure the excess.
#
# ### Exercise 1: complete (4 minutes)
# `cut` returns $W_0$ plus the $k$ strongest directions of the update. `W0` and the tuned `W` are NumPy
# matrices, and `np.linalg.svd(X, full_matrices=False)` gives $U$, the singular values, and $V^\top$.

# %% tags=["exercise"]
from lora_mini.desk.checks.nb08 import check_cut


def cut(W0, W, k):
    # <solution>
    U, S, Vt = np.linalg.svd(W - W0, full_matrices=False)
    return W0 + (U[:, :k] * S[:k]) @ Vt[:k]
    # </solution>


check_cut(cut)

# %% [markdown]
# The answers to the last two bets:

# %%
def paid(what, new, rank, part="total"):  # a base an entry
    return contrasts.cell("inside", what=what, new=new, rank=rank)[part]


# the rest alone over the matrices alone, as logarithms
halves = [math.log(b / a) for a, b in zip(paid("only", 12, 64), paid("cut", 12, 0), strict=True)]
middle, counts = fmean(halves), math.log(1.5)

# %%
settle("08 which half alone",
       "matrices" if middle > counts else "rest" if middle < -counts else "neither",
       lead=[half - counts for half in halves])
settle("08 times the excess with 8 of 64 directions",
       fmean(paid("cut", 12, 8)) / fmean(paid("whole", 12, 8)), unit="times")

# %%
print(f"{'excess':40s}{'0 new words':>12s}{'12 new words':>14s}")
for label, what, rank in (("the base, where nothing is tuned", "only", 0),
                          ("the rest alone", "cut", 0), ("the matrices alone", "only", 64),
                          ("both: the tuned model", "whole", 8)):
    print(f"{label:40s}{fmean(paid(what, 0, rank)):12.4f}{fmean(paid(what, 12, rank)):14.4f}")

# %% [markdown]
# (*Recorded*, mean of sixteen bases.) Counted in nats, either half by itself does most of the way from the
# base; as a factor, only a small part of it. The matrices alone come nearer. Now cut the matrices' updates,
# and leave the rest as tuned.

# %%
fig, columns = axes(7.4, 3.2, 2, sharey=True)
lines = {("cut", "full"): ("o-", SECOND), ("random", "full, random directions"): ("o:", SECOND),
         ("blocks", "blocks"): ("D-", THIRD)}
for ax, new in zip(columns, (0, 12), strict=True):
    for (what, label), (look, colour) in lines.items():
        paths = np.array([paid(what, new, rank) for rank in RANKS])  # (8 ranks, 16 bases)
        ax.plot(paths, color=colour, lw=0.4, ls=look[1:], alpha=0.3)
        ax.plot(np.mean(paths, axis=1), look, color=colour, ms=4, label=label)
    ax.plot(4, fmean(cell("LoRA r=8", new)), "s", color=ACCENT, ms=9, mfc="none", label="LoRA, trained at 8")
    ax.set_xticks(range(len(RANKS)), RANKS)
    ax.set(title=f"{new} new words", xlabel="directions kept, of 64", yscale="log")
columns[0].set(ylabel="excess, nats per token")
columns[0].legend(fontsize=7)
show(fig, "Recorded, sixteen bases and their mean. Solid: the strongest directions. Dotted: as many random "
          "ones of the update's. Green: the arm blocks, where nothing but these matrices trains, in full.",
     alt="Excess with 8 directions: " + "; ".join(
         f"{new} new words, full {fmean(paid('cut', new, 8)):.3f}, "
         f"random {fmean(paid('random', new, 8)):.2f}, "
         f"blocks {fmean(paid('blocks', new, 8)):.3f}, "
         f"LoRA trained at 8 {fmean(cell('LoRA r=8', new)):.3f}" for new in (0, 12)) + ".")

# %% [markdown]
# The claim: *the update lies in a low-rank subspace*. As a question about the job: does the model pay as much
# with 8, or 16, of 64 directions as with all? (In the verdict a factor below 1 means that the cut model pays
# more.)

# %%
verdict("C13", contrasts.effects("C13"))

# %% tags=["measured"]
cuts = {}
for new in (0, 12):
    weights = {n: old[n] + inside.strongest(X, 8) for n, X in updates["full", new].items()}
    test = trials.frames(opened.task(new), 128, 40, "test")
    cuts[new] = measure.excess(inside.placed(tuned["full", new], weights), test).total
    print(f"{new:2d} new words, your own run: all {live['full', new].total:.4f}, 8 of 64 {cuts[new]:.4f}")
pairs = {new: zip(paid("cut", new, 8), paid("whole", new, 8), strict=True) for new in (0, 12)}
nears = {new: prediction([math.log(a / b) for a, b in each]) for new, each in pairs.items()}

# %%
expect("both cuts cost what the record predicts", all(
    near.holds(math.log(cuts[new] / live["full", new].total)) for new, near in nears.items()), of=four)

# %% [markdown]
# With 0 new words 8 directions serve as well as 64, although they leave out a seventh of the energy. With 12
# they leave out a quarter, and the model pays nearly twice as much. 16 serve on both. Does the energy tell
# what the job needs?
#
# ### It depends on more than the energy

# %%
print(f"{'excess, 12 new words':32s}{'8 of 64':>9s}{'16':>8s}{'all':>8s}{'8 : all':>9s}{'energy of 8':>13s}")
for label, what in (("full", "cut"), ("full, three times the rate", "hot"), ("blocks", "blocks")):
    found = [fmean(paid(what, 12, rank)) for rank in (8, 16, 64)]
    print(f"{label:32s}" + "".join(f"{x:{w}.4f}" for x, w in zip(found, (9, 8, 8), strict=True))
          + f"{found[0] / found[2]:9.1f}{kept[f'{label}, 12'][4]:13.2f}")
print(f"{'LoRA, trained at rank 8':32s}{fmean(cell('LoRA r=8', 12)):9.4f}")

# %% [markdown]
# (No verdict.) At the next rate, which the three bases that choose could hardly
# tell from this one and which is better on the sixteen, 8 directions cost a factor of 1.3 instead of 1.9,
# with about as much energy: the line of the verdict that fails hangs on one step of the rates. And in
# *blocks*, where only these matrices train, in full, 8 directions hold as much and cost a factor of 4.
#
# Now the blue square. LoRA changes the same matrices, at rank 8, and with 12 new words it pays a quarter of
# what the cut blocks pay, and no more than the whole ones. So the update that training the matrices *found*
# does not lie in its 8 strongest directions there, and yet *there is* an update of 8 directions that does the
# job. LoRA needs the second, not the first. Hu et al. (2021, section 1) start from the first.

# %% [markdown]
# ## Do two updates share directions? (second reading)
# Did two runs on different examples find the same directions? An update
# $\Delta W = U S V^\top$ *reads* along $V$, its right singular vectors, and *writes* along $U$, its left
# ones. Take the first $k$ of one run and the first $k$ of the other, as rows of $V_1$ and $V_2$. Hu et al.
# (2021, section 7.2) measure
#
# $$\phi(k, k) = \frac{\lVert V_1 V_2^\top \rVert_F^2}{k}$$
#
# It says how much of one subspace lies in the other. By chance it is $k / d$: with $k = 8$ and
# $d = 64$ that is 0.125. In their GPT-3, with $d = 12{,}288$, it was next to nothing.

# %%
def phi(V1, V2):  # rows orthonormal: (k, d), (k, d)
    return np.sum((V1 @ V2.T) ** 2) / min(len(V1), len(V2))


rng = np.random.default_rng(0)
drawn = [phi(*(np.linalg.qr(rng.standard_normal((64, 8)))[0].T for _ in range(2))) for _ in range(500)]
print(f"two random subspaces, 8 of 64 dimensions: {fmean(drawn):.3f}")

# %% [markdown]
# Each row compares two updates, where they write (left) and where they read (right).

# %%
fig, columns = axes(7.6, 3.4, 2, sharey=True)
names = list(reversed(opened.SHARED))
for ax, new in zip(columns, (0, 12), strict=True):
    for side, marker, colour, shift in (("left", "<", ACCENT, 0.12), ("right", ">", SECOND, -0.12)):
        for row, name in enumerate(names):
            if f"{side} 8" in (found := rec["shared"][f"{name}, {new}"]):
                ax.plot(found[f"{side} 8"], 16 * [row + shift], marker, color=colour, ms=3, alpha=0.3)
                ax.plot(fmean(found[f"{side} 8"]), row + shift, marker, color=colour, ms=7,
                        label=side if row == 0 else None)
    ax.axvline(1 / 8, color=GREY, ls="--", lw=1)
    ax.set(title=f"{new} new words", xlabel=r"$\phi(8, 8)$", xlim=(0, 1.02))
columns[0].set_yticks(range(len(names)), [name.replace("W_0", "$W_0$") for name in names], fontsize=8)
columns[1].legend(fontsize=8, loc="lower right")
show(fig, "Recorded: sixteen bases (small) and their mean (large), over the matrices with 64 dimensions on "
          "that side. The dashed line is chance.",
     alt="phi(8, 8), left and right, 0 new words: " + "; ".join(
         f"{name} " + ", ".join(f"{fmean(rec['shared'][f'{name}, 0'][f'{side} 8']):.2f}" for side in
                                ("left", "right") if f"{side} 8" in rec["shared"][f"{name}, 0"])
         for name in opened.SHARED) + ".")

# %%
went = [fmean(rec["start"][f"LoRA r=8, {new}"]["change"]) for new in (0, 12)]
print("A's change over the norm of its start: {:.2f}, with 12 new words {:.2f}".format(*went))

# %% [markdown]
# - Two *full* updates, from different examples, share most of their first 8 directions on both sides.
# - Two LoRA updates agree on the left, where they write, 0.44 (0.39 with 12 new words), and on the right far
#   less: 0.18 and 0.23, where chance is 0.125. But an update's right directions are those of the rows of $A$,
#   and they stay near $A$'s own random *start*: 0.87 with 0 new words, 0.62 with 12, where $A$ moves by more
#   than its own norm.
# - From *one start* of $A$ they agree on both sides, on the left twice as much as from two. From one start
#   LoRA's legal and *medical* updates agree on the right, too, 0.79 and 0.58; full updates, which have no
#   $A$, come to 0.39 and 0.34 there. On the left legal and medical share as little as $W_0$ and a full
#   update.
#
# So put the start beside what you compare, on the right above all. (Hu et al. compare right directions from
# different starts.)

# %% [markdown]
# ## Does an update amplify? (second reading)
# Hu et al. (section 7.3) also ask how strongly $W_0$ itself acts along the update's directions. With $U$ and
# $V$ the first $k$ singular vectors of $\Delta W$, that is $\lVert U^\top W_0 V \rVert_F$. In one matrix of
# GPT-3, with $k = 4$, it was 0.32; along random directions 0.02; along $W_0$'s own first four 21.67. So the
# update chose directions in which $W_0$ is weak, but 16 times stronger than chance.
#
# Along random directions the root of the mean square is $k \lVert W_0 \rVert_F / d$, for a matrix $d \times
# d$.

# %%
def acts(W, X, k):  # how strongly W acts along the first k directions of X
    U, _, Vt = np.linalg.svd(X, full_matrices=False)
    return np.linalg.norm(U[:, :k].T @ W @ Vt[:k].T)


W = old["blocks.1.attention.o_proj"]
chance = [acts(W, noise_like(W, rng), 8) for _ in range(200)]
print(f"by the formula {8 * np.linalg.norm(W) / 64:.3f}, "
      f"of 200 draws {np.mean(np.square(chance)) ** 0.5:.3f}")

# %%
print("mean of 12 matrices and 16 bases, k = 8; ratios to random")
print(f"{'':32s}{'|dW|':>6s}{'random':>8s}{'update':>8s}{'ratio':>20s}{'own':>6s}")
for new in (0, 12):
    for arm in ("full", "full, three times the rate", "LoRA r=8", "noise"):
        found = rec["amplified"][f"{arm}, {new}"]
        mean, ratio = {key: fmean(values) for key, values in found.items()}, interval(found["ratio"])
        print(f"{f'{new}, {arm}':32s}{mean['norm']:6.2f}{mean['random']:8.2f}{mean['update']:8.2f}"
              f"{f'{ratio.mean:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]':>20s}{mean['bound']:6.1f}")

# %% [markdown]
# (*Recorded*; the first number of a row is that of the new words, and "own" the ratio of $W_0$'s own first 8
# directions.) Here the updates' directions are 1.2 to 1.6 times as strong as random ones; in GPT-3's matrix
# they were 16 times. But 16 could hardly have come out here: even $W_0$'s own directions reach 6, in GPT-3's
# matrix 21.67 / 0.02, about 1,080. No ratio exceeds $\sqrt{mn} / k$ for $W_0$ $(m, n)$: read it against that.
#
# Their *amplification* is another ratio: $\lVert \Delta W \rVert$ over the column "update", 21.5 in that
# matrix. It grows with the norm of the update, whatever its directions. So put all at one norm, LoRA's, too:

# %%
print(f"{'amplification':32s}{'as trained':>12s}{'at the norm of LoRA r=8':>26s}")
for new in (0, 12):
    for arm in ("full", "full, three times the rate", "LoRA r=8", "noise"):
        found, lora = (rec["amplified"][f"{each}, {new}"] for each in (arm, "LoRA r=8"))
        trained, same = (fmean(each["norm"]) / fmean(found["update"]) for each in (found, lora))
        print(f"{f'{new}, {arm}':32s}{trained:12.2f}{same:26.2f}")

# %% [markdown]
# As trained, LoRA amplifies (above 1) and full fine-tuning doesn't. At one norm noise has more of it than
# either: what the number shows here is that LoRA's updates are four and seven and a half times as large, and
# no choice of directions. (In GPT-3's matrix noise of the update's norm, 6.9, would come to 6.9 / 0.02, some
# 345.)

# %% [markdown]
# ## Intruders (second reading)
# Shuttleworth et al. (2025, algorithm 1) look at the tuned matrix itself. An *intruder dimension* is one of
# its ten strongest left singular vectors whose |cosine| to *every* left singular vector of $W_0$ is below a
# threshold, here 0.6. They find them after LoRA, hardly any in full, and connect them with forgetting.
#
# ### Exercise 2: find the bug (4 minutes)
# `newcomers` should return the columns of $U$ that are near no column of $U_0$. It reports too many.

# %% tags=["exercise"]
from lora_mini.desk.checks.nb08 import check_newcomers


def newcomers(U0, U, threshold):
    # U0 (m, k0), U (m, k): singular vectors as columns
    cosines = np.abs(U0.T @ U)  # (k0, k)
    # <stub>
    # return [j for j in range(U.shape[1]) if cosines[j, j] < threshold]
    # </stub>
    # <solution>
    return [j for j in range(U.shape[1]) if cosines[:, j].max() < threshold]
    # </solution>


check_newcomers(newcomers)

# %% [markdown]
# ### Bets 5 and 6
# Twelve matrices with ten vectors each: 120 can be new. How many are new after LoRA at rank 8, with 0 new
# words, in the mean of sixteen bases? And how many after *full fine-tuning*, if you scale its updates to a
# norm of 0.4 times that of $W_0$, where training left it at 0.04?

# %%
bet("08 intruders after LoRA at rank 8", guess=None)
bet("08 intruders of a scaled full update", guess=None)

# %%
found = rec["intruders"]
settle("08 intruders after LoRA at rank 8", fmean(count[1] for count in found["LoRA r=8, 0"]["count"]))
settle("08 intruders of a scaled full update", fmean(count[3] for count in found["full, 0"]["at_norm"]))

# %%
print(f"{'of 120, at thresholds 0.5, 0.6, 0.7':36s}{'the update':>14s}{'noise':>14s}{'|dW| / |W|':>12s}")
for new in (0, 12):
    for arm in ("full", "blocks", "LoRA r=1", "LoRA r=8"):
        found = rec["intruders"][f"{arm}, {new}"]
        rows = ["".join(f"{mean:4.0f}" for mean in np.mean(found[key], axis=0)) for key in ("count", "noise")]
        print(f"{f'{new} new words, {arm}':36s}{rows[0]:>14s}{rows[1]:>14s}{fmean(found['norm']):12.2f}")

# %% [markdown]
# That is the published picture: LoRA has intruders, full fine-tuning hardly any. But noise of LoRA's norm has
# some, too, at rank 1 two to seven times as many; and at rank 8 LoRA's updates are four to seven and a half
# times as large as full ones. So bring all of them to the *same* norm.

# %%
fig, columns = axes(7.4, 2.9, 2, sharey=True)
styles = {"full": ("o-", SECOND), "LoRA r=8": ("s-", ACCENT), "LoRA r=1": ("^-", THIRD),
          "noise": ("x--", GREY)}
for ax, new in zip(columns, (0, 12), strict=True):
    for arm, (look, colour) in styles.items():
        found = rec["intruders"][f"{arm}, {new}"]
        ax.plot(NORMS, np.mean(found["at_norm"], axis=0), look, color=colour, ms=4, label=arm)
        if arm != "noise":
            ax.plot(fmean(found["norm"]), np.mean(found["count"], axis=0)[1], look[0], color=colour, ms=10,
                    mfc="none")
    ax.set(xscale="log", title=f"{new} new words", xlabel="norm of the update / norm of $W_0$")
    ax.minorticks_off()
    ax.set_xticks(NORMS, NORMS)
columns[0].set(ylabel="intruders, of 120")
columns[0].legend(fontsize=8)
show(fig, "Recorded, mean of sixteen bases: each update scaled to five norms. Large open marks: where "
          "training left it.",
     alt="Intruders at a relative norm of 0.4: " + "; ".join(f"{new} new words, " + ", ".join(
         f"{arm} {fmean(count[3] for count in rec['intruders'][f'{arm}, {new}']['at_norm']):.0f}"
         for arm in styles) for new in (0, 12)) + ".")

# %% [markdown]
# Up to 0.2 the three arms hardly come apart. At 0.4 and more, far beyond where full training stops, full
# fine-tuning makes *more* intruders than LoRA at rank 8, which makes more than rank 1. Rank 1 stays near one
# a matrix, whatever its norm: it has one direction. So a count shows norm and rank first.
#
# ### Do they make the model forget?
# Shuttleworth et al. weaken them: they multiply an intruder's singular value in $W_{tuned}$ by a factor below
# 1, and forgetting falls. Here is that remedy, whole: shrink, and place the result in the model.

# %%
def shrink(W, which, factor):
    U, S, Vt = np.linalg.svd(W, full_matrices=False)
    S[list(which)] *= factor
    return (U * S) @ Vt


def place(tuned, weights):
    tuned = copy.deepcopy(tuned)
    with torch.no_grad():
        for name, W in weights.items():
            tuned.get_submodule(name).weight.copy_(torch.from_numpy(W))
    return tuned


# %% tags=["measured"]
lora = inside.placed(tuned["LoRA r=8", 0], inside.matrices(tuned["LoRA r=8", 0]))  # the adapter merged
new = inside.matrices(lora)
who = {n: inside.intruders(old[n], W) for n, W in new.items()}
weaker = place(lora, {n: shrink(new[n], js, 0.7) for n, js in who.items()})
test = trials.frames(opened.task(0), 128, 40, "test")
for label, each in (("as trained", lora), ("intruders at 0.7", weaker)):
    kept_valid = trials.old_styles(each, 40).valid
    print(f"{label:17s} excess {measure.excess(each, test).total:.4f}, old sentences valid {kept_valid:.2f}")
count = sum(map(len, who.values()))
print(count, "intruders")

# %%
expect("as many intruders as the record predicts", prediction(
    [found[1] for found in rec["intruders"]["LoRA r=8, 0"]["count"]]).holds(count), of=four)

# %% [markdown]
# Two controls. One shrinks as many of the ten strongest vectors that are *no* intruders, which harms the
# base. The other is the plain remedy of 06: it weakens the whole update. Of the intruders there are two
# curves: all, and the strongest of each matrix.

# %%
fig, columns = axes(7.4, 3.2, 2, sharey=True)
ways = {"scaled": ("whole update", "o-", ACCENT), "all": ("all intruders", "s-", SECOND),
        "top": ("the strongest of each", "^-", THIRD), "rest": ("as many others", "x-", GREY)}
for ax, arm in zip(columns, ("LoRA r=8", "LoRA r=1"), strict=True):
    for how, (label, style, colour) in ways.items():
        total, _, valid = np.mean(rec["healed"][f"{arm}, 0"][how], axis=0).T
        k = 1 + (STRENGTHS if how == "scaled" else FACTORS).index(0.7)
        ax.plot(total, valid, style, color=colour, ms=4, label=label)
        ax.plot(total[k], valid[k], style[0], color=colour, ms=10, mfc="none")
    ax.set(xscale="log", title=f"{arm}, 0 new words", xlabel="excess on the new register")
columns[0].set(ylabel="share of old sentences valid")
columns[1].legend(fontsize=8)
show(fig, "Recorded, mean of sixteen bases. All curves start at the trained adapter, on the left, and weaken "
          "something, little by little. Large open marks: at 0.7. Higher is less forgotten, right a worse "
          "fit.",
     alt="LoRA r=8 at a factor of 0.7, excess and old sentences valid: " + "; ".join(
         "{} {:.3f} and {:.2f}".format(label, *np.mean(
             rec["healed"]["LoRA r=8, 0"][how], axis=0)[5 if how == "scaled" else 2][[0, 2]])
         for how, (label, _, _) in ways.items()) + ".")

# %%
def ahead(paths, plain):  # old sentences valid by the plain remedy, at the same fit, minus by this one
    found = []
    for path, scaled in zip(paths, plain, strict=True):
        total, _, valid = path[1 + FACTORS.index(0.7)]
        fits, _, valids = np.transpose(scaled)
        start = fits.argmin()
        found.append(np.interp(math.log(total), np.log(fits[start:]), valids[start:]) - valid)
    return interval(found)


print("at a factor of 0.7: share of old sentences given back; by how much the plain\nremedy keeps more")
for arm in ("LoRA r=8", "LoRA r=1"):
    paths = rec["healed"][f"{arm}, 0"]
    for how in ("all", "top", "rest"):
        back = interval([path[1 + FACTORS.index(0.7)][2] - path[0][2] for path in paths[how]])
        more = ahead(paths[how], paths["scaled"])
        print(f"{arm}, {ways[how][0]:23s}" + " ".join(
            f"{x.mean:+.2f} [{x.low:+.2f}, {x.high:+.2f}]" for x in (back, more)))

# %% [markdown]
# - On average, to weaken the intruders gives old sentences back (on your base it need not: see above); to
#   weaken others gives none.
# - But to weaken the *whole* update gives back more, at the same fit.
#
# And to weaken an intruder is to weaken the update, too, while our control harms $W_0$ instead. So this does
# not part "intruder" from "less update"; and a remedy that knows nothing of intruders does better. (`ahead`
# reads the plain curve between two of its points, base by base; the figure shows means.)

# %% [markdown]
# ## From this town to seven billion
# - **Rank.** 8 of 64 directions are 12.5 percent, of 4,096 they are 0.2. Biderman et al. (arXiv 2405.09673,
#   version 2, abstract) find full updates of a rank 10 to 100 times those usual for LoRA.
# - **Chance.** $\phi(8, 8)$ of random subspaces is 0.125 here, and 0.002 there. The ratio to random
#   directions has a bound of $d / k$ for a square matrix: 8 here, 512 there.
# - **Intruders.** How near a random direction comes to one of $d$ others:

# %%
for d in (64, 4096):
    draws = np.abs(rng.standard_normal((200, d)))
    print(f"d = {d:5,}: largest |cosine|, mean of 200 draws, "
          f"{np.mean(draws.max(axis=1) / np.linalg.norm(draws, axis=1)):.2f}")

# %% [markdown]
# At both widths a random direction counts as new at a threshold of 0.6; so does an old one that has been
# mixed with its neighbours. PEFT ships the remedy as `reduce_intruder_dimension`; a weaker adapter is one
# number (04).

# %% [markdown]
# ## What you have done
# - You **measured** how many directions an update fills: 11 to 15 of 64 for 90 percent, where noise fills 38.
# - You **distinguished** three things: the energy of an update, what its job needs (8 of 64 directions on one
#   task; on the other 8 cost a factor of 1.3 to 4, by rate and by what else trains), and what LoRA learns at
#   rank 8, which was enough for both.
# - You **compared** two updates with chance and with their start (second reading): on the right, LoRA's start
#   shows more than its task.
# - You **tested** two published pictures (second reading): LoRA's larger amplification is its larger norm;
#   intruders count norm and rank, and the plain remedy beats theirs.
#
# **On your own.** Cut your own LoRA at rank 8 to 4 directions: what does it cost on each task? And give a
# full update random directions but its own singular values. How many intruders does it have?
#
# **In practice.** Before you see a meaning in a spectrum or an overlap, draw the same for noise of the same
# shape and norm. If you cut an adapter, measure the job.
#
# **Further reading.**
# - Hu et al., *LoRA* (2021), section 7: subspaces and amplification in GPT-3.
# - Biderman et al., *LoRA learns less and forgets less* (arXiv 2405.09673, version 2, 2024): the ranks of
#   full updates.
# - Shuttleworth et al., *LoRA vs full fine-tuning: an illusion of equivalence* (arXiv 2410.21228, version 3,
#   2025): intruder dimensions.
# - Aghajanyan, Gupta and Zettlemoyer, *Intrinsic dimensionality explains the effectiveness of language
#   model fine-tuning* (2020): few numbers suffice in a random subspace of all weights, where no matrix has
#   a low rank.
