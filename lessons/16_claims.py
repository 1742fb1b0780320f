# %% [markdown]
# # 16. Read the ledger of claims
#
# The other notebooks put what people say about LoRA to the test, one claim at a time. Here all answers lie
# side by side: by condition, with their intervals, beside what is in print and beside your own.
#
# At the end of this notebook you will be able to
# - **read** a verdict for what it says: where the claim holds, where it fails, what is open;
# - **judge** an interval and a whole claim by hand;
# - **measure** the judge itself: its false alarms, and what it can see;
# - **look back** on your bets, and on ours;
# - **say** what would change a verdict, and what papers that contradict each other leave open (second
#   reading).
#
# You need notebook 06; any other that you have done adds something of yours. About 60 minutes to study; the
# core path about 45, the rest is marked as a second reading.

# %% [markdown]
# **Three questions before you start.** Answer aloud, then unfold.
#
# <details><summary>1. What do "better", "equal" and "open" mean? (06)</summary>
#
# Better: the whole interval lies above a factor of 1.5. Equal: all of it lies between 1/1.5 and 1.5. Open:
# neither, and not worse either.
# </details>
# <details><summary>2. A claim asks six questions. Why is each interval wider than one of 95 percent? (06)</summary>
#
# So that all six hold together with 95 percent.
# </details>
# <details><summary>3. Which three kinds of numbers are there in this course? (00)</summary>
#
# Measured here and now; recorded before, elsewhere; computed from shapes.
# </details>

# %%
import math
from collections import Counter
from statistics import fmean, stdev

import numpy as np
from IPython.display import display

from lora_mini.desk import bet, bets, expect, page, settle, show, verdicts

# %%
from lora_mini.desk.figures import ACCENT, GREY, THIRD, axes
from lora_mini.desk.intervals import interval, student
from lora_mini.desk.say import say
from lora_mini.lab import claims, contrasts

found = claims.ledger()
rows = {row["claim"]: row for row in found["claims"]}
questions = [each for row in rows.values() for each in row["conditions"]]
ours = [each for guess in found["predictions"] for each in guess["contrasts"]]
print(f"{len(rows)} claims; {len(questions)} contrasts, fixed beforehand; {len(ours)} bets of our own")
for what, key, value in (("nothing recorded yet", "word", "missing"), ("no longer coming out", "old", True)):
    print(f"{what}: {', '.join(name for name in rows if rows[name][key] == value) or 'none'}")

# %% [markdown]
# No result of ours is typed. Verdicts over bases are worked out from the records while you wait. Facts that
# are true or false were printed by the notebooks, and are read from there. A record *no longer comes out* if
# too many of its points, done again, miss their prediction intervals: `python -m lora_mini.lab.replay` does
# that.
#
# ### Bets 1 to 4
# 1. How many claims **hold**, in all of their conditions?
# 2. Of all contrasts, what percentage is **open**?
# 3. Before the records were made, we bet on contrasts, too. What percentage of these came true?
# 4. A common habit: a difference is *found* if an interval of 95 percent leaves out "no difference". Take
#    claims that ask six questions each, and let *nothing* be different in truth. Of what percentage will the
#    habit find something?

# %%
bet("16 claims that hold", guess=None)
bet("16 percent of contrasts open", guess=None)
bet("16 percent of our bets that came true", guess=None)
bet("16 percent of claims with a false alarm", guess=None)

# %% [markdown]
# ## All claims
# Unfold a claim: its conditions or facts, what is compared (and what of it isn't), what is in print, how it
# was found, what would change our mind, and where its cell is. Verdicts and bets of yours stand at the top of
# theirs.

# %%
display(page.table(rows.values(), verdicts.spoken(), bets.noted()), raw=True)

# %%
words = Counter(row["word"] for row in rows.values())
settle("16 claims that hold", words["holds"])

# %% [markdown]
# Counting words is a poor way to read it. *Holds when* may mean four of six and none against (C5), or one of
# six and two against (C17). *Misleading* hides as much: C10 fails in quality, while its stability is open and
# leans to DoRA. And C8 *holds* by a hair: one of its intervals begins at 1.501, and the margin is 1.5. (A
# bound so near is printed with a third decimal.)
#
# ### Beside what is in print
# Each claim carries the figure that its source gives. Three of them:

# %%
for name in ("C3", "C5", "C12"):
    say(f"{name}, in print: {rows[name]['source_value']}.")
    say(f"Here: {page.brief(rows[name])}.", indent=4)
    for each in rows[name]["conditions"]:
        say(f"{each['condition']}: {each['words']}", indent=6)

# %% [markdown]
# C3 is counted from GPT-3's own shape, so there figure may stand beside figure (notebook 12). For C5 and C12
# theirs are scores of far larger models, ours nats and shares in a town: there set condition against
# condition.
#
# ## Condition by condition
# One line a contrast. A factor is what the *rival* pays over what the claim's *subject* pays: right of 1 the
# subject is nearer to the floor. The claim need not want that: C18 says that LoRA pays *more*.

# %%
fig, alt = page.forest(rows.values(), "factor")
show(fig, "Recorded. Mark: geometric mean of the factors over bases; line: interval. Triangles: better or "
          "worse; squares: equal; hollow: open. Grey: within 1.5 (for C9's memory 1.1 counts). Beyond "
          "1/8 or 8: drawn at the edge. C18's last bit with 0 new words, where both reached the floor, has "
          "no factor: drawn at 1.", alt=alt)

# %%
fig, alt = page.forest(rows.values(), "share")
show(fig, "Recorded. The same for shares: of valid new sentences (C8), runs not ruined (C10), old sentences "
          "still valid (C12), a bias (C17; an interval runs on beyond the edge). Grey: within 0.2. C17's "
          "inherited and amplified in probability are one number, asked twice.", alt=alt)

# %%
tally = Counter(each["outcome"] for each in questions)
print(", ".join(f"{word} {count}" for word, count in tally.most_common()))
directed = sum(each["outcome"] == "open" and not each["low"] <= (each["kind"] == "factor") <= each["high"]
               for each in questions)
print(f"{directed} of the {tally['open']} open intervals leave out 'no difference'")
settle("16 percent of contrasts open", 100 * tally["open"] / len(questions), unit="percent")

# %% [markdown]
# Look at the squares. *Equal* is no lack of a result: it takes an interval that is narrow enough to exclude
# what would count. Nor is *open* ignorance: over half of the hollow ones leave out "no difference". Which way
# is known there; whether it is enough to count is not.
#
# ### Exercise 1: by hand (4 minutes)
# Which word for each? Margins: a factor of 1.5, a share of 0.2.

# %% tags=["exercise"]
from lora_mini.desk.checks.nb16 import check_by_hand

# <stub>
# by_hand = {
#     "factor 1.80 [1.55, 2.09]": None,
#     "factor 1.22 [1.02, 1.45]": None,
#     "factor 0.59 [0.48, 0.71]": None,
#     "factor 0.55 [0.47, 0.64]": None,
#     "share +0.15 [+0.04, +0.26]": None,
# }
# </stub>
# <solution>
by_hand = {
    "factor 1.80 [1.55, 2.09]": "better",
    "factor 1.22 [1.02, 1.45]": "equal",
    "factor 0.59 [0.48, 0.71]": "open",
    "factor 0.55 [0.47, 0.64]": "worse",
    "share +0.15 [+0.04, +0.26]": "open",
}
# </solution>
check_by_hand(by_hand)

# %% [markdown]
# ## Beside yours
# Whenever a notebook spoke a verdict on your machine, it left a small file in your own folder, with the date
# and the machine. Is any of them another than the recorded one?

# %% tags=["measured"]
own = verdicts.spoken()
for claim, left in own.items():
    say(f"{claim}: {left['word']}; {left['date']}, {left['by']}")
if not own:
    say("None are there yet, so the next line has nothing to compare. They will be, as soon as you run a "
        "notebook that judges a claim.")
others = [claim for claim, left in own.items() if rows[claim]["word"] not in (left["word"], "missing")]

# %%
expect("no verdict of yours is another than the recorded one", not others)

# %% [markdown]
# A verdict on another machine *may* be another: then the ledger shows both.
#
# ## Your bets, and ours
# How did yours go, by kind? A number counts as close within a quarter of the answer.

# %%
placed = bets.noted()
for kind, (count, settled, close) in bets.score(placed).items():
    print(f"{kind:9s} {count:3d} placed, {settled:3d} settled, {close:3d} right or close")
for name, guess, answer, factor in bets.furthest(placed):
    say(f"{name}: you said {guess:.4g}, it was {answer:.4g}, {factor:.3g} times apart")
if not placed:
    print("You placed none, and that is fine. Each notebook from 00 on asks for a few.")

# %% [markdown]
# The three that were furthest off are worth a second look.
#
# And ours? Each was written down before its record was made. (An interval may be narrower here than
# in the claim: a bet asks fewer questions at once.) Those that did not come true:

# %%
for guess in found["predictions"]:
    missed = [each for each in guess["contrasts"] if each["outcome"] not in each["said"]]
    if missed:
        say(f"{guess['prediction']}: {guess['says']}")
    for each in missed:
        say(f"{each['condition']}: {' or '.join(each['said'])}, we said; it is {each['words']}", indent=2)
true = [each["outcome"] in each["said"] for each in ours]
unclear = sum(each["outcome"] == "open" for each in ours)
print(f"Of {len(ours)}, {len(ours) - sum(true) - unclear} came out otherwise, {unclear} are open.")

# %%
settle("16 percent of our bets that came true", 100 * fmean(true), unit="percent")

# %% [markdown]
# We had built the town, and still foretold only so much of it.
#
# ## Who judges the judge?
# A rule that finds something everywhere would fill a ledger, too. So let us feed it records that we *make
# up*, where we know the truth. Their noise is real: we take how far each of C5's bases lies from its
# condition's mean, put all of these in one pot, and draw sixteen for each contrast.

# %%
scatter = [x - fmean(values) for values in contrasts.effects("C5").values() for x in values]
rng, margin, names = np.random.default_rng(0), math.log(1.5), list(verdicts.contrasts("C5"))


def made_up(**truth):  # sixteen bases for each of C5's six contrasts; truth: true factors, by position
    return {name: [math.log(truth.get(f"at_{i}", 1)) + x for x in rng.choice(scatter, 16)]
            for i, name in enumerate(names)}


# %%
habit, sixfold, alarms, verdict_words = 0, 0, 0, Counter()
for _ in range(1000):  # a thousand claims of which everything is equal in truth
    effects = made_up()
    habit += any(not interval(values).holds(0) for values in effects.values())
    sixfold += any(not interval(values, 1 - 0.05 / 6).holds(0) for values in effects.values())
    judged = verdicts.weigh("C5", effects)
    alarms += bool({"better", "worse"} & set(judged.conditions.values()))
    verdict_words[judged.word] += 1
print(f"a difference is found in so many of 1,000 claims: by the habit {habit},")
print(f"by intervals for six {sixfold}, by the ledger's rule, which has a margin too, {alarms}")
print(f"six independent chances of five percent: {100 * (1 - 0.95 ** 6):.0f} percent")
print("the verdicts on C5: " + ", ".join(f"{word} {n}" for word, n in verdict_words.items()))

# %%
settle("16 percent of claims with a false alarm", habit / 10, unit="percent")

# %% [markdown]
# Six chances of five percent come to $1 - 0.95^6$, 26 percent, if they are independent, as here; in the
# record all six share their bases. Intervals for six remove most of it, the margin the rest. The rule's
# hardest case is a truth that lies *at* the margin, where any decision is wrong. And what does it see? Plant
# an effect of a known size, and count.

# %%
FACTORS = (1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.75, 2, 2.5, 3)
calls = {factor: Counter(verdicts.outcome(math.log(factor) + rng.choice(scatter, 16), margin, 6)[0]
                         for _ in range(1000)) for factor in FACTORS}
for factor in (1, 1.2, 1.5, 2):
    print(f"true factor {factor}: " + ", ".join(f"{word} {n}" for word, n in calls[factor].most_common()))
for edge in (1.5, 1 / 1.5):
    made = [made_up(**{f"at_{i}": edge for i in range(6)}) for _ in range(1000)]
    wrong = fmean(any(verdicts.outcome(v, margin, 6)[0] != "open" for v in each.values()) for each in made)
    print(f"claims whose six truths all lie at {edge:.2f}: something decided in {100 * wrong:.1f} percent")

# %%
fig, ax = axes(5.6, 2.8)
for word, style in {"equal": ("s-", THIRD), "open": ("o:", GREY), "better": ("^-", ACCENT)}.items():
    ax.plot(FACTORS, [calls[factor][word] / 10 for factor in FACTORS], style[0], color=style[1], label=word)
ax.axvline(1.5, color=GREY, lw=0.8)
ax.set(xlabel="true factor", ylabel="percent of 1,000 made-up records")
ax.legend(fontsize=8)
show(fig, "Measured on made-up records of sixteen bases with C5's scatter, one contrast of six: what the "
          "rule calls an effect of a known size.",
     alt="; ".join(f"called {word}: " + ", ".join(f"{calls[f][word] / 10:.0f} percent at {f}" for f in some)
                   for word, some in (("better", (1.5, 1.75, 2, 2.5)), ("equal", (1, 1.2, 1.4)))) + ".")

# %% [markdown]
# Around the margin it mostly says *open*, as it should. And where all six truths lie at the margin itself,
# 5.6 and 5.8 percent of the claims are decided; the intervals promise 5, or a little more, as this noise is
# skewed. Each claim has its own 5 percent: among a dozen, one set of intervals that misses a truth somewhere
# is to be expected about every second time. It becomes a wrong word only where the truth lies near a margin.
#
# How often is a factor of 2 missed? The pot mixes six conditions; one of them alone is noisier.

# %%
apart = {name: [x - fmean(values) for x in values] for name, values in contrasts.effects("C5").items()}
noisiest = max(apart, key=lambda name: stdev(apart[name]))
for pot, draws in (("all in one pot", scatter), (f"{noisiest}, alone", apart[noisiest])):
    missed = {label: sum(verdicts.outcome(math.log(factor) + rng.choice(draws, 16), margin, 6)[0] == "open"
                         for _ in range(1000)) for label, factor in (("2", 2), ("1/2", 0.5))}
    print(f"{pot}, missed of 1,000: " + "; ".join(f"factor {k}, {n}" for k, n in missed.items()))

# %% [markdown]
# With the pot's noise a factor of 2 is missed about one time in ten, one of 1/2 less often; with the noisiest
# condition's, about every second time.
#
# Last, one effect among six: LoRA pays twice as much in the third contrast, and as much in the others. Does
# the verdict say just that?

# %%
planted = [verdicts.weigh("C5", made_up(at_2=0.5)) for _ in range(1000)]
named = sum(each.conditions[names[2]] == "worse" for each in planted)
wrong = sum("worse" in [each.conditions[n] for n in names if n != names[2]] for each in planted)
print(f"the planted one is called worse in {named} of 1,000 claims, any other in {wrong}")
hidden = [row["claim"] for row in rows.values() if "open" in [each["outcome"] for each in row["conditions"]]]
print(f"claims with an open contrast: {len(hidden)}, {', '.join(hidden)}")

# %% [markdown]
# ### Exercise 2: find the bug (5 minutes)
# `came` maps each contrast to what it came to, `holds` lists the outcomes under which the claim holds. Two
# things are wrong with this judge. One: a single open contrast speaks for all, and every claim of the last
# line would be *not decided*. The other you find. Return one of the four words: *holds* if all contrasts
# hold; *holds when* if some do; *misleading* if none does and some fail; else *not decided*. A contrast
# *fails* if it is neither open nor among `holds`.

# %% tags=["exercise"]
from lora_mini.desk.checks.nb16 import check_word


def word(came, holds):
    # <stub>
    # if "open" in came.values():
    #     return "not decided"
    # return "holds" if all(each in holds for each in came.values()) else "misleading"
    # </stub>
    # <solution>
    holding = [name for name, each in came.items() if each in holds]
    failing = [name for name, each in came.items() if each not in holds and each != "open"]
    if len(holding) == len(came):
        return "holds"
    return "holds when" if holding else "misleading" if failing else "not decided"
    # </solution>


check_word(word)

# %% [markdown]
# ## What would change our mind (second reading)
# For each claim a sentence, written down beside it:

# %%
for name, row in rows.items():
    if row["word"] != "missing":
        say(f"{name}: {row['changes']}")

# %% [markdown]
# An open contrast asks for more bases. (Not for a few more, until it is decided: that would be looking until
# one likes what one sees. For a *new* record, planned beforehand.) How many? The interval reaches $t\,s/\sqrt
# n$ to either side, and must not reach an edge of the margin.
#
# ### Exercise 3: complete (5 minutes)
# `mean` and `s` are those of the effects: logarithms of factors, or shares; `margin` is on the same scale. If
# mean and scatter stay as they are: at which smallest n is the contrast decided? Take t as given.

# %% tags=["exercise"]
from lora_mini.desk.checks.nb16 import check_bases_needed


def bases_needed(mean, s, margin, t):
    # <solution>
    gap = abs(abs(mean) - margin)
    return math.floor((t * s / gap) ** 2) + 1
    # </solution>


check_bases_needed(bases_needed)

# %%
small = {}
for name, row in rows.items():
    for each in row["conditions"]:
        if each["outcome"] != "open":
            continue
        values = contrasts.effects(name)[each["condition"]]
        edge = each["margin"] if each["kind"] == "share" else math.log(each["margin"])
        t, s = student(1 - 0.05 / len(row["conditions"]), len(values) - 1), stdev(values)
        gap, reach = abs(abs(fmean(values)) - edge), t * s / math.sqrt(len(values))
        n = (t * s / gap) ** 2
        say(f"{name} {each['condition']}: reach {reach / edge:.1f} margins, {gap / edge:.2f} off the edge; "
            f"{len(values)} bases, about {n:,.0f} needed")
        if name == "C5":
            small[each["condition"]] = (fmean(values), s, round(n))

# %%
for name, (mean, s, n) in small.items():  # new records, if mean and scatter are the true ones
    for bases in (n, 2 * n):
        came = [verdicts.outcome(rng.normal(mean, s, bases), margin, 6)[0] for _ in range(1000)]
        print(f"{name}: {bases} bases decide in {1000 - came.count('open')} of 1,000 new records")

# %% [markdown]
# Two things make that number large: an interval that is wide in itself (C10's, C17's), or a mean next to the
# edge of the margin (C9's first, C20's first), where the honest answer is: about as much as counts. (Large n
# are too large by up to a third, C20's by more: t falls as n grows, and we took it as it is.) And "needed"
# promises little: a new record of that size decides about every second time, one of twice the size over nine
# times in ten (simulated for C5's two).
#
# ## Where papers contradict each other (second reading)
# Each of these is in print. Beside it stands what was measured here, and what can't be said from here.

# %%
for each in found["disputes"]:
    say(each["asks"].upper())
    for who, says in each["sides"]:
        say(f"{who}: {says}", indent=2)
    for line in each["town"]:
        say(f"here: {line}", indent=2)
    say(f"What we can't say: {each['cannot']}", indent=2)

# %% [markdown]
# ## From this town to your model
# - **A verdict names its conditions.** They are those of a town: few words, short sentences, 64 numbers wide.
#   What carries over is the *question*: which condition is mine?
# - **Order of asking.** How new are my words? How many examples do I have? What are they worth without the
#   base? Only then: which rank, which variant.
# - **The data are yours.** `docs/claims.json` has every figure on this page, to be cited or attacked.
#
# ## What you have done
# - You **read** verdicts by condition, beside what is in print.
# - You **judged** intervals by hand, and mended a judge that hid what was decided.
# - You **measured** the judge: with C5's noise its false alarms are rare, near 1.5 it says *open*, and what
#   it sees hangs on the noise.
# - You **looked back** on your bets, and on ours.
# - You **said** what it would take to decide what is open (second reading).
#
# **On your own.** Pick the claim that you care about most, and write down what would change *your* mind. Then
# look whether its record can show that.
#
# **In practice.** When you read "X beats Y": at how many seeds, by which margin, each at its best rate, and
# in how many conditions? If a table gives one number, it has not told you.
#
# **Further reading.**
# - Schuirmann, *A comparison of the two one-sided tests procedure* (Journal of Pharmacokinetics and
#   Biopharmaceutics, 1987): *equal* as something that can be shown.
# - Lee et al., *Learning rate matters: vanilla LoRA may suffice* (arXiv 2602.04998, 2026): what is left of
#   variants when each gets its rate.
# - Yin et al., *Evaluating parameter efficient methods for RLVR* (arXiv 2512.23165, 2025), and Morris et al.
#   (arXiv 2602.04118, 2026): read both, one after the other.
