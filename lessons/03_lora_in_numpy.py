# %% [markdown]
# # 3. Train two thin factors by hand
#
# You will write LoRA in thirty lines of NumPy, gradients included, and let it learn a change that you
# can see.
#
# At the end of this notebook you will be able to
# - **write** LoRA and its gradients by hand, and check them against finite differences;
# - **explain** why exactly one factor starts at zero, and what the other one does meanwhile;
# - **predict** what the scale alpha/r does to the first steps at ranks 1 to 64, under Adam and under SGD.
#
# You need NumPy, gradients of matrix products, and the truncated SVD from notebook 02. About 85 minutes
# to study.

# %% [markdown]
# **Three questions before you start.** Answer aloud, then unfold.
#
# <details><summary>1. How many numbers do the factors of an (m, n) matrix of rank r hold? (02)</summary>
#
# $r\,(m + n)$: a column and a row per layer.
# </details>
# <details><summary>2. Which matrix of rank r lies nearest to a given one? (02)</summary>
#
# Its truncated SVD: the $r$ heaviest layers.
# </details>
# <details><summary>3. A random patch of rank 1 is added to a matrix. How many entries move? (00)</summary>
#
# All of them. Thin means few numbers, not few places.
# </details>

# %%
import numpy as np

from lora_mini import svd
from lora_mini.desk import bet, expect, settle, show, verdict
from lora_mini.desk.figures import ACCENT, GREY, RANKS, SECOND, axes, fixed_row

# %% [markdown]
# ## A change that you can see
# Suppose that a frozen matrix $W$ $(64, 96)$ does its job, and that the new job needs $W + \Delta$. We
# choose the change $\Delta$ ourselves, so that you can recognise it when it has been learned.

# %%
word = """
#.....###..####...###.
#....#...#.#...#.#...#
#....#...#.#...#.#...#
#....#...#.####..#####
#....#...#.#.#...#...#
#....#...#.#..#..#...#
####..###..#...#.#...#""".split()
small = np.array([[letter == "#" for letter in line] for line in word])  # (7, 22)
change = np.pad(0.2 * np.kron(small, np.ones((8, 4))), 4)  # each point 8 x 4, and a margin
d_out, d_in = change.shape
show(fixed_row([change], [f"the change, {d_out} x {d_in}"], width=2.6, high=0.2),
     "The change to learn. White means: raise this weight by 0.2. Its 64 rows are mixtures of six.",
     alt=f"The word LORA in white on black, a matrix of rank {np.linalg.matrix_rank(change)}.")

# %% [markdown]
# The layer to be trained is not shown $\Delta$. It sees 256 examples: inputs $x$ $(n, d_{in})$, and outputs $y$
# $(n, d_{out})$ of the new job, with a little noise.

# %%
def make_task(seed, n=256, noise=0.1):
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((d_out, d_in)) / np.sqrt(d_in)
    x = rng.standard_normal((n, d_in))
    y = x @ (W + change).T + noise * rng.standard_normal((n, d_out))
    return W, x, y, rng


# %% [markdown]
# ## The layer
# LoRA leaves $W$ alone and adds a product of two thin factors, scaled:
#
# $$\hat y = x W^\top + \frac{\alpha}{r}\, x A^\top B^\top$$
#
# Examples are rows here, as everywhere in PyTorch, so that $y = W x$ becomes $\hat y = x W^\top$.
# $W$ is $(d_{out}, d_{in})$ and frozen. $A$ is $(r, d_{in})$ and $B$ is $(d_{out}, r)$; both train. The
# number $\alpha$ (alpha) is a knob; dividing by the rank $r$ is a choice that we will put to the test.
#
# Read the product from the right: $x A^\top$ squeezes each input into $r$ numbers, $B^\top$ spreads them
# out again. An example for paper, with $r = 2$ and $\alpha = 6$:

# %%
A = np.array([[1, 0, 2], [0, 1, 1]])  # (2, 3)
B = np.array([[1, 2], [3, 4]])  # (2, 2)
print(6 / 2 * B @ A)

# %% [markdown]
# Work out one entry by hand. Top right: $3 \cdot (1 \cdot 2 + 2 \cdot 1) = 12$.
#
# ### Exercise 1: predict (1 minute)
# How many numbers train beside our $(64, 96)$ matrix at rank 8?

# %% tags=["exercise"]
from lora_mini.desk.checks.nb03 import check_count

# <stub>
# numbers = None  # your number
# </stub>
# <solution>
numbers = 8 * (64 + 96)
# </solution>
check_count(numbers)

# %% [markdown]
# ## Gradients by hand
# Let $L$ be the loss, $\hat y$ what the layer puts out, and $G = \partial L / \partial \hat y$,
# $(n, d_{out})$. Write $\Delta W$ $(d_{out}, d_{in})$ for the whole update. If it could move freely, we would
# have an ordinary linear layer, whose gradient is
#
# $$D = \frac{\partial L}{\partial \Delta W} = G^\top x \qquad (d_{out}, d_{in}) = (d_{out}, n)\,(n, d_{in})$$
#
# The factors see it only through each other. Write $s = \alpha / r$ and $h = x A^\top$, $(n, r)$. Then
# $\hat y = x W^\top + s\, h B^\top$. For $B$ this is an ordinary linear layer with input $h$, so its
# gradient is $s\, G^\top h$. What reaches $h$ is $s\, G B$, and $A$ is an ordinary linear layer below
# that, so its gradient is $(s\, G B)^\top x$. Put $D$ in:
#
# $$\frac{\partial L}{\partial B} = s\, D A^\top \quad (d_{out}, r), \qquad
#   \frac{\partial L}{\partial A} = s\, B^\top D \quad (r, d_{in})$$
#
# In the paper example, if $D$ were all ones, the first row of $\partial L / \partial B$ would be
# $3 \cdot (1 + 0 + 2,\; 0 + 1 + 1) = (9, 6)$.

# %%
class LoRA:
    def __init__(self, W, rank, alpha, rng):
        self.W, self.scale = W, alpha / rank  # W (d_out, d_in) is never changed
        self.A = rng.uniform(-1, 1, (rank, W.shape[1])) / np.sqrt(W.shape[1])
        self.B = np.zeros((W.shape[0], rank))

    def forward(self, x):  # (n, d_in) -> (n, d_out)
        self.x = x  # kept for the way back
        return x @ self.W.T + self.scale * (x @ self.A.T) @ self.B.T

    def backward(self, G):  # G (n, d_out) -> gradients of A and of B
        D = G.T @ self.x  # (d_out, d_in)
        return self.scale * self.B.T @ D, self.scale * D @ self.A.T

    def update(self):
        return self.scale * self.B @ self.A


# %% [markdown]
# $A$ starts at random and $B$ at zero; hold that thought. The loss is the mean squared error, and its
# gradient is $G = 2\,(\hat y - y) / (n\, d_{out})$.

# %%
def loss_and_gradients(layer, x, y):
    error = layer.forward(x) - y
    return np.mean(error**2), layer.backward(2 * error / error.size)


# %% [markdown]
# Is the calculus right? Ask the loss itself. Move one entry up and down by a hair $\varepsilon$, and compare:
# the slope is about $(L(+\varepsilon) - L(-\varepsilon)) / 2\varepsilon$. This is a *finite difference*, and it knows no calculus. (For
# the test, $B$ gets random values too.)

# %%
W, x, y, rng = make_task(0)
layer = LoRA(W, rank=4, alpha=10, rng=rng)
layer.B[:] = rng.standard_normal(layer.B.shape)
_, by_calculus = loss_and_gradients(layer, x, y)


def slope(matrix, i, j, hair=1e-5):
    matrix[i, j] += hair
    up = loss_and_gradients(layer, x, y)[0]
    matrix[i, j] -= 2 * hair
    down = loss_and_gradients(layer, x, y)[0]
    matrix[i, j] += hair
    return (up - down) / (2 * hair)


# %%
for name, matrix, gradient in zip("AB", (layer.A, layer.B), by_calculus, strict=True):
    spots = [tuple(rng.integers(matrix.shape)) for _ in range(50)]
    agree = all(np.isclose(slope(matrix, *spot), gradient[spot], rtol=1e-5, atol=1e-9) for spot in spots)
    print(f"gradient of {name}: 50 random entries agree with finite differences: {agree}")

# %% [markdown]
# ### Exercise 2: complete (5 minutes)
# Write the gradient of $B$ so that the $(d_{out}, d_{in})$ matrix $D$ is never formed. That is how it is
# done in practice: the matrix can be huge, and $h = x A^\top$ is thin.

# %% tags=["exercise"]
from lora_mini.desk.checks.nb03 import check_grad_B


def grad_B(G, x, A, scale):
    # G (n, d_out), x (n, d_in), A (r, d_in)
    # <solution>
    return scale * G.T @ (x @ A.T)  # (d_out, n) times (n, r)
    # </solution>


check_grad_B(grad_B)

# %% [markdown]
# ## Which factor moves first?
# ### Bet 1
# $B$ starts at zero and $A$ at random. How large is the largest entry of the gradient of $A$ at the very
# first step? And which factor moves away from its start first: `"A"`, `"B"` or `"both"`?

# %%
bet("03 gradient of A at step 0", guess=None)
bet("03 first to move", guess=None, choices=("A", "B", "both"))

# %%
layer = LoRA(W, rank=4, alpha=10, rng=np.random.default_rng(1))
_, (grad_A, grad_of_B) = loss_and_gradients(layer, x, y)
settle("03 gradient of A at step 0", np.abs(grad_A).max())
settle("03 first to move", "B" if not grad_A.any() and grad_of_B.any() else "both")
print("largest entry of the gradient of B:", f"{np.abs(grad_of_B).max():.4f}")

# %% [markdown]
# Exactly zero: not small, zero. $\partial L / \partial A = s\, B^\top D$, and $B$ is zero. $A$ learns
# nothing at the first step. It is a fixed random lens through which $B$ looks at the task.
#
# To train we need an optimiser. *SGD* subtracts the gradient times a rate. *Adam* keeps, for every entry,
# a running mean of its gradient and of the square, and divides one by the root of the other. So at its
# first step every entry whose gradient is not zero moves by the rate itself, up or down.

# %%
class Adam:
    def __init__(self, parameters, rate):
        self.parameters, self.rate, self.t = parameters, rate, 0
        self.m = [np.zeros_like(p) for p in parameters]
        self.v = [np.zeros_like(p) for p in parameters]

    def step(self, gradients):
        self.t += 1
        for p, g, m, v in zip(self.parameters, gradients, self.m, self.v, strict=True):
            m += 0.1 * (g - m)  # running mean of the gradient, over about ten steps
            v += 0.001 * (g * g - v)  # and of its square, over about a thousand
            mean, square = m / (1 - 0.9**self.t), v / (1 - 0.999**self.t)  # both began at zero
            p -= self.rate * mean / (np.sqrt(square) + 1e-8)


class SGD(Adam):
    def step(self, gradients):
        for p, g in zip(self.parameters, gradients, strict=True):
            p -= self.rate * g


# %%
def train(layer, x, y, optimiser, steps, look=lambda layer: None):
    losses, seen = [], []
    for _ in range(steps):
        loss, gradients = loss_and_gradients(layer, x, y)
        losses.append(loss)
        seen.append(look(layer))
        optimiser.step(gradients)
    return np.array(losses), seen


def adam(layer, rate):
    return Adam([layer.A, layer.B], rate)


# %%
start = layer.A.copy()


def distances(layer):
    return np.linalg.norm(layer.A - start), np.linalg.norm(layer.B)


_, moved = train(layer, x, y, SGD([layer.A, layer.B], rate=0.3), 12, distances)
fig, ax = axes(4.6, 2.7)
for values, name, colour in zip(np.transpose(moved), "AB", (SECOND, ACCENT), strict=True):
    ax.plot(values, "o-", color=colour, ms=4)
    ax.annotate(name, (11, values[-1]), (11.25, values[-1]), color=colour, va="center")
ax.set(xlabel="step", ylabel="distance from the start")
show(fig, "B leaves at the first step. A follows one step later, slowly, once there is a B to carry its "
          "gradient.",
     alt=f"After one step B has moved {moved[1][1]:.3f} and A {moved[1][0]:.3f}; after eleven B "
         f"{moved[11][1]:.2f} and A {moved[11][0]:.2f}.")

# %% [markdown]
# ## Four ways to start
# Each factor can start at zero or at random. With one factor at zero, $BA = 0$ and the model begins as its base. With
# none, it begins with noise added. And with both?
#
# ### Bet 2
# Both factors start at zero, and Adam makes 60 steps. By what percentage does the loss fall?

# %%
bet("03 loss fallen from two zeros", guess=None)

# %%
def from_start(A_random, B_random, rate=0.01, steps=60):
    layer = LoRA(W, rank=8, alpha=16, rng=np.random.default_rng(2))
    layer.A *= A_random
    layer.B += B_random * np.random.default_rng(3).standard_normal(layer.B.shape)
    return train(layer, x, y, adam(layer, rate), steps)[0]


starts = {"B zero": from_start(True, False), "A zero": from_start(False, True),
          "both zero": from_start(False, False), "neither": from_start(True, True)}
settle("03 loss fallen from two zeros", 100 * (1 - starts["both zero"][-1] / starts["both zero"][0]),
       unit="percent")

# %%
fig, ax = axes(5.4, 3.0)
for (name, losses), style in zip(starts.items(), ("-", "--", ":", "-."), strict=True):
    ax.plot(losses, style, label=name)
ax.legend(fontsize=8)
ax.set(xlabel="step", ylabel="loss", yscale="log", ylim=(0.005, 60))
show(fig, "Two zeros stay where they are, for ever. No zero starts far away from the base. One zero "
          "starts at the base and learns.",
     alt=f"Start: one or two zeros {starts['B zero'][0]:.2f}, neither {starts['neither'][0]:.0f}. "
         "The loss falls for all but both zero, which is a flat line.")

# %%
expect("from two zeros nothing moved at all, to the last bit", len(set(starts["both zero"])) == 1)
expect("with one zero the model starts exactly as its base",
       starts["B zero"][0] == starts["A zero"][0] == np.mean((x @ W.T - y) ** 2))

# %% [markdown]
# Two zeros are dead: each factor's gradient is a product with the other, so both are zero for ever. Of
# the four starts, only those with **exactly one zero** begin as the base and can leave it. Which factor
# gets the zero? Hu et al. (2021, section 4.1) chose $B$, and most code follows. Our two curves are no fair
# race, for the two random starts differ in size. Hayou, Ghosh and Yu (2024) ran a fair one: with the zero
# in $B$, larger rates stay stable, and results are better on average.
#
# %% [markdown]
# ## The change, learned
# Now train at ranks 1, 2, 4, 8 and 16, 400 steps each, and look at the update that came out.

# %% tags=["measured"]
def learned(rank, seed=0):
    W, x, y, rng = make_task(seed)
    layer = LoRA(W, rank, alpha=16, rng=rng)
    train(layer, x, y, adam(layer, 0.01), 400)
    return layer.update()


updates = {r: learned(r) for r in RANKS}
distance = {r: np.linalg.norm(u - change) / np.linalg.norm(change) for r, u in updates.items()}
best = {r: np.linalg.norm(svd.low_rank(change, r) - change) / np.linalg.norm(change) for r in RANKS}
for r in RANKS:
    print(f"rank {r:2d}: relative error {distance[r]:.3f}   best possible {best[r]:.3f}")

# %%
expect("at ranks 1, 2 and 4 training came within a hundredth of the truncated SVD",
       all(best[r] <= distance[r] < best[r] + 0.01 for r in (1, 2, 4)))
pictures = {f"learned, r = {r}": updates[r] for r in RANKS} | {"the change": change}
fig = fixed_row(pictures.values(), pictures, columns=3, low=-0.05, high=0.25)
show(fig, "What LoRA learned at each rank, from examples alone. Rank 1 finds stripes, rank 4 can "
          "almost be read, rank 8 has it all.",
     alt="Learned updates at ranks 1, 2, 4, 8 and 16: stripes at first, the word LORA from rank 4 on.")

# %% [markdown]
# Look back at notebook 02. There the truncated SVD was the best picture of its rank. Here nobody computed
# an SVD and nobody showed the picture, and going downhill came almost as near. (Our inputs are about as
# strong in every direction. With lopsided inputs LoRA spends its ranks where the inputs are.) And rank 16
# ends a little further off than rank 8: ranks that the change does not need learn the noise.
#
# ## What alpha/r does to the first steps
# A larger rank means more terms in $BA$. The factor $1/r$ is there to keep the sum in check, so that you
# need not find a new rate for each rank. Does it?
#
# ### Bets 3 and 4
# Same alpha, same small rate, ranks 1 and 64. How many times more does the loss fall in the **first step** at
# rank 64 than at rank 1? (1 means the same, 2 twice as much, 0.5 half as much.) First under Adam, then
# under SGD.

# %%
bet("03 first step under Adam, rank 64 against 1", guess=None)
bet("03 first step under SGD, rank 64 against 1", guess=None)

# %% tags=["measured"]
ALL_RANKS = (1, 2, 4, 8, 16, 32, 64)


def falls(kind, rate, rank, seed, steps=2):
    W, x, y, rng = make_task(seed)
    layer = LoRA(W, rank, alpha=16, rng=rng)
    losses, _ = train(layer, x, y, kind([layer.A, layer.B], rate), steps)
    return losses[0] - losses


first = {kind.__name__: np.array([[falls(kind, rate, r, seed)[1] for seed in range(8)]
                                  for r in ALL_RANKS])  # (7 ranks, 8 seeds)
         for kind, rate in ((Adam, 0.003), (SGD, 0.02))}
for name, fall in first.items():
    ratio = fall[-1].mean() / fall[0].mean()
    settle(f"03 first step under {name}, rank 64 against 1", ratio, unit="times")
large = {r: np.mean([falls(Adam, 0.03, r, seed)[1] for seed in range(8)]) for r in (1, 64)}
print(f"Adam with a ten times larger rate: rank 1 falls by {large[1]:.3f}, rank 64 by {large[64]:.3f}")

# %%
mean = {name: fall.mean(axis=1) for name, fall in first.items()}
expect("under Adam, at a small rate, rank 64 and rank 1 start alike, within a factor of 1.5",
       1 / 1.5 < mean["Adam"][-1] / mean["Adam"][0] < 1.5)
expect("under SGD the first step at rank 64 is at least 30 times smaller than at rank 1",
       mean["SGD"][0] > 30 * mean["SGD"][-1])

# %%
fig, (left, right) = axes(7.4, 3.0, 2)
for ax, kind, rate, steps in ((left, Adam, 0.003, 12), (right, SGD, 0.02, 40)):
    for rank, style in ((1, ":"), (4, "-."), (16, "--"), (64, "-")):
        ax.plot(falls(kind, rate, rank, seed=0, steps=steps), style, label=f"r = {rank}")
    ax.set(xlabel="step", ylabel="loss fallen by", title=f"{kind.__name__}, alpha = 16", yscale="log",
           xlim=(0, steps))
left.legend(fontsize=8)
show(fig, "The first steps, on a log scale. Under Adam the ranks set out together. Under SGD each "
          "has its own pace from the start, and rank 64 is last.",
     alt="Two panels of loss fallen against step for ranks 1, 4, 16 and 64: together under Adam, far "
         "apart under SGD with rank 1 in front.")

# %%
fig, ax = axes(5.2, 3.0)
for (name, fall), colour, marker in zip(first.items(), (ACCENT, SECOND), "os", strict=True):
    ax.plot(ALL_RANKS, fall / fall[0].mean(), marker, color=colour, ms=3, alpha=0.4)
    ax.plot(ALL_RANKS, fall.mean(axis=1) / fall[0].mean(), "-", color=colour)
    ax.text(70, fall[-1].mean() / fall[0].mean(), name, color=colour, va="center")
ax.plot(ALL_RANKS, 1 / np.array(ALL_RANKS), ":", color=GREY)
ax.text(9, 0.05, "1/r", color="#555555")
ax.set(xlabel="rank r", ylabel="first step, against rank 1", xscale="log", yscale="log", xlim=(0.9, 150))
ax.set_xticks(ALL_RANKS, ALL_RANKS)
show(fig, "The first step at each rank, eight seeds. Adam stays level. SGD falls like 1/r (dotted).",
     alt=f"Relative first step at rank 64: Adam about {mean['Adam'][-1] / mean['Adam'][0]:.0f}, "
         f"SGD 1/{mean['SGD'][0] / mean['SGD'][-1]:.0f}, along the line 1/r.")

# %% [markdown]
# Why? In the first step only $B$ moves, by some $\delta B$. To first order the loss falls by the sum of
# (gradient times movement) over the entries of $B$, and the gradient is $s\, D A^\top$ with
# $s = \alpha / r$: $d_{out} \times r$ numbers, of a size that does not depend on $r$ but for the factor
# $s$.
#
# - **Adam** moves each entry by the rate $\eta$, always downhill. The fall is
#   $\eta\, s \sum |D A^\top|$: a sum that grows like $r$, times $1/r$. Level.
# - **SGD** moves each entry by $\eta$ times its gradient. The fall is $\eta\, s^2 \sum (D A^\top)^2$: a
#   sum that grows like $r$, times $1/r^2$. It falls like $1/r$.
#
# So "with alpha/r the rate need not change with the rank" held for Adam, in the first step, at a small
# rate. At a ten times larger one, rank 1 overshoots and gets worse while rank 64 still gains. And by step
# 11, with $A$ moving too, rank 64 is well ahead of rank 1. Which scale is best in the end is another
# question, still open here. Some argue for $\alpha/\sqrt r$ (*rsLoRA*, Kalajdzievski
# 2023).

# %% [markdown]
# ### Exercise 3: find the bug (4 minutes)
# This update should be LoRA's, with the scale alpha/r. The same slip stood in a good course for a long
# time, and nobody could tell: as long as the rank is the same, it only looks like another alpha
# (rasbt/LLMs-from-scratch, issue 821; put right since). Mend it.

# %% tags=["exercise"]
from lora_mini.desk.checks.nb03 import check_update


def update(A, B, alpha):
    # A (r, d_in), B (d_out, r)
    # <stub>
    # return alpha * B @ A
    # </stub>
    # <solution>
    return alpha / A.shape[0] * B @ A
    # </solution>


check_update(update)

# %% [markdown]
# ## Is an update always of low rank?
# You often hear: "the update is the product of two thin matrices". That is how LoRA is *made*. Is it how
# updates *are*? Train the whole matrix freely, on the same examples, and on the same without noise.

# %% tags=["measured"]
def trained_freely(noise):
    W, x, y, _ = make_task(0, noise=noise)
    free = W.copy()
    for _ in range(300):
        error = x @ free.T - y
        free -= 10 * (2 * error / error.size).T @ x  # plain SGD on all of the matrix
    return free - W


free = {"free": trained_freely(0.1), "free, no noise": trained_freely(0.0), "LoRA, r = 8": updates[8]}
ranks = {name: int(np.linalg.matrix_rank(u)) for name, u in free.items()}
for name, u in free.items():
    off = np.linalg.norm(u - change) / np.linalg.norm(change)
    print(f"{name:15s} rank {ranks[name]:2d}   relative error {off:.3f}")

# %% [markdown]
# A free update takes whatever rank the examples ask for. These ask for six, and their noise asks for all
# 64. Here is the verdict on C2, the second claim of the course's table.

# %%
verdict("C2", update_has_at_most_rank_r=ranks["LoRA, r = 8"] <= 8,
        fewer_numbers=8 * (d_out + d_in) < d_out * d_in,
        dense_update_has_at_most_rank_r=ranks["free"] <= 8)

# %%
fig, ax = axes(5.4, 2.9)
for name, style, colour in (("free", "-", SECOND), ("LoRA, r = 8", "o", ACCENT)):
    ax.plot(range(1, ranks[name] + 1), np.linalg.svd(free[name], compute_uv=False)[:ranks[name]], style,
            color=colour, ms=4, label=name)
six = np.linalg.svd(change, compute_uv=False)[:6]
ax.plot(range(1, 7), six, "x", color="black", ms=8, label="the change")
ax.legend(fontsize=8)
ax.set(xlabel="j", ylabel="singular value $s_j$", yscale="log")
show(fig, "The free update carries the six heavy layers of the change, and a long tail of fitted noise. "
          "LoRA at rank 8 has room for two noisy layers only.",
     alt=f"Singular values: the change has 6, LoRA at rank 8 has {ranks['LoRA, r = 8']}, the free "
         f"update {ranks['free']}, of which all but six are small.")

# %% [markdown]
# The tail is light, but it makes the free update the *worse* of the two here. Don't carry that too far:
# we built a change of rank 6 and gave few, noisy examples. When the change needs more rank than LoRA has,
# LoRA pays, as ranks 1 and 2 did above.

# %% [markdown]
# ## What you have done
# - You **wrote** LoRA and its gradients by hand, and fifty entries of each agreed with finite differences.
# - You **explained** why exactly one factor starts at zero: with two nothing ever moves, with none the
#   start is not the base. At the first step the gradient of $A$ is zero and only $B$ moves.
# - You **predicted** the first steps: at small rates alpha/r makes them level across ranks under Adam, and
#   lets them fall like $1/r$ under SGD.
#
# **On your own.** Replace the word by your initials. Which rank do they need? Then write
# `alpha / np.sqrt(rank)` into the layer and draw the first steps again. The lines marked "seen here" will
# protest; which optimiser is level now?
#
# **In practice.** When the loss of an adapter does not move, look at $B$ after a few steps. If it is still
# zero, look at its gradient. Missing or zero: the graph is cut somewhere, or $A$ is zero too. Not zero: the
# optimiser holds other tensors.
#
# **Further reading.**
# - Hu et al., *LoRA* (2021), section 4.1: half a page on the layer, its start and its scale.
# - Hayou, Ghosh and Yu, *The impact of initialization on LoRA finetuning dynamics* (2024): whether the
#   zero belongs into A or into B.
# - Kalajdzievski, *A rank stabilization scaling factor for fine-tuning with LoRA* (2023): the case for
#   alpha over the square root of r.
# - Schulman et al., *LoRA without regret* (2025): why, with alpha/r, the best rate hardly depends on the
#   rank, on large models.
