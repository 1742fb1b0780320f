# %% [markdown]
# # 8. Open an update and look inside
#
# LoRA says that the update of a matrix is a product of two thin ones. Is that how updates *are*? You will
# take the updates of full fine-tuning and of LoRA apart, and put a control beside everything that you see.
#
# At the end of this notebook you will be able to
# - **measure** how many directions an update fills, beside noise of the same size;
# - **tell apart** what an update holds and what its job needs;
# - **compare** the directions of two updates with what chance alone would give;
# - **test** a published picture, new directions that make a model forget, with controls.
#
# You need notebooks 02 and 06. About 115 minutes to study.

# %% [markdown]
# **Three questions before you start.** Answer aloud, then unfold.
#
# <details><summary>1. What does the squared Frobenius norm say about singular values? (02)</summary>
#
# It is the sum of their squares. Each direction holds its share of this *energy*.
# </details>
# <details><summary>2. Which matrix of rank r lies nearest to a given one? (02)</summary>
#
# Its truncated SVD: the $r$ strongest directions.
# </details>
# <details><summary>3. How do full fine-tuning and LoRA compare on a register whose words are all known? (06)</summary>
#
# Both come within a hundredth of a nat or so of the floor, LoRA with a larger rate.
# </details>

# %%
from statistics import fmean

import numpy as np

from lora_mini import svd
from lora_mini.desk import bet, expect, settle, show, verdict

# %%
from lora_mini.desk.figures import ACCENT, GREY, SECOND, THIRD, axes, fixed_row
from lora_mini.desk.intervals import interval, prediction
from lora_mini.desk.sliders import RankSlider
from lora_mini.lab import inside, nb08, record, trials
from lora_mini.lab.nb08 import FACTORS, NORMS, RANKS, RATES, STRENGTHS, TASKS
from lora_mini.world import base, measure, town

model = base.load_base(path=base.SHIPPED)
shapes = [W.shape for W in inside.matrices(model).values()]
print(f"{len(shapes)} matrices, 64 singular values in each: {sorted(set(shapes))}")

# %% [markdown]
# Those are the matrices of the two blocks: queries, keys, values and outputs of the attention, and the two
# layers of the network behind it. For each, the *update* is $\Delta W = W_{tuned} - W_0$.
#
# We ask for the legal register, once with 0 new words and once with 24 (notebook 07's dial, at both ends).
#
# ### Bets 1 and 2
# What percentage of the energy do the **8 strongest** of 64 directions hold,
# 1. in pure Gaussian noise, 64 x 64;
# 2. in the update of full fine-tuning, 0 new words, mean of the twelve matrices?

# %%
bet("08 percent of noise in 8 of 64 directions", guess=None)
bet("08 percent of the full update in 8 directions", guess=None)

# %%
noise = np.random.default_rng(0).standard_normal((64, 64))
S = np.linalg.svd(noise, compute_uv=False)
settle("08 percent of noise in 8 of 64 directions", 100 * svd.energy_kept(S, 8), unit="percent")
print("directions for 90 percent of the energy:", svd.rank_for_error(S, 0.1**0.5))

# %% [markdown]
# An eighth of the directions, and far more than an eighth of the energy: noise is not flat. So a picture of
# falling singular values proves nothing by itself, and neither does a high rank: noise needs about half of
# all directions for 90 percent. From now on every update has *noise of its own shape and norm* beside it.

# %%
def noise_like(X, rng):
    noise = rng.standard_normal(X.shape)
    return noise * np.linalg.norm(X) / np.linalg.norm(noise)


one, two = (make(noise, np.random.default_rng(1)) for make in (noise_like, inside.noise_like))
print("the package's noise_like gives the same numbers:", np.array_equal(one, two))

# %% [markdown]
# ## Eight updates, live, and a record
# You train with two seeds that the record has not used. The record holds eight others. A live excess should
# land in the record's prediction interval, as in notebook 06. The interval is one of 95 percent, so of eight
# runs one may well miss it.

# %% tags=["measured"]
tuned, live = {}, {}
for task, style in TASKS.items():
    for method in ("full", "LoRA r=8"):
        for seed in (20, 21):
            key, rate = (task, method, seed), RATES[task][method]
            tuned[key], live[key] = trials.tune(model, method, style, rate, seed, checkpoints=(200,))
            print(f"{task:12s} {method:9s} seed {seed}: excess {live[key].target:.4f}")
opened = {key: inside.updates(model, after) for key, after in tuned.items()}

# %%
rec = record.load("08")
print(record.label(rec))


def seen(method, task, what):  # one entry a seed
    return record.find(rec["runs"], method=method, task=task)[what]


landed = [prediction(seen(method, task, "target"), floor=0.02 * town.entropy(TASKS[task])).holds(t.target)
          for (task, method, _), t in live.items()]
expect("all eight runs landed where the record predicts, or all but one", sum(landed) >= 7)

# %% tags=["measured"]
def share(updates, rank=8):  # of the energy in the strongest directions, mean over the matrices
    return fmean(svd.energy_kept(np.linalg.svd(X, compute_uv=False), rank) for X in updates.values())


shares = {key: share(updates) for key, updates in opened.items()}
for (task, method, seed), value in shares.items():
    print(f"{task:12s} {method:9s} seed {seed}: the first 8 of 64 directions hold {value:.3f}")

# %%
recorded = {task: [fmean(s) for s in seen("full", task, "share")] for task in TASKS}
expect("the live shares of full fine-tuning landed where the record predicts", all(
    prediction(recorded[t], floor=0.02).holds(shares[t, "full", s]) for t in TASKS for s in (20, 21)))
settle("08 percent of the full update in 8 directions", 100 * fmean(recorded["0 new words"]),
       unit="percent", within=0.1)

# %%
fig, columns = axes(7.4, 2.9, 2, sharey=True)
looks = {"full": ("o", SECOND), "LoRA r=8": ("s", ACCENT)}
for ax, task in zip(columns, TASKS, strict=True):
    for method, (marker, colour) in looks.items():
        for kept in seen(method, task, "kept"):
            ax.plot(kept, color=colour, lw=0.6, alpha=0.4)
        ax.plot(np.mean(seen(method, task, "kept"), axis=0), marker, color=colour, ms=5, label=method)
    ax.plot(np.mean(seen("full", task, "noise_kept"), axis=0), "x--", color=GREY, label="noise")
    ax.axhline(0.9, color=GREY, ls=":", lw=1)
    ax.set_xticks(range(len(RANKS)), RANKS)
    ax.set(title=task, xlabel="directions kept, of 64")
columns[0].set(ylabel="share of the energy")
columns[1].legend(fontsize=8)
kept = {t: [np.mean(seen(m, t, w), axis=0)[4] for m, w in
            (("full", "kept"), ("full", "noise_kept"))] for t in TASKS}
show(fig, "Recorded. Energy in the strongest directions, mean of twelve matrices; thin lines are seeds. Full "
          "fine-tuning lies between noise and LoRA. The dotted line is 90 percent.",
     alt="Share of 8 directions: " + "; ".join(f"{t}, full {u:.2f}, noise {n:.2f}"
                                               for t, (u, n) in kept.items()) + "; LoRA at rank 8, 1.")

# %%
for task in TASKS:
    need = {m: fmean(map(fmean, seen(m, task, "ninety"))) for m in looks}
    control = fmean(map(fmean, seen("full", task, "noise_ninety")))
    print(f"{task:12s} directions for 90 percent: full {need['full']:.1f}, LoRA r=8 "
          f"{need['LoRA r=8']:.1f}, noise {control:.1f}")
verdict("C13", effects=recorded)

# %% [markdown]
# 90 percent of the energy is the usual bar. Full fine-tuning stays below it at rank 8, and far above noise:
# neither "low rank" nor "like noise".
#
# Drag the rank: one of your own updates, grey for 0. Beneath it, noise of the same norm at the fixed ranks.

# %%
X = opened["0 new words", "full", 20]["blocks.1.attention.o_proj"]
unit = 40 / X.std()
RankSlider(unit * X, "The update at ranks 1, 2, 4, 8 and 16: a plaid at first, then finer and finer grain.",
           frozen=np.full(X.shape, 128), rank=1)

# %%
pure = unit * inside.noise_like(X, np.random.default_rng(0))
fig = fixed_row([128 + inside.strongest(pure, r) for r in (1, 2, 4, 8, 16)],
                [f"noise, r = {r}" for r in (1, 2, 4, 8, 16)])
show(fig, "Noise of the same norm, at the same ranks: paler, because each rank holds less.",
     alt="Noise cut to rank 1, 2, 4, 8 and 16: weak plaid, then grain; paler than the update.")

# %% [markdown]
# ## What the job needs
# What an update *holds* is one question. What the *job* needs is another: perhaps the weak directions do
# nothing, perhaps they matter more than their energy. Ask the model. Keep the $r$ strongest directions of
# each of the twelve updates, put $W_0$ plus that back in, and measure the excess. The control keeps $r$
# *random* directions instead.
#
# ### Bet 3
# First, $r = 0$. The fully fine-tuned model gets all twelve matrices of the base back. Its embedding, norms,
# biases and head stay as they were tuned. The base itself stands at the excess printed here. What is the
# excess now, 0 new words?

# %%
task = "0 new words"
print(f"the base: {measure.excess(model, trials.Probe(TASKS[task], 20).target):.2f} nats")
bet("08 excess with the twelve matrices of the base", guess=None)

# %%
settle("08 excess with the twelve matrices of the base",
       fmean(path[0] for path in seen("full", task, "strongest")), unit="nats")

# %%
fig, columns = axes(7.4, 3.2, 2, sharey=True)
for ax, task in zip(columns, TASKS, strict=True):
    for method, (marker, colour) in looks.items():
        for how, line in (("strongest", "-"), ("random", ":")):
            paths = np.clip(seen(method, task, how), 1e-3, None)
            ax.plot(paths.T, color=colour, lw=0.5, ls=line, alpha=0.4)
            ax.plot(paths.mean(axis=0), line, marker=marker, color=colour, ms=4, label=f"{method}, {how}")
    ax.set_xticks(range(len(RANKS)), RANKS)
    ax.set(title=task, xlabel="directions kept, of 64", yscale="log")
columns[0].set(ylabel="excess, nats per token")
columns[1].legend(fontsize=7)
at = {t: [np.mean(seen("full", t, how), axis=0)[i] for how in ("strongest", "random") for i in (4, 7)]
      for t in TASKS}
show(fig, "Recorded, mean of eight seeds and each seed. Solid: the strongest directions. Dotted: as many "
          "random ones.",
     alt="Full fine-tuning cut to 8 directions: " + "; ".join(
         f"{t}, strongest {a:.3f}, random {c:.2f}, all {b:.3f}" for t, (a, b, c, _) in at.items()) + ".")

# %% tags=["measured"]
def cut(key, rank):  # the excess with so many directions of each update kept
    task, _, seed = key
    old = inside.matrices(model)
    weights = {n: old[n] + inside.strongest(X, rank) for n, X in opened[key].items()}
    return measure.excess(inside.placed(tuned[key], weights), trials.Probe(TASKS[task], seed).target)


cuts = {(t, s): cut((t, "full", s), 8) for t in TASKS for s in (20, 21)}
for (task, seed), value in cuts.items():
    print(f"{task:12s} seed {seed}: all {live[task, 'full', seed].target:.4f}, 8 of 64 {value:.4f}")

# %%
cost = {t: [p[4] - p[7] for p in seen("full", t, "strongest")] for t in TASKS}
landed = [prediction(cost[t], floor=0.02 * town.entropy(TASKS[t])).holds(
    cuts[t, s] - live[t, "full", s].target) for t, s in cuts]
expect("the four cuts cost what the record predicts, or all but one", sum(landed) >= 3)
for task, style in TASKS.items():
    mean = interval(cost[task])
    print(f"{task:12s} on average, in nats: {mean}; {100 * mean.mean / town.entropy(style):.0f} percent "
          "of the floor")

# %% [markdown]
# - In full fine-tuning the matrices' updates do only the last part of this job. Take them away, and most of
#   what was learned on 0 new words is still there: it sits in the embedding, the norms, the biases and the
#   head. LoRA trains nothing else, so without its update it is the base again.
# - From rank 4 on, the strongest directions serve the job better than as many random ones, and soon far better.
# - Cut to 8 directions, full fine-tuning loses little on 0 new words: a fifth of the energy is gone and costs 4
#   percent of the floor. On 24, a little more than a quarter is gone and costs half of the floor. With 16
#   directions it is 4 percent or less on both.
# - LoRA at rank 8, cut to 4 on 24 new words, keeps nine tenths of its energy, the usual bar. Its excess goes from
#   0.03 to 0.38.
#
# So "low rank" depends on what you ask for: 90 percent of the energy, or the job.
#
# ## Do two updates share directions?
# Two runs learned the same register from other examples and other starts. Did they find the same
# directions? Take the first $i$ right singular vectors of one, as the rows of $V_1$, and the first $j$ of
# the other. Hu et al. (2021, section 7.2) measure
#
# $$\phi(i, j) = \frac{\lVert V_1 V_2^\top \rVert_F^2}{\min(i, j)}$$
#
# between 0 and 1: how much of the smaller subspace lies in the larger.
#
# ### Exercise 1: complete (3 minutes)

# %% tags=["exercise"]
from lora_mini.desk.checks.nb08 import check_phi


def phi(V1, V2):
    # V1 (i, d) and V2 (j, d), rows orthonormal
    # <solution>
    return np.sum((V1 @ V2.T) ** 2) / min(len(V1), len(V2))
    # </solution>


check_phi(phi)

# %% [markdown]
# ### Exercise 2: predict (2 minutes)
# A single random direction in $d$ dimensions lies, on average, with a share of $j/d$ in a subspace of $j$
# dimensions. Now take $i = 32$ of them, against $j = 4$. What is $\phi(32, 4)$ of two *random* subspaces at
# $d = 64$?

# %% tags=["exercise"]
from lora_mini.desk.checks.nb08 import check_chance

# <stub>
# by_chance = None  # your number
# </stub>
# <solution>
by_chance = 32 * (4 / 64) / 4
# </solution>
check_chance(by_chance)

# %% [markdown]
# So chance is $i \cdot (j / d) / \min(i, j) = \max(i, j) / d$. In Hu et al.'s GPT-3, with $d = 12{,}288$, that is
# next to nothing. Here it is not, and at $j = 64$ every $\phi$ is 1.
#
# (Each seed is compared with the *next* one: with the same seed, two ranks would draw $A$ from the same numbers.)
#
# ### Bet 4
# Two LoRA runs at rank 8, 0 new words, different seeds. $\phi(8, 8)$ of their *updates*, mean over the matrices
# with $d = 64$? (Chance: 0.125.)

# %%
bet("08 phi of two updates at rank 8", guess=None)

# %%
task = "0 new words"
settle("08 phi of two updates at rank 8",
       fmean(curve[3] for curve in rec["phi"][f"update, r=8 and r=8, {task}"]["8"]))

# %%
J = np.array(RANKS[1:])
fig, columns = axes(7.6, 2.9, 2, sharey=True)
styles = {"A, r=8 and r=64": ("s-", ACCENT), "update, r=8 and r=8": ("^-", THIRD),
          "update, r=8, one start": ("v-", "#CC79A7"), "update, full and full": ("o-", SECOND)}
for ax, i in zip(columns, (1, 8), strict=True):
    for what, (style, colour) in styles.items():
        curves = np.array(rec["phi"][f"{what}, {task}"][str(i)])
        ax.errorbar(range(curves.shape[1]), curves.mean(axis=0), curves.std(axis=0), fmt=style,
                    color=colour, ms=4, lw=1.2, capsize=2, label=what)
    ax.plot(np.maximum(i, J) / 64, "--", color=GREY, label="chance")
    ax.set_xticks(range(len(J)), J)
    ax.set(title=f"i = {i}", xlabel="j", ylim=(0, 1.03))
columns[0].set(ylabel=r"$\phi(i, j)$")
columns[1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
top = {w: np.mean(rec["phi"][f"{w}, {task}"]["8"], axis=0)[3] for w in styles}
show(fig, "Recorded, 0 new words: mean and spread (one standard deviation) of eight pairs of seeds, over "
          "the ten matrices with 64 inputs.",
     alt="phi(8, 8), chance 0.125: " + ", ".join(f"{w} {v:.2f}" for w, v in top.items()) + ".")

# %% tags=["measured"]
def overlap(method, task, i=8, j=8):  # of the updates of seeds 20 and 21
    one, two = (opened[task, method, seed] for seed in (20, 21))
    return fmean(inside.phi(inside.directions(one[n], i), inside.directions(two[n], j))
                 for n in one if one[n].shape[1] == 64)


overlaps = {m: overlap(m, "0 new words") for m in ("full", "LoRA r=8")}
print("phi(8, 8) of your own two updates:", {m: f"{v:.3f}" for m, v in overlaps.items()})

# %%
for method, name in (("full", "full and full"), ("LoRA r=8", "r=8 and r=8")):
    near = prediction([c[3] for c in rec["phi"][f"update, {name}, 0 new words"]["8"]], floor=0.02)
    expect(f"{method}: your pair landed where the record predicts", near.holds(overlaps[method]))

# %%
print(f"{'eight pairs of seeds':24s}{'0 new words':>38s}{'24 new words':>38s}")
for what in nb08.SHARED:
    cells = []
    for task in TASKS:
        curves = rec["phi"][f"{what}, {task}"]
        for i, place, name in (("1", 0, "(1,1)"), ("8", 3, "(8,8)")):
            values = [curve[place] for curve in curves[i]]
            cells.append(f"{name} {fmean(values):.2f} ± {np.std(values):.2f}")
    print(f"{what:24s}" + "".join(f"{a:>38s}" for a in map("  ".join, (cells[:2], cells[2:]))))
print(f"{'chance':24s}" + 2 * f"{'(1,1) 0.02         (8,8) 0.12       ':>38s}")

# %% [markdown]
# - Hu et al. saw the first direction of rank 8 again in rank 64, with $\phi$ above 0.5, and little more than
#   noise in the rest. On 0 new words that is what we see: about 0.5 for the first, and for all eight about twice
#   chance. On 24 the first is shared less, though still ten times chance.
# - Two *full* updates share nearly all of their first 8 directions, with a $\phi$ near 0.9; two of LoRA do not.
#   Is it the task or the start? All full runs start from the same $W_0$, while each LoRA run draws its own $A$.
#   The row "one start" gives every LoRA run the *same* $A$, and data of its own: 0.96 on 0 new words. So there
#   it was the start. On 24 it is 0.55, half of the way.
#
# ## Does an update amplify?
# Hu et al. (section 7.3) go on: how strongly does $W_0$ itself act along the update's directions? With $U$
# and $V$ the first 8 singular vectors of $\Delta W$ on either side, that is $\lVert U^\top W_0 V
# \rVert_F$. In their one matrix of GPT-3, at rank 4, it was 0.32, against 0.02 for random directions and
# 21.67 for $W_0$'s own. The update's norm, 6.91, was 21.5 times the first: it "amplifies" something that was
# there, faintly.

# %%
print(f"{'mean of 12 matrices, 8 seeds':30s}" + "".join(f"{name:>9s}" for name in (
    "|dW|", "in dW", "random", "own", "factor", "random's")) + f"{'in dW : random':>22s}")
for task in TASKS:
    for method in ("full", "LoRA r=1", "LoRA r=8"):
        table = np.mean(seen(method, task, "amplified"), axis=1)  # (8 seeds, 4)
        norm, within, own, chance = table.mean(axis=0)
        numbers = (norm, within, chance, own, norm / within, norm / chance)
        ratio = interval(table[:, 1] / table[:, 3])
        print(f"{task + ', ' + method:30s}" + "".join(f"{number:9.2f}" for number in numbers)
              + f"{f'{ratio.mean:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]':>22s}")

# %% [markdown]
# ("own": $W_0$ along its own first directions; "factor": |dW| over "in dW"; "random's": |dW| over "random".)
# Along the update's directions $W_0$ acts little more strongly than along random ones: 1.2 times for LoRA at
# rank 8, 1.5 times for full fine-tuning. In GPT-3's matrix it was 16 times. So the *factor*, which looks
# like a finding, comes out larger still for random directions, in the column beside it.
#
# ## Intruders
# Shuttleworth et al. (2024) look at the tuned matrix itself. An *intruder dimension* is one of the ten
# strongest left singular vectors of $W_{tuned}$ with a |cosine| below 0.6 to *every* singular vector of $W_0$
# (0.6 is our choice). They find them after LoRA, hardly after full fine-tuning, and link them to forgetting.
#
# ### Exercise 3: find the bug (4 minutes)
# `newcomers` should name the columns of $U$ that are new. It reports too many. Mend it.

# %% tags=["exercise"]
from lora_mini.desk.checks.nb08 import check_newcomers


def newcomers(U0, U, threshold):
    # U0 (m, k), U (m, k): singular vectors as columns
    cosines = np.abs(U0.T @ U)  # (k, k)
    # <stub>
    # return [j for j in range(U.shape[1]) if cosines[j, j] < threshold]
    # </stub>
    # <solution>
    return [j for j in range(U.shape[1]) if cosines[:, j].max() < threshold]
    # </solution>


check_newcomers(newcomers)

# %% [markdown]
# ### Bets 5 and 6
# Twelve matrices with ten vectors each: 120 can be new. After LoRA at rank 8 on 0 new words, how many are? And
# if you add *noise* of the same norm (about a third of that of $W_0$) to each $W_0$ instead?

# %%
bet("08 intruders after LoRA at rank 8", guess=None)
bet("08 intruders after noise of that norm", guess=None)

# %%
task = "0 new words"
settle("08 intruders after LoRA at rank 8", fmean(seen("LoRA r=8", task, "intruders")))
settle("08 intruders after noise of that norm", fmean(seen("LoRA r=8", task, "noise_intruders")))
print(f"\n{'of 120':26s}{'update':>18s}{'noise':>18s}{'|dW| / |W|':>12s}")
for task in TASKS:
    for method in ("full", "LoRA r=1", "LoRA r=8"):
        found = [seen(method, task, what) for what in ("intruders", "noise_intruders")]
        spread = [f"{fmean(f):.0f} ({min(f)} to {max(f)})" for f in found]
        print(f"{task + ', ' + method:26s}{spread[0]:>18s}{spread[1]:>18s}"
              f"{fmean(seen(method, task, 'relative_norm')):12.2f}")

# %% [markdown]
# On 0 new words that is the published picture: LoRA has them, full fine-tuning hardly. On 24 full fine-tuning, at
# the rate that suits it, has them as well. And noise makes them too. Look at the last column: LoRA's updates are
# two to four times as large. So put all updates at the *same* norm.

# %%
fig, columns = axes(7.4, 2.9, 2, sharey=True)
lines = {"full": ("o-", SECOND), "LoRA r=8": ("s-", ACCENT), "LoRA r=1": ("^-", THIRD)}
for ax, task in zip(columns, TASKS, strict=True):
    for method, (style, colour) in lines.items():
        ax.plot(NORMS, np.mean(seen(method, task, "at_norm"), axis=0), style, color=colour, ms=4,
                label=method)
        ax.plot(fmean(seen(method, task, "relative_norm")), fmean(seen(method, task, "intruders")),
                style[0], color=colour, ms=10, mfc="none")
    ax.plot(NORMS, np.mean(seen("full", task, "noise_at_norm"), axis=0), "x--", color=GREY, label="noise")
    ax.set(xscale="log", title=task, xlabel="norm of the update / norm of $W_0$")
    ax.minorticks_off()
    ax.set_xticks(NORMS, NORMS)
columns[0].set(ylabel="intruders, of 120")
columns[0].legend(fontsize=8)
at = {t: [np.mean(seen(m, t, "at_norm"), axis=0)[3] for m in lines] for t in TASKS}
show(fig, "Recorded, mean of eight seeds: each update scaled to five norms. Large open marks: where training "
          "left it.",
     alt="Intruders at a relative norm of 0.4: " + "; ".join(
         f"{t}, full {a:.0f}, rank 8 {b:.0f}, rank 1 {c:.0f}" for t, (a, b, c) in at.items()) + ".")

# %%
more = {t: [full[3] - lora[3] for full, lora in zip(
    seen("full", t, "at_norm"), seen("LoRA r=8", t, "at_norm"), strict=True)] for t in TASKS}
for task, gaps in more.items():
    print(f"{task:12s} at a norm of 0.4, intruders of full minus LoRA r=8: {interval(gaps)}")
expect("at that norm full fine-tuning's updates make more, on both tasks",
       all(interval(gaps).low > 0 for gaps in more.values()))

# %% [markdown]
# Small updates make hardly any, whoever made them; large ones make many. The rank sets a ceiling: an update of
# rank 1 adds one direction to each of twelve matrices, and stops near that number. So the first count told
# us of norm and rank, and little else: at the same norm of 0.4, full fine-tuning makes *more* than LoRA at rank
# 8.
#
# ### Do they make the model forget?
# Shuttleworth et al. turn them down: multiply their singular values in $W_{tuned}$ by a factor, and
# forgetting falls. We turn down all intruders, or only the strongest of each matrix. Two controls: as many of
# the ten strongest that are *no* intruders (or all that are left), by the same factors; and the plain
# remedy of notebook 06, turning the whole update down.

# %%
fig, columns = axes(7.4, 3.4, 2)
ways = {"scaled": ("whole update", "o-", ACCENT), "shrunk": ("all intruders", "s-", SECOND),
        "shrunk_top": ("the strongest of each", "^-", THIRD), "shrunk_rest": ("as many others", "x-", GREY)}
for ax, task in zip(columns, TASKS, strict=True):
    for how, (label, style, colour) in ways.items():
        target, others = np.mean(seen("LoRA r=8", task, how), axis=0).T
        k = (STRENGTHS if how == "scaled" else FACTORS).index(0.7)
        ax.plot(target, others, style, color=colour, ms=4, label=label)
        ax.plot(target[k], others[k], style[0], color=colour, ms=10, mfc="none")
    ax.set(xscale="log", title=f"LoRA r=8, {task}", xlabel="excess on the new register")
columns[0].set(ylabel="excess on the old styles")
columns[1].legend(fontsize=8)
show(fig, "Recorded, mean of eight seeds. All curves start at the trained adapter, on the left, and turn "
          "something down, bit by bit, to 0. Large open marks: at 0.7. Lower is less forgotten, further "
          "right a worse fit.",
     alt="LoRA r=8, 0 new words, at a factor of 0.7, forgotten: " + ", ".join(
         f"{label} {np.mean(seen('LoRA r=8', '0 new words', how), axis=0)[i][1]:.2f}"
         for (how, (label, *_)), i in zip(ways.items(), (7, 2, 2, 2), strict=True)) + ".")

# %%
def plainly(fit, scaled):  # what is forgotten with the whole update turned down to that fit
    target, others = np.clip(scaled, 1e-4, None).T
    best = target.argmin() + 1
    return np.interp(-np.log(max(fit, 1e-4)), -np.log(target[:best]), others[:best])


def lead(method, task, how, factor):  # of the plain remedy, at the same fit, one number a seed
    ends = [path[FACTORS.index(factor)] for path in seen(method, task, how)]
    return [others - plainly(fit, scaled)
            for (fit, others), scaled in zip(ends, seen(method, task, "scaled"), strict=True)]


# %%
print("nats on the old styles that the plain remedy is ahead by, at the same fit")
print(f"{'':39s}" + "".join(f"{'factor ' + str(f):>23s}" for f in (0.9, 0.7, 0.5)))
for task in TASKS:
    for method in ("LoRA r=1", "LoRA r=8"):
        for how, name in (("shrunk", "all"), ("shrunk_top", "strongest")):
            gaps = [interval(lead(method, task, how, f)) for f in (0.9, 0.7, 0.5)]
            print(f"{task + ', ' + method + ', ' + name:39s}" + "".join(
                f"{f'{g.mean:+.2f} [{g.low:+.2f}, {g.high:+.2f}]':>23s}" for g in gaps))

# %% tags=["measured"]
def intruding(key):
    old = inside.matrices(model)
    return {n: inside.intruders(old[n], old[n] + X) for n, X in opened[key].items()}


task, counts, healing = "0 new words", {}, {}
for seed in (20, 21):
    after, probe = tuned[task, "LoRA r=8", seed], trials.Probe(TASKS[task], seed)
    who, new = intruding((task, "LoRA r=8", seed)), inside.matrices(after)
    less = inside.placed(after, {n: inside.shrunk(new[n], js, 0.7) for n, js in who.items()})
    counts[seed], healing[seed] = sum(map(len, who.values())), probe(less)
    print(f"seed {seed}: {counts[seed]} intruders; at 0.7, new register {healing[seed][0]:.3f}, "
          f"old styles {live[task, 'LoRA r=8', seed].others:.2f} -> {healing[seed][1]:.2f}")

# %%
near = prediction(seen("LoRA r=8", "0 new words", "intruders"), floor=2)
expect("both seeds have as many intruders as the record predicts", all(map(near.holds, counts.values())))
near = prediction([p[FACTORS.index(0.7)][1] for p in seen("LoRA r=8", "0 new words", "shrunk")], floor=0.1)
expect("and forgot as it predicts, once those were turned down",
       all(near.holds(others) for _, others in healing.values()))

# %% [markdown]
# - Turning LoRA's intruders down brings the old styles back, as far as a factor of 0.5 or so; removing them spoils
#   it again. Turning others down makes it worse from the start. So intruders are not just any directions: that
#   part of the picture appears.
# - But turning the whole update down brings them back, too. At rank 1 the two are level, at the same fit. At rank
#   8 the plain remedy is, when all intruders are turned down to 0.7 or less. With only the strongest of each matrix
#   it is open on 0 new words; on 24 the intruders are ahead by a hair at 0.9, and behind from 0.7 on.
#
# A remedy that helps has not shown that its *name* is the cause: compare it with the plain one, at equal fit.
#
# ## Optional: how many numbers, if not how many directions?
# Draw a random map $P$ from $d$ numbers to *all* 122,112 weights and train
# $z$ alone: $\theta = \theta_0 + P z$ (Li et al. 2018; Aghajanyan et al. 2020 for language models). This is a
# random subspace, and no matrix in it is of low rank. The smallest $d$ that does the job is its *intrinsic
# dimension*. Our $P$ gives each weight to one coordinate, with a random sign: its columns are orthogonal,
# and it is never stored.
#
# ### Bet 7
# From the base, 0 new words, which is the smallest $d$ of 64, 256, 1024, 4096 and 16384 at which nine frames of
# ten come out exactly?

# %%
bet("08 smallest random subspace", guess=None)

# %%
def curve(start, what):  # (d, one value a seed)
    return [(c["d"], c[what]) for c in rec["subspaces"] if c["start"] == start]


settle("08 smallest random subspace", min(d for d, e in curve("base", "exact") if fmean(e) >= 0.9))
fig, ax = axes(5.8, 3.1)
for start, style, colour in (("base", "o-", ACCENT), ("random", "s--", SECOND)):
    d, exact = zip(*curve(start, "exact"), strict=True)
    ax.plot(d, [fmean(e) for e in exact], style, color=colour, label=f"from {start} weights")
    ax.plot(d, exact, style[0], color=colour, ms=3, alpha=0.4)
for method, d, mark in (("LoRA r=1", 2304, "D"), ("full", 122_112, "*")):
    ax.plot(d, fmean(seen(method, "0 new words", "exact")), mark, color="black", ms=7, label=method)
ax.legend(fontsize=8)
ax.set(xscale="log", xlabel="numbers that train", ylabel="exact, share of new frames")
means = {s: ", ".join(f"{d}: {fmean(e):.2f}" for d, e in curve(s, "exact")) for s in ("base", "random")}
show(fig, "Recorded, 0 new words, eight seeds. A random subspace of the weights does the job from the base.",
     alt=f"Exact by dimension, from the base {means['base']}; from random weights {means['random']}.")

# %% tags=["measured"]
cell = record.find(rec["subspaces"], start="base", d=256)
small = [nb08.run_subspace({"start": "base", "d": 256}, cell["best"], s) for s in (20, 21)]
print("d = 256, seeds 20 and 21: excess", [f"{run['target']:.4f}" for run in small])

# %%
near = prediction(dict(curve("base", "target"))[256], floor=0.02 * town.entropy(TASKS["0 new words"]))
expect("both landed where the record predicts", all(near.holds(run["target"]) for run in small))

# %% [markdown]
# From the base, 256 numbers put more than nine frames of ten into words exactly: a ninth of what LoRA
# trains at rank 1. They fit less closely, though: an excess of 0.022, where rank 1 has 0.004. From random
# weights 1,024 teach next to nothing, and of the sizes tried only 16,384 reach nine of ten. So the small
# number belongs to the job *and* the base together.
#
# ## Which published pictures appear in a model this small?
# - *Updates lie in a low-rank subspace*: not at rank 8 by energy, though far from noise. Biderman et al. (2024)
#   found that full updates need 10 to 100 times LoRA's usual ranks for 90 percent. Here it is about twice
#   rank 8, where noise needs five times.
# - *Few directions do the job*: 8 nearly, on 0 new words; 16 on 24.
# - *Two ranks share their first direction* (Hu et al.): yes on 0 new words, weaker on 24. What that paper does
#   not show: with one start for all, LoRA finds nearly the same directions again, as full fine-tuning does.
# - *Updates amplify what $W_0$ does faintly* (Hu et al.): hardly. Random directions give as large a factor.
# - *LoRA makes intruders, full fine-tuning doesn't* (Shuttleworth et al.): as trained on 0 new words, yes; on 24
#   both make them, and at the same norm full fine-tuning makes more.
# - *Intruders make it forget*: turning them down helps, turning others down doesn't. The whole update turned
#   down helps about as much at rank 1, and mostly more at rank 8.
# - *A pre-trained model needs few numbers* (Aghajanyan et al.): yes, 256 from the
#   base, and 16,384 from random weights.
#
# All of it with one base of 64 dimensions and 200 steps.

# %% [markdown]
# ## What you have done
# - You **measured** how many directions an update fills: 14 to 19 of 64 for 90 percent, where noise fills 38.
# - You **told apart** what an update holds and what its job needs: directions that hold a fifth or a quarter of
#   the energy cost 4 percent of the floor on one task, and half of it on another.
# - You **compared** two updates with chance, which at $d = 64$ is no small number.
# - You **tested** a published picture, and controls changed what it says: noise, equal norm, the plain remedy.
#
# **On your own.** Take LoRA at rank 64, 0 new words, and cut its update to 8 directions. Is it as good as LoRA
# trained at rank 8, over seeds? And make a control of your own: give an
# update random directions and leave its singular values. How many intruders has it?
#
# **In practice.** Before you read meaning into a spectrum, an overlap or a count of directions, draw the
# same for noise of the same shape and norm. If you want a smaller adapter, cut it, and measure the job, not
# the energy.
#
# **Further reading.**
# - Hu et al., *LoRA* (2021), section 7: subspaces and amplification in GPT-3.
# - Biderman et al., *LoRA learns less and forgets less* (2024): the ranks of full updates, and how noise looks
#   beside them.
# - Shuttleworth et al., *LoRA vs full fine-tuning: an illusion of equivalence* (2024): intruder dimensions.
# - Aghajanyan, Gupta and Zettlemoyer, *Intrinsic dimensionality explains the effectiveness of language model
#   fine-tuning* (2020): random subspaces.
