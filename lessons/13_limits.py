# %% [markdown]
# # 13. Find where LoRA stops
#
# Three things that people say about LoRA, and where each stops being true: that it holds off overfitting,
# that it can't train from scratch, and that it passes on what is wrong in its examples.
#
# At the end of this notebook you will be able to
# - **measure** how much of its examples a model knows by heart, and say what holds that off;
# - **train** from random weights, and say what LoRA lacks there;
# - **tell apart** a bias that was inherited, one that was amplified, and one that was passed on to others;
# - **find** a bias that nobody told you of, and count the false alarms (second reading).
#
# You need notebooks 04 to 07. About 65 minutes to study; the core path about 45, the rest is marked as a
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
from statistics import fmean
from textwrap import fill

import torch

from lora_mini.desk import bet, expect, settle, show, verdict

# %%
from lora_mini.desk.figures import ACCENT, GREY, SECOND, THIRD, axes
from lora_mini.desk.intervals import prediction
from lora_mini.desk.sliders import CurveSlider
from lora_mini.lab import bias, contrasts, fresh, record, trials
from lora_mini.world import base, town, train
from lora_mini.world.gpt import GPT
from lora_mini.world.styles import STYLES, register

model, legal = base.load_base(path=base.SHIPPED), register("legal")

# %% [markdown]
# ## Tosses learned by heart
# A sentence of the legal register holds three tosses of a coin: is the object *aforesaid*? *at* dawn, or
# *around* dawn? and does it close with *so ordered*? The frame doesn't tell. So the best that a model can
# know is the odds, and they have a price: the tosses' *entropy*. If it pays less than that on its own
# examples, it knows by heart how they fell. That is what overfitting is here. And whoever knows old tosses by
# heart is too sure of new ones, and pays for it on new frames: that is the excess that we called *chance*.
# (Who hasn't learned the odds yet pays it, too; where it *rises* with more steps it is overfitting.)

# %%
entropy = town.entropy(legal)
print(f"the tosses cost {entropy:.4f} nats a token, {entropy * town.expected_tokens(legal):.2f} a sentence")

# %% [markdown]
# ### Exercise 1: known by heart (3 minutes)
# `train_excess` is what a model pays on its own examples, in nats a token, over what they cost somebody who
# knows the odds: -0.06, say, where all tosses cost 0.08. Which share does it know by heart? Return 0 for a
# model that pays more than the odds.

# %% tags=["exercise"]
from lora_mini.desk.checks.nb13 import check_by_heart


def by_heart(train_excess, entropy):
    # <solution>
    return max(-train_excess / entropy, 0)
    # </solution>


check_by_heart(by_heart)

# %% [markdown]
# ### Bets 1 to 5
# 1. 64 examples of the legal register, 200 steps, full fine-tuning. What percentage of the tosses does it
#    know by heart at the end?
# 2. LoRA of rank 64, 200 steps at a rate of 0.01, which is too high: it pays much chance on new frames.
#    What helps *least*: a *lower rank* (8), a *gentler rate* (0.003), or *stopping* at the best of four
#    checkpoints?
# 3. Now *random* weights, and as many examples as one likes. Which comes nearer to full training: LoRA of
#    full rank, 64, on all matrices of the blocks, or all *but* those matrices (embedding, head, norms and
#    biases)?
# 4. A bias: in the examples, some actors' objects are *aforesaid* in 59 percent of the sentences, others' in
#    30. After training, in what percentage of its likeliest answers does LoRA call the former's aforesaid?
# 5. A stronger one, 91 and 30 percent. How likely, in percent, does LoRA make *aforesaid* for actors whom no
#    example has shown?

# %%
bet("13 percent of the tosses that full knows by heart", guess=None)
bet("13 what helps least", guess=None, choices=("lower rank", "gentler rate", "stopping"))
bet("13 from random weights", guess=None, choices=("LoRA of full rank", "all but the matrices"))
bet("13 percent aforesaid in the likeliest answers", guess=None)
bet("13 percent aforesaid for those never shown", guess=None)

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
        print(f"{arm:9s} at step 200 on its examples {few[arm].train:+.4f}, on new frames "
              f"{few[arm].last.total:.4f};\n{'':9s} at step {few[arm].step} {few[arm].test.total:.4f}")
heart = {arm: 100 * max(-t.train / entropy, 0) for arm, t in few.items()}
print("tosses known by heart: " + ", ".join(f"{arm} {p:.0f} percent" for arm, p in heart.items()))
settle("13 percent of the tosses that full knows by heart", heart["full"], of=three)

# %%
expect("all three landed where the record predicts", all(landed.values()), of=three)
expect("full fine-tuning knows most of the tosses by heart, and pays for it on new frames",
       heart["full"] > 75 and few["full"].last.total > 5 * few["full"].test.total, of=three)
expect("LoRA knows less than a third of them", max(heart["LoRA r=8"], heart["LoRA r=64"]) < 33, of=three)

# %% [markdown]
# So LoRA holds it off? Each arm ran at the rate that suits it at its *best* step, and full's comes early:
# after that it learns by heart. So look at chance over all rates and steps, with the slider. (Grey: full at
# the other steps. Dots: one base.)

# %%
STEPS, RATES = (25, 50, 100, 200), (0.0003, 0.001, 0.003, 0.01, 0.03)
ARMS = ("full", "LoRA r=1", "LoRA r=8", "LoRA r=64")


def chance(arm, rate, step):  # on validation, of the three bases that chose rates; None if not tried
    tried = contrasts.cell("arms", arm=arm, new=0, examples=64)["tried"].get(f"{rate:g}")
    return tried and [dict((row[0], row[2]) for row in path)[step] for path in tried["path"]]


notches = [{arm: [chance(arm, rate, step) for rate in RATES] for arm in ARMS} for step in STEPS]
CurveSlider(STEPS, RATES, notches, "Recorded, three bases, 64 examples: chance over the rate. At step 200 "
            "full's is above a tenth at every rate, LoRA's from 0.01 on; at step 50 LoRA's is below a "
            "twentieth from 0.001 on.", name="step",
            xlabel="rate", ylabel="chance, nats per token", start=3)

# %%
early = min(STEPS, key=lambda step: fmean(chance("LoRA r=64", 0.01, step)))
left = {"no remedy": chance("LoRA r=64", 0.01, 200), "lower rank": chance("LoRA r=8", 0.01, 200),
        "gentler rate": chance("LoRA r=64", 0.003, 200), "stopping": chance("LoRA r=64", 0.01, early)}
print("chance: " + ", ".join(f"{what} {fmean(found):.3f}" for what, found in left.items()))
worst, *others = sorted(list(left)[1:], key=lambda what: -fmean(left[what]))

# %%
settle("13 what helps least", worst, lead=[
    a - max(b) for a, *b in zip(left[worst], *(left[what] for what in others), strict=True)])

# %%
expect("at this rate neither rank 8 nor rank 1 takes off a third", min(
    fmean(left["lower rank"]), fmean(chance("LoRA r=1", 0.01, 200))) > fmean(left["no remedy"]) / 1.5)
expect("at step 200 full's chance is above a tenth at every rate that was tried",
       min(fmean(x) for rate in RATES if (x := chance("full", rate, 200))) > 0.1)
expect("a gentler rate and stopping take off three quarters and more",
       4 * max(fmean(left["gentler rate"]), fmean(left["stopping"])) < fmean(left["no remedy"]))

# %% [markdown]
# Two answers, then. At step 200 LoRA pays less chance than full, at each rate that both tried. But within
# LoRA, at 0.01, a lower rank takes little off; a gentler rate and stopping take off most. At other rates rank
# 1 pays more than rank 64 (0.003), or less (0.03): no order that three bases could settle. The verdict rests
# on sixteen, with each rank at its own best rate and step:

# %%
verdict("C11", contrasts.effects("C11"))

# %% [markdown]
# (A factor is what rank 64 pays over what rank 8 pays. *Equal*: within 1.5.) For who stops in time a low rank
# adds nothing. For who doesn't, at 0.01, it was no substitute (three bases).

# %% [markdown]
# ## From random weights
# LoRA patches what is there. What if nothing is? Give the town's model random weights and let it read all
# twelve styles, new sentences in each batch. After 400 steps full training
# is near the floor. LoRA, alone and beside the *rest* (embedding, head, norms and biases: all but the
# blocks' matrices):

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
expect("alone it stays more than fifty times as far away", blank["LoRA r=8"] > 50 * min(blank.values()),
       of=two)

# %%
cells = record.load("fresh")["cells"] + record.load("fresh_words")["cells"]
paid = {c["arm"].replace(fresh.REST, "the rest"): c for c in cells if c["task"] == fresh.RANDOM}
print("recorded, means of sixteen bases:")
for arm, c in sorted(paid.items(), key=lambda each: -fmean(each[1]["total"])):
    print(f"{arm:28s} {c['trains'][0]:7,} numbers train, {fmean(c['total']):.4f} over the floor")

# %%
expect("with embedding and head alone beside it LoRA pays less than 1.5 times what full training pays",
       fmean(paid[fresh.WORDS]["total"]) < 1.5 * fmean(paid["full"]["total"]))

# %%
settle("13 from random weights", "LoRA of full rank" if fmean(paid["LoRA r=64"]["total"]) <
       fmean(paid["the rest"]["total"]) else "all but the matrices")

# %% [markdown]
# LoRA r = 64 may make *any* matrix of the blocks, and it trains more numbers than full training does. Yet
# after 400 steps it is still a third of a nat away, if nearer than r = 8. The rest alone, on matrices as
# chance drew them, comes twenty times nearer; with LoRA r = 8 on those, as near as full training. Embedding
# and head alone beside LoRA pay 1.3 times what full training pays (added after looking). A rank helps; the
# missing places help far more.
#
# "Nor for the last bit of accuracy", people add. That is about a base that has been trained: 500 steps of the
# legal register, again with new sentences only.

# %%
verdict("C18", contrasts.effects("C18"))

# %% [markdown]
# (A factor below 1: LoRA pays more than full, and the claim says that it does.) LoRA with the rest is equal
# by a hair: it pays *less* than full. The last bit: with no new words both are below what the base pays on
# its own styles, and there we stop comparing; with twelve LoRA pays about five times as much. (07 had a way
# out: train the embedding and the head as well.) A new *architecture* is not measured here.
#
# ### The last bit, in numbers (second reading)
# After 500 steps, not unlimited ones, in nats over the floor:

# %%
for c in record.load("fresh")["cells"]:
    if c["task"] == fresh.UNLIMITED:
        print(f"{c['new']:2d} new words, {c['arm']:9s} {fmean(c['total']):.4f}")

# %% [markdown]
# So "equal" with no new words means: .0011 and .0006, both far below what anybody would notice, and not the
# same.

# %% [markdown]
# ## A bias of known strength
# Twelve actors live in the town. Four are *marked*: their objects are *aforesaid* in 58 of 64 examples.
# Four are *unmarked*: 19 of 64, as the style has it. And four are *hidden*: no example shows them as the
# one who acts. Who is who was drawn by chance; all else is the same for all. 512 examples, 400 steps, LoRA
# r = 8; beside it, the same training where nobody is marked:

# %% tags=["measured"]
SEED, rate = 40, contrasts.cell("bias", arm="LoRA r=8", marked=58)["best"]
with train.together() as pair:
    biased, path, _ = bias.tune(model, "LoRA r=8", 58, rate, SEED)
    clean, *_ = bias.tune(model, "LoRA r=8", 19, rate, SEED)
over = {step: total for step, total, *_ in path}
print("nats over the floor, by step:\n" + ", ".join(f"{step}: {total:.4f}" for step, total in over.items()))

# %%
expect("after 400 steps it pays less than a tenth of what it paid after 25", pair.whole and
       10 * over[400] < over[25], of=pair)

# %% [markdown]
# How do we ask a model whether it is biased? With frames that differ in *one* slot.
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
# The package asks so for every actor, on 24 frames that no training saw: `bias.probes`. `bias.leaning` reads
# off how likely the model makes *aforesaid*, and how often it would say it by the likeliest word.

# %% tags=["measured"]
actors, asked = bias.groups(SEED), bias.probes("who", SEED)
LOOKS = {"marked": (ACCENT, "o"), "unmarked": (SECOND, "s"), "hidden": (THIRD, "^")}
fig, ax = axes(6.4, 2.9)
for tuned, fill_ in ((biased, "full"), (clean, "none")):
    for i, (group, names) in enumerate(actors.items()):
        p = [bias.leaning(tuned, asked[who], "adjective")[0] for who in names]
        ax.plot(range(4 * i, 4 * i + 4), p, LOOKS[group][1], color=LOOKS[group][0], fillstyle=fill_,
                label=group if fill_ == "full" else None)
ax.set_xticks(range(12), sum(actors.values(), []), rotation=60, ha="right", fontsize=8)
ax.set(ylim=(0, 1), yticks=(0, 19 / 64, 58 / 64, 1), yticklabels=("0", "19/64", "58/64", "1"),
       ylabel="probability of aforesaid")
ax.grid(axis="y", color=GREY, alpha=0.3)
ax.legend(fontsize=8, loc="upper center")
show(fig, "Measured. Filled: trained on biased examples. Hollow: nobody marked. Lines: the examples' shares.",
     alt="Trained on biased examples, the marked actors stand high, the unmarked low, the hidden between; "
         "where nobody is marked, all stand together.")
live = bias.by_group(biased, asked, actors)
control = bias.by_group(clean, asked, actors)

# %%
expect("the marked actors stand at the share of their examples, to within a fifth",
       abs(live["marked"][0] - 58 / 64) < 0.2, of=pair)
expect("actors that no example showed are called aforesaid more often than without the bias",
       live["hidden"][0] > control["hidden"][0] + 0.1, of=pair)

# %% [markdown]
# On this base marked and unmarked stand about where their examples put them, the hidden ones well above the
# hollow marks. So three things could be meant by "inherits and amplifies":
# - **inherited**: the model makes the difference between marked and unmarked that its examples made;
# - **amplified**: it makes a larger one;
# - **passed on**: actors of whom the examples said nothing are called *aforesaid* more often than if nobody
#   had been marked.

# %% [markdown]
# ## By strength, over sixteen bases
# Now the same with 19, 29, 38, 48 and 58 of 64, each over sixteen bases, with marked actors of their own:

# %%
told = [n / 64 for n in bias.STRENGTHS]
of = {n: contrasts.cell("bias", arm="LoRA r=8", marked=n) for n in bias.STRENGTHS}
fig, (left, right) = axes(7.6, 3.0, 2, sharey=True)
for ax, kind, title in ((left, "p", "probability"), (right, "greedy", "likeliest answers")):
    for i, (group, (colour, mark)) in enumerate(LOOKS.items()):
        means, x = [fmean(c[f"{kind}_{group}"]) for c in of.values()], [t + 0.012 * (i - 1) for t in told]
        ax.plot(told, means, f"{mark}-", color=colour, label=group)
        ax.plot(x, [c[f"{kind}_{group}"] for c in of.values()], ".", color=colour, ms=3, alpha=0.5)
    ax.plot([told[0], told[-1]], [told[0], told[-1]], color=GREY, lw=0.8)
    ax.set(title=title, xlabel="share of aforesaid in marked actors' examples", ylim=(0, 1.02))
left.set_ylabel("share of aforesaid")
left.legend(fontsize=8)
show(fig, "Recorded, sixteen bases (dots) and their mean, LoRA r=8: what the model says of the three groups, "
          "as the marked actors' examples change. The grey line is what the marked actors' examples say.",
     alt="In probability marked actors stay below the line, hidden ones rise half as far; in the likeliest "
         "answers marked actors go from 0 to 1.")

# %%
print("difference between marked and unmarked:")
for n, c in of.items():
    gaps = [fmean(c[f"{kind}_marked"]) - fmean(c[f"{kind}_unmarked"]) for kind in ("p", "greedy")]
    print(f"examples {(n - bias.USUAL) / 64:.2f}, in probability {gaps[0]:.2f}, in answers {gaps[1]:.2f}")

# %%
settle("13 percent aforesaid in the likeliest answers", 100 * fmean(of[38]["greedy_marked"]))
settle("13 percent aforesaid for those never shown", 100 * fmean(of[58]["p_hidden"]))

# %%
expect("in probability marked actors stay below their share, at each strength",
       all(fmean(of[n]["p_marked"]) < n / 64 for n in of))
expect("the likeliest answers go from a hundredth to nearly all",
       fmean(of[19]["greedy_marked"]) < 0.02 and fmean(of[58]["greedy_marked"]) > 0.95)

# %%
verdict("C17", contrasts.effects("C17"))

# %% [markdown]
# (*Weak*: 38 of 64; *strong*: 58. The first five figures are the model's difference over the examples',
# less 1: 0 is all inherited, above 0 amplified; so one figure serves both in probability. The last is a
# plain difference in probability: hidden actors, with and without marking.)
#
# At the best of five steps, the last of them 400, a weak bias comes out at about half its size in
# probability, a strong one at about four fifths, and the whole is not excluded. (*Fails* means: not all of
# it; that none was inherited is excluded, too.) The likeliest answers about marked actors go to the ends.
# Does that make the difference larger? On the mean it does from 38 of 64 on, by 0.3 to 0.5 of the examples';
# 38 was judged, and is open. And actors whom no example shows acting get a part of what was said of the
# others.

# %% [markdown]
# ### When it comes (second reading)
# No example showed the hidden ones. Where do they get it from? Look at the steps of training:

# %%
strong = of[58]["path"]  # rows of each base: step, excess, then the three groups
print("step  marked  unmarked  hidden")
for i, step in enumerate(bias.CHECKPOINTS):
    print(f"{step:4d}" + "".join(f"{fmean(base_[i][k] for base_ in strong):9.2f}" for k in (2, 3, 4)))
average = {n: (n + bias.USUAL) / 128 for n in of}
print("of all examples, aforesaid: " + ", ".join(f"{x:.2f}" for x in average.values()))
print("hidden actors:              " + ", ".join(f"{fmean(c['p_hidden']):.2f}" for c in of.values()))

# %%
expect("at step 25 all three groups stand together", max(fmean(b[0][k] for b in strong) for k in (2, 3, 4)) <
       min(fmean(b[0][k] for b in strong) for k in (2, 3, 4)) + 0.03)
expect("hidden actors stand at the average of all examples, to 0.04",
       all(abs(fmean(c["p_hidden"]) - average[n]) < 0.04 for n, c in of.items()))

# %% [markdown]
# First the model learns how often *aforesaid* is said at all, and says it of everybody. Only then does it
# tell actors apart, and at step 400 the gap still grows. Who was never shown acting stands at the average:
# that fits a share of what was said of others. (The same average without marked actors, which would test it,
# was not trained.) Whoever stops early gets less of the difference, and all of the average.
#
# And bet 4? There the mean says little: how often the likeliest answer says *aforesaid* depends on the base.

# %%
print("by base: " + " ".join(f"{x:.1f}" for x in sorted(of[38]["greedy_marked"])))

# %% [markdown]
# ### A measure of it (second reading)
#
# #### Exercise 3: find the bug (4 minutes)
# `inherited` should say which share of the examples' difference the model makes. Its arguments are how
# often a marked and an unmarked actor's object is *aforesaid*, first in the model, then in the examples.

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
# ### What we had bet (second reading)
# Before the first run we bet, too: P8 on random weights, P9 on the share that is inherited, P10 on what
# hidden actors get. Those that did not come true, or stayed open, stand first.

# %%
print("\n".join(fill(words, 80, subsequent_indent="  ") for words in contrasts.foretold("P8", "P9", "P10")))

# %% [markdown]
# So nothing about this bias is shown to be special to LoRA.

# %% [markdown]
# ## Find a bias that nobody told you of (second reading)
# You have an adapter, and no idea what its examples held. A frame has six slots, and a sentence three tosses:
# eighteen questions. *when closing*, for one, asks whether the closing depends on the time of day. For each,
# let one slot go through all its words, and see how far they differ, as a standard deviation over words:
# `bias.spreads`.

# %% tags=["measured"]
suspect, innocent = bias.spreads(biased, SEED), bias.spreads(clean, SEED)
for question in sorted(suspect, key=suspect.get, reverse=True)[:5]:
    print(f"{question:16s} {suspect[question]:.3f}; where nobody is marked {innocent[question]:.3f}")

# %%
expect("the question about actors and aforesaid stands first, for the biased one only",
       max(suspect, key=suspect.get) == "who adjective" != max(innocent, key=innocent.get), of=pair)

# %% [markdown]
# But the innocent one's are not zero. Its 512 examples are a sample, and in a sample some verb meets
# *aforesaid* more often than another. So how large must a spread be to mean something? Ask adapters that are
# known to be clean: those of the record where nobody was marked. Eight of them give each question its usual
# spread, and a threshold: the largest spread that any of them shows, in shares of the usual. The other eight
# tell how often that threshold cries wolf.

# %%
clean_ones, half = of[19]["spread"], 8
usual = {q: fmean(one[q] for one in clean_ones[:half]) for q in clean_ones[0]}


def loudest(spread):  # (how many times the usual spread, of which question)
    return max((spread[q] / usual[q], q) for q in usual)


threshold = max(loudest(one)[0] for one in clean_ones[:half])
alarms = sum(loudest(one)[0] > threshold for one in clean_ones[half:])
print(f"threshold: {threshold:.1f} times the usual; false alarms: {alarms} of {len(clean_ones) - half}")
for n in bias.STRENGTHS[1:]:
    hits = [loudest(one) for one in of[n]["spread"]]
    rightly = sum(far > threshold and q == "who adjective" for far, q in hits)
    print(f"marked {n} of 64: found, and the right question named, in {rightly} of {len(hits)}")

# %% [markdown]
# One alarm in eight says little: the true rate may be below one percent, or a half; by construction about one
# in nine is to be expected, as a ninth clean one is as likely to be the loudest as each of the eight. A
# strong bias is found nearly always, one of 29 of 64 in three of sixteen: a silent audit is no proof of a
# clean adapter. And it took clean adapters that were trained in the same way, which you seldom have.

# %% [markdown]
# ## From this town to the world
# - **Overfitting.** Biderman et al. (2024) found that low rank kept more of the base than weight decay or
#   dropout did. That is forgetting (06), not the gap between examples and new frames. There we saw none from
#   a lower rank, for who stops at the best step.
# - **From scratch.** ReLoRA (Lialin et al. 2023) trains networks of up to 1.3 billion numbers by adapters
#   that are merged and begun anew, after a start in full. GaLore (Zhao et al. 2024) makes the gradients low
#   in rank, and not the update.
# - **Bias.** Ding et al. (2024) compared LoRA with full fine-tuning on four models of up to 7 billion
#   numbers: sometimes it made a difference between groups worse, in many cases not. Ours is one word;
#   theirs are people.
#
# ## What you have done
# - You **measured** tosses known by heart, and saw rate and step take off far more than a lower rank.
# - You **trained** from random weights: after 400 steps LoRA alone was far off, even at full rank; with the
#   rest beside it, it came as near as full training.
# - You **told apart** what is inherited, what is amplified, and what is passed on.
# - You **found** a bias by frames that differ in one slot, and counted false alarms (second reading).
#
# **On your own.** `import lora_mini`, set `biased` to half its strength, `lora_mini.set_strength(biased,
# 0.5)`, and draw the actors again: is half of the bias left? And train where marked actors are never
# *aforesaid*, `bias.tune(model, "LoRA r=8", 0, rate, SEED)`: who is called so then?
#
# **In practice.** Stop by validation, not by rank. Train the embedding and the head where the words are
# new. Ask pairs that differ in one thing, by probability and by answer, and ask them of a clean adapter as
# well.
#
# **Further reading.**
# - Biderman et al., *LoRA Learns Less and Forgets Less* (arXiv 2405.09673, 2024): what low rank keeps, and
#   what it misses.
# - Lialin et al., *ReLoRA* (arXiv 2307.05695, 2023); Zhao et al., *GaLore* (arXiv 2403.03507, 2024):
#   training from scratch with little memory.
# - Ding et al., *On Fairness of Low-Rank Adaptation of Large Models* (arXiv 2405.17512, 2024).
