# %% [markdown]
# # 2. Cut a matrix down to rank r
#
# You will take a photograph apart into layers, keep the few that matter, and build a slider that puts
# them back one by one.
#
# At the end of this notebook you will be able to
# - **keep** the layers of a matrix that matter, and read the error off those that you drop;
# - **try to beat** the truncated SVD, and name the theorem that says nobody can;
# - **make** a rank slider in six lines, and say why factors beat pictures on the way to the screen (second
#   reading);
# - **recognise** the matrices that low rank shortens badly, by their singular values.
#
# You need NumPy, matrix products, and the SVD from notebook 01. About 80 minutes to study; the core path
# about 45, the rest is marked as a second reading.

# %% [markdown]
# **Three questions before you start.** Answer aloud, then unfold.
#
# <details><summary>1. What do the three factors of an SVD do to a vector, in order? (01)</summary>
#
# $V^\top$ turns it (or mirrors it), $S$ stretches it along the axes, $U$ turns it again.
# </details>
# <details><summary>2. Which numbers of the SVD carry size, and which only direction? (01)</summary>
#
# The singular values in $S$ carry the size. The columns of $U$ and the rows of $V^\top$ have length 1.
# </details>
# <details><summary>3. What stays frozen in LoRA, and what is thin? (00)</summary>
#
# The matrix $W$ stays frozen. The patch $BA$ is thin: it is made of two narrow factors.
# </details>

# %%
import numpy as np

from lora_mini.desk import bet, expect, settle, show
from lora_mini.desk.figures import ACCENT, GREY, SECOND, axes, fixed_row, photograph
from lora_mini.desk.sliders import RankSlider

# %%
X = photograph()
print("shape", X.shape, "  numbers", X.size)

# %% [markdown]
# A grey photograph is a matrix: 300 rows, 256 columns, a brightness between 0 and 255 in each place.
# In a moment a slider will build it up from *layers*: a layer is one column times one row. At rank $r$
# there are $r$ columns and $r$ rows.
#
# ### Bets 1 and 2
# 1. What percentage of the 76,800 numbers do 16 columns and 16 rows hold?
# 2. How many layers does it take until the *relative error* is 10 percent? (The root of the summed squared
#    differences, divided by the root of the picture's own summed squares.)
#
# Bet before you go on: the line under the slider gives both answers away.

# %%
bet("02 numbers kept at rank 16", guess=None)
bet("02 rank for ten percent", guess=None)

# %% [markdown]
# Now move the slider. Start at 0 and go up slowly. What comes first: the face, the flag, the light? (Large
# patches of light and dark, before anything that you could name.) Stop where you no longer see any change.

# %%
RankSlider(X, "The photograph at ranks 1, 2, 4, 8 and 16: stripes, then blocks, then a face.", rank=0)

# %% [markdown]
# ## Layers
# The SVD writes a matrix as a sum of layers, the heaviest first:
#
# $$X = \sum_j s_j\, u_j v_j^\top$$
#
# $X$ is $(m, n)$, each $u_j$ is a column $(m,)$, each $v_j^\top$ a row $(n,)$, and the singular value $s_j$
# says how heavy the layer is: its *weight*. Column times row gives a full $(m, n)$ matrix, in which every row
# is a multiple of one row. The *rank* of a matrix is the smallest number of layers that add up to it. A
# single layer has rank 1.

# %%
U, S, Vt = np.linalg.svd(X, full_matrices=False)  # thin: (300, 256), (256,), (256, 256)
layer = S[0] * np.outer(U[:, 0], Vt[0])
print("layer", layer.shape, "  rank", np.linalg.matrix_rank(layer))

# %%
show_layers = (0, 1, 2, 10, 50)
products = [np.outer(U[:, j], Vt[j]) for j in show_layers]
fig = fixed_row([p / np.abs(p).max() for p in products],
                [f"layer {j + 1}: {S[j]:,.0f}" for j in show_layers], low=-1, high=1)
show(fig, "Single layers with their weights, each in its own scale of grey: mid-grey is zero. The "
          "first are coarse and heavy, later ones fine and light.",
     alt=f"Layers 1, 2, 3, 11 and 51; their weights fall from {S[0]:.0f} to {S[50]:.0f}.")

# %% [markdown]
# *Truncating* keeps the first $r$ layers and drops the others:
#
# $$X_r = U_r\, S_r\, V_r^\top \qquad (m, n) = (m, r)\,(r, r)\,(r, n)$$
#
# ($U_r$: the first $r$ columns of $U$. $S_r$: the first $r$ values on a diagonal; in the code `S` is the list
# of them. $V_r^\top$: the first $r$ rows.)
#
# An example for paper: the matrix with 4 and 3 on its diagonal has $s_1 = 4$ and $s_2 = 3$. Its $X_1$
# keeps the 4 and puts 0 for the 3.

# %%
r = 16
X_16 = (U[:, :r] * S[:r]) @ Vt[:r]  # the columns of U times their weights, then the rows
print("rank", np.linalg.matrix_rank(X_16), "  numbers to store", r * (300 + 256))

# %%
settle("02 numbers kept at rank 16", 100 * r * (300 + 256) / X.size, unit="percent")

# %% [markdown]
# We count a column and a row per layer, with $s_j$ multiplied into one of them: $r\,(m + n)$ numbers
# in place of $m\,n$.

# %% [markdown]
# ### Exercise 1: predict, 2 minutes (second reading)
# A picture of 600 × 400 is stored as two factors, (600, r) and (r, 400). What is the **largest** whole r
# at which the factors hold at most as many numbers as the picture? Work it out on paper.

# %% tags=["exercise"]
from lora_mini.desk.checks.nb02 import check_break_even

# <stub>
# largest_r = None  # your number
# </stub>
# <solution>
largest_r = 600 * 400 // (600 + 400)
# </solution>
check_break_even(largest_r)

# %% [markdown]
# ## How far off?
# Measure the distance between two matrices as you would between two lists of numbers: the square root of the
# sum of squared differences. This is the *Frobenius norm* of their difference; for a single matrix it is
# written $\lVert X \rVert_F$. The *relative error* of $Y$ is $\lVert X - Y \rVert_F / \lVert X \rVert_F$.

# %%
def relative_error(Y):
    return np.linalg.norm(X - Y) / np.linalg.norm(X)


print(f"rank 16: relative error {relative_error(X_16):.3f}")

# %% [markdown]
# No need to build $X_r$ to know this. Two different layers are *perpendicular*: multiply them entry by entry,
# and the sum is $(u_i \cdot u_j)(v_i \cdot v_j)$, which is 0 for $i \ne j$, and 1 for a layer with itself. So
# their squares add up, as in Pythagoras' theorem: $\lVert X \rVert_F^2 = \sum_j s_j^2$. This sum is called
# the *energy* of the matrix; layer $j$ holds $s_j^2$ of it. What truncation loses is the energy that it
# drops:
#
# $$\lVert X - X_r \rVert_F^2 = \sum_{j > r} s_j^2$$
#
# The diagonal example: dropping the 3 out of 4 and 3 leaves an error of $3/\sqrt{16 + 9} = 0.6$.

# %%
print(f"layer 1 times layer 2, summed: {abs(np.sum(products[0] * products[1])):.10f}")
lost = np.sqrt(np.sum(S[16:] ** 2) / np.sum(S**2))
print(f"from the singular values alone: {lost:.3f}")

# %% [markdown]
# In other words: the relative error is the root of the share of the energy that is dropped. Summing the
# squares from the small end gives the error of every rank at once.

# %%
left_out = np.cumsum(S[::-1] ** 2)[::-1]  # left_out[r]: the squares that rank r drops
errors = np.sqrt(left_out / left_out[0])
needed = int(np.argmax(errors <= 0.10))  # argmax finds the first True

# %%
settle("02 rank for ten percent", needed)

# %%
fig, ax = axes(5.2, 2.9)
ax.plot(errors)
ax.plot(needed, errors[needed], "o", color=SECOND)
ax.annotate(f"10 % at r = {needed}", (needed, errors[needed]), (needed + 8, 0.16), color=SECOND)
ax.axvline(300 * 256 / (300 + 256), color=GREY, lw=1, ls="--")
ax.text(141, 0.32, "from here on the factors\nare longer than the picture", color="#555555")
ax.set(xlabel="rank r", ylabel=r"relative error $\|X - X_r\|_F / \|X\|_F$", ylim=(0, 1.02))
show(fig, "The first ranks buy a lot, the later ones little. Past the dashed line there is nothing "
          "to save.",
     alt=f"Relative error against rank: {errors[1]:.2f} at rank 1, {errors[16]:.2f} at rank 16, "
         f"0.10 at rank {needed}; break-even at rank 138.")

# %% [markdown]
# ### Exercise 2: complete (5 minutes)
# Write `truncate`. It takes any matrix and a rank and returns a matrix of the same shape.

# %% tags=["exercise"]
from lora_mini.desk.checks.nb02 import check_truncate


def truncate(X, rank):
    # <solution>
    U, S, Vt = np.linalg.svd(X, full_matrices=False)
    return (U[:, :rank] * S[:rank]) @ Vt[:rank]
    # </solution>


check_truncate(truncate)

# %% [markdown]
# ## Is there a better matrix of rank r?
# Try to beat it. First by luck: draw 16 random columns, and take the best matrix that can be mixed from them.
# Three hundred times. (`qr` makes the columns perpendicular, and of length 1. `Q.T @ X` then says how much of
# each is in every column of $X$, and `Q @ (Q.T @ X)` is the part of $X$ that they can reach.)

# %%
rng = np.random.default_rng(0)


def random_rival(r=16):
    Q, _ = np.linalg.qr(rng.standard_normal((300, r)))  # r random perpendicular columns
    return relative_error(Q @ (Q.T @ X))


lucky = [random_rival() for _ in range(300)]
print(f"best of 300: {min(lucky):.3f}   truncated SVD: {relative_error(X_16):.3f}")
print(f"16 of 300: {16 / 300:.3f}   energy held, on average: {1 - np.mean(np.square(lucky)):.3f}")

# %% [markdown]
# Luck is hopeless: sixteen random directions hold their share of the energy, a twentieth. Second, effort.
# Start from a random $B$ $(300, 16)$ and improve in turns: the best $A$ for this $B$ is a least-squares
# problem, and so is the best $B$ for that $A$.

# %%
B, climb = rng.standard_normal((300, 16)), []
for _ in range(40):
    A = np.linalg.lstsq(B, X, rcond=None)[0]  # (16, 256)
    B = np.linalg.lstsq(A.T, X.T, rcond=None)[0].T  # (300, 16), from X^T = A^T B^T
    climb.append(relative_error(B @ A))
print("after turns 1, 2, 10, 40:", " ".join(f"{climb[i]:.4f}" for i in (0, 1, 9, 39)),
      f"  truncated SVD: {relative_error(X_16):.4f}")

# %%
fig, ax = axes(5.2, 2.7)
ax.plot(range(1, 41), climb, "o-", color=SECOND, ms=3)
ax.axhline(relative_error(X_16), color=ACCENT, lw=1.4)
ax.text(30, relative_error(X_16) + 0.003, "truncated SVD", color=ACCENT)
ax.set(xlabel="turn", ylabel="relative error")
show(fig, "Effort comes down to the truncated SVD, and never below. "
          f"(Luck, at best {min(lucky):.2f}, is far above this.)",
     alt=f"Alternating descent falls from {climb[0]:.3f} to {climb[-1]:.3f}; the truncated SVD stands at "
         f"{relative_error(X_16):.3f}.")

# %%
expect("no rival of rank 16 came below the truncated SVD",
       min(lucky + climb) >= relative_error(X_16) - 1e-12)

# %% [markdown]
# Nobody can do better: Eckart and Young (1936) proved that no matrix of rank $r$ or less lies nearer to $X$
# than $X_r$. (Others lie as near only if $s_{r+1} = s_r$.)
#
# <details><summary>Why? In three lines.</summary>
#
# Let $Y$ have rank $r$, and write $s_j(M)$ for the $j$-th singular value of $M$. Weyl's inequality says
# $s_{j+r}(X) \le s_j(X - Y) + s_{r+1}(Y)$, and $s_{r+1}(Y) = 0$ because $Y$ has rank $r$. So every
# singular value of the difference is at least one that truncation drops:
# $\lVert X - Y \rVert_F^2 = \sum_j s_j(X - Y)^2 \ge \sum_j s_{j+r}(X)^2 = \lVert X - X_r \rVert_F^2$.
# </details>
#
# Look again at the patient rival. It found thin factors by going downhill, and it knew nothing of the
# SVD. LoRA too trains two thin factors by going downhill, with two differences: it takes small steps, and
# nobody shows it the matrix to reach. It sees only a *loss*, one number that says how bad the outputs are.

# %% [markdown]
# ### Another way to measure (second reading)
# The *spectral norm* of a matrix is its largest singular value: the most that it stretches any vector of
# length one. Mirsky (1960) proved that $X_r$ is nearest in this norm, too, and in more; but here others may
# well be as near. What $X_r$ leaves has the spectral norm $s_{r+1}$, the first value that was dropped:

# %%
print(f"spectral norm of X - X_16: {np.linalg.norm(X - X_16, 2):.1f}   s_17: {S[16]:.1f}")

# %% [markdown]
# ## A slider of your own (second reading)
# Six lines of ipywidgets make a rank slider. Run the cell and drag.

# %% tags=["measured"]
import matplotlib.pyplot as plt
from ipywidgets import interact


@interact(rank=(1, 64))
def look(rank=4):
    plt.figure(figsize=(2.6, 3))
    plt.imshow((U[:, :rank] * S[:rank]) @ Vt[:rank], cmap="gray", vmin=0, vmax=255)


# %% [markdown]
# It works, and it lags. (On a page without a kernel it can't move at all; the first slider can.) Three
# ways to get a picture from Python to the screen:
#
# - **a figure**: draw it with matplotlib, send the PNG. This is what `interact` just did;
# - **a frame**: sum the layers in Python, send the grey levels;
# - **factors**: send $B$ and $A$ once. After that each move adds one column times one row, in the browser,
#   and nothing is sent.
#
# ### Bet 3
# How many times longer does Python take to make the figure than the frame? Choose 5, 50, 500 or 5000. The
# one that is nearest to the measured ratio wins. (Nearest by ratio: 100 is nearer to 50 than to 500.)

# %%
bet("02 figure against frame", guess=None)

# %%
import io
from time import perf_counter


def milliseconds(work, repeat=9):
    times = []
    for _ in range(repeat):
        start = perf_counter()
        work()
        times.append(1000 * (perf_counter() - start))
    return sorted(times)[repeat // 2]  # the median: one hiccup does not count


# %%
def figure():
    fig, ax = plt.subplots(figsize=(2.6, 3))
    ax.imshow(frame_of(8), cmap="gray", vmin=0, vmax=255)
    out = io.BytesIO()
    fig.savefig(out, format="png")
    plt.close(fig)
    return out.getvalue()


def frame_of(rank):
    return (U[:, :rank] * S[:rank]) @ Vt[:rank]


def frame():
    return frame_of(8).clip(0, 255).astype(np.uint8).tobytes()


# %% tags=["measured"]
cost = {work.__name__: milliseconds(work) for work in (figure, frame)}
ratio = cost["figure"] / cost["frame"]
nearest = min((5, 50, 500, 5000), key=lambda option: abs(np.log(ratio / option)))
print(f"to make: figure {cost['figure']:.1f} ms, frame {cost['frame']:.2f} ms, ratio {ratio:.0f}")
settle("02 figure against frame", nearest, unit="times")

# %%
expect("a frame is at least twenty times cheaper to make", cost["figure"] > 20 * cost["frame"])

# %%
print(f"to send, per move: a frame {len(frame()):,} bytes, factors nothing")
print(f"to send once, for 64 ranks at 2 bytes a number: {2 * 64 * (300 + 256):,} bytes")

# %% [markdown]
# Making a frame costs next to nothing. What is left is the way: out of Python, through a connection,
# into the page. *Recorded*, from the hand to the screen: figure 480 ms, frame 25 ms, factors 1.1 ms.
# (Medians of 60 moves of a picture twice as large each way, in JupyterLab 4.6 and Chromium on two
# cores.) Factors do away with the way. The first slider of this notebook sends them, once; under its
# picture stands how long its last move took.
#
# Keep this in mind for LoRA: **thin factors are cheap to store and to send**: here as many bytes as one
# frame, once, and then nothing for each move.

# %% [markdown]
# ## Exercise 3: find the bug, 5 minutes (second reading)
# This function should return the smallest rank whose relative error is at most `error`. It always
# answers, and often wrongly. The check shows a case; find the cause.

# %% tags=["exercise"]
from lora_mini.desk.checks.nb02 import check_rank_for_error


def rank_for_error(S, error):
    # <stub>
    # left_out = np.append(np.cumsum(S[::-1])[::-1], 0)  # left_out[r]: what rank r drops
    # return int(np.argmax(left_out <= error * left_out[0]))
    # </stub>
    # <solution>
    left_out = np.append(np.cumsum(S[::-1] ** 2)[::-1], 0)  # squares add up, the values don't
    return int(np.argmax(left_out <= error**2 * left_out[0]))
    # </solution>


check_rank_for_error(rank_for_error)

# %% [markdown]
# ## Without the full SVD (second reading)
# The cost of a full SVD of an $(m, n)$ matrix grows like $m\,n\min(m, n)$, however few layers you want.
# Halko, Martinsson and Tropp (2011) describe a way around it. Sixteen random directions failed above. So
# don't take random columns themselves; *multiply the matrix* by random columns. Each product $M\omega$ is
#
# $$M \omega = \sum_j u_j\, s_j\, (v_j^\top \omega),$$
#
# a mixture of the $u_j$ in which each has its weight $s_j$ ($\omega$ is such a random column). Multiply by
# $M^\top$ and by $M$ again, and each part is multiplied by $s_j^2$ more. That is the power iteration of
# notebook 01, for many columns side by side.

# %%
def first_layers(M, rank, spare=10, rounds=2):
    sketch = M @ np.random.default_rng(1).standard_normal((M.shape[1], rank + spare))
    for _ in range(rounds):
        Q, _ = np.linalg.qr(sketch)  # keeps the columns perpendicular; else each would turn to u_1
        sketch = M @ (M.T @ Q)
    Q, _ = np.linalg.qr(sketch)
    u, s, vt = np.linalg.svd(Q.T @ M, full_matrices=False)  # small: (rank + spare, n)
    return Q @ u[:, :rank], s[:rank], vt[:rank]


# %% [markdown]
# The last lines: $M$ is about $Q\,(Q^\top M)$, so take the SVD of the small bracket, and turn its $u$ back
# with $Q$. `spare` columns are drawn beyond the rank, and only the best of what they span is kept. What does
# each step buy? For the photograph, at rank 16:

# %%
print(f"16 random directions          {np.mean(lucky):.4f}")
for spare, rounds in ((0, 0), (10, 0), (10, 1), (10, 2)):
    u, s, vt = first_layers(X, 16, spare, rounds)
    print(f"X times {16 + spare} columns, rounds: {rounds}   {relative_error((u * s) @ vt):.4f}")
print(f"truncated SVD                 {relative_error(X_16):.4f}")

# %% [markdown]
# The product with $X$ does most of it: with as many columns, the error falls from 0.97 to 0.32. Ten spare
# columns and two rounds do nearly all of the rest. (Where all singular values are alike, as in noise, nothing
# stands out, and no short way finds it.) On a larger matrix, compare the time too:

# %%
x, y = np.linspace(0, 1, 1000)[:, None], np.linspace(0, 1, 700)
big = 1 / (0.1 + np.abs(x - y))  # (1000, 700): smooth but for a ridge on the diagonal
exact, found = np.linalg.svd(big, compute_uv=False), first_layers(big, 20)[1]
print("full SVD:  ", np.round(exact[:5], 2))
print("short way: ", np.round(found[:5], 2))
print("all twenty agree to 1 in 1000:", np.allclose(found, exact[:20], 1e-3))

# %% tags=["measured"]
full = milliseconds(lambda: np.linalg.svd(big, full_matrices=False), repeat=3)
short = milliseconds(lambda: first_layers(big, 20), repeat=3)
print(f"full SVD {full:.0f} ms, short way {short:.0f} ms")

# %%
expect("the short way is at least twice as fast", full > 2 * short)

# %% [markdown]
# ## Where low rank fails
# Does low rank need neighbours that look alike? Shuffle all rows and all columns of the photograph, and no
# two neighbours look alike any more. (What you have built is in the package too, as `lora_mini.svd`;
# `energy_kept` is the share of the energy that a rank keeps.)

# %%
from lora_mini import svd

print("the package gives the same X_16:", np.allclose(svd.low_rank(X, 16), X_16))
shuffled = X[rng.permutation(300)][:, rng.permutation(256)]
print("shuffled, rank 16:", round(np.sqrt(1 - svd.energy_kept(
    np.linalg.svd(shuffled, compute_uv=False), 16)), 3), "  as before:", round(errors[16], 3))

# %% [markdown]
# The same: shuffling only reorders the entries of the $u_j$ and $v_j$, and the $s_j$ stay. However the
# patterns came about, what counts is that the rows are *mixtures of a few of them*, in whatever order. Here
# are four matrices of another kind. In the permutation each row and each column holds a single 1.

# %%
k = 128
y, x = np.mgrid[:k, :k]
board = np.where((y // 16 + x // 16) % 2, 1.0, -1.0)
c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)  # 30 degrees
turned = np.where(((c * y - s * x) // 16 + (s * y + c * x) // 16) % 2, 1.0, -1.0)
matrices = {"noise": rng.standard_normal((k, k)), "turned checkerboard": turned,
            "permutation": np.eye(k)[rng.permutation(k)], "straight checkerboard": board}
fig = fixed_row(list(matrices.values()), list(matrices), low=-1, high=1)
show(fig, "The four matrices. (In the permutation look for scattered single white points.)",
     alt="Noise, a checkerboard turned by 30 degrees, a permutation with one point a row, "
         "a straight checkerboard.")

# %% [markdown]
# ### Bet 4
# Which is the hardest to *shorten*, to store in fewer numbers with a small error: which keeps the largest
# relative error at rank 32 of 128? One of `"noise"`,
# `"turned checkerboard"`, `"permutation"`, `"straight checkerboard"`.

# %%
bet("02 hardest matrix", guess=None, choices=tuple(matrices))

# %%
spectra = {name: np.linalg.svd(M, compute_uv=False) for name, M in matrices.items()}
at_32 = {name: np.sqrt(1 - svd.energy_kept(values, 32)) for name, values in spectra.items()}
hardest = max(at_32, key=at_32.get)

# %%
settle("02 hardest matrix", hardest)

# %%
for name, error in at_32.items():
    print(f"{name:22s} relative error at rank 32: {error:.3f}")

# %%
fig, (left, right) = axes(7.6, 3.0, 2)
styles = ("-", "--", ":", "-.", (0, (1, 1)))
for style, (name, values) in zip(styles, (spectra | {"photograph": S}).items(), strict=True):
    kept = np.array([svd.energy_kept(values, rank) for rank in range(len(values) + 1)])
    looks = {"ls": style, "color": "black"} if name == "photograph" else {"ls": style}
    left.plot(np.linspace(0, 1, len(kept)), np.sqrt(np.clip(1 - kept, 0, 1)), label=name, **looks)
    right.plot(np.linspace(0, 1, len(values)), np.maximum(values / values[0], 1e-4), **looks)
left.legend(fontsize=8)
left.set(xlabel="rank as a share of the full rank", ylabel="relative error")
right.set(xlabel="j as a share of the full rank", ylabel="$s_j / s_1$", yscale="log", ylim=(1e-3, 1.5))
show(fig, "Left: the straight board falls to nothing at rank 1, the photograph fast; in the permutation each "
          "layer holds as much as the next. Right: the singular values that do it, steep or flat.",
     alt="Relative error at a quarter of the full rank: photograph "
         + f"{errors[64]:.2f}, " + ", ".join(f"{n} {e:.2f}" for n, e in at_32.items()) + ".")

# %% [markdown]
# The straight checkerboard, of 1 and -1, has rank 1: every row is the first row or its negative. Turn the
# board, and its edges no longer follow rows and columns: now it takes many layers. Noise has no pattern that
# its rows share. No matrix of this size does worse than the permutation: the heaviest $r$ of $n$ layers
# always hold $r / n$ of the energy, or more. All its singular values equal 1, so no layer is heavier than
# another, although all that it does is to reorder. **Low rank is not the same as simple.** It means: mixtures
# of few patterns, along rows and columns; and you see it in singular values that fall steeply.
#
# So is a trained weight matrix low-rank? LoRA does not say so. LoRA says that the *change* which
# fine-tuning makes can be kept low-rank. Whether that is true has to be measured, and will be.
#
# ## From here to LoRA
# Multiply each column and each row by $\sqrt{s_j}$, so that neither factor is the larger. Then the
# truncated SVD is a pair of thin factors, in LoRA's letters:
#
# $$B = U_r \sqrt{S_r}\ \ (d_{out}, r), \qquad A = \sqrt{S_r}\, V_r^\top\ \ (r, d_{in}), \qquad BA = X_r$$

# %%
B, A = svd.factors(X, 8)
print("B", B.shape, " A", A.shape, "  BA is X_8:", np.allclose(B @ A, svd.low_rank(X, 8)))

# %% [markdown]
# ## What you have done
# - You **kept** the layers that matter, and read the error off the singular values that you dropped.
# - You **tried to beat** the truncated SVD, by luck and by effort; by Eckart and Young's theorem nobody can.
# - You **made** a rank slider in six lines, and saw that a figure is slow to make; factors are sent once, as
#   many bytes as one frame, and then nothing is.
# - You **recognised** noise, a turned checkerboard and a permutation as matrices that low rank shortens
#   badly, by singular values that fall slowly or not at all, and a shuffled photograph as one that it does
#   not mind.
#
# **On your own.** Load a picture of yours, `X = plt.imread(file)[..., :3].mean(2)`, times 255 if its largest
# value is 1, and give it to `RankSlider`. Which of your pictures needs the highest rank for 10 percent? Turn
# one by 30 degrees, by any program, and try again.
#
# **In practice.** Don't compute a full SVD for a few layers of a large matrix: `svd.randomized_svd`,
# `scipy.sparse.linalg.svds` and `torch.svd_lowrank` exist for that.
#
# **Further reading.**
# - Eckart and Young, *The approximation of one matrix by another of lower rank* (Psychometrika, 1936):
#   the theorem that you tried to beat.
# - Mirsky, *Symmetric gauge functions and unitarily invariant norms* (Quarterly Journal of Mathematics,
#   1960): the same for more norms.
# - Halko, Martinsson and Tropp, *Finding structure with randomness* (SIAM Review, 2011): why a few random
#   columns suffice, with bounds.
# - Udell and Townsend, *Why are big data matrices approximately low rank?* (SIAM J. Math. Data Science,
#   2019): why matrices of nearly low rank are common in data.
