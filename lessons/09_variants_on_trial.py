# %% [markdown]
# # 9. Put LoRA's variants on trial
#
# Again and again somebody publishes a better LoRA. You will build the best known of these variants by hand,
# add four others in a line each, and compare all under the same conditions.
#
# At the end of this notebook you will be able to
# - **build** DoRA by hand, and say what it trains in addition to LoRA;
# - **run** a fair trial: one sweep, one clip, equal numbers, a control, and the costs next to the quality;
# - **measure** stability, as the width of a plateau and the share of ruined runs;
# - **read** a paper about a variant, and know which questions to ask.
#
# You need notebooks 04, 06 and 07. About 90 minutes to study; the core path about 45, the rest is marked as a
# second reading.

# %% [markdown]
# **Three questions before you start.** Answer aloud, then unfold.
#
# <details><summary>1. Which bases may choose a rate, and which may report it? (06)</summary>
#
# Different ones. On the bases that chose a rate, it looks better than it is.
# </details>
# <details><summary>2. When do we call two arms equal, and when is a question open? (06)</summary>
#
# Equal: the whole interval of the factor lies between 0.67 and 1.5. Open: it reaches over one of these ends.
# </details>
# <details><summary>3. Which factor starts at zero, and why exactly one? (03)</summary>
#
# B: then the update starts at zero, and B has a gradient from the first step. With both at zero nothing would
# ever train.
# </details>

# %%
import math
import time
from statistics import correlation, fmean, median

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

# %%
import lora_mini as lm
from lora_mini import variants
from lora_mini.desk import bet, expect, settle, show, verdict
from lora_mini.desk.figures import ACCENT, GREY, SECOND, THIRD, axes
from lora_mini.desk.intervals import interval, prediction
from lora_mini.lab import contrasts, inside, parts, record, trials
from lora_mini.world import base, text, town, train
from lora_mini.world.styles import register

model = base.load_base(path=base.SHIPPED)
W = model.blocks[0].up_proj.weight.detach().double().numpy()
print(f"W of one layer: {W.shape}, as (d_out, d_in). The lengths of its first rows:\n"
      + ", ".join(f"{x:.2f}" for x in np.linalg.norm(W, axis=1)[:4]))

# %% [markdown]
# ## A row has a length and a direction
# Each row $w$ of $W$ belongs to one output, $w \cdot x$. A row has a length, $\|w\|$, and a direction,
# $w / \|w\|$. LoRA's update changes both at once. DoRA (Liu et al. 2024) separates them: $BA$ only turns
# the row, and a trained *magnitude* $m$ says how long it is:
#
# $$W' = m \; \frac{W + s B A}{\|W + s B A\|} \qquad m\ (d_{out},),\ W\ (d_{out}, d_{in}),\ s = \alpha / r$$
#
# The norm is taken row by row. (The paper says columns; its code and PEFT's take an output's, as here.) One
# example: a row $(3, 1)$, an update of $(-2, 1)$, and an $m$ of 4.

# %%
row, step, magnitude = np.array([3.0, 1.0]), np.array([-2.0, 1.0]), 4.0
moved = row + step
turned = magnitude * moved / np.linalg.norm(moved)
fig, ax = axes(4.6, 2.9)
for end, label, colour, thick in ((row, "w", GREY, 2), (turned, "DoRA, m = 4", ACCENT, 1.5),
                                  (moved, "LoRA: w + sBA", SECOND, 4)):
    ax.annotate("", end, (0, 0), arrowprops={"arrowstyle": "-|>", "color": colour, "lw": thick})
    ax.text(end[0] + 0.2, end[1] - 0.05, label, color=colour)
ax.set(xlim=(-0.3, 4.4), ylim=(-0.2, 4.0), aspect="equal", xlabel="first input", ylabel="second input")
show(fig, "LoRA's update turns the row and makes it shorter at the same time. DoRA keeps only the new "
          "direction, and has a number of its own for the length.",
     alt=f"The row of length {np.linalg.norm(row):.2f} becomes one of {np.linalg.norm(moved):.2f} with LoRA, "
         f"and one of {np.linalg.norm(turned):.2f} in the same direction with DoRA.")

# %% [markdown]
# ### Exercise 1: complete (5 minutes)
# Write the formula in NumPy: W (d_out, d_in), A (r, d_in), B (d_out, r), magnitude (d_out,).

# %% tags=["exercise"]
from lora_mini.desk.checks.nb09 import check_dora_weight


def dora_weight(W, A, B, magnitude, scale):
    # <solution>
    V = W + scale * B @ A
    return magnitude[:, None] * V / np.linalg.norm(V, axis=1, keepdims=True)
    # </solution>


check_dora_weight(dora_weight)

# %% [markdown]
# ### Exercise 2: predict, 2 minutes (second reading)
# A layer has d_out = 256 and d_in = 64. How many percent more numbers than LoRA does DoRA train in it, both
# at rank 4?

# %% tags=["exercise"]
from lora_mini.desk.checks.nb09 import check_extra

# <stub>
# extra = None  # in percent
# </stub>
# <solution>
extra = 100 * 256 / (4 * (256 + 64))
# </solution>
check_extra(extra)

# %% [markdown]
# ### DoRA as a layer (second reading)
# $m$ starts at the lengths of $W$'s rows and $B$ at zero, so the layer starts as its base. One detail: the
# gradient treats the length as a constant (section 4.3 of the paper).

# %%
class ByHand(nn.Module):
    """DoRA around a frozen nn.Linear: x (..., d_in) -> (..., d_out)."""

    def __init__(self, base, rank, alpha):
        super().__init__()
        self.base, self.scale = base.requires_grad_(False), alpha / rank
        self.lora_A = nn.Parameter(torch.randn(rank, base.in_features) / base.in_features**0.5)
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank))
        self.magnitude = nn.Parameter(base.weight.norm(dim=1))  # (d_out,)

    def forward(self, x):
        V = self.base.weight + self.scale * self.lora_B @ self.lora_A  # (d_out, d_in)
        length = V.norm(dim=1).detach()  # (d_out,)
        return F.linear(x, V) * (self.magnitude / length) + self.base.bias


# %% [markdown]
# Does the package's, with equal factors, give the same outputs and gradients?

# %%
torch.manual_seed(0)
linear, x = nn.Linear(6, 4).double(), torch.randn(5, 6).double()
ours, theirs = ByHand(linear, 2, 8.0).double(), variants.DoRALinear(linear, 2, 8.0)
with torch.no_grad():
    for name in theirs.trains:
        ours.get_parameter(name).add_(torch.randn_like(ours.get_parameter(name)))
        theirs.get_parameter(name).copy_(ours.get_parameter(name))
for layer in (ours, theirs):
    layer(x).square().sum().backward()
same = {name: torch.allclose(ours.get_parameter(name).grad, theirs.get_parameter(name).grad)
        for name in theirs.trains}
print("outputs agree:", torch.allclose(ours(x), theirs(x)))
print("gradients agree:", same)

# %% [markdown]
# ## Length or direction: what does a measurement show? (second reading)
# The authors give a measurement as the reason for DoRA (section 3.2): how much the lengths of a matrix's
# rows changed, and how far the rows turned, means over the rows. In code:

# %%
def how_far(W0, W):  # both (d_out, d_in): (change in length, change in direction)
    lengths0, lengths = np.linalg.norm(W0, axis=1), np.linalg.norm(W, axis=1)  # (d_out,)
    cosines = (W0 * W).sum(axis=1) / (lengths0 * lengths)
    return np.abs(lengths - lengths0).mean(), (1 - cosines).mean()


noise = inside.noise_like(W, np.random.default_rng(0))  # of W's shape and norm
print("the package measures the same:",
      np.allclose(how_far(W, W + noise), variants.magnitude_direction(W, W + noise)))

# %% [markdown]
# They did it for VL-BART's query matrices. In full fine-tuning the two had a correlation of -0.62, with LoRA
# +0.83, with DoRA -0.31 (section 4.1). In LoRA's they see a lack of finer control.
#
# ### Bet 1
# What would something show that controls nothing at all? Take one update of pure noise at ten sizes, from a
# tenth of W's norm to all of it. Which correlation have the changes in length and in direction?

# %%
bet("09 correlation of noise", guess=None)

# %%
lengths, turns = zip(*(how_far(W, W + size * noise) for size in np.linspace(0.1, 1, 10)), strict=True)
of_noise = correlation(lengths, turns)

# %%
settle("09 correlation of noise", of_noise)

# %% [markdown]
# Noise that grows changes both. So put noise beside the real updates: for each matrix and moment, noise of
# the update's own shape and norm. (The correlations are means of sixteen bases.)

# %%
drift = record.load("drift")
moments = {"all": range(48), "after 200 steps": range(36, 48),
           "queries alone": [12 * moment + i for moment in range(4) for i in (0, 6)]}


def tied(arm, what, which):  # mean over the bases
    bases = record.find(drift["cells"], arm=arm)[what]
    return fmean(correlation(*zip(*(points[i] for i in which), strict=True)) for points in bases)


print("correlations, update / noise of its size")
for name, which in moments.items():
    print(f"{name:16s}" + ", ".join(f"{c['arm']} {tied(c['arm'], 'points', which):.2f} / "
                                    f"{tied(c['arm'], 'noise', which):.2f}" for c in drift["cells"]))

# %%
fig, columns = axes(7.6, 2.7, 3)
for ax, cell_, colour in zip(columns, drift["cells"], (SECOND, ACCENT, THIRD), strict=True):
    for what, look in (("noise", {"color": GREY, "marker": "x"}),
                       ("points", {"color": colour, "marker": "o"})):
        ax.plot(*reversed(list(zip(*cell_[what][0], strict=True))), ls="", ms=4, alpha=0.6, **look)
    ax.set(title=cell_["arm"], xlabel="change in direction")
columns[0].set_ylabel("change in length")
show(fig, "Recorded, 12 new words, one base: a point is one of twelve matrices after 25, 50, 100 or 200 "
          "steps, a grey cross noise of the same shape and norm. Note the scales.",
     alt="Correlation of the changes in length and in direction: " + ", ".join(
         f"{c['arm']} {tied(c['arm'], 'points', range(48)):+.2f}, noise of its size "
         f"{tied(c['arm'], 'noise', range(48)):+.2f}" for c in drift["cells"]) + ".")

# %% [markdown]
# Full fine-tuning and LoRA are tied about as tightly as noise of their size (of full rank; noise of rank 8
# was not tried). So a correlation near +1 by itself is no sign of a lack of control. DoRA stays furthest
# below its noise. The negative sign of full fine-tuning does not come out here; theirs is another model.

# %% [markdown]
# ## Four more variants, a line each
# - **rsLoRA** (Kalajdzievski 2023) scales by $\alpha / \sqrt r$.
# - **LoRA+** (Hayou et al. 2024) gives B a higher rate than A: 16 times as high, or 4 times (LoRA+4).
# - **PiSSA** (Meng et al. 2024) starts A and B in W's own first singular directions, and subtracts that
#   start from the base. So its B does not start at zero, but its update does.
# - **LoRA-FA** (Zhang et al. 2023) freezes A at its random start and trains B alone.
#
# LoRA-FA gets rank 16, so that it trains as many numbers as the others:

# %%
KINDS = ("LoRA r=8", "DoRA r=8", *parts.VARIANTS)
size = {arm: lm.trainable_parameters(trials.prepare(model, arm))[1]
        for arm in (*KINDS, "LoRA r=16", "words", "full", "scratch")}
print("\n".join(f"{arm:13s} trains {size[arm]:6,} numbers" for arm in (*KINDS, "LoRA r=16")))

# %% [markdown]
# ### In code (second reading)
# Each line is one variant, ready to train.

# %%
def attached(rank=8, **options):
    torch.manual_seed(0)
    tuned = base.load_base(path=base.SHIPPED)
    lm.attach(tuned, "all-linear", rank=rank, alpha=16, **options)
    return tuned


ways = {"LoRA": attached(), "DoRA": attached(layer=variants.DoRALinear), "rsLoRA": attached(rslora=True),
        "PiSSA": attached(layer=variants.PiSSALinear), "LoRA-FA": attached(16, layer=variants.LoRAFALinear)}
faster = variants.lora_plus(ratio=16)  # for train.fit(..., factor=faster): that is all of LoRA+
tokens = text.batch(town.sample_frames(32, 0), register("legal", 12), 0).tokens.to(train.device())
with torch.no_grad():
    for name, tuned in ways.items():
        print(f"{name:8s} scale {tuned.blocks[0].up_proj.scaling:.3g}; starts as the base, bit for bit: "
              f"{torch.equal(tuned(tokens), model(tokens))}")
print(f"LoRA+    is LoRA, with a rate for B that is {faster('blocks.0.up_proj.lora_B'):g} times that of A")

# %% [markdown]
# ## The trial
# All get alpha 16, 256 examples of the legal register with 0 or 12 new words, 200 steps, and gradients
# clipped to a norm of 1; LoRA and DoRA ran without clipping, too, and had finer rates beside the others'. As
# in 06 three bases choose the rate and others report: sixteen for LoRA and DoRA, eight for the rest. Beside
# them stand full fine-tuning, the words alone, and random weights (record `arms`, clipped, too). A run is
# judged at its best checkpoint, even if it falls apart later.
#
# ### Bets 2 to 6
# All with 12 new words. (Bet 1: second reading.)
# 2. How many times as long as a step of LoRA does one of DoRA take, both as the package writes them, in one
#    function?
# 3. Which of the seven has the smallest excess, each at its best rate?
# 4. Now one rate for all, 0.001 (for LoRA+ that is A's). LoRA pays how many times what the best variant pays?
# 5. Plain LoRA without clipping, at the rate that suits it then: how many times its clipped excess does it
#    pay?
# 6. Ten times its best rate, clipped: how many times its best excess does DoRA pay?

# %%
bet("09 a step of DoRA in steps of LoRA", guess=None)
bet("09 nearest with 12 new words", guess=None, choices=KINDS)
bet("09 times the best variant's excess, one rate", guess=None)
bet("09 times LoRA's excess without clipping", guess=None)
bet("09 times DoRA's excess at ten times the rate", guess=None)

# %%
rec = record.load("variants")
print(record.label(rec))
NEW, f_of = (0, 12), [own["total"] for own in rec["own"]]  # f: what a base pays on its own styles


def cell(arm, new=12, clip=1.0):
    if arm in KINDS:
        return contrasts.cell("variants", arm=arm, new=new, clip=clip)
    return contrasts.cell("arms", arm=arm, new=new, examples=256)


def ahead(arm, rival="LoRA r=8", new=12, clip=1.0, rival_clip=1.0):  # ln of a factor, one a base
    mine, theirs = cell(arm, new, clip)["total"], cell(rival, new, rival_clip)["total"]
    n = min(len(mine), len(theirs))
    return contrasts.ratios(mine[:n], theirs[:n], f_of[:n])


# %%
first_eight = {arm: fmean(cell(arm)["total"][:8]) for arm in KINDS}
order = sorted(first_eight, key=first_eight.get)
lead = ahead(order[0], order[1])  # over the nearest rival

# %%
settle("09 nearest with 12 new words", order[0], lead=lead[:8])

# %% [markdown]
# Now LoRA, DoRA and PiSSA live on your base, at the recorded rates:

# %% tags=["measured"]
ms, landed = {}, {}
with train.together() as three:  # the stop button ends all of them
    for arm in ("LoRA r=8", "DoRA r=8", "PiSSA r=8"):
        recorded = cell(arm)
        _, t = trials.tune(model, arm, register("legal", 12), recorded["best"], seed=40)
        landed[arm] = prediction(recorded["total"], floor=0.002).holds(t.test.total)
        ms[arm] = 1000 * t.seconds_per_step
        print(f"{arm:9s} rate {recorded['best']:<6g} excess {t.test.total:.4f}, valid {t.test.valid:.2f}, "
              f"{ms[arm]:.0f} ms a step")
settle("09 a step of DoRA in steps of LoRA", ms["DoRA r=8"] / ms["LoRA r=8"], of=three)

# %%
expect("LoRA r=8 landed where the record predicts", landed["LoRA r=8"], of=three)
expect("DoRA r=8 landed where the record predicts", landed["DoRA r=8"], of=three)
expect("PiSSA r=8 landed where the record predicts", landed["PiSSA r=8"], of=three)

# %% [markdown]
# ### What a step costs (second reading)
# Steps in turns, the median of thirty. "Kept" is for the backward pass. The package *fuses* a layer into one
# function; a hook on the base switches that off.

# %%
batch = text.batch(town.sample_frames(32, 0), register("legal", 12), 0)
batch = text.Batch(*(part.to(train.device()) for part in batch))


def in_turns(models, rounds=30):  # milliseconds of a training step, the median
    optimizers = {name: torch.optim.AdamW([p for p in m.parameters() if p.requires_grad], lr=1e-5)
                  for name, m in models.items()}
    times = {name: [] for name in models}
    with train.threads(1):
        for _ in range(rounds):
            for name, tuned in models.items():
                start = time.perf_counter()
                optimizers[name].zero_grad()
                train.loss(tuned, batch.tokens, batch.mask).backward()
                optimizers[name].step()
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: median(found) for name, found in times.items()}


# %% tags=["measured"]
ready = {arm: trials.prepare(model, arm) for arm in ("full", "LoRA r=8", "DoRA r=8", "LoRA-FA r=16")}
for kind in ("LoRA", "DoRA"):
    ready[f"{kind}, unfused"] = trials.prepare(model, f"{kind} r=8")
    for layer in ready[f"{kind}, unfused"].modules():
        if isinstance(layer, lm.LoRALinear):
            layer.base.register_forward_hook(lambda *_: None)
costs = in_turns(ready)
kept = {arm: trials.saved_for_backward(tuned, batch) / 1e6 for arm, tuned in ready.items()}
for arm in ready:
    print(f"{arm:14s}{costs[arm]:5.1f} ms a step, {costs[arm] / costs['LoRA r=8']:.2f} times LoRA's; "
          f"{kept[arm]:4.1f} MB kept")

# %%
expect("unfused, DoRA costs more than fused", costs["DoRA, unfused"] > 1.2 * costs["DoRA r=8"])
expect("DoRA keeps a quarter more for the backward pass than LoRA",
       kept["DoRA r=8"] > 1.25 * kept["LoRA r=8"])

# %% [markdown]
# Fused, DoRA's step took 1.1 to 1.2 times LoRA's, both unfused 1.3
# times (divide the two). It keeps half as much again: its product with $x$, for the gradient of $m$. LoRA-FA
# keeps no layer's input for $A$, only the narrow $A x$ for $B$; what is left is mostly the rest of the model.

# %% [markdown]
# ### PiSSA in two ways (second reading)
# Here $W$ is never written to: the layer keeps its start, $B_0 A_0$, and takes it off again. The paper, and
# PEFT, put the rest, $W - s B_0 A_0$, in $W$'s place; the rest is plain LoRA:

# %%
ours, theirs = attached(layer=variants.PiSSALinear), attached()
with torch.no_grad():
    for mine, plain in zip(ours.modules(), theirs.modules(), strict=True):
        if isinstance(mine, variants.PiSSALinear):
            plain.lora_A.copy_(mine.start_A)
            plain.lora_B.copy_(mine.start_B)
            plain.base.weight -= mine.scaling * mine.start_B @ mine.start_A

# %%
for name, tuned in (("ours", ours), ("as in PEFT", theirs)):
    with torch.no_grad(), lm.disabled(tuned):
        bare = (tuned(tokens) - model(tokens)).abs().max()
    more = sum(b.numel() for n, b in tuned.named_buffers() if "start_" in n)
    print(f"{name:11s} {more:6,} numbers more to hold; adapter off, logits are off by up to {bare:.0f}")

# %% tags=["measured"]
ways = {"LoRA": attached(), "PiSSA, ours": ours, "PiSSA as in PEFT": theirs}
spent = in_turns(ways)
for name, tuned in ways.items():
    saved = trials.saved_for_backward(tuned, batch) / 1e6
    print(f"{name:17s}{spent[name]:5.1f} ms a step; {saved:.1f} MB kept")
    with torch.no_grad():
        print(f"{'':17s}loss after these steps: {train.loss(tuned, batch.tokens, batch.mask).item():.3f}")

# %%
expect("neither way of PiSSA takes a third longer than the other",
       abs(math.log(spent["PiSSA, ours"] / spent["PiSSA as in PEFT"])) < math.log(1.33))

# %% [markdown]
# The same loss. In PEFT's way the base is gone, and what you save fits only a base that was changed alike.
# (PEFT can convert it, to LoRA of twice the rank.)

# %% [markdown]
# ### The whole trial
# All of it, from the record:

# %%
print(f"{'':29s}0 new words{'':19s}12 new words")
print(f"{'':13s}numbers" + 2 * "   rate  excess (content)" + "  valid")
for arm in ("scratch", "words", "full", *KINDS, "LoRA r=16"):
    line = f"{arm:13s}{size[arm]:7,}"
    for new in NEW:
        c = cell(arm, new)
        line += f"{c['best']:7g}  {fmean(c['total']):.4f} ({fmean(c['content']):.4f})"
    print(line + f"{fmean(cell(arm)['valid']):7.3f}")
inside = all(min(rates) < c["best"] < max(rates) for arm in KINDS for new in NEW for c in [cell(arm, new)]
             for rates in [[float(rate) for rate in c["tried"]]])
print("each variant's rate lies inside those that were tried:", inside)

# %%
fig, panels = axes(7.4, 2.9, 2, sharey=True)
for ax, new in zip(panels, NEW, strict=True):
    for y, arm in enumerate(reversed(KINDS[1:])):
        found = ahead(arm, new=new)
        near = interval(found)
        ax.plot(np.exp(found), [y] * len(found), "o", color=ACCENT, ms=3, alpha=0.35)
        ax.plot(np.exp([near.low, near.high]), [y, y], color="black", lw=1.5)
        ax.plot(math.exp(near.mean), y, "|", color="black", ms=12)
    for margin in (1 / 1.5, 1.5):
        ax.axvline(margin, color=SECOND, ls="--", lw=1)
    ax.axvline(1, color=GREY, lw=1)
    ax.set(xscale="log", title=f"{new} new words", xlabel="what LoRA pays over what the variant pays")
    ax.set_xticks((0.5, 0.67, 1, 1.5, 2), ("0.5", "0.67", "1", "1.5", "2"))
    ax.minorticks_off()
panels[0].set_yticks(range(6), list(reversed(KINDS[1:])))
show(fig, "Recorded, all clipped: a point a base, their mean and its interval of 95 percent. Right of 1 the "
          "variant pays less than LoRA; an interval wholly outside the dashed lines counts.",
     alt="Factor over LoRA with 0 and 12 new words: " + ", ".join(
         f"{arm} {math.exp(fmean(ahead(arm, new=0))):.2f} and {math.exp(fmean(ahead(arm))):.2f}"
         for arm in KINDS[1:]) + ".")

# %% [markdown]
# - *Against LoRA* all six are a draw: every interval lies within the margin. With 12 new words PiSSA, LoRA+
#   and LoRA-FA pay 14 to 27 percent more, and their intervals leave out 1.
# - *Against random weights* all gain with 0 new words. With 12, by the means, only four gain a factor of
#   1.5 or more; in the content, in brackets, random weights have the smaller mean than all seven.
# - *Embedding and head alone* come as near as the best with 12 new words, with the least content of all that
#   start from the base, and pay 1.8 times as much with 0.
#
# (Means of sixteen bases, of the variants eight. Without its finer rates LoRA pays 0.0207, not 0.0211.)
#
# Lee et al. (2026) swept variants on large models: all peak within 1 to 2 percent of each other. In that unit
# and ours:

# %%
for new in NEW:
    found = [math.exp(fmean(ahead(arm, new=new)[:8])) for arm in KINDS]
    valid = [100 * fmean(cell(arm, new)["valid"][:8]) for arm in KINDS]
    print(f"{new:2d} new words: valid from {min(valid):.1f} to {max(valid):.1f} percent; "
          f"excess, best to worst {max(found) / min(found):.2f}")

# %% [markdown]
# Valid answers are at their ceiling. The excess orders them, by less than the margin from best to worst
# (means; no interval).

# %% [markdown]
# ## One rate for all
# Now give the arms that tried it *one* rate, as 46 of 64 papers did that Lee et al.
# (2026) looked at.

# %%
tried = {arm: {float(rate): fmean(seen["chooses"]) for rate, seen in cell(arm)["tried"].items()
               if None not in seen["chooses"]} for arm in KINDS}
shared = sorted(rate for rate in tried["LoRA r=8"] if sum(rate in found for found in tried.values()) >= 4)
leads = {}
for rate in shared:
    there = {arm: found[rate] for arm, found in tried.items() if rate in found}
    winner = min(there, key=there.get)
    leads[rate] = there["LoRA r=8"] / there[winner]
    print(f"rate {rate:<7g} {winner:13s} {there[winner]:.4f}, LoRA {there['LoRA r=8']:.4f}: factor "
          f"{leads[rate]:.2f}")

# %%
settle("09 times the best variant's excess, one rate", leads[0.001])

# %% [markdown]
# At 0.001 the best variant is ahead by a factor of eight; at two more rates one is ahead by less, and at 0.01
# LoRA is. (Means of the three bases that chose: too few for small factors.) At 0.001 LoRA+ wins, with a B
# that runs at 0.016. And rsLoRA, at rank 8 with alpha 16, *is* LoRA with alpha 45. What a variant gains may
# be no more than another learning rate.
#
# ### Exercise 3: find the bug, 4 minutes (second reading)
# `variant` and `lora` map a rate to excesses by base; bases 1, 2 and 3 choose. The function says how far the
# variant is ahead, and favours it. Correct it.

# %% tags=["exercise"]
from lora_mini.desk.checks.nb09 import check_ahead


def lead_of(variant, lora):
    def best(found):
        return min(found, key=lambda rate: fmean(found[rate][b] for b in (1, 2, 3)))

    def judged(found, rate):
        return fmean(x for b, x in found[rate].items() if b not in (1, 2, 3))

    # <stub>
    # rate = best(variant)
    # return judged(lora, rate) - judged(variant, rate)
    # </stub>
    # <solution>
    return judged(lora, best(lora)) - judged(variant, best(variant))
    # </solution>


check_ahead(lead_of)

# %% [markdown]
# ## What clipping does alone
# What does plain LoRA pay without it, each at its best rate?

# %%
gains = {new: ahead("LoRA r=8", new=new, rival_clip=None) for new in NEW}
for new in NEW:
    near = interval(gains[new])
    wins = math.exp(fmean(ahead("DoRA r=8", new=new, rival_clip=None)))
    print(f"{new:2d} new words: LoRA unclipped over LoRA clipped {math.exp(near.mean):.2f} "
          f"[{math.exp(near.low):.2f}, {math.exp(near.high):.2f}],\n{'':14s}over DoRA clipped {wins:.2f}")

# %%
settle("09 times LoRA's excess without clipping", math.exp(fmean(gains[12])))

# %% [markdown]
# At their best rates clipping is worth 5 to 11 percent: less than the margin. At one rate, 0.003, it seems
# far more: with 12 new words 0.052 without, 0.029 with it (three bases; the next figure). So clipped DoRA
# against unclipped LoRA, at one rate such as 0.003, would show a gain that is not DoRA's.

# %% [markdown]
# ## Stability
# "Trains more stably" can be measured in two ways. First, how wide is the *plateau*: over how many decades of
# rates does the excess stay within 1.5 times its best?

# %%
wide = record.load("plateau")["cells"]


def curve(arm, clip, new=12):  # rate to the excesses of the three bases that chose; None blew up
    return {float(rate): seen["chooses"] for rate, seen in
            record.find(wide, arm=arm, clip=clip, new=new)["tried"].items()}


def plateau(arm, clip, new):  # the lowest and the highest rate within 1.5 of the best
    means = {rate: fmean(seen) for rate, seen in curve(arm, clip, new).items() if None not in seen}
    good = [rate for rate, mean in means.items() if mean <= 1.5 * min(means.values())]
    return min(good), max(good)


for new in NEW:
    for clip in (1.0, None):
        for arm in ("LoRA r=8", "DoRA r=8"):
            low, high = plateau(arm, clip, new)
            print(f"{new:2d} new words, {'clipped' if clip else 'not clipped':11s} {arm}: "
                  f"{low:g} to {high:g}, {math.log10(high / low):.1f} decades")

# %% [markdown]
# With 0 new words the two are alike; with 12 DoRA's plateau reaches one step of the grid further, clipped or
# not. (Three bases, and clipped LoRA lies close to the bar of 1.5 at both ends: a hint.)

# %%
fig, panels = axes(7.0, 2.9, 2, sharey=True)
for ax, clip, title in zip(panels, (1.0, None), ("clipped at 1", "not clipped"), strict=True):
    for arm, colour, marker in (("LoRA r=8", ACCENT, "o"), ("DoRA r=8", SECOND, "s")):
        seen = {rate: found for rate, found in curve(arm, clip).items() if None not in found}
        for rate, found in seen.items():
            ax.plot([rate] * 3, found, marker, color=colour, ms=3, alpha=0.4)
        ax.plot(list(seen), [fmean(x) for x in seen.values()], color=colour, marker=marker, label=arm,
                ms=8 if arm[0] == "L" else 4, mfc="none" if arm[0] == "L" else colour)
    ax.set(xscale="log", yscale="log", xlabel="learning rate", title=title)
panels[0].set_ylabel("excess on validation, nats per token")
panels[0].legend()
show(fig, "Recorded, 12 new words: a map, on the three bases that chose (small) and their mean (large).",
     alt="Excess of LoRA and DoRA at a rate of 0.003, 0.03 and 0.1: " + "; ".join(
         f"{'clipped' if clip else 'not clipped'} " + ", ".join(
             f"{fmean(curve('LoRA r=8', clip)[r]):.3f} and {fmean(curve('DoRA r=8', clip)[r]):.3f}"
             for r in (0.003, 0.03, 0.1)) for clip in (1.0, None)) + ".")

# %% [markdown]
# Second, take ten times the best rate, on all sixteen bases: 0.055 clipped, and 0.1 without. A run is
# *ruined* if its excess is above 0.5 nats even at its best checkpoint.

# %%
hot = {(arm, clip): contrasts.cell("hot", arm=arm, new=12, times=10, clip=clip)
       for clip in (1.0, None) for arm in ("LoRA r=8", "DoRA r=8")}
for (arm, clip), h in hot.items():
    print(f"{'clipped' if clip else 'not clipped':11s} {arm}, rate {h['rate']:<5.3g}"
          f"{16 - sum(h['sound']):2.0f} of 16 ruined; excess {min(h['total']):.2f} to "
          f"{max(h['total']):.2f}, mean {fmean(h['total']):.3f}")

# %%
settle("09 times DoRA's excess at ten times the rate",
       fmean(hot["DoRA r=8", 1.0]["total"]) / fmean(cell("DoRA r=8")["total"]))

# %%
verdict("C10", contrasts.effects("C10"))

# %% [markdown]
# - *Quality.* Equal, in all four contrasts, and the intervals are narrow.
# - *Stability.* By our rule open: the six contrasts share the 5 percent, both intervals reach 0, and a
#   difference of shares counts beyond 0.2.
# - *Seen afterwards, so no verdict.* Our bar, 0.5 nats, lies amid LoRA's. At 0.055, clipped, DoRA pays about
#   what it pays at its best, LoRA 18 times as much, and more than DoRA on every base. The two tests run at
#   two rates, so they don't tell what clipping does. The figure does, on three bases: at 0.055 DoRA holds
#   clipped or not, LoRA neither; at 0.1 both fail. So with 12 new words there is something in "more stably",
#   up to about 0.055.

# %% [markdown]
# ## Which rate for which rank? (second reading)
# In table 6 of the LoRA paper results hardly differ from rank 1 to 64. Kalajdzievski (2023) objects: $\alpha
# / r$ may have slowed the high ranks down. Chen, Villar and Hayou (arXiv 2602.06204) work out how the best
# rate goes with the rank, for large ranks: not at all with $\alpha / r$, as $r^{-1/4}$ with $\alpha / \sqrt
# r$, as $r^{-1/2}$ with a constant scale. From rank 1 to 64 these are factors of 1, 1/2.8 and 1/8. And in the
# town?

# %%
scales, RANKS = record.load("scales"), (1, 8, 64)


def tried_at(law, r):  # rate to excess, mean of the three bases; at rank 8 the laws are one
    c = cell("LoRA r=8") if r == 8 else record.find(scales["cells"], law=law, arm=f"LoRA r={r}")
    return {float(rate): fmean(t["chooses"]) for rate, t in c["tried"].items() if None not in t["chooses"]}


fig, panels = axes(7.6, 2.9, 3, sharey=True)
for ax, law in zip(panels, parts.LAWS, strict=True):
    for r, colour, marker in zip(RANKS, (SECOND, THIRD, ACCENT), "osv", strict=True):
        ax.plot(*zip(*sorted(tried_at(law, r).items()), strict=True), marker + "-", color=colour, ms=4,
                label=f"r = {r}")
    ax.set(xscale="log", yscale="log", ylim=(0.01, 1), title=law, xlabel="learning rate")
panels[0].set_ylabel("excess on validation")
panels[0].legend(fontsize=8)
show(fig, "Recorded, 12 new words, clipped: a map, mean of the three bases that chose.",
     alt="The rate with the least excess at ranks 1, 8 and 64: " + "; ".join(f"{law} " + ", ".join(
         f"{min(tried_at(law, r), key=tried_at(law, r).get):g}" for r in RANKS) for law in parts.LAWS) + ".")

# %%
for law in parts.LAWS:
    found = {r: tried_at(law, r) for r in RANKS}
    best = {r: min(found[r], key=found[r].get) for r in RANKS}
    print(f"{law:15s} best rates " + ", ".join(f"{best[r]:g} (r={r})" for r in RANKS)
          + f": factor {best[64] / best[1]:.2g}\n{'':14s} excess there "
          + ", ".join(f"{found[r][best[r]]:.4f}" for r in RANKS) + "; at 0.003 "
          + ", ".join(f"{found[r][0.003]:.3f}" for r in RANKS))

# %% [markdown]
# The laws come in the predicted order, and all fall faster: by 3, 3.6 and 12 times more. The rates tried are
# half a decade apart, so each factor may be off by 3; the last is more. (With $\alpha / r$ they don't even
# fall steadily. And 64 is all of our width, not their limit.)
#
# At one rate, 0.003, rank 64 looks worse than rank 8 with $\alpha / r$, and better with $\alpha / \sqrt r$;
# at its own rate it is no worse with any.

# %% [markdown]
# ## How to read a paper about a variant
# Four have decided a comparison here.
#
# 1. **Was the baseline's learning rate searched, with the same budget?**
# 2. **How many seeds, and which of them chose?** A difference without an interval may be luck.
# 3. **Which control stands beside it?** Noise, random weights, or the base itself.
# 4. **Which scale, which clipping, how many numbers?** What a variant gains may be no more than another
#    learning rate.
# 5. **What does it cost?** Time of a step, memory, and whether others can load what you saved.

# %% [markdown]
# ## From this town to seven billion
# - **Rates.** In the trial the best lie between 0.0003 and 0.03. There 1e-4 to 5e-4 is usual for LoRA, and
#   PiSSA wants about a tenth of LoRA's (Lee et al. 2026).
# - **Memory.** DoRA: 22.8 GB against LoRA's
#   20.8 in PEFT's own bench (Llama 3.2 3B, rank 32).
# - **Speed.** In PEFT's bench DoRA took 1,191 seconds, LoRA 942, and came no nearer (one seed, rates not
#   swept).

# %% [markdown]
# ## What you have done
# - You **built** DoRA: the update turns the rows, and one number for each row says how long it is.
# - You **ran** a fair trial: at their best rates six variants and LoRA are a draw. LoRA-FA costs the least.
# - You **measured** stability: below the best rate DoRA's curve is LoRA's. With 12 new words DoRA holds up to
#   a rate of 0.055, LoRA up to 0.03; at 0.1 both fail.
# - You **read** results as a reviewer does: at one rate, 0.001, LoRA looked eight times worse than a variant
#   that it equals at its own.
#
# **On your own.** Does DoRA hold at ten times its rate with 24 new words? At rank 1? Bet first.
#
# **In practice.** Start with plain LoRA, clipping and a swept rate. If you can't sweep, DoRA may forgive a
# rate that is too high. In PEFT it is `use_dora=True`, rsLoRA `use_rslora=True`, PiSSA
# `init_lora_weights="pissa"`.
#
# **Further reading.**
# - Liu et al., *DoRA* (arXiv 2402.09353, version 6, 2024): the measurement, many benchmarks.
# - Hayou et al., *LoRA+* (2024); Meng et al., *PiSSA* (2024); Zhang et al., *LoRA-FA* (2023);
#   Kalajdzievski, *A rank stabilization scaling factor* (2023): the other four.
# - Lee et al., *Learning rate matters: vanilla LoRA may suffice* (arXiv 2602.04998, 2026): the trial on
#   large models.
# - Chen, Villar and Hayou, *Learning rate scaling across LoRA ranks* (arXiv 2602.06204, 2026): rules for
#   rates.
