# %% [markdown]
# # 4. Wrap a layer, train it, merge it
#
# You will write LoRA as a PyTorch layer, fit it into a trained model, fold it into the weights, and take
# it off again.
#
# At the end of this notebook you will be able to
# - **read and use** `LoRALinear`, and show that it computes what you wrote by hand in notebook 03;
# - **attach, train, merge, unmerge and detach** it, and prove that the base never changed a bit;
# - **recognise** anybody's A, B and alpha as the same layer, and catch a start that nobody notices.
#
# You need notebook 03 and a little PyTorch: `nn.Module`, an optimiser, `backward()`. About 90 minutes to
# study.

# %% [markdown]
# **Three questions before you start.** Answer aloud, then unfold.
#
# <details><summary>1. Why does the gradient of A vanish at the first step? (03)</summary>
#
# It is $s\, B^\top D$, and $B$ is zero.
# </details>
# <details><summary>2. Under which optimiser does alpha/r make the first step independent of r? (03)</summary>
#
# Under Adam. Under SGD the first step falls like $1/r$.
# </details>
# <details><summary>3. Is the matrix W itself of low rank in LoRA? (02)</summary>
#
# LoRA does not say so. Only the change is held to a low rank.
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
# Give the layer random factors and compare with the formulas of notebook 03, in NumPy and in double
# precision: outputs, gradient of $A$, gradient of $B$.

# %%
torch.manual_seed(0)
layer = LoRALinear(nn.Linear(6, 4), rank=2, alpha=5).double()
nn.init.normal_(layer.lora_B)
x, G = torch.randn(3, 6).double(), torch.randn(3, 4).double()
layer(x).backward(G)  # G stands for dL/dy

# %%
W, b, A, B, x_, G_ = (t.detach().numpy() for t in (
    layer.base.weight, layer.base.bias, layer.lora_A, layer.lora_B, x, G))
D = G_.T @ x_  # (d_out, d_in)
pairs = {"outputs": (layer(x).detach(), x_ @ W.T + b + 5 / 2 * x_ @ A.T @ B.T),
         "gradient of A": (layer.lora_A.grad, 5 / 2 * B.T @ D),
         "gradient of B": (layer.lora_B.grad, 5 / 2 * D @ A.T)}
for name, (by_torch, by_hand) in pairs.items():
    print(f"{name:14s} equal to rounding: {np.allclose(by_torch, by_hand, rtol=1e-12)}")

# %%
print("trainable:", [name for name, p in layer.named_parameters() if p.requires_grad])
print("gradient of W:", layer.base.weight.grad)

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
loss = fit(pretrained, old_job, pretrained.parameters())
print(f"mean squared error on the old job: {loss:.5f}")

# %%
expect("the network has learned the sine: its mean squared error is below 0.001", loss < 1e-3)

# %% [markdown]
# The new job is the same sine, but rising on the right. Only the middle layer, `pretrained[2]`, gets an
# adapter, of rank 4.
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
settle("04 percentage trained", 100 * trained / everything, unit="percent")

# %% [markdown]
# In large models the share is far smaller: a rank costs $r\,(d_{in} + d_{out})$, and the matrix
# $d_{in}\, d_{out}$. The wider the layers, the cheaper the rank.
#
# ### Exercise 1: predict (2 minutes)
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

# %% tags=["measured"]
before = copy.deepcopy(model.state_dict())
loss = fit(model, new_job, [p for p in model.parameters() if p.requires_grad])
print(f"mean squared error on the new job: {loss:.5f}")

# %%
expect("the adapter has learned the new job: its mean squared error is below 0.001", loss < 1e-3)

# %% [markdown]
# `lora_mini` has this layer with a few things more: names, patterns, dropout, merging, a strength. From
# here on we use it. First, that it is the same: the trained factors, moved over, must give the same
# outputs.

# %%
import lora_mini as lm

adapted = copy.deepcopy(pretrained)
print("adapted:", lm.attach(adapted, target_modules=["2"], rank=4, alpha=8))
adapted.load_state_dict(model.state_dict())
print("same outputs as by hand:", torch.equal(adapted(inputs), model(inputs)))

# %% [markdown]
# `attach` freezes the model and replaces, in place, every linear layer whose name matches. (In an
# `nn.Sequential` the names are "0", "1", "2"; in a language model they look like "blocks.3.q_proj", and
# "q_proj" matches all that end so.) A name that matches nothing is an error, even beside names that do
# match. (PEFT 0.21 passes over it in that case, and you train less than you think.)

# %%
try:
    lm.attach(copy.deepcopy(pretrained), ["2", "q_proj"], rank=4, alpha=8)
except ValueError as error:
    print(error)

# %% [markdown]
# ## Strength
# The adapter is a separate term, so it can be turned up and down after training. At strength 0 the model
# is its base.

# %%
fig, ax = axes(5.4, 3.1)
t = inputs[:, 0]
ax.plot(t, new_job[:, 0], color=GREY, lw=5, alpha=0.35)
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
moved = {name for name in before if not torch.equal(before[name], after[name])}
frozen = [p for p in model.parameters() if not p.requires_grad]
base_unchanged = all(torch.equal(p.view(torch.int32), q.view(torch.int32))  # as raw bits
                     for p, q in zip(frozen, pretrained.parameters(), strict=True))
print("moved in training:", sorted(moved))
print("the base is the same in every bit:", base_unchanged)

# %% [markdown]
# ## Merging
# For use, the two terms can be folded into one matrix, and the layer costs what it did before:
#
# $$W_{merged} = W + \frac{\alpha}{r}\, B A \qquad (d_{out}, d_{in})$$
#
# ### Exercise 2: complete (4 minutes)
# Return the merged weight of a `lm.LoRALinear`. It has `.base.weight`, `.lora_A`, `.lora_B`, `.alpha` and
# `.rank`, and `.scaling`, which is alpha over rank. Don't call its `.update()`. The frozen weight must stay
# as it is.

# %% tags=["exercise"]
from lora_mini.desk.checks.nb04 import check_merged_weight


def merged_weight(layer):
    # <solution>
    return layer.base.weight + layer.alpha / layer.rank * layer.lora_B @ layer.lora_A
    # </solution>


check_merged_weight(merged_weight)

# %% [markdown]
# Some libraries add the update into $W$ itself, and subtract it again to unmerge (loralib does it whenever
# you call `.eval()` and `.train()`). In exact arithmetic that is the same.
#
# ### Bet 2
# Add the trained update to the weight in place, in float32, and subtract it again. What percentage of the
# 3,072 entries comes back changed?

# %%
bet("04 percentage changed by a round trip", guess=None)

# %% tags=["measured"]
def round_trip(dtype, trips=1, growing=False):
    W, update = (t.detach().to(dtype) for t in (pretrained[2].weight, adapted[2].update()))
    if dtype == torch.float64:  # converted from float32: fill up the digits that are empty
        digits = torch.rand(W.shape, dtype=dtype, generator=torch.Generator().manual_seed(5))
        W, update = W * (1 + 1e-9 * digits), update * (1 - 1e-9 * digits)
    V = W.clone()
    for trip in range(1, trips + 1):  # growing: the adapter trains between the trips
        step = update * (trip / trips) if growing else update
        V += step
        V -= step
    return 100 * (V != W).float().mean().item()


for dtype in (torch.float64, torch.float32, torch.bfloat16):
    one, hundred = round_trip(dtype), round_trip(dtype, 100)
    print(f"{str(dtype):14s}  one trip {one:4.1f} %,  a hundred {hundred:4.1f} %,  a hundred with a "
          f"growing update {round_trip(dtype, 100, growing=True):4.1f} %")
settle("04 percentage changed by a round trip", round_trip(torch.float32), unit="percent")

# %%
in_place_exact = round_trip(torch.float32) == 0
expect("a round trip in place changes some entries", not in_place_exact)
expect("a hundred trips with the same update change no more than one",
       round_trip(torch.float32, 100) == round_trip(torch.float32))
expect("a hundred with a growing update change more",
       round_trip(torch.float32, 100, growing=True) > round_trip(torch.float32))

# %% [markdown]
# The changes are tiny: last bits of the sum. But the base is no longer the base, a checksum says so, and
# they pile up when the adapter trains between the trips. So `lora_mini` never writes into a frozen weight: `merge` puts the sum *beside* it, and `unmerge` drops
# the sum. The price is one more matrix in memory for as long as it is merged. (Should you train while
# merged, the sum is formed anew at each step, so the gradients are right.)

# %%
with torch.no_grad():
    apart = adapted(inputs)
    lm.merge(adapted)
    print(f"merged: off by less than 1e-5: {(adapted(inputs) - apart).abs().max().item() < 1e-5}")
    lm.unmerge(adapted)
    print("unmerged: the same bits as before:", torch.equal(adapted(inputs), apart))

# %% [markdown]
# In bfloat16 a number has eight significant bits only. Where the update is smaller than half a step of $W$,
# the sum rounds back to $W$, and that entry of the update is *swallowed*. `merge` returns the share of such
# entries. Each is small beside its own entry of $W$, but need not be small beside the rest of the update.
# So look at the whole as well: how far is the update that arrived from the one that was sent?

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
bf16 = [swallowed[torch.bfloat16, strength] for strength in (1, 0.1, 0.01)]
expect("bfloat16 swallows more, and the more the fainter the update: over a fifth at strength 0.01",
       swallowed[torch.float32, 1] < bf16[0] < bf16[1] < bf16[2] and bf16[2] > 0.2)
expect("at strength 0.01 what arrives is off by more than a tenth", off[torch.bfloat16, 0.01] > 0.1)

# %% [markdown]
# ### Exercise 3: find the bug (4 minutes)
# A layer has been merged: `merged` is its merged weight. This forward pass gives other outputs than before
# the merge. Mend it.

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
# Now the first claim in the course's table, C1, can be judged. The table asks for three facts, and you
# have measured each.

# %%
verdict("C1", base_unchanged=base_unchanged, only_factors_moved=moved == {"2.lora_A", "2.lora_B"},
        in_place_round_trip_exact=in_place_exact)

# %% [markdown]
# ## Everybody's A and B
# The literature agrees on the idea, and on little else. Here are five conventions, each with its own
# formula, written out from its source. With our factors translated into theirs, all must give our outputs.

# %%
torch.manual_seed(2)
d_in, d_out, r, alpha = 6, 4, 2, 5
W, A, B, x = (torch.randn(s).double() for s in ((d_out, d_in), (r, d_in), (d_out, r), (3, d_in)))

# %%
conventions = {  # who: their A, their B, their formula for a batch x (n, d_in)
    "Hu et al. 2021": (A, B, lambda A, B: (W @ x.T + alpha / r * B @ A @ x.T).T),
    "loralib": (A, B, lambda A, B: x @ W.T + (x @ A.T @ B.T) * (alpha / r)),
    "PEFT": (A, B, lambda A, B: F.linear(x, W) + F.linear(F.linear(x, A), B) * (alpha / r)),
    "rasbt": (A.T, B.T, lambda A, B: x @ W.T + alpha / r * (x @ A @ B)),
    "PEFT, use_rslora": (A, B / math.sqrt(r), lambda A, B: F.linear(x, W) + F.linear(
        F.linear(x, A), B) * (alpha / math.sqrt(r))),
}
ours = x @ W.T + alpha / r * x @ A.T @ B.T

# %%
starts = {"Hu et al. 2021": "Gaussian", "loralib": "Kaiming, fan d_in", "rasbt": "Kaiming, fan r",
          "PEFT": "Kaiming, fan d_in", "PEFT, use_rslora": "Kaiming, fan d_in"}
print(f"{'':18s}{'A':14s}{'B':14s}{'A starts (source)':20s}same outputs as ours")
for who, (A_, B_, formula) in conventions.items():
    letter = {r: "r", d_in: "d_in", d_out: "d_out"}
    shapes = ["(" + ", ".join(letter[size] for size in t.shape) + ")" for t in (A_, B_)]
    same = torch.allclose(formula(A_, B_), ours)
    print(f"{who:18s}{shapes[0]:14s}{shapes[1]:14s}{starts[who]:20s}{same}")

# %% [markdown]
# Sources: the paper's section 4.1; `loralib/layers.py`; PEFT's `tuners/lora/layer.py`; rasbt's
# *LLMs-from-scratch*, appendix E. In each, $B$ starts at zero. The paper writes vectors as columns, so
# its $BAx$ is our $x A^\top B^\top$. (The first printing of rasbt's chapter scales by alpha alone; its
# repository now divides by the rank.) The two factors in a file say none of this: whoever loads them has
# to know the convention, and the scale. The tests of this course compare with PEFT itself.
#
# ## A start that nobody notices
# One entry stands out: "Kaiming, fan r". `kaiming_uniform_` draws from $\pm 1/\sqrt{fan}$ (with its
# argument `a` at $\sqrt 5$), and it takes the *second* axis for the fan. For our $A$ $(r, d_{in})$ that
# is $d_{in}$. For a transposed $A$ $(d_{in}, r)$ it is $r$.
#
# ### Bet 3
# With $d_{in} = 64$ and $r = 4$: how many times larger does the transposed $A$ start?

# %%
bet("04 how much larger A starts", guess=None)

# %%
torch.manual_seed(3)
right, wrong = torch.empty(4, 64), torch.empty(64, 4)
for A in (right, wrong):
    nn.init.kaiming_uniform_(A, a=math.sqrt(5))
print(f"largest entry: {right.abs().max():.3f} and {wrong.abs().max():.3f}")
settle("04 how much larger A starts", (wrong.abs().max() / right.abs().max()).item(), unit="times")

# %% [markdown]
# The square root of $64 / 4$. Does anybody notice? The shapes are right. The first output is the base's,
# because $B$ is zero. The loss falls. Only the *size* of the first update differs:

# %%
def first_update(A, rate=0.01):
    net = copy.deepcopy(pretrained)
    lm.attach(net, ["2"], rank=4, alpha=8)
    net[2].lora_A.data.copy_(A)
    same_start = torch.equal(net(inputs), pretrained(inputs))
    optimiser = torch.optim.Adam([net[2].lora_A, net[2].lora_B], lr=rate)
    F.mse_loss(net(inputs), new_job).backward()
    optimiser.step()
    return same_start, net[2].update().norm().item()


# %% tags=["measured"]
(start_right, size_right), (start_wrong, size_wrong) = first_update(right), first_update(wrong.T)
print("starts as the base:", start_right, start_wrong)
print(f"size of the first update: {size_right:.3f} and {size_wrong:.3f}")

# %%
expect("both start as the base, and the first updates differ by a factor of 3 to 5",
       start_right and start_wrong and 3 < size_wrong / size_right < 5)

# %% [markdown]
# Under Adam a four times larger $A$ acts like a right start with $B$'s rate four times larger and $A$'s four
# times smaller. It is a bug only if you take a rate from one code into the other, which is easily
# done.
#
# ## Is this adapter sound?
# Many broken adapters fail in silence: they train, and the loss even falls. `smoke_test` runs three steps
# and looks from eight sides. It wants a function that makes a fresh model with its optimiser, and one that
# makes a training step.

# %%
from lora_mini.audit import smoke_test


def make_model():
    net = copy.deepcopy(pretrained)
    lm.attach(net, ["2"], rank=4, alpha=8)
    return net, torch.optim.Adam(lm.trainable_parameters(net)[0].values(), lr=0.01)


def step(net, optimiser):
    optimiser.zero_grad()
    F.mse_loss(net(inputs), new_job).backward()
    optimiser.step()


# %% tags=["measured"]
points = smoke_test(make_model, step)
print(*points, sep="\n")

# %%
expect("all eight points pass", len(points) == 8 and all(point.ok for point in points))
print("(The wrong start of above would pass too: no test of a few steps can know your rate.)")

# %% [markdown]
# ### Exercise 4: find the bug (5 minutes)
# Somebody tidied up and moved a line. Nothing crashes. Run the cell, read what the smoke test says, and
# put it right.

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
# ## Taking it off
# `detach` puts the original layers back, and what was trainable before is trainable again. For good,
# there is `merge(model, keep_base=False)`: plain `nn.Linear` layers with the update inside, and no way
# back.

# %%
final = copy.deepcopy(adapted)
lm.merge(final, keep_base=False)
lm.detach(adapted)
base = pretrained(inputs)
print("detached:", type(adapted[2]).__name__, "  the base again:", torch.equal(adapted(inputs), base))
close = (final(inputs) - apart).abs().max().item() < 1e-5
print("final:   ", type(final[2]).__name__, "  as adapted, to rounding:", close)

# %% [markdown]
# ## What you have done
# - You **read and used** `LoRALinear`, a dozen lines, whose outputs and gradients are those of notebook 03.
# - You **attached, trained, merged, unmerged and detached** it, and every bit of the base was still there.
#   Adding in place and subtracting would have changed some.
# - You **recognised** five conventions as one layer, and caught a start with the wrong fan, which changes
#   the rates and does not show in the first output.
#
# **On your own.** Give rank 1 to all three linear layers (`"all-linear"`) instead of rank 4 to one. Fewer
# numbers train. Does it learn the new job?
#
# **In practice.** Build the optimiser after attaching. Merge for serving one adapter; keep it apart for
# swapping several. Merge in the widest type that you can afford, and look at what is swallowed. How to
# save an adapter as a small file of its own is a chapter to itself, still to come.
#
# **Further reading.**
# - Hu et al., *LoRA* (2021), section 4.2: what merging buys, and what it makes impossible.
# - `huggingface/peft`, the guide *Troubleshooting*: a list of adapters that failed in silence.
# - Raschka, *Build a Large Language Model (From Scratch)*, appendix E: the same layer in another hand.
