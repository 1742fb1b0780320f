# %% [markdown]
# # 6. Fine-tune beside a control, and count what is lost
#
# You will teach the town's model a register that it has never read, beside a model that knows nothing. Then
# you will ask what was forgotten.
#
# At the end of this notebook you will be able to
# - **compare** full fine-tuning and LoRA fairly: each at its best rate, over bases, beside a control;
# - **read** a verdict, by hand: ratio, interval, margin;
# - **weigh** fit against forgetting as a frontier, and not as one number;
# - **write** LoRA's training loop, and count the memory of a step (second reading).
#
# You need notebooks 04 and 05. About 75 minutes to study; the core path about 45, the rest is marked as a
# second reading.

# %% [markdown]
# **Three questions before you start.** Answer aloud, then unfold.
#
# <details><summary>1. What is the excess, and which are its two parts? (05)</summary>
#
# Nats per token above what the same sentences cost somebody who knows all the chances: content, on the words
# that the frame fixes, and chance, on those that it leaves open.
# </details>
# <details><summary>2. What did the base know of the legal register? (05)</summary>
#
# All the words, and the tag of the prompt. It said nothing valid: only the combination is new.
# </details>
# <details><summary>3. Is the base still there after LoRA training? (04)</summary>
#
# Yes, bit for bit, as long as the update is not merged into it.
# </details>

# %%
import math
from statistics import fmean, stdev
from textwrap import fill

import torch

import lora_mini as lm
from lora_mini.desk import bet, expect, figures, settle, show, verdict, verdicts

# %%
from lora_mini.desk.figures import ACCENT, GREY, SECOND, THIRD, axes
from lora_mini.desk.intervals import interval, prediction, student
from lora_mini.lab import contrasts, record, trials
from lora_mini.ledger import ledger
from lora_mini.world import base, measure, text, town, train
from lora_mini.world.styles import STYLES, register

model, legal = base.load_base(path=base.SHIPPED), register("legal")
before = measure.evaluate(model, legal, n=100)
print(f"the base on the legal register: excess {before.total:.1f} nats, valid {before.valid:.2f}")

# %% [markdown]
# ## Three ways to fine-tune, and a control
# - **full**: every number trains;
# - **LoRA**: a `LoRALinear` around each linear layer of the blocks, alpha 16; all else is frozen, embedding
#   and head too;
# - **words**: only the embedding and the head;
# - **scratch**, the control: the same shape with *random* weights, all of which train. What it reaches, the
#   examples are worth by themselves, in as many steps. Only what an arm does better does it owe to the base.
#
# Each of these *arms* gets the same examples, 256 unless the page says otherwise, and 200 steps of 32
# sentences. Gradients whose norm is above 1 are scaled down to it (*clipping*). After 25, 50, 100 and 200
# steps we look at 64 further sentences (*validation*), and keep the best of these four *checkpoints*. And
# each arm has a rate of its own.

# %%
for arm in ("scratch", "full", "words", "LoRA r=1", "LoRA r=8"):
    _, count = lm.trainable_parameters(trials.prepare(model, arm))
    print(f"{arm:9s} {count:7,} numbers train")

# %% [markdown]
# ### Bets 1 to 4
# The legal register, all words known, each arm at its best rate.
# 1. 256 examples: how many times the excess of full fine-tuning does the control pay?
# 2. And with 1,024 examples?
# 3. LoRA at rank 8, 256 examples. Of the sentences in the twelve styles that the base knew, what percentage
#    does it still say validly? (Before it was 100.)
# 4. Now each arm gets the *gentlest* rate at which it still fits. Who keeps more of the old sentences, by 20
#    percentage points or more: `"full"`, `"LoRA"`, `"neither"`, or `"depends"` (on the tag under which the
#    new register is asked for)?

# %%
bet("06 times full's excess from random weights, 256 examples", guess=None)
bet("06 times full's excess from random weights, 1,024 examples", guess=None)
bet("06 percent of old sentences valid at the best rate", guess=None)
bet("06 who keeps more", guess=None, choices=("full", "LoRA", "neither", "depends"))

# %% [markdown]
# ## The record
# There are nineteen bases, each with a random start and reading of its own. Three of them chose the rates,
# half a decade apart, with one more beyond the best; of those within a tenth of the best the smallest counts.
# Sixteen others report, one run each, every base with examples of its own, the same for all arms. It was
# *recorded*. Your own runs stand on a twentieth, the course's. (*12 new words*: the register says twelve of
# its words with words that no base has read. Their rows in embedding and head are still as they were drawn.)

# %%
rec = record.load("arms")
print(record.label(rec))

# %%
TASKS = {name: rules["task"] for name, rules in verdicts.contrasts("C5").items()}
f = fmean(own["total"] for own in rec["own"])  # what a base pays on its own twelve styles


def mean(arm, task, part="total"):
    return fmean(contrasts.cell("arms", arm=arm, **TASKS[task])[part])


few, many = "0 new words, 256 examples", "0 new words, 1,024 examples"

# %%
settle("06 times full's excess from random weights, 256 examples", mean("scratch", few) / mean("full", few),
       unit="times")
settle("06 times full's excess from random weights, 1,024 examples",
       mean("scratch", many) / mean("full", many), unit="times")
settle("06 percent of old sentences valid at the best rate", 100 * mean("LoRA r=8", few, "old_valid"),
       unit="percent")

# %%
fig, ax = axes(6.6, 3.6)
looks = {"scratch": ("x", GREY), "words": ("v", THIRD), "full": ("o", SECOND), "LoRA r=8": ("s", ACCENT)}
for row, task in enumerate(reversed(TASKS)):
    for shift, (arm, (marker, colour)) in zip((0.24, 0.08, -0.08, -0.24), looks.items(), strict=True):
        if arm == "words" and not task.endswith("256 examples"):
            continue  # not recorded
        paid = contrasts.cell("arms", arm=arm, **TASKS[task])["total"]
        ax.plot(paid, [row + shift] * len(paid), marker, color=colour, ms=3, alpha=0.35)
        ax.plot(fmean(paid), row + shift, marker, color=colour, ms=7, label=arm if row == 5 else None)
ax.axvline(f, color=GREY, ls="--", lw=1)
ax.set_yticks(range(len(TASKS)), list(reversed(TASKS)))
ax.set(xscale="log", xlabel="excess on new frames, nats per token")
ax.set_xticks(levels := (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2), map(str, levels))
ax.minorticks_off()
ax.legend(fontsize=8)
show(fig, "Recorded: sixteen bases each (small) and their mean (large), each arm at its best rate; left is "
          "better. The dashed line is what a base pays on its own twelve styles. (words: with 256 examples.)",
     alt="Mean excess of scratch, full and LoRA r=8: " + "; ".join(
         f"{task} " + ", ".join(f"{mean(arm, task):.3f}" for arm in ("scratch", "full", "LoRA r=8"))
         for task in TASKS) + ".")

# %%
print(f"{'':28s}" + "".join(f"{arm:>17s}" for arm in ("scratch", "full", "LoRA r=8")))
for task in TASKS:
    cells = [f"{mean(arm, task):.4f} ({mean(arm, task, 'content'):.4f})"
             for arm in ("scratch", "full", "LoRA r=8")]
    print(f"{task:28s}" + "".join(f"{cell:>17s}" for cell in cells))

# %% [markdown]
# The table (*recorded*) has the mean excess, and in brackets its content. The rest is chance: coins that were
# learned by heart.
#
# - **The examples do much of the work.** With all words known, the control pays 12 times what full pays with
#   64 examples (and 64 for validation), 5 times with 256, and twice with 1,024. There the base gains nothing
#   in content.
# - **With 24 new words LoRA shows no gain from the base.** It pays about what random weights pay, and twice
#   as much in content.
# - **Embedding and head without any adapter** (green) come as near as LoRA with 12 new words, and nearer with
#   24. (07 asks why.)
#
# ## A verdict, by hand
# Take one row: no new words, 256 examples, LoRA at rank 8 against full.
#
# **Ratio.** On each base, divide what full pays by what LoRA pays. (What is below $f$, the base's excess on
# its own twelve styles, counts as $f$.) Take the logarithm, so that twice and half are equally far from 0.

# %%
f_of = [own["total"] for own in rec["own"]]
full, lora = (contrasts.cell("arms", arm=arm, **TASKS[few])["total"] for arm in ("full", "LoRA r=8"))
logs = [math.log(max(a, low) / max(b, low)) for a, b, low in zip(full, lora, f_of, strict=True)]
for i in range(3):
    print(f"base {i + 11}: full {full[i]:.4f}, LoRA {lora[i]:.4f}, ratio {math.exp(logs[i]):.2f}, "
          f"logarithm {logs[i]:+.2f}")

# %% [markdown]
# **Interval.** Sixteen logarithms have a mean and a standard deviation $s$. The interval reaches $t\, s /
# \sqrt{16}$ to either side. This claim asks six questions. So that all six intervals hold *together* with 95
# percent, each gets $1 - 0.05 / 6$, and $t$ is 3.04 instead of 2.13. (At the rates that were chosen: how near
# other rates came is in no interval.)

# %%
t = student(1 - 0.05 / len(TASKS), 15)
reach = t * stdev(logs) / 16**0.5
low, middle, high = (math.exp(fmean(logs) + side) for side in (-reach, 0, reach))
print(f"t = {t:.2f}: factor {middle:.2f}, from {low:.2f} to {high:.2f}")

# %% [markdown]
# **Margin.** A difference counts from a factor of 1.5: that is what 1.7 times as many examples buy full
# fine-tuning here, from 64 to 1,024. If the whole interval lies above 1.5, LoRA is *better*; below 1/1.5 =
# 0.67, *worse*; between the two, *equal*; else it is *open*. Questions and margin were fixed before the first
# run, in `desk/contrasts.toml`.
#
# The verdict on all six; you have worked out the first line:

# %%
verdict("C5", contrasts.effects("C5"))

# %% [markdown]
# LoRA matches full fine-tuning with all words known and 256 examples or more, and with 12 new words (at
# full's larger rate that would be open, see below). With 24 it pays more, with 64 examples less; whether by a
# factor of 1.5 is open. Notebook 07 turns both dials, new words and examples.
#
# With 64 examples the best of four checkpoints matters:

# %%
for arm in ("full", "LoRA r=8"):
    cell = contrasts.cell("arms", arm=arm, new=0, examples=64)
    print(f"{arm:9s} at its best checkpoint {fmean(cell['total']):.4f}, after step 200 of the same runs "
          f"{fmean(cell['last']):.4f}")

# %% [markdown]
# Before the first run we bet, too: P1 to P3, on LoRA at rank 8 against full. Those that did not come true
# stand first. (Fewer questions than C5's, so narrower intervals.)

# %%
print("\n".join(contrasts.foretold("P1", "P2", "P3")))

# %% [markdown]
# (P1: the excess. P2: its content. P3, below: the share of old sentences that stay valid; a difference, with
# a margin of a fifth.) Only the last two came true. Twice where we had said *worse*, the interval lies on
# LoRA's side.
#
# But look at P2 with 12 new words. The three bases could hardly tell two of full's rates apart, and the
# gentler one reports. The other:

# %%
bold = contrasts.cell("inside", what="hot", new=12, rank=64)  # full, three times the rate
two = [contrasts.cell("arms", arm=arm, new=12, examples=256) for arm in ("full", "LoRA r=8")]
for label, c in (("full, 0.0003", two[0]), ("full, 0.001", bold), ("LoRA, 0.01", two[1])):
    print(f"{label:13s} excess {fmean(c['total']):.4f}, of which content {fmean(c['content']):.4f}")
beside = [math.log(a / b) for a, b in zip(bold["total"], two[1]["total"], strict=True)]
near = interval(beside, 1 - 0.05 / 6)
print("excess, full at 0.001 over LoRA: " + "{:.2f} [{:.2f}, {:.2f}]".format(
    *map(math.exp, (near.mean, near.low, near.high))))

# %% [markdown]
# At that rate LoRA's content is twice that of full, as P2 said. (Added after looking: no verdict rests on
# it.)

# %% [markdown]
# ### Exercise 1: find the bug (4 minutes)
# A common habit: an interval above 1 is called a win, one that contains 1 a tie. `low` and `high` are the
# ends of a factor's interval. Judge by the rules above.

# %% tags=["exercise"]
from lora_mini.desk.checks.nb06 import check_judged


def judged(low, high):
    # <stub>
    # if low > 1:
    #     return "better"
    # return "worse" if high < 1 else "equal"
    # </stub>
    # <solution>
    if low >= 1.5:
        return "better"
    if high <= 1 / 1.5:
        return "worse"
    return "equal" if low > 1 / 1.5 and high < 1.5 else "open"
    # </solution>


check_judged(judged)

# %% [markdown]
# ## LoRA's training, in ten lines (second reading)
# ### Exercise 2: complete (8 minutes)
# `draw()` gives a batch: tokens, mask, and a third thing that you don't need. Attach LoRA with
# `lm.attach(model, "all-linear", rank=..., alpha=...)`. Give AdamW what is trainable *then*. Take `steps`
# steps, each with a new batch and its `train.loss(model, tokens, mask)`, and return the losses as floats. (No
# clipping, no checkpoints.)

# %% tags=["exercise"]
from lora_mini.desk.checks.nb06 import check_train_lora


def train_lora(model, draw, rank, alpha, rate, steps):
    # <solution>
    lm.attach(model, "all-linear", rank=rank, alpha=alpha)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    losses = []
    for _ in range(steps):
        tokens, mask, _ = draw()
        optimizer.zero_grad()
        loss = train.loss(model, tokens, mask)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
    # </solution>


check_train_lora(train_lora)

# %% [markdown]
# ## You repeat it
# Four arms on your base, at the recorded rates. `trials.tune` trains a copy and keeps its best checkpoint.
# Each result should land in the record's *prediction interval*: where one more base should land, judged by
# the sixteen.

# %% tags=["measured"]
tuned, live, landed = {}, {}, {}
with train.together() as four:  # the stop button ends all of them
    for arm in ("scratch", "full", "words", "LoRA r=8"):
        cell = contrasts.cell("arms", arm=arm, **TASKS[few])
        tuned[arm], live[arm] = trials.tune(model, arm, legal, cell["best"], seed=40)
        found = live[arm]
        print(f"{arm:9s} rate {cell['best']:<6g} excess {found.test.total:.4f}, old sentences valid "
              f"{found.old.valid:.2f}, {1000 * found.seconds_per_step:.0f} ms a step")
        landed[arm] = prediction(map(math.log, cell["total"])).holds(math.log(found.test.total))

# %%
expect("scratch landed where the record predicts", landed["scratch"], of=four)
expect("full landed where the record predicts", landed["full"], of=four)
expect("words landed where the record predicts", landed["words"], of=four)
expect("LoRA r=8 landed where the record predicts", landed["LoRA r=8"], of=four)

# %% [markdown]
# ## What was lost
# Let each tuned model speak in the twelve old styles, under their own tags. It has *forgotten* the share of
# sentences that it no longer says validly.

# %%
old = record.load("forgetting")


def gentle(arm, asked="any"):
    return contrasts.cell("forgetting", arm=arm, asked=asked)


print("excess on the new register; of old sentences: share valid, nats a token")
print(f"{'':10s}{'at the best rate':>30s}{'at the gentlest that fits':>32s}")
for arm in ("full", "blocks", "LoRA r=1", "LoRA r=8"):
    best, soft = contrasts.cell("arms", arm=arm, **TASKS[few]), gentle(arm)
    print(f"{arm:10s}" + "".join(
        f"{f'{rate:g}:':>12s} {fmean(c['total']):.4f}; {fmean(c['old_valid']):.2f}, {fmean(c['old']):.2f}"
        for c, rate in ((best, best["best"]), (soft, soft["gentlest"]))))

# %% [markdown]
# (*Blocks*: the matrices that LoRA adapts, trained in full.) The *gentlest* rate is the smallest at which the
# excess is still at most 0.010, on average over the three bases that choose. For LoRA that is a third of the
# best. At rank 8 it costs 0.002 nats, and nearly three times as many old sentences stay valid.
#
# ### A frontier
# Draw fit against forgetting, for all rates and checkpoints. The points that no other of the same arm beats
# in both are its *Pareto envelope*.
#
# The *prompt* may matter, too: every style was read under `<any>`. So ask once more under `<plain>`, the tag
# of one style, which is then left out of the old ones.

# %%
def points(arm, asked):  # (excess, share forgotten) of each rate and checkpoint, mean of the three bases
    found = []
    for tried in gentle(arm, asked)["tried"].values():
        for rows in zip(*tried.get("path", []), strict=True):  # one checkpoint, base by base
            found.append((fmean(row[1] + row[2] for row in rows), 1 - fmean(row[4] for row in rows)))
    return found


# %%
fig, panels = axes(7.6, 3.4, 2, sharey=True)
looks = {"full": ("o", SECOND), "LoRA r=8": ("s", ACCENT), "LoRA r=1": ("^", "#56B4E9"),
         "words": ("v", THIRD)}
for ax, asked in zip(panels, ("any", "plain"), strict=True):
    for arm, (marker, colour) in looks.items():
        if asked == "plain" and arm not in ("full", "LoRA r=8"):
            continue  # not recorded
        cloud = points(arm, asked)
        ax.plot(*zip(*cloud, strict=True), marker, color=colour, ms=3, alpha=0.3)
        ax.plot(*zip(*figures.envelope(cloud), strict=True), marker + "-", color=colour, ms=4, label=arm)
    ax.axvline(old["bar"], color=GREY, ls=":", lw=1)
    ax.set(xscale="log", xlim=(0.004, 0.6), title=f"asked for under <{asked}>",
           xlabel="excess on the new register")
panels[0].set(ylabel="share of old sentences forgotten")
panels[0].legend(fontsize=8)
show(fig, "Recorded, mean of the three bases that chose. Each point is a rate and a checkpoint; lines join "
          "those that no other of the same arm beats. Lower left is better; left of the dotted line fits.",
     alt="Share forgotten, on the sixteen bases, at the gentlest rate that fits: " + ", ".join(
         f"{arm} under <{asked}> {1 - fmean(gentle(arm, asked)['old_valid']):.2f}"
         for asked in ("any", "plain") for arm in ("full", "LoRA r=8")) + ".")

# %%
kept = contrasts.effects("P3")  # under each prompt: LoRA's share minus full's, base by base
who = {"LoRA" if fmean(d) >= 0.2 else "full" if fmean(d) <= -0.2 else "neither" for d in kept.values()}

# %%
settle("06 who keeps more", who.pop() if len(who) == 1 else "depends",
       lead=[-0.2 - d for d in kept["asked under <plain>"]])
verdict("C12", contrasts.effects("C12"))

# %% [markdown]
# LoRA *preserves* under neither prompt: half of the old sentences go wrong, or more. And **the prompts
# disagree** on who forgets less: under `<plain>` LoRA forgets more; under `<any>` it is open, with LoRA ahead
# on the mean. At a rate of 0.0001 full fine-tuning keeps three old sentences in four, on the three bases that
# choose. Under `<plain>` it fits there; under `<any>` it missed the bar by 0.0005 nats, and got three times
# the rate. So we ran the smaller one on the sixteen, too:

# %%
later = record.load("gentler")["cells"][0]
rows = [(later["rate"], later)]
rows += [(gentle(arm)["gentlest"], gentle(arm)) for arm in ("full", "blocks", "LoRA r=8")]
for rate, cell in sorted(rows, key=lambda row: fmean(row[1]["total"])):
    print(f"{cell['arm']:9s} rate {rate:<6g} excess {fmean(cell['total']):.4f}, old sentences valid "
          f"{fmean(cell['old_valid']):.2f}")
more = [a - b for a, b in zip(later["old_valid"], gentle("LoRA r=8")["old_valid"], strict=True)]
print("full at the smaller rate minus LoRA:", interval(more))

# %% [markdown]
# There it is below the bar, if above LoRA's excess, and keeps 17 points *more* than LoRA. (Added after
# looking, too.) One step of a grid turned the answer. And the blocks in full keep about as many as LoRA.
# Nothing here says that a low rank protects; a smaller rate helps every arm.
#
# So read a frontier whole: in the figure, under `<any>`, full forgets less at an excess of 0.009, and only
# LoRA comes to 0.0055.
#
# ### With the adapter off

# %%
adapted = tuned["LoRA r=8"]
tokens = text.batch(town.sample_frames(8, seed=1), list(STYLES.values())[:8]).tokens.to(train.device())
with torch.no_grad(), lm.disabled(adapted):
    print("with the adapter off the logits are the base's, bit for bit:",
          torch.equal(adapted(tokens), model(tokens)))

# %% [markdown]
# Switch the adapter on for requests of the new job only, and nothing is forgotten. In full that takes a
# second copy of all weights.

# %% [markdown]
# ## Two remedies with the adapter on (second reading)
# **A weaker update.** Drag: the cell prints one sentence in the new register and one in an old style.

# %% tags=["measured"]
from ipywidgets import interact

frame = town.sample_frames(1, seed=5, split="test")[0]


@interact(strength=(0.0, 1.5, 0.1))
def speak(strength=1.0):
    lm.set_strength(adapted, strength)
    for style in (legal, STYLES["herald"]):
        start = torch.tensor([text.encode(town.prompt(frame, style))], device=train.device())
        said = text.decode(adapted.generate(start, 30)[0].tolist())
        mark = "valid" if said in town.sentences(frame, style) else "WRONG"
        print(fill(f"{style.tag:8s}{mark}  {said}", 78, subsequent_indent=" " * 15))
    lm.set_strength(adapted, 1.0)


# %%
excess, _, valid = ([fmean(base[i][j] for base in old["strength"]) for i in range(11)] for j in range(3))
fig, (left, right) = axes(7.2, 2.8, 2)
left.plot(old["strengths"], excess, "o-", color=ACCENT, ms=4)
left.set(yscale="log", ylabel="excess on the new register", xlabel="strength")
right.plot(old["strengths"], valid, "s-", color=SECOND, ms=4)
right.set(ylabel="share of old sentences valid", xlabel="strength")
show(fig, "Recorded, mean of sixteen bases, LoRA r=8 at its best rate. A weaker adapter gives old "
          "sentences back, and the fit goes with it.",
     alt="At strength 1, 0.7, 0.5: excess " + ", ".join(f"{excess[i]:.3f}" for i in (10, 7, 5))
         + "; old sentences valid " + ", ".join(f"{valid[i]:.2f}" for i in (10, 7, 5)) + ".")

# %% [markdown]
# At 0.8 the fit is that of the gentlest rate, with fewer old sentences valid, 39 in 100 against 49: better
# train at a smaller rate.
#
# **A few old sentences.** Four of the 32 sentences in each batch now come from 64 in the old styles:
# `trials.tune(..., replay=64)`. (Measured on others.)

# %%
for arm in ("full", "LoRA r=8"):
    for replay in (0, 64):
        cell = record.find(old["replay"], arm=arm, replay=replay)
        print(f"{arm:9s} {replay:2d} old sentences: excess {fmean(cell['total']):.4f}, valid "
              f"{fmean(cell['old_valid']):.2f}, on the worst base {min(cell['old_valid']):.2f}")

# %% [markdown]
# For next to nothing in fit, and for both arms alike, 95 of 100 old sentences stay valid; on the worst base
# four in five. But a large model's old examples are seldom published.

# %% [markdown]
# ## Does the recipe work? (second reading)
# C8 has two halves: the sentences are valid, and the base was needed.

# %%
verdict("C8", contrasts.effects("C8"))

# %% [markdown]
# One of them by a hair: its interval begins at 1.501. And 24 new words were not asked, where LoRA shows no
# gain. *Valid* alone shows little: random weights reach 1.00 with 1,024 examples, 0.98 with 256. And the
# epochs are no handful: 256 examples are read 25 times.
#
# ### Exercise 3: find the bug (4 minutes)
# `excess` maps each rate to its results, base by base; bases 1, 2 and 3 are there to choose, by the least
# mean (leave the tenth aside). The function reports how good an arm is at its best rate. Its answer is too
# good.

# %% tags=["exercise"]
from lora_mini.desk.checks.nb06 import check_report


def report(excess):
    # <stub>
    # means = {rate: fmean(bases.values()) for rate, bases in excess.items()}
    # return min(means.values())
    # </stub>
    # <solution>
    chosen = min(excess, key=lambda rate: fmean(excess[rate][base] for base in (1, 2, 3)))
    return fmean(value for base, value in excess[chosen].items() if base not in (1, 2, 3))
    # </solution>


check_report(report)

# %% [markdown]
# ## Fewer numbers still (second reading)
# Two more arms: the biases only, and the head only.

# %%
for arm in ("scratch", "biases", "head", "words", "LoRA r=1", "LoRA r=8"):
    cell = contrasts.cell("arms", arm=arm, **TASKS[few])
    _, count = lm.trainable_parameters(trials.prepare(model, arm))
    print(f"{arm:9s} {count:7,} numbers  rate {cell['best']:<6g} excess {fmean(cell['total']):.4f}  valid "
          f"{fmean(cell['valid']):.2f}  old {fmean(cell['old_valid']):.2f}")

# %% [markdown]
# The biases, 1,472 numbers, pay twice what rank 8 pays.

# %% [markdown]
# ## A base that has read little (second reading)
# These bases have read one style, and never met many of the register's small words:

# %%
for cell in record.load("narrow")["cells"]:
    print(f"{cell['arm']:14s} excess {fmean(cell['total']):.4f}, content {fmean(cell['content']):.4f}, "
          f"valid {fmean(cell['valid']):.2f}")

# %% [markdown]
# Full fine-tuning gains nothing from such a base. LoRA pays more than twice what random weights pay, at rank
# 64 as at 8. With embedding and head beside it, it comes as near as full.

# %% [markdown]
# ## What a step costs (second reading)
# ### Exercise 4: predict (2 minutes)
# LoRA at rank 8 trains 18,432 numbers in float32. How many **bytes** does AdamW keep for them, besides the
# numbers themselves and their gradients?

# %% tags=["exercise"]
from lora_mini.desk.checks.nb06 import check_bytes

# <stub>
# adam_bytes = None  # your number
# </stub>
# <solution>
adam_bytes = 18_432 * 2 * 4
# </solution>
check_bytes(adam_bytes)

# %% [markdown]
# A step has two peaks. *After the forward pass* there are weights, AdamW's memory, and what PyTorch keeps for
# the backward pass, but no gradients yet. *At the step* there are weights, AdamW's memory and gradients; what
# was kept is gone.

# %% tags=["measured"]
batch, peaks = text.batch(town.sample_frames(32, seed=0), legal), {}
print(f"{'MB':10s}{'weights':>9s}{'AdamW':>7s}{'kept':>7s}{'gradients':>11s}{'after forward':>15s}"
      f"{'at the step':>13s}")
for arm in ("full", "words", "LoRA r=1", "LoRA r=8"):
    ready = trials.prepare(model, arm)
    book, saved = ledger(ready), trials.saved_for_backward(ready, batch)
    peaks[arm] = book.weight_bytes + book.optimizer_bytes + saved, book.total_bytes
    print(f"{arm:10s}{book.weight_bytes / 1e6:9.2f}{book.optimizer_bytes / 1e6:7.2f}{saved / 1e6:7.2f}"
          f"{book.gradient_bytes / 1e6:11.2f}{peaks[arm][0] / 1e6:15.2f}{peaks[arm][1] / 1e6:13.2f}")

# %%
expect("after the forward pass LoRA saves less than a fifth", peaks["LoRA r=8"][0] > 0.8 * peaks["full"][0])
expect("at the step LoRA needs less than half", peaks["LoRA r=8"][1] < 0.5 * peaks["full"][1])

# %% [markdown]
# Here the first peak is the larger one, and LoRA lowers it by 12 percent only: the gradient of each $A$ needs
# the input of its layer. And by your milliseconds above, one run each, so small a model is hardly trained
# faster.

# %% [markdown]
# ## From this town to seven billion
# - **Rates.** Here LoRA's best is 0.001 to 0.01, one to thirty times full's. There it is 1e-4 to 5e-4; GPT-3
#   took 2e-4, against 5e-6 in full (Hu et al. 2021, tables 9 to 12). The rule is ten times full's (Schulman
#   et al. 2025).
# - **Memory.** In full, AdamW in mixed precision takes 16 bytes a number before any activation (Rajbhandari
#   et al. 2020, section 3.1), 112 GB; frozen weights take 2. Here, what is kept dominates.
# - **Speed.** A step multiplies three times: forward, for the input's gradient, for the matrix's own. LoRA
#   spares the last: at most 1.5 times as fast (Schulman et al. 2025).

# %% [markdown]
# ## What you have done
# - You **compared** full fine-tuning and LoRA beside a control: equal in four rows of six, open in two.
# - You **read** a verdict by hand, and told *equal* from *open*.
# - You **weighed** fit against forgetting: a smaller rate keeps more, old sentences among the new keep 95 in
#   100, and one step of a grid turned who forgets less.
# - You **wrote** the training loop, and counted a step's memory at its two peaks.
#
# **On your own.** The support register, LoRA at rank 2: which rate, chosen on what?
#
# **In practice.** Sweep the rate for each method, or don't compare them. Ask what your examples alone are
# worth. Keep a set of old tasks, and measure it whenever you measure the new one.
#
# **Further reading.**
# - Hu et al., *LoRA* (2021), tables 2 to 4: some of the baselines are quoted from earlier papers.
# - Biderman et al., *LoRA learns less and forgets less* (arXiv 2405.09673, version 2, 2024), abstract: at
#   usual ranks well behind full fine-tuning on code and mathematics; what the base knew is kept better.
# - Shuttleworth et al., *LoRA vs full fine-tuning* (arXiv 2410.21228, version 3, 2025), abstract: LoRA
#   forgets less, and what it forgets sits in a few new directions.
# - Schulman et al., *LoRA without regret* (2025): when the two are equal, and why the rates differ.
