# %% [markdown]
# # 0. Put a thin patch on a frozen matrix
#
# You will change a picture without touching it, and meet LoRA's idea before its formulas.
#
# At the end of this notebook you will be able to
# - **say** in one sentence what LoRA freezes, what it trains, and why that is cheap;
# - **judge** the picture of "altering a suit" by what a patch really does;
# - **use** this course: its sliders, bets, exercises and verdicts.
#
# You need Python, and you should have met arrays in NumPy. About 55 minutes to study; the core path about
# 45, the rest is marked as a second reading.

# %%
import numpy as np
import torch

import lora_mini

print("ready:", lora_mini.__name__, torch.arange(4).sum().item() == np.arange(4).sum())

# %% [markdown]
# If the cell above prints "ready: lora_mini True", everything is installed. (If not, the README's first
# command sets it up.) To run a cell, click on it and press Shift and Enter. A word or a letter that you
# forget later stands in [the glossary](../docs/glossary.md), one sentence each.
#
# ## The picture in the head
# A large language model is, for the most part, a stack of matrices: tables of numbers that somebody
# trained at great cost. Call one of them $W$. You want the model to do something new. *Full fine-tuning*
# changes all the numbers in $W$. *LoRA*, low-rank adaptation (Hu et al. 2021), leaves $W$ alone and
# trains a *patch* beside it, made of two thin matrices:
#
# $$W + B A$$
#
# Here is a patch that you can see. The frozen matrix is a photograph, 300 rows and 256 columns. The patch
# wants three changes: stripes, a dark frame, and a broad diagonal band. The slider sets the *rank* of the
# patch: the patch is a sum of so many terms, each one column of numbers times one row. At each rank you see
# the best patch that there is (notebook 02 says what "best" means). The line under the picture counts the
# patch's numbers, and says how far it still is from the full change. Drag, or use the arrow keys. At 0 there
# is no patch.

# %%
from lora_mini.desk.figures import photograph
from lora_mini.desk.sliders import RankSlider

W = photograph()
rows, columns = np.mgrid[:300, :256]

# %%
stripes = 25.0 * (columns // 8 % 2)
frame = 70.0 * ((rows > 25) & (rows < 275) & (columns > 25) & (columns < 231)) - 70
band = 110.0 * (np.abs(rows - columns - 20) < 22)
RankSlider(stripes + frame + band, frozen=W, rank=0, most=48,
           alt="The photograph with a patch of rank 1, 2, 4, 8 and 16: the frame and the stripes are "
               "there after the first few, the diagonal band only comes bit by bit.")

# %% [markdown]
# Stripes and frame are there after the first few ranks. The diagonal grows slowly, and at 16 its edges are
# still blurred. A patch of low rank makes some changes for next to nothing, and others only at a price.
# Which kind do real tasks ask for? That is the question of this course, and you will measure the answer.
#
# ## Bets
# Watching a demonstration teaches little; *predicting* it first teaches more (Crouch et al. 2004). So each
# notebook asks you to bet, and settles the bet further down. Nothing depends on it: `None` means no bet. A
# number counts as close if it is off by a quarter of the answer at most. Your bets stay on this computer, in
# a folder `.lora_mini` in your home folder.
#
# A cell that settles a bet or judges is *folded*: you see "judged here" and three dots in place of its code,
# so that the code can't give the answer away. Run it like any other. To open it, click on the three dots.
#
# ### Bets 1 and 2
# 1. Real models have matrices of 4,096 × 4,096. Take a patch of rank 8 for one of them. How many numbers does
#    the patch hold, in percent of the matrix's numbers?
# 2. The patch that makes the frame changes a border only. Take a patch of rank 1 with *random* numbers
#    instead. What percentage of the matrix's entries would it change at all?

# %%
from lora_mini.desk import bet, expect, settle, verdict
from lora_mini.desk.verdicts import WORDS

bet("00 percent of numbers in a patch", guess=None)
bet("00 percent of entries moved", guess=None)

# %% [markdown]
# ## Thin
# A patch of rank $r$ for a matrix $W$ $(d_{out}, d_{in})$ is a product of $B$ $(d_{out}, r)$ and $A$
# $(r, d_{in})$. It takes $r\,(d_{out} + d_{in})$ numbers instead of $d_{out}\, d_{in}$. An example for
# paper, with $r = 1$:
#
# $$B A = \begin{pmatrix} 1 \\ 3 \end{pmatrix} \begin{pmatrix} 2 & 0 & 5 \end{pmatrix}
#       = \begin{pmatrix} 2 & 0 & 5 \\ 6 & 0 & 15 \end{pmatrix}$$

# %%
B = np.array([[1], [3]])  # (2, 1)
A = np.array([[2, 0, 5]])  # (1, 3)
print(B @ A)

# %% [markdown]
# Five numbers made six: at this size little is saved. What gets cheaper? To train is to move numbers, again
# and again, until the mistakes shrink. For each number that moves, training keeps several more in memory, and
# each that has moved must be saved. With a patch that is the patch's numbers only. $W$ itself still has to be
# held, and multiplied. At the size of a real matrix:

# %%
d = 4096
patch, whole = 8 * (d + d), d * d
print(f"patch {patch:,} numbers, matrix {whole:,}")

# %%
settle("00 percent of numbers in a patch", 100 * patch / whole, unit="percent")

# %% [markdown]
# ## Exercises
# An exercise has a cell with a gap, marked `your code here` or `None`. Fill it in and run the cell: the
# last line checks your answer and says "solved", or what to look at. Under it a solution is folded away.
#
# ### Exercise 1: predict (1 minute)
# How many numbers does a patch of rank 16 for a matrix of 1,024 × 4,096 hold?

# %% tags=["exercise"]
from lora_mini.desk.checks.nb00 import check_patch_numbers

# <stub>
# patch_numbers = None  # your number
# </stub>
# <solution>
patch_numbers = 16 * (1024 + 4096)
# </solution>
check_patch_numbers(patch_numbers)

# %% [markdown]
# ### Exercise 2: complete (4 minutes)
# Build stripes as a patch of rank 1 for the photograph. Columns 8 to 15 become 40 brighter, 24 to 31
# too, and so on: every second block of 8, beginning with the second. `np.outer(column, row)` multiplies a
# column by a row.

# %% tags=["exercise"]
from lora_mini.desk.checks.nb00 import check_stripes

row = np.where(np.arange(256) // 8 % 2 == 1, 40.0, 0.0)  # (256,): 0 eight times, 40 eight times, ...
# <stub>
# my_stripes = None  # your patch, (300, 256)
# </stub>
# <solution>
my_stripes = np.outer(np.ones(300), row)
# </solution>
check_stripes(my_stripes)

# %% [markdown]
# ## Verdicts
# This course repeats what people say about LoRA, and then tests it: on your computer where that is possible.
# A claim that a notebook judges has a number, and a row in a table, `lora_mini/desk/claims.toml`. The row
# says beforehand what would count. Then a function words the verdict: *holds*, *holds when* (with a
# condition that it names), *misleading*, or *not decided*.
#
# Claim 19, C19 for short, is a common picture: *LoRA is like altering a suit instead of sewing a new one,
# with patches at key seams.* The table asks four things. Is the suit left whole? Is the patch thin? Does it
# sit at the *layers* that you name, the parts of a model that hold one matrix each, and at no other? And
# inside such a layer, does it keep to a few places, a tenth of the entries at most? If one of the first three
# is not so, the verdict is *misleading*; if only the last is not, *holds when*, and the condition is named.
#
# ### Bet 3
# What will the verdict be? `"holds"`, `"holds when"`, `"misleading"` or `"not decided"`.

# %%
bet("C19", guess=None, choices=WORDS)

# %% [markdown]
# Take the small language model of this course, which notebook 05 builds. Most of its matrices sit in *linear
# layers*. We note the bytes of all its weights, and what it says about twelve words: to the model they are
# the numbers 0 to 11, and its answer is a table of scores. (You needn't read this PyTorch yet; notebook 04
# comes to it.)

# %%
from lora_mini.world import base

model = base.load_base("cpu", base.SHIPPED)
layers = [name for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)]
weights, words = list(model.parameters()), torch.arange(12)[None]
bytes_before, said_before = [w.detach().numpy().tobytes() for w in weights], model(words)
print(len(layers), "linear layers; the first six:", *(name.split(".")[-1] for name in layers[:6]))

# %% [markdown]
# `attach` puts a patch at each layer whose name we give. We name two kinds; what they do is not needed here.
# In a fresh patch $A$ is random and $B$ is zero, so that $B A$ is zero; training would fill $B$. Here random
# numbers in $B$ stand in for training. (`alpha` sets the strength of the patch; notebook 03 comes to it.)

# %%
torch.manual_seed(0)
lora_mini.attach(model, target_modules=["q_proj", "v_proj"], rank=1, alpha=4)
patched = {name: part for name, part in model.named_modules() if isinstance(part, lora_mini.LoRALinear)}
for part in patched.values():
    torch.nn.init.normal_(part.lora_B)
print("patches at:", *patched, sep="\n  ")
print("the model says something else now:", not torch.equal(model(words), said_before))

# %%
named = {name for name in layers if name.endswith(("q_proj", "v_proj"))}
bytes_after = [w.detach().numpy().tobytes() for w in weights]
thin = all(part.lora_A.numel() + part.lora_B.numel() < part.base.weight.numel() for part in patched.values())
moved = np.mean([(part.update() != 0).float().mean().item() for part in patched.values()])  # of the entries

# %%
settle("00 percent of entries moved", 100 * moved, unit="percent")

# %%
verdict("C19", suit_untouched=bytes_after == bytes_before, patch_is_thin=thin,
        patch_only_at_named_layers=set(patched) == named, few_places_inside_a_layer=moved <= 0.1)

# %% [markdown]
# So the picture fits if the seams are *layers*: you choose them, and no other gets a patch. (Which ones are
# *key* is a question for notebook 07.) Inside a layer a random patch does not. The number in row $i$ and
# column $j$ of a patch of rank 1 is $b_i a_j$, times its strength, and that is zero only where one of the two
# is. So a patch is thin in its *numbers*; nothing in its form keeps it to a few *places*. (A patch can be
# built that changes a single entry. Twenty entries, no two in the same row or column, need rank 20.)
#
# The suit stayed untouched when the patch was put on. But nothing was trained here: notebook 04 tests it
# after training, to the last bit.
#
# A number in this course is one of three things. *Measured*: here and now, by the cell above it; that is so
# where nothing else is said. *Recorded*: measured elsewhere, and shipped with the command and the machine
# that made it. *Computed*: worked out from shapes.
#
# When the text expects something of a measurement, a line says whether it was seen on your machine:

# %%
expect("the random patches change more than 90 percent of their layers' entries", moved > 0.9)

# %% [markdown]
# ## Ten bets on LoRA (second reading)
# Before you know better: what will the verdicts be? Put one of the four words in place of `None`. Each bet is
# settled where its claim is judged; a bet on a claim that no notebook judges yet just waits. Words that you
# don't know yet are explained there, and in [the glossary](../docs/glossary.md).

# %%
ten = {
    "C1": None,   # the pre-trained weights are the same afterwards, bit for bit
    "C2": None,   # an update is the product of two thin matrices
    "C3": None,   # up to 10,000 times fewer trainable numbers
    "C4": None,   # about 3 times less memory in training
    "C5": None,   # it matches or exceeds full fine-tuning
    "C9": None,   # patches of rank 16 on all the matrices of the layers are a good start
    "C10": None,  # DoRA, a variant of LoRA, trains more stably and pushes quality further
    "C11": None,  # low rank helps against overfitting
    "C12": None,  # it resists forgetting what the base knew
    "C14": None,  # rank 8 or 16 works well for most tasks
}
bet(ten, choices=WORDS)

# %% [markdown]
# ### Where it goes from here
# - **01, 02** take matrices apart: the SVD, and what low rank keeps and loses.
# - **03, 04** build LoRA, by hand in NumPy, then as a layer in PyTorch.
# - **05, 06** train a small transformer, and fine-tune it: what is gained, what is forgotten.
# - **07, 08, 09** ask which rank you need, what is inside an update, and whether LoRA's variants are better.
#
# Each notebook runs by itself, and says what you should know first. They were made to be changed: your copies
# in `my_notebooks` are never overwritten.

# %% [markdown]
# ## What you have done
# - You **said** it: LoRA freezes $W$ and trains $B$ and $A$; these are far fewer numbers to keep memory for,
#   and to save.
# - You **judged** the suit: untouched by putting the patch on, yes; a thin patch, yes; only at the layers
#   that you name, yes. Inside a layer, a random patch moves nearly every entry.
# - You **used** a slider, bets, two exercises and a verdict.
#
# **On your own.** Change the three changes above. What else is cheap? Try a smaller square, a circle, a
# chequered floor. Guess the rank at which each is there, to within 10 percent, then slide.
#
# **In practice.** Which matrices of a model get a patch, and of which rank, is your choice, and it can be
# measured.
#
# **Further reading.**
# - Hu et al., *LoRA: Low-rank adaptation of large language models* (2021), sections 1 and 4: the idea.
# - Crouch, Fagen, Callan and Mazur, *Classroom demonstrations: learning tools or entertainment?* (American
#   Journal of Physics, 2004): why we ask you to bet.
