# %% [markdown]
# # 4. Wrap a layer, train it, merge it
#
# You will write LoRA as a PyTorch layer, fit it into a trained model, add it into the weights, and take
# it off again.
#
# At the end of this notebook you will be able to
# - **read and use** `LoRALinear`, and show that it computes what you wrote by hand in notebook 03;
# - **attach, train, merge, unmerge and detach** it, and show that the base has kept every bit;
# - **compare** five conventions for A, B and alpha, and a start that nobody notices (a second reading).
#
# You need notebook 03 and a little PyTorch: `nn.Module`, an optimiser, `backward()`. About 95 minutes to
# study; the core path about 45, the rest is marked as a second reading.

# %% [markdown]
# **Three questions before you start.** Answer aloud, then unfold.
#
# <details><summary>1. Why is the gradient of A zero at the first step? (03)</summary>
#
# It is $s\, B^\top D$, and $B$ is zero.
# </details>
# <details><summary>2. What does a model with a fresh adapter compute, and why? (03)</summary>
#
# What its base computes: $B$ is zero, and so is the update.
# </details>
# <details><summary>3. Is the matrix W itself of low rank in LoRA? (02)</summary>
#
# LoRA does not say so. Only the update is held to a low rank.
# </details>

# %%
import copy
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from lora_mini.desk import bet, expect, settle, show, verdict
from lora_mini.desk.figures import ACCENT, GREY, SECOND, axes

# %% [markdown]
# ## The layer
# `nn.Linear` holds a weight $W$ $(d_{out}, d_{in})$ and a bias. We keep it whole, as `base`, and put two
# parameters beside it:
#
# $$y = x W^\top + b + \frac{\alpha}{r}\, x A^\top B^\top$$

# %%
class LoRALinear(nn.Module):
    def __init__(self, base, rank, alpha):
        super().__init__()
        self.base = base.requires_grad_(False)  # frozen: W (d_out, d_in) and b (d_out,)
        self.scale = alpha / rank
        self.lora_A = nn.Parameter(torch.empty(rank, base.in_features))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))  # uniform in +-1/sqrt(d_in)

    def forward(self, x):  # (..., d_in) -> (..., d_out)
        thin = F.linear(x, self.lora_A)  # x A^T: (..., r)
        return self.base(x) + self.scale * F.linear(thin, self.lora_B)


# %% [markdown]
# ## The same as by hand?
# Give the layer random factors and compare it with the formulas of notebook 03, in NumPy and in double
# precision: outputs, gradient of $A$, gradient of $B$.

# %%
torch.manual_seed(0)
small = LoRALinear(nn.Linear(6, 4), rank=2, alpha=5).double()
nn.init.normal_(small.lora_B)
batch, G = torch.randn(3, 6).double(), torch.randn(3, 4).double()
small(batch).backward(G)  # G stands for dL/dy

# %%
def by_hand(layer, x, G, scale):
    W, b, A, B, x, G = (t.detach().numpy() for t in (
        layer.base.weight, layer.base.bias, layer.lora_A, layer.lora_B, x, G))
    D = G.T @ x  # (d_out, d_in)
    return x @ W.T + b + scale * x @ A.T @ B.T, scale * B.T @ D, scale * D @ A.T


by_torch = small(batch).detach(), small.lora_A.grad, small.lora_B.grad
names = "outputs", "gradient of A", "gradient of B"
for name, ours, theirs in zip(names, by_hand(small, batch, G, 5 / 2), by_torch, strict=True):
    print(f"{name:14s} equal to rounding: {np.allclose(ours, theirs, rtol=1e-12, atol=1e-14)}")

# %%
print("trainable:", [name for name, p in small.named_parameters() if p.requires_grad])
print("gradient of W:", small.base.weight.grad)

# %% [markdown]
# ## A model to adapt
# A small network learns a sine, nearly one period of it. This is our *pre-trained* model.

# %%
inputs = torch.linspace(-3, 3, 200)[:, None]  # (200, 1)


def fit(model, targets, parameters, steps=400):
    optimiser = torch.optim.Adam(parameters, lr=0.01)
    for _ in range(steps):
        loss = F.mse_loss(model(inputs), targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return loss.item()


# %% tags=["measured"]
torch.manual_seed(1)
pretrained = nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 48), nn.Tanh(), nn.Linear(48, 1))
old_job, new_job = torch.sin(inputs), torch.sin(inputs) + 0.3 * torch.relu(inputs)
loss_old = fit(pretrained, old_job, pretrained.parameters())
print(f"mean squared error on the old job: {loss_old:.5f}")

# %%
expect("the network has learned the sine: its mean squared error is below 0.001", loss_old < 1e-3)

# %% [markdown]
# The new job is the same sine, lifted by $0.3\,x$ where $x$ is positive. Only the middle layer,
# `pretrained[2]`, gets an adapter, of rank 4.
#
# ### Bet 1
# What percentage of all the model's numbers, adapter included, will train?

# %%
bet("04 percentage trained", guess=None)

# %%
model = copy.deepcopy(pretrained).requires_grad_(False)
model[2] = LoRALinear(model[2], rank=4, alpha=8)
trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
everything = sum(p.numel() for p in model.parameters())
print(f"{trained} of {everything}")

# %%
settle("04 percentage trained", 100 * trained / everything, unit="percent")

# %% [markdown]
# In large models the share is far smaller: a rank costs $r\,(d_{in} + d_{out})$, and the matrix
# $d_{in}\, d_{out}$. The wider the layers, the cheaper the rank: rank 8 is 0.4 percent of 4,096 x 4,096.

# %% [markdown]
# ### Exercise 1: predict, 2 minutes (second reading)
# Adam keeps two extra numbers for every number that it trains. How many extra numbers does it keep for
# this adapter, rank 4 on a layer from 64 to 48?

# %% tags=["exercise"]
from lora_mini.desk.checks.nb04 import check_adam_numbers

# <stub>
# extra_numbers = None  # your number
# </stub>
# <solution>
extra_numbers = 2 * 4 * (64 + 48)
# </solution>
check_adam_numbers(extra_numbers)

# %% [markdown]
# ## Train the adapter
# The optimiser gets what is not frozen. We keep a copy of all tensors from before.

# %% tags=["measured"]
before = copy.deepcopy(model.state_dict())
loss_new = fit(model, new_job, [p for p in model.parameters() if p.requires_grad])
print(f"mean squared error on the new job: {loss_new:.5f}")

# %%
expect("the adapter has learned the new job: its mean squared error is below 0.001", loss_new < 1e-3)

# %% [markdown]
# `lora_mini` has this layer with a few things more: names, patterns, dropout, merging, a strength. From here
# on we use it. It must give the same outputs with the trained factors, to rounding. (Not to the bit: for so
# many inputs it adds $B A$ to $W$ first, as that costs less.)

# %%
import lora_mini as lm

adapted = copy.deepcopy(pretrained)
print("adapted:", lm.attach(adapted, target_modules=["2"], rank=4, alpha=8))
adapted.load_state_dict(model.state_dict())
off = (adapted(inputs) - model(inputs)).abs().max().item()
print("same outputs as by hand, to less than 1e-5:", off < 1e-5)

# %% [markdown]
# `attach` freezes the model and replaces, in place, every linear layer whose name matches. (In an
# `nn.Sequential` the names are "0", "1", "2". In a language model they look like "blocks.3.q_proj", and
# "q_proj" matches every name whose last part it is.) A name that matches nothing is an error, even beside
# names that do match. (PEFT 0.21 passes over it in that case, and you train less than you think.)

# %%
try:
    lm.attach(copy.deepcopy(pretrained), ["2", "q_proj"], rank=4, alpha=8)
except ValueError as error:
    print(error)

# %% [markdown]
# ## Strength
# The update is a separate term, so it can be turned up and down after training. At strength 0 the model
# is its base.

# %%
fig, ax = axes(5.4, 3.1)
t = inputs[:, 0]
ax.plot(t, new_job[:, 0], color=GREY, lw=5, alpha=0.35)
ax.text(1.2, 1.55, "the new job", color="#555555", fontsize=8)
for strength, style in ((0, ":"), (0.5, "--"), (1, "-"), (1.5, "-.")):
    lm.set_strength(adapted, strength)
    curve = adapted(inputs).detach()[:, 0]
    ax.plot(t, curve, style, color=ACCENT if strength else SECOND)
    ax.text(3.05, curve[-1], f"strength {strength:g}", va="center", fontsize=8)
lm.set_strength(adapted, 1)
ax.set(xlabel="input", ylabel="output", xlim=(-3.1, 4.3), xticks=range(-3, 4))
show(fig, "The base is the dotted curve, the new job the broad grey one. The trained adapter at "
          "strength 1 lies on it; half of it goes part of the way, and half as much again goes too far.",
     alt="Outputs at strengths 0, 0.5, 1 and 1.5: from the sine at 0 to the new job at 1, and past it.")

# %% [markdown]
# ## The base, bit for bit
# "LoRA leaves the base alone" can be tested exactly. Compare bits, not numbers: two zeros can be equal and
# differ in their sign bit.

# %%
after = model.state_dict()


def same_bits(p, q):
    return torch.equal(p.view(torch.int32), q.view(torch.int32))


moved = {name for name in before if not same_bits(before[name], after[name])}
frozen = [p for p in model.parameters() if not p.requires_grad]
base_unchanged = all(map(same_bits, frozen, pretrained.parameters()))
print("moved in training:", sorted(moved))
print("the base is the same in every bit:", base_unchanged)

# %% [markdown]
# ## Merging
# For use, base and update can be added up into one matrix, and the layer costs what it did before:
#
# $$W_{merged} = W + \frac{\alpha}{r}\, B A \qquad (d_{out}, d_{in})$$
#
# ### Exercise 2: complete (4 minutes)
# Return the merged weight of a `lm.LoRALinear`. It has `.base.weight`, `.lora_A`, `.lora_B`, `.alpha` and
# `.rank`, and `.scaling`, which is alpha over rank, times the strength (here 1). Don't call its `.update()`.
# The frozen weight must stay as it is.

# %% tags=["exercise"]
from lora_mini.desk.checks.nb04 import check_merged_weight


def merged_weight(layer):
    # <solution>
    return layer.base.weight + layer.alpha / layer.rank * layer.lora_B @ layer.lora_A
    # </solution>


check_merged_weight(merged_weight)

# %% [markdown]
# Some libraries add the update into $W$ itself, and subtract it again to unmerge: PEFT in `merge_adapter` and
# `unmerge_adapter`, loralib when you call `.eval()` and `.train()`. In exact arithmetic that is the same.
#
# ### Bet 2
# Add the trained update to the weight in place, in float32, and subtract it again. What percentage of the
# 3,072 entries comes back different?

# %%
bet("04 percentage changed by a round trip", guess=None)

# %% tags=["measured"]
def round_trip(dtype, trips=1, growing=False):
    W, update = (t.detach().to(dtype) for t in (pretrained[2].weight, adapted[2].update()))
    if dtype == torch.float64:  # converted from float32: fill up the digits that are empty
        digits = torch.rand(W.shape, dtype=dtype, generator=torch.Generator().manual_seed(5))
        W, update = W * (1 + 1e-9 * digits), update * (1 - 1e-9 * digits)
    V = W.clone()
    for trip in range(1, trips + 1):  # growing: stands in for an adapter that trains between them
        step = update * (trip / trips) if growing else update
        V += step
        V -= step
    return 100 * (V != W).double().mean().item(), ((V - W).double().norm() / W.double().norm()).item()


how = {"one trip": (), "a hundred": (100,), "a hundred, growing": (100, True)}
back = {(kind, name): round_trip(kind, *given)  # (percentage of the entries, size of the difference)
        for kind in (torch.float64, torch.float32, torch.bfloat16) for name, given in how.items()}
settle("04 percentage changed by a round trip", back[torch.float32, "one trip"][0], unit="percent")
in_place_exact = back[torch.float32, "one trip"][0] == 0

# %%
expect("a round trip in place leaves some entries different", not in_place_exact)
expect("a hundred trips with the same update do no more than one",
       back[torch.float32, "a hundred"] == back[torch.float32, "one trip"])
expect("a hundred with a growing update do more, in entries and ten times in size",
       back[torch.float32, "a hundred, growing"][0] > back[torch.float32, "one trip"][0]
       and back[torch.float32, "a hundred, growing"][1] > 10 * back[torch.float32, "one trip"][1])

# %% tags=["measured"]
print(f"{'':37s}entries that differ   size, against W")
for (kind, name), (share, size) in back.items():
    print(f"{str(kind):15s}  {name:18s}{share:17.1f} %{size:17.0e}")
sizes = [back[kind, "a hundred, growing"][1] for kind in (torch.float32, torch.bfloat16)]
against = (adapted[2].update().norm() / pretrained[2].weight.norm()).item()
print(f"the update's own size, against W: {against:.2f}")

# %%
expect("a hundred growing trips: W off by under 1e-6 in float32, by over 0.01 in bfloat16",
       sizes[0] < 1e-6 and sizes[1] > 1e-2)

# %% [markdown]
# The share of the entries is about the same at every precision, the size is not. (Size here is the norm of
# the difference, as a part of the norm of $W$.) In float32 it is tiny; in bfloat16 one trip costs two parts
# in a thousand. With an update that grows from trip to trip, as in training, share and size both grow, in
# bfloat16 to about 3 percent. At no precision does the whole base come back. So `lora_mini` never writes into
# a frozen weight: `merge` puts the sum *beside* it, and `unmerge` drops the sum. The price is one more matrix
# in memory while it is merged.

# %%
with torch.no_grad():
    apart = adapted(inputs)
    lm.merge(adapted)
    print(f"merged: off by less than 1e-5: {(adapted(inputs) - apart).abs().max().item() < 1e-5}")
    lm.unmerge(adapted)
    print("unmerged: the same outputs as before:", torch.equal(adapted(inputs), apart))
print("the base's weight, in every bit:", same_bits(adapted[2].base.weight, pretrained[2].weight))

# %% [markdown]
# ## The first claim
# The first claim in the course's table, C1, asks for three facts. You have measured each.

# %%
verdict("C1", base_unchanged=base_unchanged, only_factors_moved=moved == {"2.lora_A", "2.lora_B"},
        in_place_round_trip_exact=in_place_exact)

# %% [markdown]
# ## Taking it off
# `detach` puts the original layers back, and what was trainable before is trainable again. `merge(model,
# keep_base=False)` is final: plain `nn.Linear` layers with the update inside. We try both on copies.

# %%
bare, final = copy.deepcopy(adapted), copy.deepcopy(adapted)
lm.detach(bare)
print("detached:", type(bare[2]).__name__, "  the base, in every bit:",
      all(map(same_bits, bare.parameters(), pretrained.parameters())),
      "  all trainable again:", all(p.requires_grad for p in bare.parameters()))
lm.merge(final, keep_base=False)
close = (final(inputs) - adapted(inputs)).abs().max().item() < 1e-5
print("final:   ", type(final[2]).__name__, "  as adapted, to rounding:", close)

# %% [markdown]
# That is the core of this notebook. The next five parts are a second reading. From here you can go to
# "What you have done".

# %% [markdown]
# ## Merging in 16 bits (second reading)
# In bfloat16 a number has eight significant bits only. Where the update is smaller than half a step of $W$,
# the sum rounds back to $W$, and that entry of the update is *swallowed*. `merge` returns the share of such
# entries. The share alone does not say how much is lost: a swallowed entry is small beside its own entry of
# $W$, but need not be small beside the rest of the update. So look at the size as well. How far is the
# update that arrived from the one that was sent?

# %% tags=["measured"]
swallowed, off = {}, {}
for case in ((torch.float32, 1), (torch.bfloat16, 1), (torch.bfloat16, 0.1), (torch.bfloat16, 0.01)):
    rough = copy.deepcopy(adapted).to(case[0])
    lm.set_strength(rough, case[1])
    swallowed[case] = lm.merge(rough)["2"]
    sent = rough[2].update().double()
    arrived = rough[2].weight.double() - rough[2].base.weight.double()
    off[case] = ((arrived - sent).norm() / sent.norm()).item()
    print(f"{str(case[0]):14s}  strength {case[1]:<4}  entries swallowed {swallowed[case]:6.1%}   "
          f"update off by {off[case]:6.1%}")

# %%
expect("float32 swallows less than a hundredth of this update", swallowed[torch.float32, 1] < 0.01)
expect("bfloat16 swallows more, and the more the fainter the update: over a fifth at strength 0.01",
       swallowed[torch.float32, 1] < swallowed[torch.bfloat16, 1] < swallowed[torch.bfloat16, 0.1]
       < swallowed[torch.bfloat16, 0.01] and swallowed[torch.bfloat16, 0.01] > 0.2)
expect("at strength 0.01 what arrives is off by more than a tenth", off[torch.bfloat16, 0.01] > 0.1)

# %% [markdown]
# ## A merged layer that is off (second reading)
# ### Exercise 3: find the bug (4 minutes)
# A layer has been merged: `merged` is its merged weight. This forward pass gives other outputs than before
# the merge. Run the cell, read the symptom, and fix it.

# %% tags=["exercise"]
from lora_mini.desk.checks.nb04 import check_merged_forward


def merged_forward(x, merged, layer):
    # <stub>
    # y = F.linear(x, merged, layer.base.bias)
    # return y + layer.scaling * F.linear(F.linear(x, layer.lora_A), layer.lora_B)
    # </stub>
    # <solution>
    return F.linear(x, merged, layer.base.bias)  # the update is in the merged weight already
    # </solution>


check_merged_forward(merged_forward)

# %% [markdown]
# ## Everybody's A and B (second reading)
# The literature agrees on the idea; layout, scale and start differ. Here are five conventions. (*rsLoRA*,
# Kalajdzievski 2023, divides alpha by $\sqrt r$ instead of $r$.) We wrote each formula ourselves, as we read
# it in its source, and we chose the translation of the factors that fits. So the last column checks our
# reading and our algebra. No library runs here.

# %%
torch.manual_seed(2)
shapes = {"W": (4, 6), "A": (2, 6), "B": (4, 2), "x": (3, 6)}  # d_out 4, d_in 6, r 2, n 3
toy = {name: torch.randn(shape).double() for name, shape in shapes.items()}
alpha, rank = 5, 2

# %%
def conventions(W, A, B, x, r):
    """Who: their A, their B, their formula."""
    plain, root = alpha / r, alpha / math.sqrt(r)
    return {
        "Hu et al. 2021": (A, B, lambda A, B: (W @ x.T + plain * B @ A @ x.T).T),
        "loralib": (A, B, lambda A, B: x @ W.T + (x @ A.T @ B.T) * plain),
        "PEFT": (A, B, lambda A, B: F.linear(x, W) + F.linear(F.linear(x, A), B) * plain),
        "rasbt": (A.T, B.T, lambda A, B: x @ W.T + plain * (x @ A @ B)),
        "PEFT, use_rslora": (A, B / math.sqrt(r),
                             lambda A, B: F.linear(x, W) + F.linear(F.linear(x, A), B) * root),
        "the same, B as is": (A, B, lambda A, B: F.linear(x, W) + F.linear(F.linear(x, A), B) * root),
    }


# %%
starts = ["Gaussian", "Kaiming, fan d_in", "Kaiming, fan d_in", "Kaiming, fan r"] + 2 * ["as PEFT"]
letter = {2: "r", 6: "d_in", 4: "d_out"}
ours = toy["x"] @ (toy["W"] + alpha / rank * toy["B"] @ toy["A"]).T
print(f"{'':19s}{'A':12s}{'B':12s}{'A starts':20s}agrees")
for (who, (A_, B_, formula)), start in zip(conventions(**toy, r=rank).items(), starts, strict=True):
    both = ["(" + ", ".join(letter[size] for size in t.shape) + ")" for t in (A_, B_)]
    print(f"{who:19s}{both[0]:12s}{both[1]:12s}{start:20s}{torch.allclose(formula(A_, B_), ours)}")

# %% [markdown]
# The last row shows that the column can say no: with rsLoRA's scale, the factors of an ordinary LoRA give
# other outputs.
#
# Sources: the paper's section 4.1; `loralib/layers.py`; PEFT's `tuners/lora/layer.py`; rasbt's
# *LLMs-from-scratch*, appendix E. "A starts" is read there, too. In each, $B$ starts at zero. The paper
# writes vectors as columns, so its $BAx$ is our $x A^\top B^\top$. (The first printing of rasbt's chapter
# scales by alpha alone; its repository now divides by the rank.) PEFT itself computes in a test of this
# course, `tests/slow/test_peft.py`: there its outputs, gradients and merged weights are held against ours.
# loralib's and rasbt's code we have only read.
#
# Two factors in a file show their layout by their shapes, if $r$ is the smallest side. Nothing in them shows
# the scale: whoever loads them has to know it.
#
# ## A start that nobody notices (second reading)
# One entry of the table is different: "Kaiming, fan r". `kaiming_uniform_` draws from $\pm 1/\sqrt{fan}$
# (with its argument `a` at $\sqrt 5$), and it takes the *second* axis for the fan. For our $A$
# $(r, d_{in})$ that is $d_{in}$. For a transposed $A$ $(d_{in}, r)$ it is $r$.
#
# ### Bet 3
# With $d_{in} = 64$ and $r = 4$: how many times as large does the transposed $A$ start?

# %%
bet("04 how much larger A starts", guess=None)

# %%
torch.manual_seed(3)
right, wrong = torch.empty(4, 64), torch.empty(64, 4)
for fresh in (right, wrong):
    nn.init.kaiming_uniform_(fresh, a=math.sqrt(5))
print(f"largest entry: {right.abs().max():.3f} and {wrong.abs().max():.3f}")

# %%
settle("04 how much larger A starts", (wrong.abs().max() / right.abs().max()).item(), unit="times")

# %% [markdown]
# The square root of $64 / 4$. Does anybody notice? The shapes are right. The first output is the base's,
# because $B$ is zero. Does the loss tell?
#
# Here are three adapters: the right start, the wrong one, and a third that has a quarter of the wrong start,
# which is as large as a right one. Under Adam, the third trains $A$ with a quarter of the rate, and $B$ with
# four times the rate.

# %%
def first_steps(A, rate_A=0.01, rate_B=0.01, steps=20):
    net = copy.deepcopy(pretrained)
    lm.attach(net, ["2"], rank=4, alpha=8)
    net[2].lora_A.data.copy_(A)
    same_start = torch.equal(net(inputs), pretrained(inputs))
    optimiser = torch.optim.Adam([{"params": [net[2].lora_A], "lr": rate_A},
                                  {"params": [net[2].lora_B], "lr": rate_B}], eps=1e-12)
    losses, sizes = [], []
    for _ in range(steps):
        loss = F.mse_loss(net(inputs), new_job)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        sizes.append(net[2].update().norm().item())
    return same_start, losses, sizes


# %% tags=["measured"]
tried = {"right": first_steps(right), "wrong": first_steps(wrong.T),
         "wrong / 4, other rates": first_steps(wrong.T / 4, rate_A=0.01 / 4, rate_B=0.01 * 4)}
for name, (_, losses, norms) in tried.items():
    print(f"{name:23s} update, step 1: {norms[0]:.3f}, 20: {norms[-1]:.3f}; "
          f"loss {losses[0]:.3f}, {losses[-1]:.3f}")

# %%
expect("all three start as the base, and their losses fall",
       all(same and losses[-1] < losses[0] for same, losses, _ in tried.values()))
expect("after one step the wrong start's update is 3 to 5 times as large as the right one's",
       3 < tried["wrong"][2][0] / tried["right"][2][0] < 5)
expect("the third is the wrong one again, step by step, to a hundredth",
       np.allclose(tried["wrong"][2], tried["wrong / 4, other rates"][2], rtol=0.01))

# %% [markdown]
# The loss falls whichever start it is. Under Adam (its $\epsilon$ next to nothing, no weight decay) a four
# times larger $A$ is the same as a right start with $B$'s rate four times larger and $A$'s four times
# smaller. With one rate for both, as usual, no rate makes up for it. Take a rate from one code into the
# other, and you train something else.
#
# ## Is this adapter sound? (second reading)
# Some broken adapters fail in silence (14 has a zoo of them). `smoke_test` runs three steps and looks from
# eight sides. It wants a function that makes a fresh model with its optimiser, and one that makes a training
# step.

# %%
from lora_mini.audit import smoke_test


def make_model(A=None):
    net = copy.deepcopy(pretrained)
    lm.attach(net, ["2"], rank=4, alpha=8)
    if A is not None:
        net[2].lora_A.data.copy_(A)
    return net, torch.optim.Adam(lm.trainable_parameters(net)[0].values(), lr=0.01)


def step(net, optimiser):
    optimiser.zero_grad()
    F.mse_loss(net(inputs), new_job).backward()
    optimiser.step()


# %% tags=["measured"]
points = smoke_test(make_model, step)
print(*points, sep="\n")
with_wrong_start = smoke_test(lambda: make_model(wrong.T), step)

# %%
expect("all eight points pass", len(points) == 8 and all(point.ok for point in points))
expect("the wrong start of above passes them too", all(point.ok for point in with_wrong_start))

# %% [markdown]
# (Merged outputs are off by nothing: for so many inputs our layer adds the update to $W$ in either case.) The
# test finds these eight faults, and no others: no layer that was left out, no alpha without its $r$, no start
# that is too large.
#
# ### Exercise 4: find the bug (5 minutes)
# Somebody has tidied up this function. Nothing crashes. Run the cell, read what the smoke test says, and
# fix it.

# %% tags=["exercise"]
from lora_mini.desk.checks.nb04 import check_set_up


def tidy_make_model():
    net = copy.deepcopy(pretrained)
    # <stub>
    # optimiser = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=0.01)
    # lm.attach(net, ["2"], rank=4, alpha=8)
    # return net, optimiser
    # </stub>
    # <solution>
    lm.attach(net, ["2"], rank=4, alpha=8)  # first attach, then ask what trains
    optimiser = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=0.01)
    return net, optimiser
    # </solution>


check_set_up(tidy_make_model, step)

# %% [markdown]
# ## What you have done
# - You **read and used** `LoRALinear`, a dozen lines, whose outputs and gradients are those of notebook 03.
# - You **attached, trained, merged, unmerged and detached** it, and every bit of the base was still there.
#   Adding in place and subtracting would have left a quarter of the entries different.
# - You **compared** five conventions (second reading), and saw a start with the wrong fan act like other
#   rates: neither the first output nor a falling loss shows it.
#
# **On your own.** Give rank 1 to all three linear layers (`"all-linear"`) instead of rank 4 to one. Fewer
# numbers train. Does it learn the new job?
#
# **In practice.** Build the optimiser after attaching. Merge for serving one adapter; keep it apart for
# swapping several. Merge in the widest type that you can afford, keep the result in it, and look at what is
# swallowed. How to save an adapter as a small file of its own is a chapter to itself, notebook 10.
#
# **Further reading.**
# - Hu et al., *LoRA* (2021), sections 4.1 and 4.2: what merging buys, and what it makes hard.
# - `huggingface/peft`, the guide *Troubleshooting*: errors, and adapters that failed in silence.
# - Raschka, *Build a Large Language Model (From Scratch)*, appendix E: the same layer in another hand.
