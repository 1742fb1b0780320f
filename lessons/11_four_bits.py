# %% [markdown]
# # 11. Put a model into four bits
#
# Under LoRA a model's weights are only read, never changed. So they need not be kept in 32 bits. You will
# write each with four, train LoRA on what is left (Dettmers et al. 2023 call this *QLoRA*), and measure
# what it costs.
#
# At the end of this notebook you will be able to
# - **round** a matrix to sixteen levels, and say which levels suit which weights;
# - **count** the bits of a weight, its scales included;
# - **build** a frozen four-bit layer with exact gradients, and train LoRA on it;
# - **decide** where such an adapter may act: apart, merged and rounded again, on the base in full.
#
# You need notebooks 04, 06 and 10. About 80 minutes to study; the core path about 45, the rest is marked as a
# second reading.

# %% [markdown]
# **Three questions before you start.** Answer aloud, then unfold.
#
# <details><summary>1. What does a backward pass need of a frozen matrix W? (03)</summary>
#
# The gradient for the layer's input is $G\,W$: it has to be read once more. W itself gets no gradient.
# </details>
# <details><summary>2. What is the excess? (05)</summary>
#
# What a model pays per token above the language's own entropy, in nats. 0 is perfect.
# </details>
# <details><summary>3. When do we call two arms equal, and when is a question open? (06)</summary>
#
# Equal: the whole interval of the factor lies between 0.67 and 1.5. Open: it reaches over one of these ends.
# </details>

# %%
import copy
import math
import time
from statistics import NormalDist, fmean
from textwrap import fill

import numpy as np
import torch
from torch import nn

import lora_mini as lm
from lora_mini import quant

# %%
from lora_mini.desk import bet, expect, settle, show, verdicts
from lora_mini.desk.figures import ACCENT, GREY, SECOND, THIRD, axes
from lora_mini.desk.intervals import prediction
from lora_mini.desk.sliders import CurveSlider
from lora_mini.lab import bits, contrasts, record, trials
from lora_mini.lab.peak import peak_bytes
from lora_mini.ledger import ledger, saved_bytes
from lora_mini.world import base, measure, train
from lora_mini.world.styles import register

model = base.load_base(path=base.SHIPPED)
W = model.blocks[0].up_proj.weight.detach().cpu()
rec = record.load("bits")
print(record.label(rec))

# %% [markdown]
# ## Sixteen numbers instead of all
# Four bits can tell sixteen things apart. So fix sixteen *levels* between -1 and 1. Take a *block* of
# neighbouring weights $w$, 64 of them. Its largest absolute value is its *scale*, $c$. Of each $w_i / c$
# keep only the number of the nearest level, its *code*:
#
# $$c = \max_i |w_i|, \qquad q_i = \arg\min_k |w_i / c - \ell_k|, \qquad \hat w_i = c\, \ell_{q_i}
# \qquad w\ (64,),\ \ell\ (16,)$$
#
# $\hat w$ is what comes back. An example with five levels, -1, -0.5, 0, 0.5 and 1, and four weights:

# %%
w, few = np.array([0.9, -1.6, 0.1, -0.5]), np.array([-1, -0.5, 0, 0.5, 1])
scale = np.abs(w).max()
print("w / c:     ", w / scale)
nearest = np.abs(w[:, None] / scale - few).argmin(axis=1)
print("codes:     ", nearest)
print("comes back:", scale * few[nearest])

# %% [markdown]
# ### Exercise 1: complete (5 minutes)
# `w` (n,) is one block, not all of it zero, `levels` (k,). Return what comes back.

# %% tags=["exercise"]
from lora_mini.desk.checks.nb11 import check_round_block


def round_block(w, levels):
    # <solution>
    c = np.abs(w).max()
    return c * levels[np.abs(w[:, None] / c - levels).argmin(axis=1)]
    # </solution>


check_round_block(round_block)

# %% [markdown]
# ### Bets 1 to 4
# Weights are rounded in blocks of 64. 2 to 4 are means over sixteen recorded bases.
# 1. One layer, the best of three kinds of 16 levels: how far is the rounded matrix from $W$, in percent of
#    $W$'s norm?
# 2. All matrices of the blocks in two bits, 4 levels: of 100 answers in the base's own styles, how many
#    are still valid, that is, sentences that the style may say?
# 3. On this base LoRA at rank 8 is trained on its own styles. What does it pay on them then, as a multiple
#    of what the base in 32 bits pays?
# 4. An adapter learns the legal register on the base of *four* bits. Then it is merged, and the sum
#    rounded to four bits again. What does that pay, as a multiple of what it paid before?

# %%
bet("11 error, 16 levels", guess=None)
bet("11 valid answers, 4 levels", guess=None)
bet("11 excess, 2 bits with LoRA", guess=None)
bet("11 excess, merged into four bits", guess=None)

# %% [markdown]
# ## Which sixteen?
# The nearest idea is whole numbers, from -8 to 7, over 7: *INT4*. Next, a tiny floating-point number with
# small steps near zero and large ones far out (one bit for the sign, two for the exponent, one more): *FP4*.
#
# A third: put the levels where the weights are. Weights of a layer look much like draws from a normal
# distribution. A *quantile* is the value below which a given part of all draws lies. Take quantiles in even
# steps of probability: that is *NF4*, NormalFloat. Zero must be a level, so that zeros stay zeros; so eight
# levels lie above it and seven below, each side in even steps. The quantile of 1 would be infinite: the
# published code starts at 0.9677, the mean of 1 - 1/30 and 1 - 1/32: the middles of the last of 15 and of the
# last of 16 equal shares.

# %%
quantile, far = NormalDist().inv_cdf, 1 - (1 / 15 + 1 / 16) / 4
above = [quantile(far + i * (0.5 - far) / 8) for i in range(8)]  # from the outermost towards zero
below = [-quantile(far + i * (0.5 - far) / 7) for i in range(7)]
nf4 = np.sort([*above, 0, *below]) / above[0]
for half in (nf4[:8], nf4[8:]):
    print("  ".join(f"{level:7.4f}" for level in half))
print("as in the package:", np.allclose(nf4, quant.NF4, atol=1e-6))

# %% [markdown]
# ### The weights and the levels (second reading)

# %%
ratios = (W.reshape(-1, 64) / W.reshape(-1, 64).abs().amax(dim=1, keepdim=True)).flatten()
fig, ax = axes(6.2, 3.0)
ax.hist(ratios.numpy(), bins=80, color="#cfcfcf")
top = ax.get_ylim()[1]
for row, (label, levels, colour) in enumerate((("NF4", quant.NF4, ACCENT), ("INT4", quant.INT4, SECOND),
                                               ("FP4", quant.FP4, THIRD))):
    ax.plot(levels, [-(0.1 + 0.12 * row) * top] * len(levels), "|", color=colour, ms=11, mew=2)
    ax.text(1.06, -(0.1 + 0.12 * row) * top, label, color=colour, va="center")
ax.set(xlabel="weight over its block's scale", ylabel="weights", xlim=(-1.2, 1.25), ylim=(-0.42 * top, None))
ax.set_yticks([t for t in ax.get_yticks() if 0 <= t <= top])
used = [len(np.unique(quant.quantize(W, levels)[0])) for levels in (quant.NF4, quant.INT4, quant.FP4)]
show(fig, "Measured: one layer's weights over their scales, and the levels of three kinds. NF4 is dense "
          "where the weights are.",
     alt=f"The weights pile up near zero. NF4 uses {used[0]} levels, INT4 {used[1]} of 16, its lowest lying "
         f"beyond -1, FP4 {used[2]}.")

# %% [markdown]
# ### How far off?
# In percent of the matrix's norm that depends on what the numbers are like, and on the block: a long block
# has a larger largest weight, and all others in it get coarser steps. Drag from one kind of numbers to the
# next.

# %%
draw = np.random.default_rng(0)
NUMBERS = {"uniform": draw.uniform(-1, 1, 2**16), "normal": draw.normal(size=2**16),
           "the town's layer": W.numpy().ravel(), "heavy tails": draw.standard_t(3, 2**16)}
BLOCKS, KINDS = (16, 32, 64, 128, 256, 1024, 4096), {"NF4": quant.NF4, "INT4": quant.INT4, "FP4": quant.FP4}


def off(numbers, levels, block):  # in percent of the norm
    X = torch.as_tensor(numbers, dtype=torch.float32)
    back = quant.dequantize(*quant.quantize(X, levels, block), levels, block)
    return 100 * ((back - X).norm() / X.norm()).item()


errors = {name: {kind: [off(x, levels, block) for block in BLOCKS] for kind, levels in KINDS.items()}
          for name, x in NUMBERS.items()}
CurveSlider(list(NUMBERS), BLOCKS, list(errors.values()), "Error over the block's size for four kinds of "
            "numbers: INT4 is best on uniform ones, NF4 on normal ones and on the town's layer; with heavy "
            "tails all get worse with longer blocks.", name="numbers", xlabel="weights in a block",
            ylabel="error, percent of the norm", start=2)

# %%
at = BLOCKS.index(64)
best = {name: min(found, key=lambda kind: found[kind][at]) for name, found in errors.items()}
settle("11 error, 16 levels", round(errors["the town's layer"]["NF4"][at], 1), unit="percent")

# %%
expect("in blocks of 64, NF4 errs least on normal numbers and on the town's layer",
       best["normal"] == best["the town's layer"] == "NF4")
expect("on uniform numbers INT4 errs least", best["uniform"] == "INT4")
expect("with heavy tails and blocks of 4,096, FP4 errs less than NF4",
       errors["heavy tails"]["FP4"][-1] < errors["heavy tails"]["NF4"][-1])

# %% [markdown]
# So no kind is best for all numbers. (INT4 and FP4 use 15 of their 16 codes.)
#
# ### Does the kind show in the model? (second reading)
# A smaller error need not mean a better model. All matrices of sixteen bases, under the three kinds
# (*recorded*):

# %%
for kind, seen in rec["kinds"].items():
    print(f"{kind:5s} off by {100 * fmean(seen['off']):4.1f} percent; excess on the base's own styles "
          f"{fmean(seen['total']):.4f}")
whole = contrasts.cell("bits", arm=bits.UNTRAINED, bits=32)
print(f"whole{'':31s}excess on the base's own styles {fmean(whole['total']):.4f}")

# %% [markdown]
# ## What a scale costs
# A scale in float32 is 32 bits for 64 weights: half a bit a weight. QLoRA rounds the scales, too (*double
# quantisation*): each to 8 bits, in groups of 256 scales, and each group has one scale in float32. In all,
#
# $$4 + \frac{8}{64} + \frac{32}{64 \cdot 256} = 4.127 \text{ bits a weight.}$$

# %%
torch.manual_seed(0)
wide = nn.Linear(1024, 1024, bias=False)
four = quant.FourBitLinear.from_linear(wide)
print({name: t.nbytes for name, t in four.named_buffers()}, f"bytes, {four.bits():.3f} bits")
for i, block in ((0, 16), (2, 64), (6, 4096)):
    size = 4 + 8 / block + 32 / (256 * block)
    print(f"blocks of {block:4d}: {size:.3f} bits a weight, error {errors['normal']['NF4'][i]:4.1f} percent, "
          f"7 billion {7 * size / 8:.2f} GB")

# %% [markdown]
# Two codes share a byte; `steps` are the scales in bytes, `largest` the groups' scales, and `mean` is taken
# off all scales first. Shorter blocks err less and cost more. In 16 bits seven billion weights take 14 GB.
#
# ### What rounding the scales costs (second reading)
# Next to nothing, in percent of the norm of the town's layer:

# %%
for name, back in (("scales in float32", quant.dequantize(*quant.quantize(W))),
                   ("scales in bytes", quant.rounded(W))):
    print(f"{name:18s}{100 * ((back - W).norm() / W.norm()).item():.3f}")

# %% [markdown]
# ### Exercise 2: predict, 2 minutes (second reading)
# Another format, *Q4_1* of llama.cpp: codes of four bits, blocks of 32 weights, and for each block a scale
# and a smallest value, 16 bits each. How many bits a weight?

# %% tags=["exercise"]
from lora_mini.desk.checks.nb11 import check_bits

# <stub>
# bits_a_weight = None
# </stub>
# <solution>
bits_a_weight = 4 + 2 * 16 / 32
# </solution>
check_bits(bits_a_weight)

# %% [markdown]
# ## A layer that never keeps W
# A four-bit layer makes $W$ anew from its codes, uses it, and lets it go. Written naively it does not let
# go:

# %%
x = torch.randn(32, 1024, requires_grad=True)


def naive(x):
    return x @ four.dequantize().T


print(f"kept for the backward pass: {saved_bytes(four, lambda: naive(x)):,} bytes; "
      f"W in float32: {4 * wide.weight.numel():,}")

# %% [markdown]
# Autograd keeps the factor that it needs on the way back, and that is the whole $W$. With one such layer
# after the other, a step keeps the model in float32. The remedy: say ourselves how to go back, and make $W$
# a second time. $G$ is the gradient for the output:
#
# $$y = x\,W^T, \qquad \frac{\partial L}{\partial x} = G\,W \qquad x\ (n, d_{in}),\ W\ (d_{out}, d_{in}),\
# G\ (n, d_{out})$$

# %%
class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, layer):
        ctx.layer = layer
        return x @ layer.dequantize().T

    @staticmethod
    def backward(ctx, G):
        return G @ ctx.layer.dequantize(), None  # a gradient for x; none for the layer


print(f"kept now: {saved_bytes(four, lambda: Product.apply(x, four)):,} bytes")

# %%
G, gradients = torch.randn(32, 1024), []
for way in (naive, lambda x: Product.apply(x, four), four):
    gradients.append(torch.autograd.grad(way(x), x, G)[0])
print("ours equals the naive one, bit for bit:", torch.equal(gradients[1], gradients[0]))
print("so does the package's layer:", torch.equal(gradients[2], gradients[0]))

# %% [markdown]
# That gradient is *exact* for the layer as it is. From here on it is `quant.FourBitLinear`.
#
# ## LoRA on it
# `to_four_bits` replaces the layers of the blocks, `attach` takes them as a base like any other. (Embedding,
# norms and head stay as they are.) The legal register once more, as in 06, beside the same run on the base in
# 32 bits, both at the rate that the record found best on four:

# %% tags=["measured"]
style, test = register("legal"), trials.frames(register("legal"), 128, 0, "test")
small = copy.deepcopy(model)
quant.to_four_bits(small)
rate = contrasts.cell("bits", arm="LoRA r=8", bits=4, new=0, used="there")["best"]
tuned, paid = {}, {}
with train.together() as both:  # the stop button ends both
    for name, start in (("32 bits", model), ("4 bits", small)):
        tuned[name], _ = trials.tune(start, "LoRA r=8", style, rate, seed=0, report=False)
        paid[name] = measure.excess(tuned[name], test).total
        print(f"LoRA on {name:8s} excess {paid[name]:.4f}")
near = prediction([math.log(t) for t in contrasts.cell("bits", bits=4, new=0, used="there")["total"]],
                  floor=math.log(1.1))

# %%
expect("the run on four bits lands where the record's sixteen bases predict",
       near.holds(math.log(paid["4 bits"])), of=both)

# %% [markdown]
# One run says little. The record has sixteen bases, in 32, 4, 3 and 2 bits, each with the rate that suits it;
# and random weights, trained in full, as the control that knows nothing (record "arms"). Three and two bits
# are made like NF4. Two is a poor code, with one level below zero:

# %%
print("two bits:", "  ".join(f"{level:.3f}" for level in quant.normal_float(2).tolist()))

# %%
fig, panels = axes(7.2, 2.9, 2, sharey=True)
totals = {(b, new): contrasts.cell("bits", arm="LoRA r=8", bits=b, new=new, used="there")["total"]
          for b in bits.BITS for new in bits.NEW}
control = {new: contrasts.cell("arms", arm="scratch", new=new, examples=256)["total"] for new in bits.NEW}
for ax, new in zip(panels, bits.NEW, strict=True):
    for i, b in enumerate(bits.BITS):
        ax.plot([i] * 16, totals[b, new], "o", color=ACCENT, ms=3, alpha=0.35)
        ax.plot(i, fmean(totals[b, new]), "o", color=ACCENT, ms=8)
    ax.axhline(fmean(control[new]), color=GREY, ls="--", lw=1)
    ax.text(-0.3, fmean(control[new]) * 1.1, "random weights", color=GREY, fontsize=8)
    ax.set_xticks(range(len(bits.BITS)), bits.BITS)
    ax.set(yscale="log", xlabel="bits of the base", title=f"{new} new words")
panels[0].set_ylabel("excess, nats per token")
show(fig, "Recorded: the legal register, LoRA r=8 on bases of few bits. Sixteen bases (small) and their mean "
          "(large).",
     alt="Mean excess in 32, 4, 3, 2 bits: " + "; ".join(
         f"{new} new words " + ", ".join(f"{fmean(totals[b, new]):.4f}" for b in bits.BITS)
         for new in bits.NEW) + ".")

# %% [markdown]
# Before the first run we bet, too (`desk/contrasts_11.toml`). A factor is, as in 06, what the rival pays over
# what the subject pays: here 32 bits over fewer.

# %%
def told(name):  # a prediction of ours: what each of its contrasts came to
    print(fill(f"{name}: {verdicts.planned()[name]['says']}", 78))
    rules, effects = verdicts.contrasts(name), contrasts.effects(name)
    for contrast, came in verdicts.weigh(name, effects).conditions.items():
        print(("yes  " if came in rules[contrast]["holds"] else "NOT  ")
              + verdicts.seen(effects[contrast], rules[contrast], len(rules), contrast))


told("P4")

# %% [markdown]
# On four bits LoRA pays 2 to 4 percent more than on 32: equal, by our margin. On two bits it pays twice as
# much with all words known, and a fifth more with 12 new words: equal by our margin, too, so there we lost
# our bet on *worse*.
#
# ## What rounding took, and who gives it back
# Another job for the adapter: repair. Round the base, then train on new sentences of its *own* twelve
# styles. If LoRA gives back what rounding took, somebody else might, too; so embedding and head are
# trained without any adapter (*words*), and so is a model from random weights (*scratch*).

# %%
own = {"nothing trained": {"arm": bits.UNTRAINED, "rounds": 0}, "words": {"arm": "words"},
       "LoRA r=8": {"arm": "LoRA r=8"}}
own = {label: {b: contrasts.cell("bits", task=bits.OWN, bits=b, **what) for b in bits.BITS}
       for label, what in own.items()}
pays = {label: [fmean(cell["total"]) for cell in by.values()] for label, by in own.items()}
scratch = fmean(contrasts.cell("bits", task=bits.OWN, arm="scratch")["total"])
fig, ax = axes(5.6, 3.1)
for (label, ys), marker, colour in zip(pays.items(), "xvs", (GREY, THIRD, ACCENT), strict=True):
    ax.plot(range(4), ys, marker, ls="-", color=colour, ms=7, label=label)
ax.axhline(scratch, color=GREY, ls=":", lw=1, label="random weights, all trained")
ax.set_xticks(range(4), bits.BITS)
ax.set(yscale="log", xlabel="bits of the base", ylabel="excess, own styles")
ax.legend(fontsize=8)
show(fig, "Recorded, mean of sixteen bases: what a rounded base pays on its own styles, before and after 200 "
          "steps of repair.",
     alt="Mean excess in 32, 4, 3, 2 bits: " + "; ".join(
         f"{label} " + ", ".join(f"{y:.4f}" for y in ys) for label, ys in pays.items())
     + f"; random weights {scratch:.3f}.")

# %%
untouched = own["nothing trained"]
settle("11 valid answers, 4 levels", round(100 * fmean(untouched[2]["valid"])), unit="of 100")
settle("11 excess, 2 bits with LoRA", pays["LoRA r=8"][3] / pays["nothing trained"][0],
       unit="times")

# %%
told("P7")

# %% [markdown]
# (A factor below 1: the repaired base pays more.) So LoRA does give back most of what rounding took, at four
# bits all of it; at three it still pays 1.75 times what the whole base pays, and that bet is lost. And look
# at the control: *words*, with about as many numbers, does it as well, and at three bits pays three tenths
# less: equal by a hair. (*Words* gains a sixth in 32 bits, too, by training on: part of its lead is no
# repair.) That rounding can be repaired speaks for training, and not for low rank.
#
# Count the adapter, too: its 18,432 numbers in 32 bits are 6 bits for each of the 98,304 rounded weights,
# more than these themselves have. *Words* adds none. In a model of seven billion, rank 8 is a small part of a
# bit. So two bits here show what training can repair, and no two-bit model.

# %%
for arm in ("words", "LoRA r=8"):
    print(f"{arm:9s} trains {ledger(trials.prepare(model, arm)).trainable:,} numbers; at two bits then "
          f"{100 * fmean(own[arm][2]['valid']):.0f} of 100 answers are valid")

# %% [markdown]
# ## Where may the adapter act?
# An adapter was trained on the base in few bits. It could act in three places:
# - *there*, apart, as it was trained. (Merged into the rounded weights, and the sum kept in 32 bits, it is
#   the same model.)
# - *moved* onto the base in 32 bits, which it never saw;
# - *merged*: added to the weights, and the sum rounded to few bits again.
#
# The control, *after*: trained on 32 bits, merged, and rounded only then.

# %%
def placed(new, b, used="there", in_bits=None):  # the excess of each base
    return contrasts.cell("bits", arm="LoRA r=8", bits=b, new=new, used=used, in_bits=in_bits or b)["total"]


for new, b in ((new, b) for new in bits.NEW for b in (4, 3, 2)):
    paid = {"there": placed(new, b), "moved": placed(new, b, "moved", 32), "merged": placed(new, b, "merged"),
            "after": placed(new, 32, "merged", b)}
    print(f"{new:2d} new words, {b} bits: " + ", ".join(f"{w} {fmean(xs):.4f}" for w, xs in paid.items()))

# %%
times = [math.log(m / t) for new in bits.NEW
         for m, t in zip(placed(new, 4, "merged"), placed(new, 4), strict=True)]
settle("11 excess, merged into four bits", math.exp(fmean(times)), unit="times")

# %%
for name in ("P5", "P6"):
    told(name)

# %% [markdown]
# We had bet that merging into four bits would hurt. It costs 16 percent, inside the margin; an adapter that
# came from 32 bits and was merged then (*after*) pays about as much. With fewer bits it does hurt (means): at
# three by 2 to 13 times, where *after* comes off better with all words known and worse with 12 new ones; at
# two both pay more than a nat. On the base in 32 bits an adapter from four is nearly as good as at home; one
# from two bits pays 16 to 28 times as much.
#
# ### Why so little at four? (second reading)
# Look at the live run: how large is the update, beside what rounding does?

# %%
layers = [m for m in tuned["4 bits"].modules() if isinstance(m, lm.LoRALinear)]
Q, U = [m.base.dequantize() for m in layers], [m.update().detach() for m in layers]


def norm(matrices):
    return sum((X**2).sum() for X in matrices).item() ** 0.5


def survives(size):  # update's norm over the weights' -> share of it that is left, rounding's error
    V = [X * size * norm(Q) / norm(U) for X in U]
    left = [quant.rounded(q + v) - q for q, v in zip(Q, V, strict=True)]
    along = sum((x * v).sum() for x, v in zip(left, V, strict=True)).item() / norm(V) ** 2
    return along, norm([x - v for x, v in zip(left, V, strict=True)]) / norm(Q)


# %% tags=["measured"]
here = norm(U) / norm(Q)
SIZES = (0.003, 0.01, 0.03, 0.1, 0.3, 1)
left = [survives(size) for size in SIZES]
print(f"the update is {100 * here:.0f} percent of the weights; rounding moves their sum by "
      f"{100 * survives(here)[1]:.0f},\nand leaves {100 * survives(here)[0]:.0f} percent of the update")
print("by size, in percent: " + ", ".join(
    f"{size}: {100 * along:.0f}" for size, (along, _) in zip(SIZES, left, strict=True)))

# %%
expect("the update is larger than what rounding does to the sum", here > survives(here)[1], of=both)

# %% tags=["measured"]
fig, ax = axes(5.4, 2.8)
ax.plot(SIZES, [100 * along for along, _ in left], "o-", color=ACCENT)
ax.axvline(here, color=SECOND, lw=1)
ax.text(here, 8, " as trained here", color=SECOND, fontsize=8)
ax.set(xscale="log", ylim=(0, 110), xlabel="norm of the update, over the weights'",
       ylabel="percent that is left")
show(fig, "Measured: the update of the live run, scaled to other sizes, added to the four-bit weights, and "
          "rounded again.",
     alt="Of an update as large as a third of the weights nearly all is left; of one of a hundredth next to "
         "nothing.")
smallest, largest = left[0][0], left[-1][0]

# %%
expect("of an update of a third of a percent less than half is left, of a large one nearly all",
       smallest < 0.5 and largest > 0.9, of=both)

# %% [markdown]
# Whether an update survives is a matter of its size. A weight goes to another level only if its update
# carries it over the middle between the two; smaller ones are mostly swallowed. (Rounding anew also moves the
# weights by 9 percent, an error that the adapter has never seen. How much of the excess that makes was not
# tested.) In the one matrix of GPT-3 that the LoRA paper measures, the update is 11 percent of the weights at
# r = 4 and 6 at r = 64 (6.91 and 3.57 of 61.95; table 7). If rounding acts there as here, that is on the
# slope. Measure yours before you merge: what is swallowed raises no error.
#
# ## The memory of a step, measured (second reading)
# What is it worth? Eight layers, 1,024 wide, 64 tokens. The ledger of 06 computes: weights, gradients, the
# two states of AdamW, and what autograd keeps. `peak_bytes` watches: it counts every tensor from when it
# comes into being until nothing looks at it, over two whole steps.

# %%
def stack(way):
    torch.manual_seed(0)
    made = nn.Sequential(*(nn.Sequential(nn.Linear(1024, 1024), nn.GELU()) for _ in range(8)))
    if way == "LoRA, 4 bits":
        quant.to_four_bits(made)
    if way != "full":
        lm.attach(made, "all-linear", rank=8, alpha=16)
    return made


def two_steps(way):
    deep, batch = stack(way), torch.randn(64, 1024)
    optimizer = torch.optim.AdamW([p for p in deep.parameters() if p.requires_grad], fused=True)

    def act():
        for _ in range(2):
            optimizer.zero_grad()
            deep(batch).square().mean().backward()
            optimizer.step()
    return ledger(deep, batch=batch), peak_bytes(act, deep, batch) / 2**20


# %% tags=["measured"]
memory = {way: two_steps(way) for way in ("LoRA, 4 bits", "LoRA", "full")}
fig, ax = axes(6.2, 2.4)
parts = {"weight": ACCENT, "gradient": SECOND, "optimizer": THIRD, "activation": GREY}
for row, (way, (book, seen)) in enumerate(memory.items()):
    left = 0
    for part, colour in parts.items():
        size = getattr(book, f"{part}_bytes") / 2**20
        ax.barh(row, size, left=left, color=colour, label=None if row else f"{part}s", height=0.5)
        left += size
    ax.plot([seen] * 2, [row - 0.4, row + 0.4], color="black", lw=2, label=None if row else "measured")
    print(f"{way:13s} computed {left:5.1f} MiB, measured at the peak {seen:5.1f} MiB")
ax.set_yticks(range(3), list(memory))
ax.set(xlabel="MiB", ylim=(-0.6, 2.6))
ax.legend(fontsize=8, loc="lower right")
show(fig, "Bars: computed, if all were there at once. Black: measured at the worst moment of two steps.",
     alt="Full training needs the most, most of it gradients and the optimiser's states; LoRA needs less "
         "than half of that, most of it the frozen weights; with four bits these shrink to an eighth.")
peaks = {way: seen for way, (_, seen) in memory.items()}

# %%
expect("LoRA's peak is below half of full training's", peaks["LoRA"] < 0.5 * peaks["full"])
expect("with four bits the peak is below three quarters of LoRA's",
       peaks["LoRA, 4 bits"] < 0.75 * peaks["LoRA"])

# %% [markdown]
# The black line may lie left of the bar: activations are let go while gradients come into being, so not all
# is there at once. Or right of it: a matrix that is made anew needs room for a moment, 4 bytes a weight for
# itself and some for its unpacked codes. With more tokens the grey part grows, and the saving shrinks in
# proportion. And time, forward alone:

# %% tags=["measured"]
def seconds(act, rounds=15):
    spent = []
    for _ in range(rounds):
        start = time.perf_counter()
        act()
        spent.append(time.perf_counter() - start)
    return sorted(spent)[rounds // 2]


with torch.no_grad(), train.threads(1):
    clock = {rows: [seconds(lambda layer=layer, rows=rows: layer(torch.zeros(rows, 1024)))
                    for layer in (wide, four)] for rows in (1, 64, 1024)}
for rows, (plain, small_one) in clock.items():
    print(f"{rows:4d} rows through one layer: {small_one / plain:.1f} times as long in four bits")
slower = clock[1][1] / clock[1][0]

# %%
expect("for one row four bits take longer", slower > 1)

# %% [markdown]
# ### Exercise 3: find the bug (4 minutes)
# Two codes share a byte: `packed = codes[::2] << 4 | codes[1::2]`. `unpack` should undo that.

# %% tags=["exercise"]
from lora_mini.desk.checks.nb11 import check_unpack


def unpack(packed):  # (n / 2,) of uint8 -> (n,)
    # <stub>
    # return np.stack([packed & 15, packed >> 4], axis=1).ravel()
    # </stub>
    # <solution>
    return np.stack([packed >> 4, packed & 15], axis=1).ravel()
    # </solution>


check_unpack(unpack)

# %% [markdown]
# ## A start that is nearer (second reading)
# An update starts at zero. Beside a rounded matrix it could start at something useful: the part of the
# rounding error that rank 8 can hold, its truncated SVD (02). Then round again, what is left without the
# adapter; and so on. That is *LoftQ* (Li et al. 2023). How far does it get without any training?

# %%
for b in (4, 3, 2):
    for rounds in bits.ROUNDS:
        cell = contrasts.cell("bits", arm=bits.UNTRAINED, bits=b, rounds=rounds)
        print(f"{b} bits, {rounds} rounds: off by {100 * fmean(cell['off']):4.1f} percent, "
              f"excess on the own styles {fmean(cell['total']):.4f}")

# %% [markdown]
# Without training, five rounds take the excess at four bits from .0020 to .0017, at three and at two further;
# the factors that do it weigh 6 bits a weight here.
#
# ## The paper's formula (second reading)
# Formula 4 of the QLoRA paper defines the levels in another way than its code: cut the distribution into 17
# equal shares, and take the mean of the two quantiles at each share's ends.

# %%
ends = [quantile(i / 17) for i in range(1, 17)]
middle = np.array([(a + b) / 2 for a, b in zip(ends[:-1], ends[1:], strict=True)])
print("formula:", "  ".join(f"{level:.3f}" for level in (middle / middle.max())[-7:]))
print("code:   ", "  ".join(f"{level:.3f}" for level in nf4[-8:]))
print(f"levels: {len(middle)} finite ones by the formula, {len(nf4)} in the code")

# %% [markdown]
# The two outer shares have an end at infinity, and zero is a level only with an odd number of them. The text
# below the formula says what is done about zero, and appendix E lists all sixteen. Whoever takes the formula
# alone gets another number format.
#
# ## From this town to seven billion
# - **Four bits, then.** On both tasks that we judged, LoRA on four bits was equal to LoRA on 32. The QLoRA
#   paper found the same up to 65 billion, with adapters on *all* linear layers.
# - **Which kind.** NF4 errs least on weights that look normal. In the model the three kinds lie within a
#   sixth of each other here; of what rounding adds to the whole base's excess, INT4 adds some 1.5 times as
#   much as NF4 (means).
# - **What is not rounded.** Embeddings, norms and the head, here and in QLoRA. In a large model that is
#   little; in a small one it is much.
#
# ## What you have done
# - You **rounded** a matrix to sixteen levels, and saw that no kind of levels wins on all numbers.
# - You **counted** 4.127 bits a weight, and measured the memory of a whole step (second reading).
# - You **built** a layer that lets its weights go, with exact gradients, and trained LoRA on it.
# - You **decided** by measurement: from four bits an adapter may move to the base in 32 bits; rounded again
#   it keeps what is large beside the rounding.
#
# **On your own.** Which layers suffer most from two bits? Round one kind at a time
# (`bits.in_levels` shows how), and measure the own styles. And: does LoftQ's start help after training?
#
# **In practice.** Keep the adapter apart; or merge it into the rounded weights as they come back, and keep
# the sum unrounded (in 32 bits here; 16 we have not measured), which gives up what was saved. If you must
# round again, measure what survives. Write down on which base, in which bits, an adapter was trained.
#
# **Further reading.**
# - Dettmers et al., *QLoRA* (arXiv 2305.14314, 2023): sections 3 and 4.
# - Li et al., *LoftQ* (arXiv 2310.08659, 2023): the nearer start, and what it gives after training.
# - Frantar et al., *GPTQ* (arXiv 2210.17323, 2022): rounding that looks at data, column by column.
