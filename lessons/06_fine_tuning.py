# %% [markdown]
# # 6. Fine-tune beside a control, and count what is lost
#
# You will teach the town's model a register that it has never read: by training all its weights, with LoRA,
# and by training its words alone. Beside them stands a model that knows nothing. Then you will ask what was
# forgotten.
#
# At the end of this notebook you will be able to
# - **compare** full fine-tuning and LoRA fairly: each at its best rate, over bases, beside a control;
# - **read** a verdict, by hand: ratio, interval, margin;
# - **weigh** fit against forgetting as a frontier, and not as one number;
# - **write** LoRA's training loop, and count the memory of a step (second reading).
#
# You need notebooks 04 and 05. About 85 minutes to study; the core path about 45, the rest is marked as a
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

import torch

import lora_mini as lm
from lora_mini.desk import bet, expect, figures, settle, show, verdict, verdicts

# %%
from lora_mini.desk.figures import ACCENT, GREY, SECOND, THIRD, axes
from lora_mini.desk.intervals import prediction, student
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
# - **LoRA**: a `LoRALinear` around each linear layer of the blocks;
# - **words**: only the embedding and the head;
# - **scratch**, the control: the same shape with *random* weights, all of which train. What it reaches, the
#   examples alone are worth. Only what an arm does better does it owe to the base.
#
# These are our *arms*. Each gets the same examples, 256 unless the page says otherwise, and 200 steps of 32
# sentences. Gradients whose norm is above 1 are scaled down to it (*clipping*). After 25, 50, 100 and 200
# steps we look at 64 further sentences (*validation*) and keep the best of these four *checkpoints*. And each
# arm has a rate of its own. Otherwise one of them would run at a rate that was chosen for another.

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
#    percentage points or more: `"full"`, `"LoRA"` or `"neither"`?

# %%
bet("06 times full's excess from random weights, 256 examples", guess=None)
bet("06 times full's excess from random weights, 1,024 examples", guess=None)
bet("06 percent of old sentences valid at the best rate", guess=None)
bet("06 who keeps more", guess=None, choices=("full", "LoRA", "neither"))

# %% [markdown]
# ## The record
# One base and one draw of examples would be an anecdote. So there are nineteen bases, each with its own
# random start and reading. Three of them chose the rates: half a decade apart, and always one more beyond the
# best. Sixteen others report, one run each. That takes hours, so it was *recorded*. The base that comes with
# the course is one more; your own runs below stand on it.

# %%
rec = record.load("arms")
print(record.label(rec))

# %% [markdown]
# Before the first run we placed bets, too: three predictions. Those that failed stand first.

# %%
SAID = {"P1": "64 examples, no new words: LoRA r=8 and full come equally near.",
        "P2": "In content, LoRA pays more than full at 12 new words, and as much at 0.",
        "P3": "At equal fit LoRA keeps fewer old sentences than full, by a fifth."}
seen = {name: verdicts.weigh(name, contrasts.effects(name)) for name in SAID}
for name in sorted(SAID, key=lambda name: seen[name].word == "holds"):
    print(f"{name}: {SAID[name]}")
    for contrast, effects in contrasts.effects(name).items():
        rules = verdicts.contrasts(name)[contrast]
        print(f"    said {rules['holds'][0]}; {verdicts.seen(effects, rules, len(seen[name].conditions), contrast)}")

# %%
