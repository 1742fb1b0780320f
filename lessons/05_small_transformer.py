# %% [markdown]
# # 5. Build a small transformer and teach it to speak
#
# You will build a language model by hand, teach it the language of a little town, and know exactly how
# good it could be.
#
# At the end of this notebook you will be able to
# - **read** the town's language, and work out by hand how well any model can do on it;
# - **build** a small transformer, and check its parts against PyTorch's own;
# - **train** it from nothing until it is close to the best possible, and **say** what it knows and what it
#   does not.
#
# You need notebook 04 and the idea of next-word prediction. About 65 minutes to study; the core path about
# 45, the rest is marked as a second reading.

# %% [markdown]
# **Three questions before you start.** Answer aloud, then unfold.
#
# <details><summary>1. What does <code>attach</code> do to a model? (04)</summary>
#
# It freezes everything and puts a `LoRALinear` around each linear layer whose name matches.
# </details>
# <details><summary>2. Which numbers train in LoRA, and how many are there in a layer? (03)</summary>
#
# $A$ and $B$: $r\,(d_{in} + d_{out})$ numbers.
# </details>
# <details><summary>3. When do many small singular values hurt a truncation? (02)</summary>
#
# When their squares add up to a lot: the error is the root of the sum of the squares that you drop.
# </details>

# %%
import math
from textwrap import fill

import torch
import torch.nn.functional as F
from torch import nn

from lora_mini.desk import bet, expect, settle, show

# %%
from lora_mini.desk.figures import ACCENT, GREY, SECOND, axes
from lora_mini.world import base, measure, text, town, train
from lora_mini.world.styles import REGISTERS, STYLES

# %% [markdown]
# ## A town that speaks
# Real text has to be downloaded, and nobody knows how well it can be predicted. So we use a language of
# our own. Each sentence in it tells of one thing that happens: somebody does something, for somebody,
# somewhere, at some time. Such a list of words is a *frame*:

# %%
frame = town.sample_frames(1, seed=1)[0]
print(" ".join(frame))

# %% [markdown]
# A *style* puts a frame into words. The town has twelve styles. They differ in voice, in the order of the
# parts, in the small words, and in how a sentence begins and ends.

# %%
for name in ("plain", "herald", "diary", "gossip"):
    print(fill(f"{name:8s} {town.best(frame, STYLES[name])}", 78, subsequent_indent=" " * 9))

# %% [markdown]
# The model reads the name of a style and a frame, and must write the sentence. (The LoRA paper has a task
# of this kind, E2E, in its section 5.4.) Chance decides three things: whether there is an adjective,
# whether "around" stands in place of "at", and whether the closing words come. So there are eight ways to
# say one frame.
#
# ### Exercise 1: predict (2 minutes)
# In the herald's style the adjective comes with a chance of 0.3, "around" with 0.2, the closing with 0.7,
# independently of each other. What is the chance of the sentence **with** the adjective, with **"at"**, and
# **with** the closing? Give three decimals.

# %% tags=["exercise"]
from lora_mini.desk.checks.nb05 import check_chance

# <stub>
# chance = None  # your number
# </stub>
# <solution>
chance = 0.3 * (1 - 0.2) * 0.7
# </solution>
check_chance(chance)

# %%
for sentence in town.sentences(frame, STYLES["herald"]):
    print(fill(sentence, 78, subsequent_indent="    "))

# %% [markdown]
# ## The floor
# A model is graded by $-\log p$ of each word that really came, in *nats* (with the natural logarithm). A
# model that is sure and right pays 0. But nobody can foresee chance. Whether an adjective comes, with a
# chance of 0.3, costs
#
# $$H(0.3) = -0.3 \log 0.3 - 0.7 \log 0.7 = 0.61 \text{ nats on average.}$$
#
# This is the *entropy* of that choice. Add the three entropies, divide by the average number of words, and
# you have the *floor*: what the best possible model still pays. Words that follow from the frame cost
# nothing. The herald says 19 words, on average 0.3 adjectives and 0.7 closings of two words, and one
# `<end>`.

# %%
def H(p):
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


herald = STYLES["herald"]
by_hand = (H(0.3) + H(0.2) + H(0.7)) / (19 + 0.3 + 0.7 * 2 + 1)
print(f"by hand {by_hand:.4f}   by the package {town.entropy(herald):.4f}   nats per token")

# %% [markdown]
# From now on we measure the *excess*: the nats per token that a model pays above what the same sentences
# cost somebody who knows all the chances. Zero is perfect. On a small sample it can be a little below zero,
# by luck. (Both sides read the same sentences, so that a lucky or unlucky sample shifts both.)

# %%
floor = town.entropy(list(STYLES.values()))
print(f"all twelve styles together: floor {floor:.4f} nats per token, {len(text.VOCABULARY)} words")

# %% [markdown]
# ## Words as numbers
# Each word is a *token*, a number. A batch holds rows of tokens: prompt, sentence, end, and padding that
# makes all rows equally long. A *mask* says where the loss counts: on the sentence and its end. It does not
# count on the prompt, which is given, and not on the padding.

# %%
batch = text.batch(town.sample_frames(2, seed=1), [herald, STYLES["plain"]])
for token, counts in list(zip(batch.tokens[1].tolist(), batch.mask[1].tolist(), strict=True))[:13]:
    print(f"{text.VOCABULARY[token]:8s} token {token:3d}   counts {counts:.0f}")

# %% [markdown]
# For each position the model gives a score to every word: these are its *logits*. The softmax turns them into
# its $p$. The scores at position $t$ are about the word at $t + 1$, so the targets are shifted by one:

# %%
shipped = base.load_base("cpu", base.SHIPPED)  # a trained model of this kind, to look at
logits = shipped(batch.tokens[:, :-1])  # (B, T - 1, V)
each = F.cross_entropy(logits.flatten(0, 1), batch.tokens[:, 1:].flatten(), reduction="none")
each = each.view(2, -1).detach()  # -log p of every token but the first: (B, T - 1)
print("logits", tuple(logits.shape), "  losses", tuple(each.shape))

# %% [markdown]
# ### Exercise 2: find the bug, 4 minutes (second reading)
# Here `each` and `mask` have the same shape, $(B, T)$. The function runs without an error and returns one
# number. But what is it the mean of? Correct it.

# %% tags=["exercise"]
from lora_mini.desk.checks.nb05 import check_sentence_loss


def sentence_loss(each, mask):
    # <stub>
    # return each.mean()
    # </stub>
    # <solution>
    return (each * mask).sum() / mask.sum()
    # </solution>


check_sentence_loss(sentence_loss)

# %% [markdown]
# ## Attention
# The next word depends on several earlier ones. *Attention* lets each position collect from the positions
# before it. Every position has a *query* (what am I looking for?), a *key* (what do I offer?) and a *value*
# (what do I pass on?), each a linear map of its vector. For one head of size $d$, with $T$ positions:
#
# $$\text{weights} = \mathrm{softmax}\!\left(\frac{Q K^\top}{\sqrt d}\right) \ (T, T), \qquad
#   \text{out} = \text{weights}\; V \ (T, d)$$
#
# $Q$, $K$, $V$ are $(T, d)$. Row $t$ of the weights says how much position $t$ takes from each position.
# A language model must not look at words that come later. So the weights of later positions are set to zero:
# their scores become $-\infty$ before the softmax. (A score is a sum of $d$ products, so it is divided by
# $\sqrt d$.) Several small *heads* beside each other can look for several things at once.

# %% [markdown]
# ### Exercise 3: complete, 3 minutes (second reading)
# Return a $(T, T)$ table of `True` and `False`: may row $t$ look at column $s$?

# %% tags=["exercise"]
from lora_mini.desk.checks.nb05 import check_causal


def causal(T):
    # <solution>
    return torch.ones(T, T).tril().bool()  # lower triangle: s <= t
    # </solution>


check_causal(causal)

# %% [markdown]
# ### Attention in code
# The formula, for all heads of a batch at once. PyTorch has the same as one function: compare.

# %%
def attend(q, k, v):  # each (B, H, T, d)
    T, d = q.shape[-2:]
    scores = q @ k.transpose(-2, -1) / math.sqrt(d)  # (B, H, T, T)
    future = torch.ones(T, T, device=q.device).triu(1).bool()
    return scores.masked_fill(future, -math.inf).softmax(-1) @ v  # (B, H, T, d)


torch.manual_seed(0)
q, k, v = torch.randn(3, 2, 4, 5, 8)  # B = 2, H = 4 heads, T = 5, d = 8
print("as PyTorch's own:", torch.allclose(
    attend(q, k, v), F.scaled_dot_product_attention(q, k, v, is_causal=True), atol=1e-6))

# %% [markdown]
# ## A block
# A *block* is attention, then a small network that is applied to each position. Both read a normalised copy
# of their input, and *add* their result to the input. *LayerNorm* does the normalising: it brings the
# numbers of one position to mean 0 and spread 1, then gives each a trained scale and shift. *GELU* stands
# between the two layers of the network: it lets large positive numbers through, and turns very negative
# ones into almost 0. Every map in a block is an `nn.Linear` of its own; that will make it easy to adapt.

# %%
class Block(nn.Module):
    def __init__(self, C, heads):
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(C), nn.LayerNorm(C)
        self.q_proj, self.k_proj = nn.Linear(C, C), nn.Linear(C, C)
        self.v_proj, self.o_proj = nn.Linear(C, C), nn.Linear(C, C)
        self.up_proj, self.down_proj = nn.Linear(C, 4 * C), nn.Linear(4 * C, C)

    def forward(self, x):  # (B, T, C)
        B, T, C = x.shape
        normed = self.norm_1(x)
        q, k, v = (proj(normed).view(B, T, self.heads, -1).transpose(1, 2)  # (B, H, T, C / H)
                   for proj in (self.q_proj, self.k_proj, self.v_proj))
        x = x + self.o_proj(attend(q, k, v).transpose(1, 2).reshape(B, T, C))
        return x + self.down_proj(F.gelu(self.up_proj(self.norm_2(x))))


# %% [markdown]
# The whole model: look up a vector for each token and one for each place in the row, and add them. Run the
# blocks. Then a last linear layer, the *head*, gives a score to each word.

# %%
class SmallGPT(nn.Module):
    def __init__(self, V, context, C, layers, heads):
        super().__init__()
        self.embed, self.place = nn.Embedding(V, C), nn.Embedding(context, C)
        self.blocks = nn.ModuleList(Block(C, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(C), nn.Linear(C, V, bias=False)

    def forward(self, tokens):  # (B, T) -> (B, T, V)
        x = self.embed(tokens) + self.place.weight[:tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


# %% [markdown]
# ### Check the whole model
# The package has the same model in `lora_mini.world.gpt`, with a cache and checks. Load its trained weights
# into ours, and compare. Then change all words from position 12 on: which predictions change?

# %%
c = shipped.config
ours = SmallGPT(c.vocabulary, c.context, c.d_model, c.layers, c.heads)
ours.load_state_dict({name.replace("attention.", ""): w for name, w in shipped.state_dict().items()})
tokens = batch.tokens[:, :20]
print("same logits:", torch.allclose(ours(tokens), shipped(tokens), atol=1e-4))

# %%
changed = tokens.clone()
changed[:, 12:] = 3
same = torch.isclose(ours(tokens), ours(changed), atol=1e-5).all(-1).all(0)
print("unmoved:", same.nonzero()[:, 0].tolist())

# %% [markdown]
# The predictions at positions 0 to 11 don't change: they can't know what comes later.

# %% [markdown]
# ## From nothing
# ### Bets 1 and 2
# A fresh model now reads 300 batches of 64 sentences in all twelve styles. After that:
# 1. How large is its excess, in percent of the floor?
# 2. What percentage of new frames does it put into words **exactly** (the most probable sentence, word
#    for word)?

# %%
bet("05 percent above the floor", guess=None)
bet("05 percent exact", guess=None)

# %% tags=["measured"]
from lora_mini.world.make_base import make_base

preset = train.preset()  # "laptop"; on an NVIDIA GPU "gpu", with a larger model
fresh, history = make_base(preset, steps=300 if preset == "laptop" else None)
if preset == "gpu" and history.whole:  # kept in your folder, for the notebooks to come
    base.save_base(fresh, base.base_path(preset), command="notebook 05", seed=0)
score = measure.evaluate(fresh, list(STYLES.values()), n=300)
print(f"excess {score.excess:.4f} nats per token, exact {score.exact:.3f}")
settle("05 percent above the floor", 100 * score.excess / floor, unit="percent", within=0.5,
       of=history)
settle("05 percent exact", 100 * score.exact, unit="percent", within=0.05, of=history)

# %%
expect("the fresh model is within 20 percent of the floor", score.excess < 0.2 * floor, of=history)
expect("it is exact on more than nine new frames in ten", score.exact > 0.9, of=history)

# %% [markdown]
# ### The training, step by step (second reading)

# %%
fig, ax = axes(5.4, 3.0)
ax.plot(history.losses, color=ACCENT, lw=1)
ax.axhline(floor, color=SECOND, ls="--")
ax.text(2, floor * 1.12, f"floor: {floor:.3f}", color=SECOND)
ax.set(xlabel="step", ylabel="loss, nats per token", yscale="log")
show(fig, "The loss of each batch falls, and then stays close to the floor. No model can stay below it.",
     alt=f"Loss on a log scale falling from about {math.log(len(text.VOCABULARY)):.0f} nats to near the "
         f"floor of {floor:.3f}.")

# %% [markdown]
# `make_base` calls `train.fit`, a training loop like those you know. Its optimiser, *AdamW*, divides each
# number's step by the recent size of its gradients, so that all numbers move at a similar pace. For this it
# keeps two more numbers for each one that trains. *Warm-up* means that the rate starts near 0 and rises
# during the first steps; then it falls along half a cosine.

# %% [markdown]
# ### The model that comes with the course
# The course comes with the same model after 1,200 steps, so that you can open any notebook without running
# this one. The command `python -m lora_mini.world.make_base` made it, and makes it again in about a minute.

# %%
model = base.load_base(path=base.SHIPPED)
shipped_score = measure.evaluate(model, list(STYLES.values()), n=600, seed=3)

# %%
expect("the shipped base is within 5 percent of the floor", shipped_score.excess < 0.05 * floor)
expect("and exact on more than 99 new frames in a hundred", shipped_score.exact > 0.99)

# %% [markdown]
# ## What it knows
# Let it speak. *Greedy* decoding takes the most probable word each time. With a *temperature* of 1 it draws
# each word with the model's own chances.

# %%
def say(style, temperature=0.0, seed=0):
    start = torch.tensor([text.encode(town.prompt(frame, style))], device=train.device())
    draw = torch.Generator().manual_seed(seed)
    return text.decode(model.generate(start, 30, temperature=temperature, generator=draw)[0].tolist())


print(fill(say(herald), 78))

# %% [markdown]
# That is the most probable sentence of the eight.

# %% [markdown]
# ### Does it know the chances? (second reading)
# Draw 1,600 sentences and count how often each of the eight comes. (Each new word needs the keys and values
# of all words before it. The package's `generate` keeps them in a *cache* and does not compute them again.)

# %% tags=["measured"]
from collections import Counter

start = torch.tensor([text.encode(town.prompt(frame, herald))] * 1600, device=train.device())
drawn = model.generate(start, 30, temperature=1.0, generator=torch.Generator().manual_seed(0))
counts = Counter(text.decode(row) for row in drawn.tolist())
truth = town.sentences(frame, herald)
for sentence, p in truth.items():
    short = sentence[17:].replace(" was counted by our pilot for our nurse", " ...")
    print(f"true {p:.3f} drawn {counts[sentence] / 1600:.3f}  {short}")
impossible = 1600 - sum(counts[sentence] for sentence in truth)
print(f"impossible sentences: {impossible} of 1600")

# %%
expect("no more than one drawn sentence in twenty is impossible", impossible <= 80)
expect("each of the eight is drawn between half and twice as often as its chance says",
       all(0.5 * p < counts[s] / 1600 < 2 * p for s, p in truth.items()))

# %% [markdown]
# *Exact* asks only for the most probable words. The excess asks for all the chances. So a model can be exact
# nearly always, and still have an excess of some percent of the floor.

# %% [markdown]
# ## What it doesn't know
# The town also has three *registers*: medical, legal and support. They use only words and constructions that
# the model has seen, in combinations that it has not seen.
#
# ### Bet 3
# How large is its excess in the legal register, in nats per token? (A model that knows nothing at all, and
# gives each of the 152 words the same chance, pays 5.)

# %%
bet("05 excess in the legal register", guess=None)

# %%
legal = measure.evaluate(model, REGISTERS["legal"], n=200)

# %%
settle("05 excess in the legal register", round(legal.excess, 1), unit="nats per token")

# %%
for label, sentence in (("asked for:", town.best(frame, REGISTERS["legal"])),
                        ("it answers:", say(REGISTERS["legal"]))):
    print(fill(f"{label:12s}{sentence}", 78, subsequent_indent=" " * 12))

# %% [markdown]
# The model knows all the words. But no example has shown it how the legal register puts them together.
# Fine-tuning gives it such examples.

# %% [markdown]
# ### The excess in every style (second reading)

# %%
excess = {name: measure.evaluate(model, style, n=100).excess
          for name, style in (STYLES | REGISTERS).items()}
fig, ax = axes(6.2, 3.2)
colours = [GREY if name in STYLES else ACCENT for name in excess]
ax.scatter(range(len(excess)), excess.values(), color=colours, zorder=3)
ax.set_xticks(range(len(excess)), excess, rotation=55, ha="right")
ax.axhline(floor, color=SECOND, ls="--")
ax.text(-0.4, floor * 1.4, "as large as the floor itself", color=SECOND)
ax.set_yscale("symlog", linthresh=1e-3)
ax.set(ylabel="excess, nats per token", ylim=(-2e-3, 20))
show(fig, "The excess in each style (linear below 0.001, logarithmic above). The model has read the twelve "
          "grey styles. It has not read the three blue ones, and there its excess is about a thousand times "
          "as large.",
     alt="Dots: twelve styles near zero, far below the floor; medical, legal and support above "
         f"{math.floor(min(excess[n] for n in REGISTERS))} nats.")

# %% [markdown]
# ## What you have done
# - You **read** the town's language, and worked out its floor from three chances.
# - You **built** a small transformer; its attention gives the same as PyTorch's, and its logits are the
#   package's too.
# - You **trained** a model from nothing until it was close to the floor, and **said** what it knows (twelve
#   styles) and what it does not (three registers that are made of the same words).
#
# **On your own.** Train on a single style: `narrow, _ = make_base(styles=["plain"], steps=300)`. What does
# `measure.evaluate(narrow, STYLES["herald"])` say? You will meet such a base again.
#
# **In practice.** With real text you don't know the floor. Then a loss by itself says little; compare it
# with another model on the same text.
#
# **Further reading.**
# - Vaswani et al., *Attention is all you need* (2017), section 3.2: attention in one page.
# - Karpathy, *minGPT* (2020): a transformer of this kind in one readable file.
# - Novikova, Dušek and Rieser, *The E2E dataset* (2017): the real task that ours imitates.
