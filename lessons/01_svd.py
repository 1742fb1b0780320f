# %% [markdown]
# # 1. Take a matrix apart
#
# You will find the singular value decomposition (SVD) by looking at a circle, and then compute it with a
# loop whose heart is three lines.
#
# At the end of this notebook you will be able to
# - **see** what a matrix does to space: which directions it stretches most and least, and by how much;
# - **compute** an SVD by power iteration, and check it against NumPy;
# - **say** what in an SVD is fixed and what is a matter of choice.
#
# You need NumPy, matrix products, and the length and the scalar product of vectors. About 70 minutes to
# study; the core path about 45, the rest is marked as a second reading.

# %% [markdown]
# **Two questions before you start.** Answer aloud, then unfold.
#
# <details><summary>1. How many numbers does a patch of rank r for a (d_out, d_in) matrix hold? (00)</summary>
#
# $r\,(d_{out} + d_{in})$.
# </details>
# <details><summary>2. Which change of the photograph was cheap, and which was not? (00)</summary>
#
# Stripes and the frame came with the first ranks. The diagonal band was still blurred at 16.
# </details>

# %%
import numpy as np

from lora_mini.desk import bet, expect, settle, show
from lora_mini.desk.figures import ACCENT, GREY, SECOND, axes, photograph
from lora_mini.desk.sliders import RankSlider

# %% [markdown]
# ## What a matrix does to a circle
# A matrix takes a vector in and puts a vector out: $y = M x$. To see what it does, feed it every vector
# of length 1, that is, a circle. Some of them come out longer, some shorter. Pick the input that is
# stretched most, and the one that is stretched least.
#
# ### Bets 1 and 2
# 1. What is the angle between these two **inputs**, in degrees?
# 2. And between their two **outputs**?

# %%
bet("01 angle between the inputs", guess=None)
bet("01 angle between the outputs", guess=None)

# %%
M = np.array([[2.0, 1.0], [0.5, 1.5]])  # (d_out, d_in) = (2, 2)
angle = np.linspace(0, 2 * np.pi, 361)
circle = np.stack([np.cos(angle), np.sin(angle)])  # (2, 361): a column for each direction
image = M @ circle

# %%
lengths = np.linalg.norm(image, axis=0)
far, near = lengths.argmax(), lengths.argmin()
fig, (left, right) = axes(6.6, 3.2, 2)
left.plot(*circle, color=GREY)
right.plot(*image, color=GREY)
for k, colour, j in ((far, ACCENT, 1), (near, SECOND, 2)):
    for ax, points, name in ((left, circle, "v_{}"), (right, image, "s_{0} u_{0}")):
        ax.plot([0, points[0, k]], [0, points[1, k]], color=colour)
        length = np.linalg.norm(points[:, k])
        ax.text(*(points[:, k] * (1 + 0.35 / length)), f"${name.format(j)}$", color=colour, ha="center",
                va="center")
for ax, title in ((left, "x, of length 1"), (right, "y = M x")):
    ax.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal", title=title)
show(fig, "A circle becomes an ellipse. Blue, number 1: the direction that is stretched most. Orange, "
          "number 2: the one that is stretched least. The letters are explained below.",
     alt=f"Left a circle, right an ellipse whose longest half-axis is {lengths[far]:.2f} and whose "
         f"shortest is {lengths[near]:.2f}.")

# %% [markdown]
# Look at the angle on the left, and at the one on the right. We picked the blue and the orange input by
# their stretch alone.

# %%
def degrees_between(a, b):
    cosine = abs(a @ b) / np.linalg.norm(a) / np.linalg.norm(b)  # abs: a line has no arrow
    return np.degrees(np.arccos(min(cosine, 1.0)))


degrees = [round(degrees_between(points[:, far], points[:, near])) for points in (circle, image)]

# %%
settle("01 angle between the inputs", degrees[0], within=0.02)
settle("01 angle between the outputs", degrees[1], within=0.02)

# %% [markdown]
# Perpendicular, both times. Is that so of any perpendicular pair?

# %%
for name, pair in (("stretched most and least", (far, near)), ("at 10 and 100 degrees", (10, 100))):
    between = [degrees_between(*points[:, pair].T) for points in (circle, image)]
    print(f"{name:26s}inputs {between[0]:5.2f} degrees apart, outputs {between[1]:5.2f}")

# %% [markdown]
# No. (A third of a degree is missing in the first line since we tried whole degrees only.) But every matrix
# has a set of perpendicular inputs that it sends to perpendicular outputs. That is a theorem; below you will
# try it on random matrices. These are its *singular directions*. The inputs are called $v_1, v_2$, of length
# 1, the outputs $u_1, u_2$, scaled to length 1, and the stretches are the *singular values*
# $s_1 \ge s_2 \ge 0$:
#
# $$M v_j = s_j u_j$$
#
# (Where $s_j = 0$ the output has no direction, and any perpendicular one may be called $u_j$.)

# %%
v1, v2 = circle[:, far], circle[:, near]
s1, s2 = lengths[far], lengths[near]
u1, u2 = M @ v1 / s1, M @ v2 / s2
print(f"s1 = {s1:.3f}   s2 = {s2:.3f}   s1 s2 = {s1 * s2:.3f}   |det M| = {abs(np.linalg.det(M)):.3f}")

# %% [markdown]
# The product is the area of the ellipse relative to the circle, which is what a determinant measures.
#
# ## Putting it together
# Any input is a mixture of the $v_j$ (and perhaps a rest that $M$ sends to zero). As they are perpendicular
# and of length 1, the scalar products $v_j^\top x$ say how much of each is in it. $M$ stretches each part and
# points it along $u_j$. So
#
# $$M x = \sum_j u_j\, s_j\, (v_j^\top x), \qquad M = \sum_j s_j\, u_j v_j^\top = U S V^\top$$
#
# Each term $s_j u_j v_j^\top$ is one column times one row, scaled. Call it a *layer* of the matrix (it has
# nothing to do with the layers of a network). A layer has *rank* 1: all its columns are multiples of $u_j$.
# The first $r$ layers add up to a matrix of rank $r$, if $s_r > 0$. For $M$ $(m, n)$ and $k = \min(m, n)$:
# $U$ $(m, k)$ has the $u_j$ as columns, $S$ $(k, k)$ the $s_j$ on its diagonal, $V^\top$ $(k, n)$ the
# $v_j$ as rows; column $j$ of $U S$ is $s_j u_j$. In words, for a square $M$: **turn, stretch, turn** (a turn
# may hold a mirror). For paper: a matrix with 3 and -4 on its diagonal. What are its singular values, and
# where does the sign go? (4 and 3; into $u_1$, or into $v_1$.)

# %%
for name, a, b in (("the singular pair", v1, v2), ("10 and 100 degrees", circle[:, 10], circle[:, 100])):
    rebuilt = np.outer(M @ a, a) + np.outer(M @ b, b)  # M v is s u
    print(f"{name:20s}furthest from M: {np.abs(rebuilt - M).max():.4f}")

# %% [markdown]
# Both are $M$: any perpendicular pair of inputs will do for that. What only the singular pair has is that the
# columns are perpendicular, too. Now larger matrices, taken apart by NumPy: are the images of their $v_j$
# perpendicular?

# %%
rng = np.random.default_rng(0)
for m, n in ((5, 3), (4, 4), (3, 7)):
    R = rng.standard_normal((m, n))
    V = np.linalg.svd(R, full_matrices=False)[2].T  # (n, k): a column for each v_j
    Q = np.linalg.qr(rng.standard_normal((n, V.shape[1])))[0]  # perpendicular columns, drawn at random
    for name, columns in (("v", V), ("others", Q)):
        products = (R @ columns).T @ (R @ columns)  # scalar products of every pair of outputs
        off = np.abs(products - np.diag(np.diag(products))).max()
        print(f"({m}, {n}) outputs of {name:7s} all perpendicular: {off < 1e-12}")

# %% [markdown]
# ### Exercise 1: predict (3 minutes)
# A matrix has $s_1 = 5$ and $s_2 = 2$. What is the **length** of $M x$ for $x = 0.6\, v_1 + 0.8\, v_2$?
# Paper will do.

# %% tags=["exercise"]
from lora_mini.desk.checks.nb01 import check_length

# <stub>
# length = None  # your number
# </stub>
# <solution>
length = np.hypot(5 * 0.6, 2 * 0.8)  # perpendicular parts: Pythagoras
# </solution>
check_length(length)

# %% [markdown]
# Pythagoras works for every $x$ of length 1: $|M x|^2 = \sum_j s_j^2 (v_j^\top x)^2$. The shares
# $(v_j^\top x)^2$ add up to 1 at most, so $|M x|$ is at most $s_1$, and it is $s_1$ at $v_1$: the direction
# that is **stretched most**. Stretched *least* is $v_k$, by $s_k$, if $n \le m$. A matrix with $n > m$ sends
# some inputs to 0: those with no share in any $v_j$.
#
# ## More than two dimensions
# In 300 dimensions nobody can try all directions. But there is a trick. Multiply a vector by $M$, and the
# result by $M^\top$. Transposing the sum of layers swaps $u_j$ and $v_j$, so $M^\top u_j = s_j v_j$. The
# product with $M$ stretches the part along $v_j$ by $s_j$, and the product with $M^\top$ does it once more:
#
# $$M^\top M v_j = s_j^2\, v_j$$
#
# So each round multiplies every part by its own $s_j^2$, and the part along $v_1$ grows fastest. Repeat, and
# scale to length 1 each time. If $s_1 > s_2$, the vector turns into $v_1$ (or into $-v_1$), unless it was
# perpendicular to $v_1$ at the start. This is *power iteration*.

# %%
exact = np.linalg.svd(M)[2][0]  # v1 by NumPy; ours was picked to whole degrees
x = np.array([1.0, -0.2])  # almost any start will do
for _ in range(6):
    x = M.T @ (M @ x)
    x = x / np.linalg.norm(x)
    stretch = np.linalg.norm(M @ x)
    print(f"angle to v1: {degrees_between(x, exact):8.4f} degrees   stretch: {stretch:.4f}")

# %% [markdown]
# ### How fast? (second reading)
# Next to the wanted part, along $v_1$, the strongest unwanted part is the one along $v_2$. Each round
# multiplies it, relative to the wanted one, by $(s_2 / s_1)^2$.
#
# **Bet 3.** With $s_2 / s_1 = 0.5$: how many rounds make it at least a million times smaller?

# %%
bet("01 rounds for a millionth", guess=None)

# %%
def rounds_for(ratio):
    rounds, unwanted = 0, 1.0
    while unwanted > 1e-6:
        unwanted *= ratio**2
        rounds += 1
    return rounds


at_half = rounds_for(0.5)

# %%
settle("01 rounds for a millionth", at_half)

# %%
print("rounds by s2 / s1:", {ratio: rounds_for(ratio) for ratio in (0.5, 0.9, 0.99)})

# %% [markdown]
# The nearer $s_2$ comes to $s_1$, the longer it takes. When they are equal, no direction wins: what is left
# is a mixture of $v_1$ and $v_2$, and every such mixture is stretched by $s_1$.

# %% [markdown]
# ### Exercise 2: complete, 3 minutes (second reading)
# Write one round of power iteration. `M` is $(m, n)$, `v` is $(n,)$, and the result has length 1.

# %% tags=["exercise"]
from lora_mini.desk.checks.nb01 import check_power_step


def power_step(M, v):
    # <solution>
    w = M.T @ (M @ v)
    return w / np.linalg.norm(w)
    # </solution>


check_power_step(power_step)

# %% [markdown]
# ## All of it
# Power iteration finds the first layer $s_1 u_1 v_1^\top$. To get the next, *peel* it off: what remains is
# the sum of the others, so its first layer is our second. Start again on it. Each layer gets 300 rounds.

# %%
def svd_by_hand(M, rank, rounds=300):
    rest, rng = M.copy(), np.random.default_rng(0)
    U, S, V = [], [], []
    for _ in range(rank):
        v = rng.standard_normal(M.shape[1])
        for _ in range(rounds):
            v = rest.T @ (rest @ v)
            v /= np.linalg.norm(v)
        s = np.linalg.norm(rest @ v)
        u = rest @ v / s
        rest = rest - s * np.outer(u, v)  # peel the layer off
        U, S, V = [*U, u], [*S, s], [*V, v]
    return np.array(U).T, np.array(S), np.array(V)  # (m, rank), (rank,), (rank, n)


# %%
X = photograph()[40:140, 80:160]  # a part of a photograph: (100, 80)
U, S, Vt = svd_by_hand(X, 12)
U_np, S_np, Vt_np = np.linalg.svd(X, full_matrices=False)
print("by hand:", np.round(S[:6], 1))
print("NumPy:  ", np.round(S_np[:6], 1))

# %% [markdown]
# The singular values agree. What about the directions?
#
# **Bet 4.** Are the twelve $u_j$ by hand NumPy's?

# %%
bet("01 directions by hand", guess=None, choices=("all of them", "up to the sign", "not even that"))

# %%
signs = [np.sign(U[:, j] @ U_np[:, j]) for j in range(12)]
off = [max(np.abs(sign * U[:, j] - U_np[:, j]).max(), np.abs(sign * Vt[j] - Vt_np[j]).max())
       for j, sign in enumerate(signs)]  # v_j with the sign of u_j
print("signs:", " ".join(f"{sign:+.0f}" for sign in signs))
found = "not even that" if max(off) > 1e-3 else "up to the sign" if min(signs) < 0 else "all of them"

# %%
settle("01 directions by hand", found)

# %% [markdown]
# A direction is a line; which of its two ends carries the arrow is a matter of choice. Turn $u_j$ *and*
# $v_j$ around, and their product stays. The **values** are fixed. A **layer** is fixed if no other value
# equals its own; of layers with equal values only the sum is. (The identity stretches every direction by 1:
# any perpendicular pair is as good.) The **signs** are not. So compare products, not factors.

# %%
by_hand = (U * S) @ Vt  # U * S scales each column by its s
by_numpy = (U_np[:, :12] * S_np[:12]) @ Vt_np[:12]
gap = np.linalg.norm(by_hand - by_numpy) / np.linalg.norm(by_numpy)

# %%
expect("twelve layers by hand and by NumPy add up to the same, to a thousandth", gap < 1e-3)

# %%
fig, ax = axes(5.2, 2.9)
ax.plot(range(1, 81), S_np, color=GREY, label="NumPy")
ax.plot(range(1, 13), S, "o", color=ACCENT, ms=4, label="by hand")
ax.legend()
ax.set(xlabel="j", ylabel="singular value $s_j$", yscale="log")
show(fig, "The singular values of a piece of photograph, the largest first, on a log scale. The first "
          f"is almost six times the second; the 40th is {100 * S_np[39] / S_np[0]:.1f} percent of the first.",
     alt=f"Singular values fall from {S_np[0]:.0f} at j = 1 to {S_np[11]:.0f} at j = 12 and "
         f"{S_np[-1]:.1f} at j = 80; the twelve by hand lie on NumPy's curve.")

# %% [markdown]
# ### Exercise 3: find the bug, 4 minutes (second reading)
# This peeling step is not quite right. Afterwards the rest should send $v$ to zero. Repair it.

# %% tags=["exercise"]
from lora_mini.desk.checks.nb01 import check_peel


def peel(M, u, s, v):
    # <stub>
    # return M - np.outer(u, v)
    # </stub>
    # <solution>
    return M - s * np.outer(u, v)
    # </solution>


check_peel(peel)

# %% [markdown]
# ## The layers, one by one
# The slider adds them in order of $s_j$. Notebook 02 asks how many are enough.

# %%
RankSlider(X, "A part of the photograph at ranks 1, 2, 4, 8 and 16: a blur with a cap, then a face.",
           rank=1, most=40)

# %% [markdown]
# ## What you have done
# - You **saw** a circle become an ellipse. One pair of perpendicular inputs becomes its half-axes, and
#   their lengths are the singular values.
# - You **computed** an SVD by power iteration and peeling, and its layers added up to NumPy's.
# - You **said** what is fixed: the values, and each layer whose value is its own alone; the signs are chosen.
#
# **On your own.** Draw the ellipse of a matrix with the rows (1, 1) and (2, 2). What has become of the orange
# output? Then try a rotation: which inputs are picked as stretched most and least, and why those?
# <details><summary>Answers</summary>
#
# The orange output is 0 and has no direction: don't divide by its length. A rotation stretches all alike;
# what is picked is rounding.
# </details>
#
# **In practice.** Use `numpy.linalg.svd(X, full_matrices=False)`: the plain call also returns directions that
# $X$ never uses. NumPy does not use power iteration. It calls `gesdd`, a routine of the library LAPACK, which
# takes the whole matrix apart at once (NumPy's reference says so). Power iteration needs nothing but products
# with $M$ and $M^\top$, so it serves where a few layers of a large matrix are enough; notebook 02 does it for
# many directions side by side.
#
# **Further reading.**
# - Trefethen and Bau, *Numerical linear algebra* (1997), lectures 4 and 5: the SVD from circles and
#   ellipses, in a few pages.
# - Stewart, *On the early history of the singular value decomposition* (SIAM Review, 1993): five people
#   who found it, from 1873 on.
