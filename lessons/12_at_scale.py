# %% [markdown]
# # 12. Count a model that you don't have
#
# The famous figures about LoRA are about a model of 175 billion numbers. You can't load it, and don't have
# to. Its shapes are enough to count.
#
# At the end of this notebook you will be able to
# - **count** what training a model of any size needs, part by part, on the machine in front of you;
# - **audit** the LoRA paper's own figures: which follow from its formula, and which don't;
# - **explain**, with a count and a clock, why LoRA is not three times faster;
# - **say** what several machines have to send each other, with LoRA and without (second reading).
#
# You need notebooks 04, 06 and 11. About 75 minutes to study; the core path about 45, the rest is marked as a
# second reading.

# %% [markdown]
# **Three questions before you start.** Answer aloud, then unfold.
#
# <details><summary>1. How many numbers does LoRA train in a matrix (d_out, d_in)? (04)</summary>
#
# $r\,(d_{in} + d_{out})$.
# </details>
# <details><summary>2. Which four things fill the memory in training? (06)</summary>
#
# Weights, gradients, the optimiser's states, and what autograd keeps for the way back.
# </details>
# <details><summary>3. How many bits does a weight take in NF4 with double quantisation? (11)</summary>
#
# 4.127.
# </details>

# %%
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import lora_mini as lm
from lora_mini import step

# %%
from lora_mini.desk import bet, expect, settle, show, verdict, verdicts
from lora_mini.desk.figures import ACCENT, GREY, SECOND, axes
from lora_mini.desk.sliders import CurveSlider
from lora_mini.lab import contrasts
from lora_mini.lab.peak import peak_bytes
from lora_mini.ledger import ledger, saved_bytes
from lora_mini.shapes import SHAPES, skeleton
from lora_mini.world import train
from lora_mini.world.gpt import GPT, Config

giant = skeleton("gpt3")
full = {"gpt3": ledger(giant)}
print(f"{SHAPES['gpt3'].title}: {full['gpt3'].parameters:,} numbers, "
      f"{full['gpt3'].weight_bytes / 1e9:.0f} GB in 16 bits")

# %% [markdown]
# ## Tensors without numbers
# Did your machine just take 349 GB? No. On PyTorch's device *meta* a tensor has a shape and a type and no
# contents. What depends on shapes alone works there: also attaching LoRA.

# %%
lm.attach(giant, ["q_proj", "v_proj"], rank=4, alpha=8)
layer = giant.blocks[0]["q_proj"]
print(f"W {tuple(layer.base.weight.shape)} and B {tuple(layer.lora_B.shape)}, both on the device "
      f"{layer.lora_B.device}")

# %% [markdown]
# Ten models' shapes stand in `lora_mini/shapes.py`.
#
# ### Exercise 1: complete (5 minutes)
# `linear` maps the name of each linear layer of one block to (d_out, d_in); there are `layers` equal blocks.
# How many numbers does LoRA train in the layers named in `targets`?

# %% tags=["exercise"]
from lora_mini.desk.checks.nb12 import check_trained


def trained(linear, layers, targets, rank):
    # <solution>
    return layers * sum(rank * (linear[name][0] + linear[name][1]) for name in targets)
    # </solution>


check_trained(trained)

# %% [markdown]
# ### Bets 1 to 4
# 1. GPT-3 175B, LoRA at rank 4 on q and v. How many times fewer numbers are trained than in full?
# 2. Llama 3 8B, LoRA at rank 16 on all linear layers. How many times fewer?
# 3. We count eleven figures of the LoRA paper again, numbers trained and the like. How many come out the
#    same, to the digits printed?
# 4. One layer, 1,024 wide, 2,048 tokens, rank 8, in float32 on your machine's CPU. A whole step with LoRA, as
#    autograd computes it, takes what share of the time of one in full, in percent?

# %%
bet("12 factor, GPT-3", guess=None)
bet("12 factor, Llama 3 8B", guess=None)
bet("12 figures that agree", guess=None)
bet("12 share of a step's time", guess=None)

# %%
llama = skeleton("llama3-8b")
full["llama3-8b"] = ledger(llama)
lm.attach(llama, "all-linear", rank=16, alpha=32)
fewer = {name: full[name].parameters / ledger(model).trainable
         for name, model in (("gpt3", giant), ("llama3-8b", llama))}
settle("12 factor, GPT-3", round(fewer["gpt3"]), unit="times")
settle("12 factor, Llama 3 8B", round(fewer["llama3-8b"]), unit="times")

# %% [markdown]
# ## Ten thousand, figure by figure
# For $L$ adapted matrices of $d \times d$ the paper counts $2\,L\,d\,r$ numbers (section 5.1). Here are
# eleven figures that it prints (tables 2 to 4 and 10, appendix D.4, section 4.2), and what that formula or
# the shapes give. A figure *agrees* if ours, rounded to as many digits, is the one in print.

# %%
def square(name, rank, each=2):  # the paper's formula; `each`: adapted matrices in a block
    return 2 * SHAPES[name].layers * each * SHAPES[name].d_model * rank


FIGURES = [  # what, in print, digits behind the point, ours in the same unit
    ("RoBERTa base, r=8 on q, v: millions", 0.3, 1, square("roberta-base", 8) / 1e6),
    ("RoBERTa large, r=8 on q, v", 0.8, 1, square("roberta-large", 8) / 1e6),
    ("DeBERTa XXL, r=8 on q, v", 4.7, 1, square("deberta-xxl", 8) / 1e6),
    ("GPT-2 medium, r=4 on q, v", 0.35, 2, square("gpt2-medium", 4) / 1e6),
    ("GPT-2 large, r=4 on q, v", 0.77, 2, square("gpt2-large", 4) / 1e6),
    ("GPT-3, r=1 on q, v", 4.7, 1, square("gpt3", 1) / 1e6),
    ("GPT-3, r=8 on q, v", 37.7, 1, square("gpt3", 8) / 1e6),
    ("GPT-3, r=2 on q, k, v, o", 37.7, 1, square("gpt3", 2, each=4) / 1e6),
    ("GPT-3 in full", 175255.8, 1, full["gpt3"].parameters / 1e6),
    ("GPT-3, r=4 on q, v: the file, MB", 35, 0, 2 * square("gpt3", 4) / 1e6),
    ("GPT-3, r=4 on q, v: times fewer", 10000, 0, full["gpt3"].parameters / square("gpt3", 4)),
]
agree = [f"{ours:.{digits}f}" == f"{said:.{digits}f}" for _, said, digits, ours in FIGURES]
for (what, said, digits, ours), same in zip(FIGURES, agree, strict=True):
    print(f"{what:37s}{said:12,.{digits}f}{ours:12,.{digits}f}  {'agrees' if same else ''}")

# %%
settle("12 figures that agree", sum(agree), unit="of eleven")

# %% [markdown]
# Some of these gaps can be explained. DeBERTa's released script has rank 16 (microsoft/LoRA), which gives
# 4.7. The 37.7 million of appendix D.4 need rank 4. For GPT-2 the printed figures are 0.1 percent of the
# models' 354.92 and 774.03 million, to the digit. And 35 MB is 350 GB over ten thousand. GPT-3's 175,255.8
# we could not explain: the published shapes (Brown et al. 2020, table 2.1) give 652 million less, with one
# table for words and head.
#
# So whence ten thousand? It hangs on three choices at once:

# %%
def times_fewer(name, targets, rank):
    made = skeleton(name)
    n = ledger(made).parameters
    lm.attach(made, targets, rank, 2 * rank)
    return n / ledger(made).trainable


PLACES = {"q and v": ["q_proj", "v_proj"], "all": "all-linear"}
hangs = {(name, where, rank): times_fewer(name, PLACES[where], rank)
         for name in ("gpt3", "llama3-8b") for where in PLACES for rank in (1, 4, 16)}
for (name, where, rank), factor in hangs.items():
    print(f"{SHAPES[name].title:12s}{where:8s} rank {rank:2d}: {factor:7,.0f} times fewer")

# %%
verdict("C3", GPT3_at_rank_4_on_q_and_v_to_a_tenth=abs(hangs["gpt3", "q and v", 4] / 10_000 - 1) < 0.1,
        on_all_linear_layers=hangs["gpt3", "all", 4] >= 9_000,
        at_rank_16=hangs["gpt3", "q and v", 16] >= 9_000,
        on_8_billion_at_rank_4=hangs["llama3-8b", "q and v", 4] >= 9_000)

# %% [markdown]
# ## Three, account by account
# GPT-3's memory in training falls from 1.2 TB to 350 GB, the paper says: 3.4 times. 350 GB is just the
# weights, two bytes each. And 1.2 TB? 6.9 bytes for each number. What could these be? AdamW keeps two
# states a number. Some accounts, for the giant with LoRA at rank 4:

# %%
ACCOUNTS = {  # bytes a number: weight, gradient, states, a copy of the weights in 32 bits
    "all in 16 bits": (2, 2, 4, 0), "gradients not counted": (2, 0, 4, 0),
    "SGD, all in 16 bits": (2, 2, 0, 0), "mixed: states and a copy in 32": (2, 2, 8, 4)}
n, few = full["gpt3"].parameters, ledger(giant).trainable
for name, sizes in ACCOUNTS.items():
    before, after = n * sum(sizes), 2 * n + few * sum(sizes)
    print(f"{name:32s}{before / 1e12:5.2f} TB to {after / 1e12:.2f} TB: {before / after:.1f} times")

# %% [markdown]
# None gives 1.2, and the *three* depends on the account, from 2 to 8. From here on: full training all in 16
# bits; LoRA's frozen weights, too, its factors in 32, as PEFT has them. And all accounts leave out the
# *activations*.
#
# ## Activations
# What autograd keeps for the way back can be counted on meta, too. Here is our GPT of 05 at the width and
# depth of Llama 3 8B, in bfloat16, on one text of T tokens, up to its loss.

# %%
s = SHAPES["llama3-8b"]


def kept(way, T, layers=s.layers):
    with torch.device("meta"):
        made = GPT(Config(s.vocabulary, T, s.d_model, layers, heads=32)).to(torch.bfloat16)
        if way != "full":
            lm.attach(made, "all-linear", rank=16, alpha=32)
        if way == "LoRA, factors in 16 bits":
            made.to(torch.bfloat16)
        tokens = torch.zeros(1, T, dtype=torch.long)
        return saved_bytes(made, lambda: F.cross_entropy(
            made(tokens).float().flatten(0, 1), tokens.flatten())) / 1e9


# %%
LENGTHS, WAYS = (256, 1024, 4096), ("full", "LoRA", "LoRA, factors in 16 bits")
activations = {way: [kept(way, T) for T in LENGTHS] for way in WAYS}
again = {way: [2 * s.layers * T * s.d_model / 1e9 + kept(way, T, layers=1) for T in LENGTHS]
         for way in WAYS[:2]}
for way, sizes in (activations | {f"{way}, recomputed": sizes for way, sizes in again.items()}).items():
    print(f"{way:26s}" + "".join(f"{size:8.1f} GB" for size in sizes))

# %% [markdown]
# LoRA keeps *more* than full training: with factors in float32 an adapted layer keeps its input in 32 bits in
# place of 16. With factors in 16 bits that is gone.
#
# *Recomputed* (gradient checkpointing): only each block's input is kept, and the rest computed again on the
# way back, one block at a time. It costs a second forward pass. (Our attention keeps a T x T matrix for each
# head, which fused kernels don't. So 4,096 tokens come in 16 short texts as well.)
#
# How many times less does LoRA need in all? Weights and states are there all the time. On top of them come,
# as the way back begins, what was kept and two gradients of the loss's logits, T x 128,256 in 32 bits each;
# at its end, all gradients. The larger of the two counts (`ledger.step_bytes`).

# %%
books = {"full": full["llama3-8b"], "LoRA": ledger(llama)}


def most(way, acts, i, texts=1):  # GB
    logits = 4 * LENGTHS[i] * s.vocabulary / 1e9
    back = max(texts * (acts[way][i] + 2 * logits), books[way].gradient_bytes / 1e9)
    return (books[way].weight_bytes + books[way].optimizer_bytes) / 1e9 + back


def less(acts, i, texts=1):
    return most("full", acts, i, texts) / most("LoRA", acts, i, texts)


for i, texts in ((0, 1), (1, 1), (2, 1), (0, 16)):
    print(f"{texts:2d} x {LENGTHS[i]:5,d} tokens: kept {less(activations, i, texts):.1f} times less, "
          f"recomputed {less(again, i, texts):.1f} ({most('LoRA', again, i, texts):.0f} GB with LoRA)")

# %%
verdict("C4", GPT3_in_16_bits_without_activations=full["gpt3"].total_bytes >= 3 * ledger(giant).total_bytes,
        eight_billion_with_256_tokens=less(activations, 0) >= 3,
        the_same_with_4096_tokens_recomputed=less(again, 2) >= 3,
        GPT3_with_SGD=ledger(skeleton("gpt3"), "sgd").total_bytes >= 3 * ledger(giant, "sgd").total_bytes)

# %% [markdown]
# (The weights are Llama's; the activations our GPT's, of the same width and depth. Where the loss is computed
# in pieces, its logits cost less.) Others measured less than three: PEFT's own benchmark has 36.2 GB for full
# training of Llama 3.2 3B and 20.8 GB with LoRA, 1.7 times (huggingface/peft, method_comparison, 2026; one
# seed, batch 4).
#
# ### Is the count right? (second reading)
# Hold it against a real forward pass in a GPT that fits, in float32, where LoRA's factors cost nothing extra.
# (Whole steps of SmolLM2 are held against the count in `docs/benchmark.md`.) On a GPU its allocator is asked;
# elsewhere every tensor is watched, from when it comes into being until nothing looks at it (`peak_bytes`,
# 11). The peak is a little higher, by what lives for a moment only.

# %%
def watched(way):
    device = train.device()
    torch.manual_seed(0)
    made = GPT(Config(500, 256, 256, 4, heads=4)).to(device)
    if way == "LoRA":
        lm.attach(made, "all-linear", rank=8, alpha=16)
    tokens = torch.zeros(4, 256, dtype=torch.long, device=device)
    book = ledger(made, batch=tokens)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() - book.weight_bytes
        made(tokens)
        seen = torch.cuda.max_memory_allocated() - before
    else:
        seen = peak_bytes(lambda: made(tokens), made, tokens)
    return (book.weight_bytes + book.activation_bytes) / 2**20, seen / 2**20


# %% tags=["measured"]
pairs = {way: watched(way) for way in ("full", "LoRA")}
for way, (counted, seen) in pairs.items():
    print(f"{way:5s} weights and activations {counted:6.1f} MiB counted, {seen:6.1f} MiB at the peak")

# %%
expect("the peak lies between the count and a quarter more",
       all(1 <= seen / counted < 1.25 for counted, seen in pairs.values()))

# %% [markdown]
# ## One consumer card
# A consumer's card has 24 GB, a data centre's 80. What fits, without activations? Drag from model to model.

# %%
RANKS = (1, 4, 16, 64, 256)
MODELS = ("roberta-large", "gpt2-large", "llama3-8b", "llama-65b", "gpt3")
SETUPS = {"LoRA, all layers, 16 bits": (False, "all-linear", "adamw"), "LoRA, q and v, 16 bits":
          (False, ["q_proj", "v_proj"], "adamw"), "LoRA, all layers, 4 bits": (True, "all-linear", "adamw"),
          "all layers, 4 bits, SGD": (True, "all-linear", "sgd")}


def gigabytes(name, four_bits, targets, optimizer):
    found = []
    for rank in RANKS:
        made = skeleton(name, four_bits=four_bits)
        lm.attach(made, targets, rank, 2 * rank)
        found.append(ledger(made, optimizer).total_bytes / 1e9)
    return found


memory = {name: {label: gigabytes(name, *setup) for label, setup in SETUPS.items()} for name in MODELS}

# %%
CurveSlider(["RoBERTa", "GPT-2", "Llama 8B", "LLaMA 65B", "GPT-3"], RANKS, list(memory.values()),
            "Memory over the rank for five models: LoRA on Llama 3 8B needs 17 GB in 16 bits and 6 in four "
            "at rank 16, LLaMA 65B 38 in four bits; GPT-3 fits on neither card.", name="model", xlabel="rank",
            ylabel="GB, without activations", start=2,
            lines=[{"24 GB": 24, "80 GB": 80} for _ in MODELS])

# %% [markdown]
# At rank 256 on all layers an adapter is no small thing any more. QLoRA's authors tuned LLaMA 65B on one card
# of 48 GB; the next cell counts theirs, at rank 64, with factors in 32 bits: next to nothing is left for
# activations. C7 rests on this, and on what 11 recorded about four bits, in our town's small model
# (prediction P4).

# %%
came = verdicts.weigh("P4", contrasts.effects("P4")).conditions
came = {name: word for name, word in came.items() if name.startswith("4 bits")}
as_good = None if "open" in came.values() else not {"worse"} & set(came.values())
at_16 = {name: [memory[name][f"LoRA, all layers, {bits} bits"][2] for bits in (16, 4)] for name in MODELS}
extra = [most("LoRA", acts, 1) - books["LoRA"].total_bytes / 1e9 for acts in (again, activations)]  # 1,024
print(f"Llama 3 8B, rank 16, with 1,024 tokens: {at_16['llama3-8b'][0] + extra[0]:.1f} GB recomputed, "
      f"{at_16['llama3-8b'][0] + extra[1]:.1f} kept;\n"
      f"in four bits {at_16['llama3-8b'][1] + extra[1]:.1f} kept. "
      f"LLaMA 65B, rank 64, four bits, no tokens: {memory['llama-65b']['LoRA, all layers, 4 bits'][3]:.1f}")

# %%
verdict("C7", an_8_billion_model_fits_in_16_bits_if_recomputed=at_16["llama3-8b"][0] + extra[0] < 24,
        in_full_it_does_not=books["full"].total_bytes > 24e9,
        with_1024_tokens_kept=at_16["llama3-8b"][0] + extra[1] < 24,
        on_four_bits_it_learns_as_well=as_good,
        a_65_billion_model_fits_in_four_bits=at_16["llama-65b"][1] < 24)

# %% [markdown]
# ## Why not three times faster?
# Count the *multiply-adds* of one layer with $N \times N$ weights, for one token:
#
# - **in full**: forward $N^2$; the gradient for the input $N^2$; the gradient for $W$ another $N^2$. In all
#   $3 N^2$.
# - **LoRA**: forward $N^2$ and the input's gradient $N^2$ stay, since frozen weights still stand between
#   the loss and the layers below. $W$'s gradient is gone. Thin products come, $2 N R$ forward and $4 N R$
#   back. In all $2 N^2 + 6 N R$.
#
# So at best two thirds (Schulman et al. 2025, *LoRA Without Regret*), and three quarters where the forward
# pass is done twice: $3 N^2$ of $4 N^2$. Let PyTorch count:

# %%
def thin(x, W, A, B, scale):
    """LoRA as autograd sees it: three products forward."""
    return F.linear(x, W) + scale * F.linear(F.linear(x, A), B)


def layers_of(way, N, R=8, seed=0):
    """(what acts, what trains) of one layer."""
    torch.manual_seed(seed)
    base = nn.Linear(N, N, bias=False)
    if way == "full":
        return base, [base.weight]
    lm.attach(one := nn.Sequential(base), "0", R, 2 * R)
    A, B, W = one[0].lora_A, one[0].lora_B, base.weight
    if way == "LoRA, folded":  # the course's own layer; see below
        return lambda x: step.lora_linear(x, W, None, A, B, 2.0), [A, B]
    return lambda x: thin(x, W, A, B, 2.0), [A, B]


# %%
TIMED = ("full", "LoRA, thin", "LoRA, folded")


def multiply_adds(way, N, tokens=2048):  # a token, over N^2
    act, _ = layers_of(way, N)
    with FlopCounterMode(display=False) as counter:
        act(torch.zeros(tokens, N, requires_grad=True)).sum().backward()
    return counter.get_total_flops() / 2 / tokens / N**2


for N in (64, 256, 1024):
    print(f"N = {N:4d}: " + ", ".join(f"{way} {multiply_adds(way, N):.3f}" for way in TIMED)
          + f"; formula {2 + 6 * 8 / N:.3f}")

# %% [markdown]
# ### Exercise 2: predict, 2 minutes (second reading)
# At $N$ = 1,024: which is the first rank at which LoRA, as autograd computes it, needs as many multiply-adds
# as full training, or more?

# %% tags=["exercise"]
from lora_mini.desk.checks.nb12 import check_break_even

# <stub>
# rank = None
# </stub>
# <solution>
rank = math.ceil(1024 / 6)
# </solution>
check_break_even(rank)

# %% [markdown]
# ### And the clock?
# A whole step: forward, backward, AdamW. 2,048 tokens, rank 8, one thread, the three ways in turns; *thin* is
# LoRA as autograd computes it, *folded* the course's own layer (below).

# %%
def one_step(way, N):
    act, trains = layers_of(way, N)
    x, optimizer = torch.randn(2048, N, requires_grad=True), torch.optim.AdamW(trains, fused=True)

    def all_of_it():
        optimizer.zero_grad()
        act(x).square().mean().backward()
        optimizer.step()
    return all_of_it


# %%
def turns(acts, rounds):  # median seconds of each, one after the other
    spent = {way: [] for way in acts}
    for _ in range(rounds):
        for way, act in acts.items():
            start = time.perf_counter()
            act()
            spent[way].append(time.perf_counter() - start)
    return {way: median(times) for way, times in spent.items()}


def timed(N, rounds=9):
    return turns({way: one_step(way, N) for way in TIMED}, rounds)


# %% tags=["measured"]
WIDTHS = (64, 128, 256, 512, 1024)
with train.threads(1):
    clock = {N: timed(N) for N in WIDTHS}
for N in WIDTHS:
    print(f"N = {N:4d}: " + ", ".join(f"{way} {1000 * t:.2f} ms" for way, t in clock[N].items()))
shares = {way: [clock[N][way] / clock[N]["full"] for N in WIDTHS] for way in TIMED[1:]}
settle("12 share of a step's time", 100 * shares["LoRA, thin"][-1], unit="percent")

# %%
expect("at 1,024 LoRA, thin, takes less than full training, but more than half",
       0.5 < shares["LoRA, thin"][-1] < 1)
expect("and its advantage is smaller at 64 than at 1,024",
       shares["LoRA, thin"][0] > shares["LoRA, thin"][-1])

# %% [markdown]
# The clock stays above the count here, furthest at the narrow end. (The clock has AdamW and all that is no
# product; the count hasn't.) The paper's own figure is 43.1 in place of 32.5 tokens a second on GPT-3
# (section 4.2): a third more tokens, or 25 percent less time. Whole models, beside PEFT, are timed in
# `benchmarks/run.py`.
#
# ### Count and clock over the width (second reading)

# %% tags=["measured"]
fig, ax = axes(5.6, 3.0)
for way, marker, colour in zip(TIMED[1:], "os", (SECOND, ACCENT), strict=True):
    ax.plot(range(5), shares[way], marker + "-", color=colour, label=f"{way}: time")
    ax.plot(range(5), [multiply_adds(way, N) / 3 for N in WIDTHS], marker + ":", color=colour, mfc="none",
            label=f"{way}: count")
ax.axhline(2 / 3, color=GREY, lw=1, ls="--")
ax.text(4.05, 2 / 3, "2/3", color=GREY, va="center")
ax.axhline(1, color=GREY, lw=1)
ax.set_xticks(range(5), WIDTHS)
ax.set(xlabel="width N", ylabel="share of full training's", ylim=(0, None))
ax.legend(fontsize=8)
show(fig, "Measured here (solid) and counted (dotted): a step of one layer with LoRA, over one in full.",
     alt="At width 64 LoRA's step, thin, takes about as long as full training's or longer; with the width "
         "its share falls. The counts fall towards two thirds.")
widest = {way: share[-1] for way, share in shares.items()}

# %%
expect("at 1,024 both ways of LoRA beat full training", max(widest.values()) < 1)

# %% [markdown]
# ## The folded step, taken apart (second reading)
# The course's layers compute the step in another order (`step.py`; Cherniuk et al. 2023, *RunLoRA*). Forward
# and the input's gradient are one product each, once the update is *folded* into the weights:
#
# $$V = W + s B A, \qquad Y = X V^T, \qquad \frac{\partial L}{\partial X} = G\, V \qquad X\ (n, d_{in}),\ G\
# (n, d_{out}).$$
#
# The factors' gradients don't go over $V$. Look at $B$'s:
#
# $$\frac{\partial L}{\partial B} = s\, G^T X A^T = s\, (G^T X)\, A^T = s\, G^T (X A^T).$$
#
# The first bracket is a full weight gradient, $(d_{out}, d_{in})$: all that LoRA saves would be spent. The
# second is thin, $(n, r)$.
#
# ### Exercise 3: find the bug (4 minutes)
# `factor_gradients` is right, and slow. Why? Return the same with the fewest products.

# %% tags=["exercise"]
from lora_mini.desk.checks.nb12 import check_factor_gradients


def factor_gradients(G, X, A, B, s):  # G (n, d_out), X (n, d_in), A (r, d_in), B (d_out, r)
    # <stub>
    # D = G.T @ X  # (d_out, d_in)
    # return s * B.T @ D, s * D @ A.T  # for A, for B
    # </stub>
    # <solution>
    return s * (G @ B).T @ X, s * G.T @ (X @ A.T)
    # </solution>


check_factor_gradients(factor_gradients)

# %% [markdown]
# Folding costs $r\, d_{in} d_{out}$ whatever the number of tokens; two thin products cost $n\, r\, (d_{in} +
# d_{out})$. So in the forward pass it pays at any rank, from $d_{in} d_{out} / (d_{in} + d_{out})$ tokens on:
# half the width of a square layer. `step.folds` asks just that. Over the whole step the count says twice as
# many, about the width: $V$ is not kept, and on the way back either folded again or replaced by two thin
# products. The next cell folds always, whatever `folds` says. What does the clock say in between?

# %% tags=["measured"]
def between(n, N=512):
    x, between_ways = torch.randn(n, N, requires_grad=True), {}
    for way in TIMED[1:]:
        act, _ = layers_of(way, N)
        between_ways[way] = lambda act=act: act(x).square().mean().backward()
    return turns(between_ways, rounds=25)


with train.threads(1):
    middle = {n: between(n) for n in (64, 384, 1024)}
for n, found in middle.items():
    print(f"{n:4d} tokens, 512 x 512: folded over thin, time "
          f"{found['LoRA, folded'] / found['LoRA, thin']:.2f}, multiply-adds "
          f"{multiply_adds('LoRA, folded', 512, n) / multiply_adds('LoRA, thin', 512, n):.3f}")

# %%
expect("at twice the width folding is faster", middle[1024]["LoRA, folded"] < middle[1024]["LoRA, thin"])

# %% [markdown]
# In 16 bits the course never folds: $V$ would be rounded, and a small update swallowed.
#
# ## When one machine is not enough (second reading)
# Two processes take half of each batch and must agree on every gradient. Two ways of PyTorch's own:
# - **DDP**: each keeps the whole model; the gradients of what trains are averaged over both.
# - **FSDP2**: each keeps half of every weight. The whole of a block is gathered before it acts, and again on
#   the way back; the rest, such as the embedding, once. So frozen weights travel, too.
#
# The next cell starts two processes on your machine. They train the town's model for five steps, in full
# and with LoRA, and compare all weights with those of one process. *Gradients* and *weights* are the bytes a
# step of the whole tensors that are averaged or gathered. (`benchmarks/two_processes.py`, 150 lines.)

# %% tags=["measured"]
script = Path(lm.__file__).parents[1] / "benchmarks" / "two_processes.py"
with tempfile.TemporaryDirectory() as folder:
    out = Path(folder) / "found.json"
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script),
         "--json", str(out)], capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    found = json.loads(out.read_text("utf-8")) if out.exists() else []
if not found:
    print("it did not run here:", done.stderr.strip().splitlines()[-1:])
for row in found:
    print(f"{row['arm']:5s}{row['way']:18s} off by {row['difference']:.0e}; gradients "
          f"{row['gradients']:7,}, weights {row['parameters']:9,}")
by_way = {(row["arm"], row["way"]): row for row in found}

# %%
expect("two processes train what one trains, with DDP and FSDP2, to rounding", bool(found) and all(
    row["difference"] < 1e-5 for (_, way), row in by_way.items() if way in ("DDP", "FSDP2")))
expect("with DDP, LoRA sends less than a fifth", bool(found)
       and by_way["LoRA", "DDP"]["gradients"] < by_way["full", "DDP"]["gradients"] / 5)
expect("with FSDP2 the weights travel as before, and the factors with them", bool(found)
       and by_way["LoRA", "FSDP2"]["parameters"] >= by_way["full", "FSDP2"]["parameters"])

# %% [markdown]
# LoRA spares DDP most of the traffic. Under FSDP2 it spares little: fewer gradients, but the frozen weights
# are gathered as before, and the factors, too. (These are sizes of tensors; what a wire carries depends on
# how the averaging is done.)
#
# *Mean of means* is what you get from DDP with the usual loss, the mean over a process's own tokens: with
# unequal numbers of tokens that is another loss. The remedy: divide the sum by the tokens of *all* processes,
# and multiply by the number of processes, which the average divides by.
#
# ## From this page to a real run
# - **Weights first.** Two bytes a number, or half a byte and a little. If that does not fit on all your cards
#   together, LoRA does not help.
# - **Then activations.** They grow with batch and length, and LoRA keeps them all. Recompute them; and look
#   at the loss's logits.
# - **Time.** Two thirds bounds the multiply-adds, three quarters with recomputation. The clock may lie above,
#   where products are small, or below, where tokens are few and the optimiser's saving counts. Measure yours.
#
# ## What you have done
# - You **counted** models up to 175 billion numbers, on a device without memory.
# - You **audited** eleven figures of the paper: four agree to the digits printed; for most others we found
#   what would give them, without proof that it did; one stays open.
# - You **explained** two thirds with a count, and saw how far the clock follows it.
# - You **said** what two processes exchange: with DDP the gradients of what trains, with FSDP2 the frozen
#   weights, too (second reading).
#
# **On your own.** Add a model of yours to `SHAPES`: which numbers do you need from its configuration? And at
# which length of text do the activations above, kept with LoRA, outgrow the weights?
#
# **In practice.** Before you rent a card, count on meta: weights, then activations at *your* batch and
# length. Read in every paper which account its memory is from.
#
# **Further reading.**
# - Hu et al., *LoRA* (arXiv 2106.09685, 2021), sections 4.2 and 5.1, appendix D: the figures, in their words.
# - Schulman et al., *LoRA Without Regret* (Thinking Machines, 2025): where two thirds comes from, and when
#   LoRA equals full training.
# - Korthikanti et al., *Reducing Activation Recomputation in Large Transformer Models* (arXiv 2205.05198,
#   2022): activations, counted layer by layer.
