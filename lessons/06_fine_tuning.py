# %% [markdown]
# # 6. Fine-tune in four ways, and count what is lost
#
# You will teach the town's model a register that it has never read: by training all its weights, with LoRA,
# and with fewer numbers still. Then you will ask what it has forgotten.
#
# At the end of this notebook you will be able to
# - **compare** full fine-tuning, LoRA, biases alone and the head alone fairly: each at its best rate, over
#   seeds;
# - **read** fit against forgetting as a frontier, and not as one number;
# - **write** LoRA's training loop, and use two remedies against forgetting (second reading).
#
# You need notebooks 04 and 05. About 85 minutes to study; the core path about 45, the rest is marked as a
# second reading.

# %% [markdown]
# **Three questions before you start.** Answer aloud, then unfold.
#
# <details><summary>1. What is the excess, and what does 0 mean? (05)</summary>
#
# Nats per token above what the same sentences cost somebody who knows all the chances. 0 is perfect.
# </details>
# <details><summary>2. What did the base know of the legal register? (05)</summary>
#
# It got no sentence right, though it knew all the words.
# </details>
# <details><summary>3. Is the base still there after LoRA training? (04)</summary>
#
# Yes, bit for bit, as long as the update is not merged into it.
# </details>

# %%
from statistics import fmean

import numpy as np
import torch

# %%
import lora_mini as lm
from lora_mini.desk import bet, expect, figures, settle, show, verdict
from lora_mini.desk.figures import ACCENT, GREY, SECOND, THIRD, axes
from lora_mini.desk.intervals import interval, prediction
from lora_mini.lab import record, trials
from lora_mini.world import base, measure, text, town, train
from lora_mini.world.styles import REGISTERS, STYLES

model = base.load_base(path=base.SHIPPED)
before = measure.evaluate(model, REGISTERS["medical"], n=100)
print(f"the base on the medical register: excess {before.excess:.1f} nats, exact {before.exact:.2f}")

# %% [markdown]
# ## Four ways to train
# - **full**: everything trains;
# - **LoRA**: a `LoRALinear` of rank $r$ around every linear layer but the head;
# - **biases**: only the numbers that are added, no matrix;
# - **head**: only the last layer, which gives each word its score.
#
# All get the same 1,024 examples, 200 steps of 32, the same optimiser, and the same number of rates to choose
# from. The last point matters: if one method has its best rate and another has a rate that was chosen for
# somebody else, the comparison is not fair.

# %%
for method in ("full", "LoRA r=8", "biases", "head"):
    tuned = trials.prepare(model, method)
    _, count = lm.trainable_parameters(tuned)
    print(f"{method:9s} {count:7,} numbers train   rates {trials.rates(method)}")

# %% [markdown]
# ### Exercise 1: predict, 2 minutes (second reading)
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
# ### Bets 1 and 2
# Each method at its best rate. What percentage of new frames in the medical register will it put into
# words exactly, word for word:
# 1. LoRA at rank **1**, which trains 2,304 of 122,112 numbers?
# 2. The **head** alone, which trains 9,728?

# %%
bet("06 percent exact with LoRA at rank 1", guess=None)
bet("06 percent exact with the head alone", guess=None)

# %% [markdown]
# ## The record
# All methods, three registers, four rates, three seeds to choose the rate and eight others to report it:
# that is 420 runs and takes too long for a lesson. So it was *recorded*, and you will repeat a part of it.
# Another seed means other examples, another order, and another start of $A$. The base is always the same one.

# %%
rec = record.load("06")
print(record.label(rec))


def runs(method, register, rows="runs"):
    return [t for t in rec[rows] if (t["method"], t["style"]) == (method, register)]


# %%
settle("06 percent exact with LoRA at rank 1",
       100 * fmean(t["exact"] for t in runs("LoRA r=1", "medical")), unit="percent", within=0.1)
settle("06 percent exact with the head alone",
       100 * fmean(t["exact"] for t in runs("head", "medical")), unit="percent")

# %%
fig, columns = axes(7.4, 2.9, 3, sharey=True)
for ax, register in zip(columns, REGISTERS, strict=True):
    for row, method in enumerate(reversed(trials.METHODS)):
        colour = ACCENT if "LoRA" in method else GREY
        found = [t["target"] for t in runs(method, register)]
        ax.plot(found, [row] * 8, "o", color=colour, ms=4, alpha=0.5)
    ax.axvline(town.entropy(REGISTERS[register]), color=SECOND, ls="--", lw=1)
    ax.set(xscale="log", title=register, xlabel="excess, nats per token")
columns[0].set_yticks(range(len(trials.METHODS)), list(reversed(trials.METHODS)))
show(fig, "Recorded. Excess on the new register, eight seeds each at the best rate; further left is "
          "better. The dashed line is an excess as large as the floor. Even rank 1 is about as good as full "
          "fine-tuning. The biases come close to it; the head alone does not.",
     alt="Mean excess on the medical register: " + ", ".join(
         f"{m} {fmean(t['target'] for t in runs(m, 'medical')):.3f}" for m in trials.METHODS) + ".")

# %%
print(f"{'':10s}" + "".join(f"{register:>18s}" for register in REGISTERS))
for method in trials.METHODS:
    cells = [f"{fmean(t['exact'] for t in runs(method, r)):.2f} at {rec['best'][f'{method}, {r}']:g}"
             for r in REGISTERS]
    print(f"{method:10s}" + "".join(f"{cell:>18s}" for cell in cells))

# %% [markdown]
# The table (*recorded*) shows exact match and the best rate. Three things to see:
#
# - LoRA's best rate is three to thirty times that of full fine-tuning. With one rate for both, one of them
#   would look worse than it is.
# - The biases alone, 1,472 numbers, come close. Their best rate is the largest of their four. So is the
#   head's, and LoRA's in half of its cases: with a wider grid they might do better still.
# - The rate was chosen for the excess. For exact match, a smaller rate suits full fine-tuning better.
#   *Choose the measure first*, before you see any result.

# %% [markdown]
# ## LoRA's training, in ten lines
# ### Exercise 2: complete (8 minutes)
# `draw()` gives a batch: tokens, mask, and a third thing that you don't need. Attach LoRA to all linear
# layers. Give AdamW what is trainable *then*. Take `steps` steps, each with a new batch and its
# `train.loss(model, tokens, mask)`, and return the losses as a list of floats.

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
# Four methods on the medical register, at the recorded best rates, with two seeds that the record has not
# used. `trials.tune` copies the base and trains the copy, with a rate that rises and falls, and measures the
# excess on the way. Each result should land in the record's *prediction interval*. That is where one more run
# should land, judged by the eight recorded seeds. We never take it narrower than 2 percent of the floor to
# either side.

# %% tags=["measured"]
medical = REGISTERS["medical"]
floor = town.entropy(medical)
live, tuned, landed = {}, {}, {}
with train.together() as eight:  # the stop button ends all of them
    for method in ("full", "LoRA r=8", "biases", "head"):
        expected = prediction([t["target"] for t in runs(method, "medical")], floor=0.02 * floor)
        for seed in (20, 21):
            rate = rec["best"][f"{method}, medical"]
            tuned[method], live[method, seed] = trials.tune(model, method, medical, rate, seed)
            t = live[method, seed]
            print(f"{method:9s} seed {seed}: excess {t.target:.4f}, exact {t.exact:.3f}, "
                  f"{1000 * t.seconds_per_step:.0f} ms a step")
        landed[method] = all(expected.holds(live[method, s].target) for s in (20, 21))

# %%
expect("full: both seeds landed where the record predicts", landed["full"], of=eight)
expect("LoRA r=8: both seeds landed where the record predicts", landed["LoRA r=8"], of=eight)
expect("biases: both seeds landed where the record predicts", landed["biases"], of=eight)
expect("head: both seeds landed where the record predicts", landed["head"], of=eight)

# %% [markdown]
# ## Does it match full fine-tuning? (second reading)
# This is claim C5. The margin was fixed beforehand: LoRA's excess may be larger by at most 5 percent of the
# floor. One more setting belongs here. Our base has read twelve styles. Another base has read a **single**
# one, and has never seen many of the small words.

# %%
narrow = {method: [t for t in rec["narrow"] if t["method"] == method]
          for method in ("full", "LoRA r=8", "LoRA r=64")}
fig, ax = axes(5.6, 2.6)
for row, (method, seeds) in enumerate(reversed(narrow.items())):
    colour = GREY if method == "full" else ACCENT
    ax.plot([t["target"] for t in seeds], [row] * 8, "o", color=colour, ms=4, alpha=0.5)
ax.set_yticks(range(3), ["LoRA r=64", "LoRA r=8", "full"])
ax.axvline(floor, color=SECOND, ls="--", lw=1)
ax.set(xscale="log", xlabel="excess on the medical register, nats per token")
means = {m: fmean(t["target"] for t in seeds) for m, seeds in narrow.items()}
show(fig, "Recorded, on a base that had read one style. LoRA has a larger excess here, even at full rank "
          "(64).",
     alt="Mean excess: " + ", ".join(f"{m} {mean:.3f}" for m, mean in means.items()) + ".")

# %%
def behind(full, lora):  # full minus LoRA, in percent of the floor, one number a seed
    return [100 * (f["target"] - x["target"]) / floor for f, x in zip(full, lora, strict=True)]


settings = {f"a wide base, {r}": behind(runs("full", r), runs("LoRA r=8", r)) for r in REGISTERS}
settings["a base of one style, medical"] = behind(narrow["full"], narrow["LoRA r=8"])

# %%
verdict("C5", effects=settings)

# %%
exact = {f"a wide base, {r}": [t["exact"] for t in runs("LoRA r=8", r)] for r in REGISTERS}
exact["a base of one style, medical"] = [t["exact"] for t in narrow["LoRA r=8"]]

# %%
verdict("C8", effects=exact)

# %% [markdown]
# On the wide base LoRA stays within the margin of C5: for legal it is a little behind full fine-tuning, and
# for support a little ahead. On the narrow base it is behind, at rank 8 and at rank 64. For C8, the share
# of exactly right frames must reach 0.95. On the wide base it clearly does. On the narrow one, two of the
# eight seeds are weak, and eight seeds are too few to decide.
#
# So the answer depends on what is new. A new combination of known words needs no more than rank 1. In
# notebook 07 you will make more and more of the task new.
#
# ### Exercise 3: find the bug (4 minutes)
# `excess` maps each rate to its results, seed by seed; seeds 0, 1 and 2 are there to choose. The function
# reports how good the method is at its best rate. Its answer is too good. Correct it.

# %% tags=["exercise"]
from lora_mini.desk.checks.nb06 import check_report


def report(excess):
    # <stub>
    # means = {rate: fmean(seeds.values()) for rate, seeds in excess.items()}
    # return min(means.values())
    # </stub>
    # <solution>
    chosen = min(excess, key=lambda rate: fmean(excess[rate][seed] for seed in (0, 1, 2)))
    return fmean(value for seed, value in excess[chosen].items() if seed not in (0, 1, 2))
    # </solution>


check_report(report)

# %% [markdown]
# ## What it costs (second reading)
# The bytes of AdamW's memory are *computed*. "Kept" are the bytes that PyTorch keeps from the forward pass
# for the backward pass, for one batch of 32 (*recorded*). "Peak" is the sum of all that is in memory just
# before a step: weights, gradients, AdamW's memory, and what is kept.

# %%
print(f"{'':10s}{'train':>9s}{'AdamW':>12s}{'kept':>12s}{'peak, about':>14s}")
for method in trials.METHODS:
    t = runs(method, "medical")[0]
    adapter = t["trainable"] if "LoRA" in method else 0  # numbers that come on top of the base
    peak = 4 * (122_112 + adapter) + 4 * t["trainable"] + t["optimizer_bytes"] + t["saved_bytes"]
    print(f"{method:10s}{t['trainable']:9,}{t['optimizer_bytes']:10,} B{t['saved_bytes'] / 1e6:9.1f} MB"
          f"{peak / 1e6:11.1f} MB")

# %% [markdown]
# AdamW's memory shrinks in proportion to what trains. What LoRA keeps for the backward pass hardly shrinks:
# the gradient of each $A$ needs the input of its layer, as the gradient of the matrix would. (Biases need
# no inputs.) And look at the milliseconds of your own runs above: on a model as small as this one, LoRA
# does not make a step faster. Here LoRA saves little of the peak. Where gradients and AdamW's memory are
# the larger part of the peak, LoRA saves more.

# %% [markdown]
# ## What was lost
# The training data held one register. What happened to the twelve styles that the base knew? We say that a
# model has *forgotten* as much as its excess on those old styles. (The base itself has an excess of 0.001
# on them.)
#
# ### Bet 3
# Take each method at the rate and the step at which it forgets least, as long as its excess on the new
# register is below 0.02. Which forgets less, by more than 0.1 nats on average over the three registers:
# `"full"`, `"LoRA"` or `"neither"`?

# %%
bet("06 who forgets less", guess=None, choices=("full", "LoRA", "neither"))

# %% [markdown]
# For the answer, each method gets the rate and the checkpoint at which it forgot least among those with an
# excess below 0.02. They were chosen on seeds 0 to 2; eight other seeds report. (For both methods it is the
# smallest rate of the four. With a smaller one, they might forget less still.)

# %%
def forgotten(method, register):  # one number a seed, at the gentlest rate and step
    rate, step = rec["gentle"][f"{method}, {register}"]
    return [next(others for s, _, others in t["path"] if s == step)
            for t in runs(method, register, rows="calm")]


lost = {m: {r: forgotten(m, r) for r in REGISTERS} for m in ("full", "LoRA r=8")}
less = {r: [f - x for f, x in zip(lost["full"][r], lost["LoRA r=8"][r], strict=True)] for r in REGISTERS}
by_seed = [fmean(values) for values in zip(*less.values(), strict=True)]  # mean of the registers
mean = fmean(by_seed)
answer = "LoRA" if mean > 0.1 else "full" if mean < -0.1 else "neither"
ahead = [{"LoRA": d, "full": -d, "neither": 0.2 - abs(d)}[answer] - 0.1 for d in by_seed]

# %%
settle("06 who forgets less", answer, lead=ahead)
verdict("C12", effects=less)

# %%
for method, registers in lost.items():
    print(f"{method:9s}", "   ".join(f"{r} {fmean(v):.2f}" for r, v in registers.items()))

# %% [markdown]
# LoRA forgot less in all three registers, and no interval reaches 0. But the margin that was fixed
# beforehand, 0.1 nats, is about as large as the difference. So eight seeds leave the claim open.
#
# ### A frontier, and not one number
# One number per method hides something: forgetting depends on the rate and on when you stop. So take all
# rates and checkpoints of the record, and draw fit against forgetting. A point is *beaten* if another of
# the same method is better in both. The points that no other beats are its *Pareto envelope*.

# %%
def cloud(method, register="medical"):
    points = {}
    for t in runs(method, register, rows="sweep"):
        for step, target, others in t["path"]:
            points.setdefault((t["rate"], step), []).append((target, others))
    return [tuple(fmean(column) for column in zip(*seen, strict=True)) for seen in points.values()]


# %%
fig, ax = axes(6.4, 3.6)
looks = {"full": ("o", SECOND), "LoRA r=8": ("s", ACCENT), "LoRA r=1": ("^", "#56B4E9"),
         "biases": ("v", THIRD), "head": ("x", GREY)}
for method, (marker, colour) in looks.items():
    points = cloud(method)
    ax.plot(*zip(*points, strict=True), marker, color=colour, ms=4, alpha=0.35)
    best = figures.envelope(points)
    ax.plot(*zip(*best, strict=True), "-", color=colour, marker=marker, ms=4, label=method)
ax.axvline(0.02, color=GREY, ls=":", lw=1)
ax.legend(fontsize=8)
ax.set(xscale="log", yscale="log", xlabel="excess on the new register",
       ylabel="excess on the twelve old styles")
least = {m: min((o for t, o in cloud(m) if t <= 0.02), default=None) for m in looks}
show(fig, "Recorded. Each point is a rate and a checkpoint, mean of three seeds; lines join the points "
          "that nobody of the same method beats. Lower left is better. Left of the dotted line counts "
          "as fitting.",
     alt="Least forgetting among points within 0.02 nats of the target: "
         + ", ".join(f"{m} {o:.2f}" if o else f"{m} never fits" for m, o in least.items()) + ".")

# %% [markdown]
# Follow the two lines: they cross. At an excess near 0.02 LoRA forgot less; near 0.005 full fine-tuning did.
# So "who forgets less" has no answer without "at which fit, and at which rates".

# %% [markdown]
# ### Exercise 4: complete, 5 minutes (second reading)
# Return the points that no other beats, sorted by their first number. Smaller is better in both.

# %% tags=["exercise"]
from lora_mini.desk.checks.nb06 import check_envelope


def envelope(points):
    # <solution>
    return sorted(p for p in points
                  if not any(q[0] < p[0] and q[1] < p[1] for q in points))
    # </solution>


check_envelope(envelope)

# %% [markdown]
# ### At the same fit (second reading)
# One doubt remains: in two of the three registers LoRA also stopped at a *worse* fit. Is that why it forgot
# less? Read each run where it passes the same excess, 0.02, between its checkpoints.

# %%
def at_equal_fit(method, register, fit=0.02):  # one number a seed, interpolated on a log scale
    found = []
    for t in runs(method, register, rows="calm"):
        _, target, others = np.array(t["path"]).T
        found.append(np.interp(-np.log(fit), -np.log(target), others))
    return np.array(found)


level = {r: interval(at_equal_fit("full", r) - at_equal_fit("LoRA r=8", r)) for r in REGISTERS}
for register, found in level.items():
    print(f"{register:8s} full minus LoRA at an excess of 0.02: {found}")

# %%
expect("at the same fit, too, LoRA forgot less in all three", all(i.low > 0 for i in level.values()))

# %% [markdown]
# So the fit was not the reason.

# %% [markdown]
# ### With the adapter off
# Two things are certain. At the rates that fit *best*, both methods forget a lot, more than 1 nat. And with
# the adapter *off*, nothing is lost:

# %%
adapted = tuned["LoRA r=8"]
tokens = trials.Probe(medical, 0).others.tokens.to(train.device())
with torch.no_grad(), lm.disabled(adapted):
    print("with the adapter off the logits are the base's, bit for bit:",
          torch.equal(adapted(tokens), model(tokens)))

# %% [markdown]
# Full fine-tuning offers that only with a second copy of all weights. If you know which requests belong to
# the new job, switch the adapter on for those only, and nothing is forgotten.

# %% [markdown]
# ## Remedy 1: a weaker update (second reading)
# The update can be made weaker after training. Run the cell and drag: it prints one sentence in the new
# register and one in an old style. (Training at a smaller rate gives a better exchange of fit for
# forgetting, as the frontier shows. This is for an adapter that is trained already.)

# %% tags=["measured"]
from ipywidgets import interact

frame = town.sample_frames(1, seed=5, split="test")[0]


@interact(strength=(0.0, 1.5, 0.1))
def speak(strength=1.0):
    lm.set_strength(adapted, strength)
    for style in (medical, STYLES["herald"]):
        start = torch.tensor([text.encode(town.prompt(frame, style))], device=train.device())
        said = text.decode(adapted.generate(start, 30)[0].tolist())
        print(f"{style.tag:8s}{'right' if said == town.best(frame, style) else 'WRONG'}\n  {said}")
    lm.set_strength(adapted, 1.0)


# %%
target, others = ([fmean(seed[i][j] for seed in rec["strength"]) for i in range(11)] for j in (0, 1))
fig, ax = axes(5.4, 3.0)
ax.plot(rec["strengths"], target, "o-", color=ACCENT, ms=4)
ax.plot(rec["strengths"], others, "s--", color=SECOND, ms=4)
ax.text(0.16, 1.2, "new register", color=ACCENT)
ax.text(0.72, others[8] + 0.15, "old styles", color=SECOND, ha="right")
ax.set(xlabel="strength of the adapter", ylabel="excess, nats per token")
show(fig, "Recorded, mean of eight seeds. A weaker adapter gives the old styles back, little by little; "
          "below 0.7 the new register gets much worse.",
     alt=f"At strength 1: new {target[10]:.3f}, old {others[10]:.2f}. At 0.7: new {target[7]:.3f}, old "
         f"{others[7]:.2f}. At 0.5: new {target[5]:.3f}, old {others[5]:.2f}.")

# %%
expect("in the record, every seed forgot less at strength 0.7 than at 1",
       all(seed[7][1] < seed[10][1] for seed in rec["strength"]))
expect("and every seed paid for it on the new register", all(s[7][0] > s[10][0] for s in rec["strength"]))

# %% [markdown]
# ## Remedy 2: a few old sentences (second reading)
# ### Bet 4
# Of the 32 sentences in each batch, four now come from a store of 64 in the old styles. (Forgetting is
# measured on other sentences.) By what percentage does the forgetting fall? One line changes:
# `trials.tune(model, "LoRA r=8", medical, rate, seed, replay=64)`.

# %%
bet("06 percent less forgotten with 64 sentences", guess=None)

# %%
plain = [t["others"] for t in runs("LoRA r=8", "medical")]
replayed = [t["others"] for t in rec["replayed"]]

# %%
settle("06 percent less forgotten with 64 sentences", 100 * (1 - fmean(replayed) / fmean(plain)),
       unit="percent")
expect("in the record, every seed forgot less than a tenth as much with 64 old sentences",
       all(r < 0.1 * p for r, p in zip(replayed, plain, strict=True)))

# %%
print(f"old styles: {fmean(plain):.2f} without, {fmean(replayed):.2f} with; new register: "
      f"{fmean(t['target'] for t in runs('LoRA r=8', 'medical')):.4f} and "
      f"{fmean(t['target'] for t in rec['replayed']):.4f}")

# %% [markdown]
# With the adapter on, nothing else here costs so little and helps so much. But you need old examples, and
# often you have none: the text on which a large model was trained is seldom published.

# %% [markdown]
# ## What you have done
# - You **compared** four ways of training fairly: each at its best rate, over seeds, against a floor that is
#   known.
# - You **read** fit against forgetting as a frontier, and saw that eight seeds leave open who forgets less.
# - You **wrote** the training loop: attach, an optimiser for what trains then, a loop. The two remedies are
#   64 old sentences and a weaker update. A third one costs nothing with an adapter: switch it off.
#
# **On your own.** Take the support register and LoRA at rank 2. Which rate do you choose, and on which seeds?
# Then find the strength with the smallest excess on the old styles at which the excess on the new register is
# still below 5 percent of its floor.
#
# **In practice.** Sweep the rate for each method, or don't compare them. Keep a set of old tasks, and measure
# on it whenever you measure on the new one. Ask what is new in your task before you ask which rank.
#
# **Further reading.**
# - Hu et al., *LoRA* (2021), tables 2 to 4: the first comparisons with full fine-tuning, some of them with
#   baselines quoted from earlier papers.
# - Biderman et al., *LoRA learns less and forgets less* (2024): the same question on 7-billion-parameter
#   models, with another answer on code than on chat.
# - Schulman et al., *LoRA without regret* (2025): when the two are equal, and why the rates differ.
