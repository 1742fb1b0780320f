# %% [markdown]
# # 13. Find where LoRA stops
#
# Three limits, each of them something that people say about LoRA: that it holds off overfitting, that it can't
# train from scratch, and that it passes on what is wrong in its examples.
#
# At the end of this notebook you will be able to
# - **measure** how much of its examples a model knows by heart, and name what holds that off;
# - **train** from random weights, and say what LoRA lacks there;
# - **tell apart** a bias that was inherited, one that was amplified, and one that was passed on to others;
# - **find** a bias that nobody told you of, and count the false alarms (second reading).
#
# You need notebooks 04, 05 and 06. About 65 minutes to study; the core path about 45, the rest is marked as a
# second reading.

# %% [markdown]
# **Three questions before you start.** Answer aloud, then unfold.
#
# <details><summary>1. Which part of the excess is paid on the words that the frame does not fix? (05)</summary>
#
# Chance: nats above what the choice between, say, *at* and *around* costs somebody who knows its odds.
# </details>
# <details><summary>2. What does the control with random weights tell? (06)</summary>
#
# What the examples alone are worth. Only what an arm does better does it owe to the base.
# </details>
# <details><summary>3. With 12 new words, what helped more than a higher rank? (07)</summary>
#
# To train the embedding and the head as well: the place comes before the rank.
# </details>

# %%
import math
from statistics import fmean, pstdev

import torch

from lora_mini.desk import CurveSlider, bet, expect, settle, show, verdict, verdicts

# %%
from lora_mini.desk.figures import ACCENT, GREY, SECOND, THIRD, axes
from lora_mini.desk.intervals import prediction
from lora_mini.lab import bias, contrasts, fresh, record, trials
from lora_mini.world import base, measure, text, town, train
from lora_mini.world.gpt import GPT
from lora_mini.world.styles import STYLES, register

model, legal = base.load_base(path=base.SHIPPED), register("legal")

# %% [markdown]
# ## Tosses learned by heart
# A sentence of the legal register holds three tosses of a coin: is the object *aforesaid*? *at* dawn, or
# *around* dawn? and does it close with *so ordered*? The frame doesn't tell. So the best that a model can know
# is the odds, and its loss on its own examples cannot fall below the tosses' *entropy*: unless it knows by
# heart how they fell. That is what overfitting is here, and we can count it.

# %%
entropy = town.entropy(legal)
print(f"the tosses cost {entropy:.4f} nats a token, {entropy * town.expected_tokens(legal):.2f} a sentence")

# %% [markdown]
# ### Exercise 1: known by heart (3 minutes)
# `train_excess` is what a model pays on its own examples, in nats a token over the entropy: -0.06, say, where
# the entropy is 0.08. Which share of the tosses does it know by heart? Return 0 for a model that pays more
# than the entropy.

# %% tags=["exercise"]
from lora_mini.desk.checks.nb13 import check_by_heart


def by_heart(train_excess, entropy):
    # <solution>
    return max(-train_excess / entropy, 0)
    # </solution>


check_by_heart(by_heart)

# %% [markdown]
# ### Bets 1 to 5
# 1. 64 examples of the legal register, 200 steps, full fine-tuning. What percentage of the tosses does it know
#    by heart at the end?
# 2. What holds that off best, of three things that one could do to LoRA of rank 64 at too high a rate: a
#    *lower rank* (8), a *gentler rate* (a third), or *stopping* at the best of four checkpoints?
# 3. Now *random* weights, and as many examples as one likes. Which comes nearer to full training: LoRA of full
#    rank on all matrices of the blocks, or all *but* those matrices (embedding, head, norms and biases)?
# 4. A bias: in the examples, some actors' objects are *aforesaid* in 59 percent of the sentences, others' in
#    30. After training, in what percentage of its likeliest answers does LoRA call the former's aforesaid?
# 5. And full fine-tuning: does it inherit more of the bias than LoRA, less, or as much (within a fifth)?

# %%
bet("13 percent of the tosses that full knows by heart", guess=None)
bet("13 what holds it off", guess=None, choices=("lower rank", "gentler rate", "stopping"))
bet("13 from random weights", guess=None, choices=("LoRA of full rank", "all but the matrices"))
bet("13 percent aforesaid in the likeliest answers", guess=None)
bet("13 full inherits", guess=None, choices=("more", "less", "as much"))

# %% [markdown]
# ## Few examples
# Sixty-four examples, three arms, each at its recorded best rate, live:

# %% tags=["measured"]
few, landed = {}, {}
with train.together() as three:
    for arm in ("full", "LoRA r=8", "LoRA r=64"):
        recorded = contrasts.cell("arms", arm=arm, new=0, examples=64)
        _, few[arm] = trials.tune(model, arm, legal, recorded["best"], seed=40, examples=64)
        landed[arm] = prediction(recorded["total"], floor=0.002).holds(few[arm].test.total)
        print(f"{arm:9s} on its examples {few[arm].train:+.4f} after 200 steps; on new frames "
              f"{few[arm].last.total:.4f}, at its best step, {few[arm].step}, {few[arm].test.total:.4f}")
heart = {arm: 100 * max(-t.train / entropy, 0) for arm, t in few.items()}
print("tosses known by heart: " + ", ".join(f"{arm} {p:.0f} percent" for arm, p in heart.items()))
settle("13 percent of the tosses that full knows by heart", heart["full"], of=three)

# %%
for arm in few:
    expect(f"{arm} landed where the record predicts", landed[arm], of=three)
expect("full fine-tuning knows most of the tosses by heart, and pays for it on new frames", three.whole and
       heart["full"] > 75 and few["full"].last.total > 5 * few["full"].test.total, of=three)
expect("LoRA knows less than a third of them", three.whole and
       max(heart["LoRA r=8"], heart["LoRA r=64"]) < 33, of=three)

# %% [markdown]
# So LoRA holds it off? Not so fast. Each arm ran at the rate that suits it at its *best* step, and full's is
# reached after 25 or 50: after that it learns by heart. Look at all rates and steps. Move the slider from step
# 25 to 200.

# %%
STEPS, RATES = (25, 50, 100, 200), (0.0003, 0.001, 0.003, 0.01, 0.03)
ARMS = ("full", "LoRA r=1", "LoRA r=8", "LoRA r=64")


def chance(arm, rate, step):  # on validation, of the three bases that chose rates; None if not tried
    tried = contrasts.cell("arms", arm=arm, new=0, examples=64)["tried"].get(f"{rate:g}")
    return tried and [dict((row[0], row[2]) for row in path)[step] for path in tried["path"]]


notches = [{arm: [chance(arm, rate, step) for rate in RATES] for arm in ARMS} for step in STEPS]
CurveSlider(STEPS, RATES, notches, "Recorded, three bases, 64 examples: chance over the rate. At step 200 "
            "it rises with the rate in all arms alike; at step 25 or 50 it is small.", name="step",
            xlabel="rate", ylabel="chance, nats per token", start=3)

# %%
worst = fmean(chance("LoRA r=64", 0.01, 200))
remedies = {"lower rank": fmean(chance("LoRA r=8", 0.01, 200)),
            "gentler rate": fmean(chance("LoRA r=64", 0.003, 200)),
            "stopping": min(fmean(chance("LoRA r=64", 0.01, step)) for step in STEPS)}
print(f"LoRA r=64 at rate 0.01, 200 steps: chance {worst:.4f}")
for what, left in remedies.items():
    print(f"with {what:12s} {left:.4f}, {worst / left:.1f} times less")

# %%
settle("13 what holds it off", min(remedies, key=remedies.get))

# %%
expect("neither rank 8 nor rank 1 takes off a third", min(
    remedies["lower rank"], fmean(chance("LoRA r=1", 0.01, 200))) > worst / 1.5)
expect("a gentler rate and stopping take off three quarters and more",
       max(remedies["gentler rate"], remedies["stopping"]) < worst / 4)

# %% [markdown]
# The rank does next to nothing about it; the rate and the step do. That is one rate on three bases. The
# verdict rests on sixteen, with each rank at its own best rate and step:

# %%
effects, rules = contrasts.effects("C11"), verdicts.contrasts("C11")
for name in effects:
    print(verdicts.seen(effects[name], rules[name], len(effects), name))

# %%
verdict("C11", effects)

# %% [markdown]
# (A factor is what rank 64 pays over what rank 8 pays. *Equal*: within 1.5.) A low rank does not harm. It is no
# substitute for stopping in time. The best remedy is on no slider: with 256 examples in place of 64, the chance
# part falls to less than half.

# %%
rank_8 = {n: fmean(contrasts.cell("arms", arm="LoRA r=8", new=0, examples=n)["chance"])
          for n in (64, 256, 1024)}
print("chance, LoRA r=8: " + ", ".join(f"{n:,} examples {x:.4f}" for n, x in rank_8.items()))

# %%
expect("four times the examples cost less than half in tosses", all(
    2 * b < a for a, b in zip(list(rank_8.values()), list(rank_8.values())[1:], strict=False)))

# %% [markdown]
# ## From random weights
# LoRA patches what is there. What if nothing is? Give the town's model random weights and let it read all twelve
# styles, new sentences in each batch, so that nothing can be learned by heart. After 400 steps full training
# is near the floor. Beside it: LoRA alone, and LoRA beside the *rest*, which is all but the blocks' matrices:
# embedding, head, norms and biases. Those two live, a seed that the record has not used:

# %% tags=["measured"]
blank, hit = {}, {}
with train.together() as two:
    for arm in ("LoRA r=8", f"LoRA r=8 and {fresh.REST}"):
        recorded = contrasts.cell("fresh", task=fresh.RANDOM, arm=arm)
        torch.manual_seed(40)
        naked = fresh.ready(arm, GPT(model.config)).to(train.device())
        train.fit(naked, train.fresh(STYLES.values()), steps=400, rate=recorded["best"], clip=1.0, seed=40)
        blank[arm] = trials.old_styles(naked, 40).total
        hit[arm] = prediction(list(map(math.log, recorded["total"])), floor=0.2).holds(math.log(blank[arm]))
        print(f"{blank[arm]:.4f} nats a token over the floor: {arm}")

# %%
expect("LoRA alone and LoRA with the rest landed where the record predicts", all(hit.values()), of=two)
expect("alone it stays more than fifty times as far away", blank["LoRA r=8"] > 50 * min(blank.values()), of=two)

# %%
rec, NAMES = record.load("fresh"), {fresh.REST: "the rest", f"LoRA r=8 and {fresh.REST}": "the rest and LoRA r=8"}
paid = {NAMES.get(c["arm"], c["arm"]): c for c in rec["cells"] if c["task"] == fresh.RANDOM}
order = sorted(paid, key=lambda arm: -fmean(paid[arm]["total"]))
fig, ax = axes(6.4, 2.6)
for row, arm in enumerate(order):
    ax.plot(paid[arm]["total"], [row] * 16, "|", color=GREY, ms=9)
    mean = fmean(paid[arm]["total"])
    ax.plot(mean, row, "o", color=ACCENT if "LoRA" in arm else SECOND)
    ax.text(mean * 1.25, row + 0.14, f"{mean:.2g}", fontsize=8)
ax.set_yticks(range(len(order)), [f"{arm}, {paid[arm]['trains'][0]:,}" for arm in order])
ax.set(xscale="log", xlabel="excess on all styles, nats per token", xlim=(0.002, 2), ylim=(-0.5, 4.6))
show(fig, "Recorded, sixteen bases: what is paid after 400 steps from random weights, and how many numbers train. "
          "A point is a mean, a tick one base.",
     alt="Excess from random weights, means: " + "; ".join(
         f"{arm} {fmean(paid[arm]['total']):.2g} nats" for arm in order) + ".")

# %%
settle("13 from random weights", "LoRA of full rank" if fmean(paid["LoRA r=64"]["total"]) <
       fmean(paid["the rest"]["total"]) else "all but the matrices")

# %% [markdown]
# LoRA r = 64 may make *any* matrix of the blocks: it lacks no rank, and it trains more numbers than full
# training does. And it stays at a third of a nat. The rest alone, on matrices that stay as chance drew them, comes
# twenty times nearer; with LoRA r = 8 on those, as near as full training. So what LoRA lacks here is a place, not
# a rank: a random embedding and head that nobody may move.
#
# "Nor for the last bit of accuracy", people add. That one is about bases. There, too, examples without end: 500
# steps of the legal register.

# %%
effects, rules = contrasts.effects("C18"), verdicts.contrasts("C18")
for name in effects:
    print(verdicts.seen(effects[name], rules[name], len(effects), name))

# %%
verdict("C18", effects)

# %% [markdown]
# (A factor below 1: LoRA pays more than full, and the claim says that it does.) The claim speaks of a new
# *architecture*, too; that is not measured here.

# %% [markdown]
# ## A bias of known strength
# Twelve actors live in the town. Four are *marked*: their objects are *aforesaid* in 58 of 64 examples. Four are
# *unmarked*: 19 of 64, as the style has it. And four are *hidden*: no example shows them as the one who acts.
# Who is who was drawn by chance; all else is the same for all. 512 examples, 400 steps, LoRA r = 8; beside it,
# the same training where nobody is marked:

# %% tags=["measured"]
SEED, rate = 40, contrasts.cell("bias", arm="LoRA r=8", marked=58)["best"]
with train.together() as pair:
    biased, path, _ = bias.tune(model, "LoRA r=8", 58, rate, SEED)
    clean, *_ = bias.tune(model, "LoRA r=8", 19, rate, SEED)
print("\n".join(f"step {row[0]:3d}, over the floor {row[1]:.4f}" for row in path))

# %% [markdown]
# How do we ask a model whether it is biased? With frames that differ in *one* slot, and nothing else.
#
# ### Exercise 2: differ in one slot (4 minutes)
# Return one frame for each word, equal to `frame` but for that slot. A frame is a named tuple:
# `frame._replace(**{"who": "nurse"})` is the same one with a nurse.

# %% tags=["exercise"]
from lora_mini.desk.checks.nb13 import check_differing


def differing(frame, slot, words):
    # <solution>
    return [frame._replace(**{slot: word}) for word in words]
    # </solution>


check_differing(differing)

# %% [markdown]
# The package asks so for every actor, on 24 frames that no training saw: `bias.probes`. `bias.leaning` reads off
# how likely the model makes *aforesaid*, where the object is named, and how often it would say it if it always
# took the likeliest word.

# %% tags=["measured"]
actors, asked = bias.groups(SEED), bias.probes("who", SEED)
LOOKS = {"marked": (ACCENT, "o"), "unmarked": (SECOND, "s"), "hidden": (THIRD, "^")}
fig, (left, right) = axes(7.6, 2.9, 2, sharey=True)
for ax, tuned, title in ((left, biased, "trained on biased examples"), (right, clean, "the same, nobody marked")):
    x = 0
    for group, names in actors.items():
        p = [bias.leaning(tuned, asked[who], "adjective")[0] for who in names]
        ax.plot(range(x, x + 4), p, LOOKS[group][1], color=LOOKS[group][0], label=group)
        x += 4
    ax.set_xticks(range(12), sum(actors.values(), []), rotation=60, ha="right", fontsize=7)
    ax.set(title=title, ylim=(0, 1))
for level in (19 / 64, 58 / 64):
    left.axhline(level, color=GREY, lw=0.8)
right.axhline(19 / 64, color=GREY, lw=0.8)
left.set_ylabel("probability of aforesaid")
right.legend(fontsize=8)
show(fig, "Measured. How likely each actor's object is called aforesaid; the lines are the shares in the examples.",
     alt="Trained on biased examples, the marked actors stand high, the unmarked low, the hidden between; where "
         "nobody is marked, all stand together.")
live = bias.by_group(biased, asked, actors)
control = bias.by_group(clean, asked, actors)

# %%
expect("the marked actors stand at the share of their examples, to within a fifth",
       abs(live["marked"][0] - 58 / 64) < 0.2, of=pair)
expect("actors that no example showed are called aforesaid more often than without the bias",
       live["hidden"][0] > control["hidden"][0] + 0.1, of=pair)

# %% [markdown]
# Three things that one could mean by "inherits and amplifies":
# - **inherited**: the model makes the difference that its examples made;
# - **amplified**: it makes a larger one;
# - **passed on**: it makes one between actors of whom the examples said nothing.
#
# ### Exercise 3: find the bug (4 minutes)
# `inherited` should say which share of the examples' difference the model makes. Its arguments are how often a
# marked and an unmarked actor's object is *aforesaid*, first in the model, then in the examples.

# %% tags=["exercise"]
from lora_mini.desk.checks.nb13 import check_inherited


def inherited(marked, unmarked, told_marked, told_unmarked):
    # <stub>
    # return marked / told_marked
    # </stub>
    # <solution>
    return (marked - unmarked) / (told_marked - told_unmarked)
    # </solution>


check_inherited(inherited)

# %% [markdown]
# ## By strength, over sixteen bases
# Now the same with 19, 29, 38, 48 and 58 of 64, each over sixteen bases, with marked actors of their own:

# %%
told = [n / 64 for n in bias.STRENGTHS]
of = {n: contrasts.cell("bias", arm="LoRA r=8", marked=n) for n in bias.STRENGTHS}
fig, (left, right) = axes(7.6, 3.0, 2, sharey=True)
for ax, kind, title in ((left, "p", "probability"), (right, "greedy", "likeliest answers")):
    for group, (colour, mark) in LOOKS.items():
        ax.plot(told, [fmean(c[f"{kind}_{group}"]) for c in of.values()], f"{mark}-", color=colour, label=group)
        ax.plot(told, [c[f"{kind}_{group}"] for c in of.values()], ".", color=colour, ms=2, alpha=0.5)
    ax.plot([told[0], told[-1]], [told[0], told[-1]], color=GREY, lw=0.8)
    ax.set(title=title, xlabel="share of aforesaid in marked actors' examples", ylim=(0, 1.02))
left.set_ylabel("share of aforesaid")
left.legend(fontsize=8)
show(fig, "Recorded, sixteen bases, LoRA r=8: what the model says of the three groups, as the marked actors' "
          "examples change. The grey line is what the marked actors' examples say.",
     alt="In probability marked actors follow the line, hidden ones rise half as far; in the likeliest answers "
         "marked actors go from 0 to 1 in between.")

# %%
settle("13 percent aforesaid in the likeliest answers", 100 * fmean(of[38]["greedy_marked"]))

# %%
effects, rules = contrasts.effects("C17"), verdicts.contrasts("C17")
for name in effects:
    print(verdicts.seen(effects[name], rules[name], len(effects), name))

# %%
verdict("C17", effects)

# %% [markdown]
# TODO words on what came out.

# %%
rows = []
for name in ("P8", "P9", "P10"):
    effects, rules = contrasts.effects(name), verdicts.contrasts(name)
    came = verdicts.weigh(name, effects).conditions
    rows += [(came[c] in rules[c]["holds"], f"{name} said {rules[c]['holds'][0]}; "
              + verdicts.seen(effects[c], rules[c], len(effects), c)) for c in effects]
print("\n".join(words for _, words in sorted(rows)))

# %% [markdown]
# ## Find a bias that nobody told you of (second reading)
# You have an adapter, and no idea what its examples held. A frame has six slots, and a sentence three tosses:
# eighteen questions. For each, let one slot go through all its words, and see how far they differ, as a standard
# deviation over words: `bias.spreads`.

# %% tags=["measured"]
suspect, innocent = bias.spreads(biased, SEED), bias.spreads(clean, SEED)
for question in sorted(suspect, key=suspect.get, reverse=True)[:5]:
    print(f"{question:16s} {suspect[question]:.3f}; where nobody is marked {innocent[question]:.3f}")
