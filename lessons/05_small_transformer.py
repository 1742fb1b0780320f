# %% [markdown]
# # 5. Build a small transformer and teach it to speak
#
# You will build a language model by hand, teach it the language of a little town, and know exactly how
# good it could be.
#
# At the end of this notebook you will be able to
# - **read** the town's language, and work out by hand how well any model can do on it;
# - **measure** what a model pays above that, in two parts: content and chance;
# - **build** a small transformer, and check its attention against PyTorch's own, the whole against the
#   package's;
# - **train** its twin from nothing until it is close to the best possible, and **say** what it knows and what
#   it does not.
#
# You need notebook 04 and the idea of next-word prediction. About 75 minutes to study; the core path about
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
import random
from collections import Counter
from textwrap import fill

import torch
import torch.nn.functional as F
from torch import nn

# %%
from lora_mini.desk import bet, expect, settle, show
from lora_mini.desk.figures import ACCENT, GREY, SECOND, axes
from lora_mini.world import base, measure, text, town, train
from lora_mini.world.gpt import GPT
from lora_mini.world.styles import ANY, REGISTERS, STYLES, under

# %% [markdown]
# ## A town that speaks
# Nobody knows how well real text can be predicted. So we use a language of our own. Each sentence tells of
# one thing: somebody does something, for somebody, somewhere, at some time. Such a list of words is a
# *frame*:

# %%
frame = town.sample_frames(1, seed=1)[0]
print(" ".join(frame))

# %% [markdown]
# A *style* puts a frame into words. The town has twelve. They differ in voice (active or passive), in the
# order of the parts, in the determiner (the, our, this), in the one adjective that they use, and in how a
# sentence opens and closes.

# %%
for name in ("plain", "herald", "diary", "gossip"):
    print(fill(f"{name:8s} {town.best(frame, STYLES[name])}", 78, subsequent_indent=" " * 9))

# %% [markdown]
# The model reads a *prompt*: a tag, a frame, `<sep>`. Then it must write the sentence. (The LoRA paper has a
# task of this kind, E2E, in its section 5.4.) For half of the sentences that it reads in training, the tag
# names their style. For the other half it is `<any>`, which names none: any of the twelve may come.

# %%
herald = STYLES["herald"]
print(town.prompt(frame, herald))
print(town.prompt(frame, under(herald, ANY)))

# %% [markdown]
# Chance decides three things: whether the adjective comes, whether "around" stands in place of "at", and
# whether the closing words come. So one style has eight ways to say a frame (four, if it has no closing). The
# odds are the same in all styles, and under `<any>` all styles are equally likely.
#
# ### Exercise 1: predict (2 minutes)
# The adjective comes with a chance of 0.3, "around" with 0.2, the closing with 0.7, independently of each
# other. What is the chance of the sentence **with** the adjective, with **"at"**, and
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

# %% [markdown]
# The eight, each with its chance. In brackets: the words about which chance decides. All others follow from
# the prompt and from what was said before.

# %%
said = text.sayings([frame], herald)  # tokens (8, T), p (8,), truth (8, T)
for row, p, truth in zip(said.tokens, said.p, said.truth, strict=True):
    words = [text.VOCABULARY[t] if log == 0 else f"[{text.VOCABULARY[t]}]"
             for t, log in zip(row, truth, strict=True) if not log.isnan()]  # no prompt, no padding
    print(f"{p:.3f}", fill(" ".join(words), 72, subsequent_indent=" " * 6))

# %% [markdown]
# ## The floor
# A model is graded by $-\log p$ of each word that really came, in *nats* (with the natural logarithm). A
# model that is sure and right pays 0. But nobody can foresee chance. Whether an adjective comes, with a
# chance of 0.3, costs
#
# $$H(0.3) = -0.3 \log 0.3 - 0.7 \log 0.7 = 0.61 \text{ nats on average.}$$
#
# This is the *entropy* of that choice. Other odds cost more: who says 0.1 pays $-0.3 \log 0.1 - 0.7 \log 0.9
# = 0.76$, who says 0.5 pays 0.69. Add the three entropies, divide by the average number of words, and you
# have the *floor*: what the best possible model still pays. Words that follow from the frame cost nothing.
# The herald says 19 words, on average 0.3 adjectives and 0.7 closings of two words, and one `<end>`: 21.7
# tokens. (A *token* is a word or a mark.)

# %%
def H(p):
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


tokens = 19 + 0.3 + 0.7 * 2 + 1
by_hand = (H(0.3) + H(0.2) + H(0.7)) / tokens
print(f"by hand {by_hand:.4f}   by the package {town.entropy(herald):.4f}   nats per token")

# %%
vocabulary, floor = len(text.VOCABULARY), town.entropy(list(STYLES.values()))
print(f"all twelve styles, entropies over tokens: floor {floor:.4f}; {vocabulary} words and marks")

# %% [markdown]
# ## Words as numbers
# Each token is a number. A batch holds rows of tokens: prompt, sentence, end, and padding that makes all rows
# equally long. A *mask* says where the loss counts: on the sentence and its end alone.

# %%
batch = text.batch(town.sample_frames(2, seed=1), [herald, STYLES["plain"]])
rows = list(zip(batch.tokens[1].tolist(), batch.mask[1].tolist(), strict=True))
for token, counts in rows[5:12] + rows[-5:]:
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
# Here `each` and `mask` have the same shape, $(B, T - 1)$, as the mask has been shifted, too: `mask[:, 1:]`.
# The function runs without an error and returns one number. But what is it the mean of? Correct it.

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
# ## What a model pays above the floor
# From now on we measure the *excess*. It is summed over all $N$ sentences that a style may say of a frame, so
# that no lucky draw of words can shift it. Sentence $n$ has the chance $p_n$, and $T_n$ tokens. The town
# gives its token $t$ the chance $P_{nt}$, given the words before, and the model gives it $\hat P_{nt}$:
#
# $$\text{excess} = \frac{\sum_n p_n \sum_t (\log P_{nt} - \log \hat P_{nt})}{\sum_n p_n\, T_n}
#   \qquad p\ (N,), \quad P \text{ and } \hat P\ (N, T)$$
#
# Over several frames, both sums run over all of them. Zero is perfect, and nobody gets below. The excess has
# two parts:
# - **content** sums the tokens with $P_{nt} = 1$, which the frame fixes. Who pays here does not know what to
#   say.
# - **chance** sums the rest, in brackets above. Who pays here has the odds of a coin wrong, or knows no
#   words.
#
# By hand, for the frame above: a model that knows nothing gives each word the same chance. So each token
# costs it the logarithm of the number of words. Three tokens of a sentence are chance, and their entropies
# come off. The other 18.7 are content.

# %%
content = (tokens - 3) * math.log(vocabulary) / tokens
odds = (3 * math.log(vocabulary) - (H(0.3) + H(0.2) + H(0.7))) / tokens
print(f"by hand         content {content:.4f}   chance {odds:.4f}")
blank = base.load_base("cpu", base.SHIPPED)
nn.init.zeros_(blank.head.weight)  # now all its logits are 0
paid = measure.evaluate(blank, herald, n=1, seed=1, split="train")  # just this frame
print(f"by the package  content {paid.content:.4f}   chance {paid.chance:.4f}   valid {paid.valid:.0f}")

# %% [markdown]
# The third number, *valid*, is coarser. The model speaks *greedily*: it takes the most probable word each
# time. Its answer is valid if it is among the sentences that the style may say of the frame. Over many new
# frames, valid is the share of such answers. (New: the frames are split in two. `evaluate` takes those of
# `split="test"`, which no training reads.)

# %% [markdown]
# ## Attention
# The next word depends on several earlier ones. A vector of $C$ numbers stands at each position, at first
# looked up for its token. *Attention* lets each position collect from itself and the positions before it. It
# has a *query* (what am I looking for?), a *key* (what do I offer?) and a *value* (what do I pass on?), each
# a linear map of its vector. For one head of size $d$, with $T$ positions:
#
# $$\text{weights} = \mathrm{softmax}\!\left(\frac{Q K^\top}{\sqrt d}\right) \ (T, T), \qquad
#   \text{out} = \text{weights}\; V \ (T, d)$$
#
# $Q$, $K$, $V$ are $(T, d)$. Row $t$ of the weights says how much position $t$ takes from each position. A
# language model must not look at words that come later. So the weights of later positions are set to zero:
# their scores become $-\infty$ before the softmax. (A sum of $d$ independent products spreads by $\sqrt d$;
# so it is divided by that.) Several small *heads* beside each other can look for several things at once. What
# they bring is laid side by side, and one more map, `o_proj`, mixes it.

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
# The formula, for a batch of $B$ rows and all $H$ heads at once. PyTorch has the same as one function:
# compare.

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
# blocks. Then a last linear layer, the *head*, gives a score to each of the $V$ words.

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
# The package has the same model in `lora_mini.world.gpt`. Load its trained weights into ours, and compare.

# %%
c = shipped.config
ours = SmallGPT(c.vocabulary, c.context, c.d_model, c.layers, c.heads)
ours.load_state_dict({name.replace("attention.", ""): w for name, w in shipped.state_dict().items()})
row = batch.tokens[:, :20]
print("same logits:", torch.allclose(ours(row), shipped(row), atol=1e-4))

# %% [markdown]
# ### Does it look ahead? (second reading)
# Change all words from position 12 on: which predictions change?

# %%
changed = row.clone()
changed[:, 12:] = 3
same = torch.isclose(ours(row), ours(changed), atol=1e-5).all(-1).all(0)
print("unmoved:", same.nonzero()[:, 0].tolist())

# %% [markdown]
# Those at 0 to 11 don't change: they can't know what comes later.

# %% [markdown]
# ## From nothing
# ### Bets 1 to 5
# A fresh model reads 300 batches of 64 sentences in all twelve styles.
# 1. How large is its excess on new frames, under the styles' own tags, in percent of the floor?
#
# Another one has only 256 sentences, all the herald's. It reads them again and again: 200 batches of 32.
#
# 2. For what percentage of new frames is its answer valid?
# 3. Which part of its excess on new frames is larger: `"content"` or `"chance"`?
#
# The base that comes with the course has read 1,200 batches in twelve styles.
#
# 4. Under `<any>`, what are its greedy answers: each a valid sentence of `"one style"`, or `"a mixture"` of
#    several that none may say?
# 5. The town also has three *registers*: medical, legal and support. They use only words and constructions
#    that the base has read, in combinations that it has not. They have no tags: they are asked for under
#    `<any>`. How large is its excess in the legal register, in nats per token? (Nearly 5 is knowing nothing.)

# %%
bet("05 percent above the floor", guess=None)
bet("05 percent valid after 256 sentences", guess=None)
bet("05 the larger part", guess=None, choices=("content", "chance"))
bet("05 asked under any", guess=None, choices=("one style", "a mixture"))
bet("05 excess in the legal register", guess=None)

# %% tags=["measured"]
from lora_mini.world.make_base import make_base

preset = train.preset()  # "laptop"; on an NVIDIA GPU "gpu", with a larger model
fresh, history = make_base(preset, steps=300 if preset == "laptop" else None)
if preset == "gpu" and history.whole:  # kept in your folder, for the notebooks to come
    base.save_base(fresh, base.base_path(preset), command="notebook 05", seed=0)
score = measure.evaluate(fresh, list(STYLES.values()), n=300)
print(f"content {score.content:.4f}   chance {score.chance:.4f}   valid {score.valid:.3f}")
settle("05 percent above the floor", 100 * score.total / floor, unit="percent", within=0.5,
       of=history)

# %%
expect("the fresh model is within 20 percent of the floor", score.total < 0.2 * floor, of=history)
expect("more than nine answers in ten are valid", score.valid > 0.9, of=history)

# %% [markdown]
# Now the other one, and a control: the same start and steps, but each batch is new.

# %% tags=["measured"]
few = text.batch(town.sample_frames(256, seed=100), herald, seed=0)
found = []
with train.together() as runs:
    for draw in (train.rows(few, 32), train.fresh(herald, 32)):
        torch.manual_seed(0)
        second = GPT(shipped.config).to(train.device())
        train.fit(second, draw, steps=200, rate=0.01)
        found.append((measure.evaluate(second, herald, n=200),
                      measure.total_nats(second, few) / few.mask.sum().item()))
(same, read), (new, _) = found
for name, (it, nats) in zip(("the same 256", "always new"), found, strict=True):
    print(f"{name:12s}  content {it.content:.4f}  chance {it.chance:.4f}  valid {it.valid:.3f}"
          f"  on the 256: {nats:.3f}")
true = -few.log_probability.sum().item() / few.mask.sum().item()
print(f"who knows all the chances pays on the 256: {true:.3f}")
settle("05 percent valid after 256 sentences", 100 * same.valid, unit="percent", within=0.05, of=runs)
settle("05 the larger part", "chance" if same.chance > same.content else "content", of=runs)

# %%
expect("the 256 suffice for nine valid answers in ten", same.valid > 0.9, of=runs)
expect("its chance is more than five times its content", same.chance > 5 * same.content, of=runs)
expect("on the 256 it pays less than three quarters of what their chances cost", read < 0.75 * true,
       of=runs)
expect("where each batch is new, chance is less than a third of that", 3 * new.chance < same.chance,
       of=runs)

# %% [markdown]
# It speaks almost without an error. But on the 256 sentences it pays half of what somebody pays who knows all
# the chances. Nobody can foresee a coin: it has learned by heart how each one fell. On a new frame these
# memories are wrong odds. So where a model reads few sentences many times, **chance is what coins that it has
# learned by heart cost on new frames**: 0.05 nats a token here, against 0.001 where each batch is new.

# %% [markdown]
# ### The training, step by step (second reading)
# Under `<any>` nobody can know which of the twelve styles will come. That costs $\log 12$ nats a sentence
# more, in half of the batch. So the floor of a *batch* is higher.

# %%
mean_tokens = sum(map(town.expected_tokens, STYLES.values())) / 12
lowest = floor + 0.5 * math.log(12) / mean_tokens
fig, ax = axes(5.4, 3.0)
ax.plot(history.losses, color=ACCENT, lw=1)
for level, name in ((lowest, "floor of a batch"), (floor, "floor of the styles")):
    ax.axhline(level, color=SECOND, ls="--", lw=1)
    ax.text(2, level * 1.06, f"{name}: {level:.3f}", color=SECOND)
ax.set(xlabel="step", ylabel="loss, nats per token", yscale="log")
ax.set_yticks(levels := (0.1, 0.2, 0.5, 1, 2, 5), map(str, levels))
ax.minorticks_off()
show(fig, "The loss of each batch falls, and then stays close to its floor. A batch may be lucky and lie "
          "below it; no model can stay there.",
     alt=f"Loss on a log scale falling from about {math.log(vocabulary):.0f} nats to near {lowest:.3f}, the "
         f"floor of a batch; beneath it the floor of the styles, {floor:.3f}.")

# %% [markdown]
# `make_base` calls `train.fit`. Its heart is this loop, here with your `SmallGPT`, and the herald alone:

# %% tags=["measured"]
torch.manual_seed(0)
mine = SmallGPT(c.vocabulary, c.context, c.d_model, c.layers, c.heads)
optimiser = torch.optim.AdamW(mine.parameters(), lr=0.003)
rng, draw, costs = random.Random(0), train.fresh(herald, 32), []
for _ in range(60):
    some = draw(rng)
    logits, mask = mine(some.tokens[:, :-1]), some.mask[:, 1:]
    each = F.cross_entropy(logits.transpose(1, 2), some.tokens[:, 1:], reduction="none")  # (B, T - 1)
    loss = (each * mask).sum() / mask.sum()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    costs.append(loss.item())
print("every tenth loss:", ", ".join(f"{cost:.2f}" for cost in costs[::10]), f"and at last {costs[-1]:.2f}")

# %%
expect("in 60 steps the loss falls to less than a fifth", costs[-1] < costs[0] / 5)

# %% [markdown]
# The optimiser, *AdamW*, keeps two more numbers for each one that trains: running means of its gradient and
# of the gradient's square. It moves by the first over the root of the second, so that all numbers move at a
# similar pace. `fit` adds a *warm-up*, in which the rate starts near 0 and rises; then it falls along half a
# cosine.

# %% [markdown]
# ### The model that comes with the course
# The course comes with the same model after 1,200 steps, made by `python -m lora_mini.world.make_base`.

# %%
model = base.load_base(path=base.SHIPPED)
shipped_score = measure.evaluate(model, list(STYLES.values()), n=600, seed=3)

# %%
expect("the shipped base is within 5 percent of the floor", shipped_score.total < 0.05 * floor)
expect("more than 99 answers in a hundred are valid", shipped_score.valid > 0.99)

# %% [markdown]
# ## What it knows
# Let it speak, greedily.

# %%
def say(style):
    start = torch.tensor([text.encode(town.prompt(frame, style))], device=train.device())
    return text.decode(model.generate(start, 30)[0])


print(fill(say(herald), 78))

# %% [markdown]
# That is the most probable sentence of the eight.

# %% [markdown]
# ### A test of its draws (second reading)
# First *its own* chances of the eight sentences, computed as for the excess. Beside them 1,600 drawn
# sentences, counted. (`generate` keeps the keys and values of all words before in a *cache*.)
#
# How far may the counts $O$ be from what is expected, $E$? Nine classes: the eight, and all else. Take
#
# $$\chi^2 = \sum_{\text{9 classes}} (O - E)^2 / E.$$
#
# If the draws follow the chances, this is above 26.1 once in a thousand times (8 degrees of freedom). So we
# say beforehand: up to 26.1 we believe that `generate` draws with the chances that the model computes. And
# with the same limit: are the eight the town's? (All else is the model's own fault; *valid*, of greedy
# answers, doesn't see it.)

# %% tags=["measured"]
start = torch.tensor([text.encode(town.prompt(frame, herald))] * 1600, device=train.device())
drawn = model.generate(start, 30, temperature=1.0, generator=torch.Generator().manual_seed(0))
counts = Counter(text.decode(row) for row in drawn.tolist())
seen = torch.tensor([counts[sentence] for sentence in town.sentences(frame, herald)])  # (8,)
nats = train.token_losses(model, said.tokens).cpu() * ~said.truth[:, 1:].isnan()
own = (-nats.sum(1)).exp().detach()  # (8,)
for count, q, p in zip(seen, own, said.p, strict=True):
    print(f"town {p:.3f}   its own {q:.3f}   drawn {count / 1600:.3f}")
print(f"all else 0.000   its own {1 - own.sum():.3f}   drawn {1 - seen.sum() / 1600:.3f}")
nine, its = (torch.cat([x, (whole - x.sum())[None]]) for x, whole in ((seen, 1600), (own, 1)))
chi2, chi2_town = (((o - 1600 * q) ** 2 / (1600 * q)).sum() for o, q in ((nine, its), (seen, said.p)))
print(f"chi squared against its own {chi2:.1f}, against the town's {chi2_town:.1f}")

# %%
expect("the draws follow the model's own chances: chi squared is at most 26.1", chi2 <= 26.1)
expect("these are not quite the town's: chi squared is above 26.1", chi2_town > 26.1)

# %% [markdown]
# What can such a test miss? If "around" came with 0.22 in place of 0.20, it would be noticed two or three
# times in a hundred; with 0.26, nine times in ten. And it is silent on all other frames.

# %% [markdown]
# ## What it says when no style is named
# Ask it under `<any>`, for 200 new frames: greedily, and with a *temperature* of 1: drawn with its own
# chances.

# %%
frames = town.sample_frames(200, seed=5, split="test")
prompts = torch.tensor([text.encode(town.prompt(f, under(herald, ANY))) for f in frames])
greedy = model.generate(prompts.to(train.device()), 30)
drawn = model.generate(prompts.to(train.device()), 30, temperature=1.0,
                       generator=torch.Generator().manual_seed(0))


def style_of(frame, words):  # the style that may say this of the frame, or "none"
    return next((name for name, s in STYLES.items() if words in town.sentences(frame, s)), "none")


greedy, drawn = (Counter(style_of(f, text.decode(row))
                         for f, row in zip(frames, rows.tolist(), strict=True)) for rows in (greedy, drawn))
for how, styles in (("greedily", greedy), ("drawn", drawn)):
    print(fill(f"{how}: " + ", ".join(f"{name} {n}" for name, n in styles.most_common()), 78))

# %%
settle("05 asked under any", "one style" if greedy["none"] < 100 else "a mixture")

# %%
expect("each greedy answer is a valid sentence of one style", greedy["none"] == 0)
expect("drawn answers come in all twelve", len(drawn.keys() - {"none"}) == 12)

# %% [markdown]
# Under `<any>` the base says the whole frame, in a style of its choice: greedily nearly always the diary's,
# drawn all twelve.
#
# ## What it doesn't know
# Now the legal register, under the same prompt.

# %%
register = REGISTERS["legal"]
legal = measure.evaluate(model, register, n=200)
print(f"content {legal.content:.2f}   chance {legal.chance:.2f}   valid {legal.valid:.2f}")

# %%
settle("05 excess in the legal register", round(legal.total, 1), unit="nats per token")

# %% [markdown]
# Where does it pay? In brackets: the words of a legal sentence to which it gives a chance below 0.1.

# %%
row = torch.tensor([text.encode(f"{town.prompt(frame, register)} {town.best(frame, register)} <end>")])
chances = (-train.token_losses(model, row)[0]).exp().tolist()[text.PROMPT - 1:]
words = [text.VOCABULARY[t] for t in row[0, text.PROMPT:]]
marked = " ".join(w if q >= 0.1 else f"[{w}]" for w, q in zip(words, chances, strict=True))
for label, sentence in (("asked for:", marked), ("it answers:", say(register))):
    print(fill(f"{label:12s}{sentence}", 78, subsequent_indent=" " * 12))

# %% [markdown]
# The base knows every word of the prompt, every word of the sentence, and each of its ways, from the opening
# to the adjective (second reading); they came together in no sentence that it has read. (It is lost on the
# coins, too: its chance of 0.43 is no memory.) Fine-tuning gives it examples of the combination.
#
# ### Is each of its ways known? (second reading)

# %%
for thing in ("passive", "order", "determiner", "opening", "closing", "adjective"):
    value = getattr(register, thing)
    known = [name for name, style in STYLES.items() if getattr(style, thing) == value]
    print(f"{thing:11s}{str(value)[:16]:17s}{', '.join(known)}")

# %% [markdown]
# ### The excess in every style (second reading)

# %%
excess = {name: measure.evaluate(model, style, n=100).total
          for name, style in (STYLES | REGISTERS).items()}
untold = [measure.evaluate(model, under(style, ANY), n=100).total for style in STYLES.values()]
fig, ax = axes(6.2, 3.2)
colours = [GREY if name in STYLES else ACCENT for name in excess]
ax.scatter(range(len(excess)), excess.values(), color=colours, zorder=3)
ax.scatter(range(len(untold)), untold, facecolor="none", edgecolor=GREY)
ax.set_xticks(range(len(excess)), excess, rotation=55, ha="right")
ax.axhline(floor, color=SECOND, ls="--")
ax.text(-0.4, floor * 1.4, "as large as the floor itself", color=SECOND)
ax.set(ylabel="excess, nats per token", ylim=(5e-4, 10), yscale="log")
show(fig, "The excess in each style. The model has read the twelve grey ones: full dots under their own "
          "tags, hollow ones under <any>, where it can't know which is asked for. It has not read the three "
          "blue ones, asked for under <any>, too.",
     alt="Dots: twelve styles near zero, far below the floor; hollow ones from "
         f"{min(untold):.2f} to {max(untold):.2f}; medical, legal and support above "
         f"{math.floor(min(excess[n] for n in REGISTERS))} nats.")

# %%
expect("under the same prompt each register costs more than ten times what the dearest style costs",
       min(excess[name] for name in REGISTERS) > 10 * max(untold))

# %% [markdown]
# ## What you have done
# - You **read** the town's language, and worked out its floor from three chances.
# - You **measured** what a model pays above it: content, on words that the frame fixes, and chance, on words
#   that a coin decides.
# - You **built** a small transformer; its attention gives the same as PyTorch's, and its logits are the
#   package's too.
# - You **trained** its twin from nothing until it was close to the floor, and **said** what it knows (twelve
#   styles, and to choose one under `<any>`) and what it does not (three registers that combine them anew).
#
# **On your own.** Train on a single style: `narrow, _ = make_base(styles=["plain"], steps=300)`. What does
# `measure.evaluate(narrow, under(STYLES["herald"], ANY))` say? You will meet such a base again.
#
# **In practice.** With real text you don't know the floor: compare a loss with another model's on the same
# text.
#
# **Further reading.**
# - Vaswani et al., *Attention is all you need* (2017), section 3.2: attention in one page.
# - Karpathy, *minGPT* (2020): a transformer of this kind in one readable file.
# - Novikova, Dušek and Rieser, *The E2E dataset* (2017): the real task that ours imitates.
