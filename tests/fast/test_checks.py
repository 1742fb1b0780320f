"""Every check says "solved" to the solution, and tells known wrong answers apart."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lora_mini as lm
from lora_mini.desk import checks
from lora_mini.desk.checks import (
    nb00,
    nb01,
    nb02,
    nb03,
    nb04,
    nb05,
    nb06,
    nb07,
    nb08,
    nb09,
    nb10,
    nb11,
    nb12,
    nb13,
    nb14,
    nb15,
    nb16,
)
from lora_mini.world import train

stripes = np.where(np.arange(256) // 8 % 2 == 1, 40.0, 0.0)
photo_ones = np.ones(300)


def svd_with(change):
    """A `truncate` that has one thing wrong with it."""
    def truncate(X, rank):
        U, S, Vt = np.linalg.svd(X, full_matrices=False)
        return change(U, S, Vt, rank)
    return truncate


def rank_with(power, at_most=True, short=0):
    def rank_for_error(S, error):
        left = np.append(np.cumsum(S[::-1] ** power)[::-1], 0)
        limit = error**power * left[0]
        return int(np.argmax(left <= limit if at_most else left < limit)) - short
    return rank_for_error


def needed(limit):
    return lambda excess, margin: min(r for r, x in excess.items() if x <= limit(excess, margin))


def no_more_gain(excess, margin):
    """Another rule: stop where the next rank gains less than the margin."""
    ranks = sorted(excess)
    return next(r for r, more in zip(ranks, ranks[1:], strict=False)
                if excess[r] < margin * excess[more])


def loading(looks=True, missing=True, more=True, prefix="base_model.model."):
    """A `load` that may pass over some of the losses."""
    def load(model, tensors):
        tensors = {name.removeprefix(prefix): t for name, t in tensors.items()}
        wanted = {name for name in model.state_dict() if "lora_" in name}
        lost, left = wanted - tensors.keys(), tensors.keys() - wanted
        if looks and (missing and lost or more and left):
            raise ValueError("names")
        model.load_state_dict(tensors, strict=False)
    return load


def attached_then(held):
    """A `ready` whose optimizer holds what `held` finds once the adapter is on."""
    def ready(model, rate):
        lm.attach(model, "all-linear", 2, 6)
        return torch.optim.AdamW(held(model), lr=rate)
    return ready


def honest(excess):
    rate = min(excess, key=lambda rate: sum(excess[rate][s] for s in (1, 2, 3)))
    return np.mean([x for s, x in excess[rate].items() if s > 3])


def judged_with(spoil=lambda low, high: False):
    """The four words of a verdict, but for what `spoil` says."""
    def judged(low, high):
        inside = 1 / 1.5 < low and high < 1.5
        right = ("better" if low >= 1.5 else "worse" if high <= 1 / 1.5 else
                 "equal" if inside else "open")
        wrong = spoil(low, high)
        return right if wrong is False else wrong
    return judged


def lora_loop(spoil=None):
    """LoRA's training loop, with one thing wrong with it."""
    def train_lora(model, draw, rank, alpha, rate, steps):
        everything = list(model.parameters())
        if spoil != "no attach":
            lm.attach(model, "all-linear", 2 if spoil == "rank 2 always" else rank, alpha)
        if spoil == "thawed":
            model.requires_grad_(True)
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(everything if "before" in (spoil or "") else trained, lr=rate,
                                      maximize=spoil == "uphill", weight_decay=0)
        losses = []
        for _ in range(6 if spoil == "six steps always" else steps):
            tokens, mask, _ = draw()
            if spoil != "no zero_grad":
                optimizer.zero_grad()
            loss = train.loss(model, tokens, mask if spoil != "no mask" else torch.ones_like(mask))
            if spoil != "no backward":
                loss.backward()
            if spoil != "no step":
                optimizer.step()
            losses.append(loss if spoil == "tensors" else loss.item())
        return losses
    return train_lora


def dora(norm=lambda W, V: np.linalg.norm(V, axis=1, keepdims=True), bring=True, scaled=True):
    def dora_weight(W, A, B, magnitude, scale):
        V = W + (scale if scaled else 1) * B @ A
        return (magnitude[:, None] if bring else 1) * V / norm(W, V)
    return dora_weight


def ahead(ours="variant", theirs="lora", judges=lambda b: b > 3):
    """`ahead` with the rates of both chosen on the results that `ours` and `theirs` name."""
    def found(variant, lora):
        both = {"variant": variant, "lora": lora}
        best = {k: min(v, key=lambda rate: sum(v[rate][b] for b in (1, 2, 3)))
                for k, v in both.items()}
        bases = filter(judges, variant[best[ours]])
        return np.mean([lora[best[theirs]][b] - variant[best[ours]][b] for b in bases])
    return found


MODEL = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
INPUTS = torch.linspace(-1, 1, 12).reshape(4, 3)


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))


def step(net, optimiser):
    optimiser.zero_grad()
    net(INPUTS).square().mean().backward()
    optimiser.step()


def set_up(spoil=None):
    def make_model():
        net = model()
        early = list(net.parameters())
        if spoil == "no attach":
            return net, torch.optim.Adam(early, lr=0.01)
        lm.attach(net, ["0"], rank=2, alpha=5)
        if spoil == "thawed":
            net[0].base.weight.requires_grad_(True)
        if spoil == "B at random":
            nn.init.normal_(net[0].lora_B)
        held = early if spoil == "early" else [p for p in net.parameters() if p.requires_grad]
        return net, torch.optim.Adam(held, lr=0.01)
    return make_model


def in_place(layer):
    layer.base.weight.data += layer.scaling * layer.lora_B @ layer.lora_A
    return layer.base.weight


def branch(layer, x):
    return layer.scaling * F.linear(F.linear(x, layer.lora_A), layer.lora_B)


def scale_of(config):
    return config["lora_alpha"] / (config["r"]**0.5 if config["use_rslora"] else config["r"])


def side_by_side(factor):
    return lambda A1, B1, s1, w1, A2, B2, s2, w2: (np.concatenate([A1, A2]), np.concatenate(
        [factor(s1, w1) * B1, factor(s2, w2) * B2], axis=1))


def in_levels(scale):
    """Each weight's nearest level, with the scale that `scale` makes of a block."""
    return lambda w, levels: scale(w) * levels[
        np.abs(w[:, None] / scale(w) - levels).argmin(axis=1)]


def trained(size=lambda out, into, r: r * (out + into), blocks=True):
    return lambda linear, layers, targets, rank: (layers if blocks else 1) * sum(
        size(*linear[name], rank) for name in targets)


def distance(scaled=True, over="first"):
    def apart(A1, B1, s1, A2, B2, s2):
        one, two = (s1 if scaled else 1) * B1 @ A1, (s2 if scaled else 1) * B2 @ A2
        norms = {"first": np.linalg.norm(one), "second": np.linalg.norm(two), None: 1}
        return np.linalg.norm(one - two) / norms[over]
    return apart


def cut(base=1.0):
    """Notebook 08's `cut`, with so many times W0 in the sum."""
    def cut(W0, W, k):
        U, S, Vt = np.linalg.svd(W - W0, full_matrices=False)
        return base * W0 + (U[:, :k] * S[:k]) @ Vt[:k]
    return cut


CASES = [  # a check, an answer, and what it must say
    (nb00.check_patch_numbers, 81_920, "solved"),
    (nb00.check_patch_numbers, 1024 * 4096, "the whole matrix"),
    (nb00.check_patch_numbers, 5120, "one column and one row"),
    (nb00.check_patch_numbers, 163_840, "counted twice"),
    (nb00.check_patch_numbers, 65_536, "you counted one of the two"),
    (nb00.check_patch_numbers, 16 * 1024 * 4096, "they don't multiply"),
    (nb00.check_patch_numbers, 16**2 * 1024 * 4096, "they don't multiply"),
    (nb00.check_patch_numbers, 16 * 1024, "you counted one of the two"),
    (nb00.check_patch_numbers, 5e6, "fewer numbers than the matrix"),
    (nb00.check_stripes, np.outer(photo_ones, stripes), "solved"),
    (nb00.check_stripes, np.outer(stripes, photo_ones), "the column comes first"),
    (nb00.check_stripes, stripes, "lay it over all 300 rows"),
    (nb00.check_stripes, np.outer(photo_ones, 40 - stripes), "but the others"),
    (nb00.check_stripes, np.outer(np.ones(256), stripes), "300 entries"),
    (nb00.check_stripes, np.outer(40 * photo_ones, stripes), "multiplied in twice"),
    (nb00.check_stripes, np.outer(photo_ones, stripes / 40), "how bright"),

    (nb01.check_length, 3.4, "solved"),
    (nb01.check_length, 4.6, "perpendicular"),
    (nb01.check_length, 11.56, "square of the length"),
    (nb01.check_length, 29**0.5, "only 0.6 and 0.8"),
    (nb01.check_length, [3, 1.6], "how long are they together"),
    (nb01.check_power_step, lambda M, v: M.T @ M @ v / np.linalg.norm(M.T @ M @ v), "solved"),
    (nb01.check_power_step, lambda M, v: M.T @ M @ v, "scale it to length 1"),
    (nb01.check_power_step, lambda M, v: M @ v / np.linalg.norm(M @ v), "come back"),
    (nb01.check_power_step, lambda M, v: M.T @ M @ v / np.max(M.T @ M @ v), "length is not 1"),
    (nb01.check_power_step, lambda M, v: -M.T @ M @ v / np.linalg.norm(M.T @ M @ v), "arrow"),
    (nb01.check_peel, lambda M, u, s, v: M - s * np.outer(u, v), "solved"),
    (nb01.check_peel, lambda M, u, s, v: M - np.outer(u, v), "should send v to zero; with s = 1"),
    (nb01.check_peel, lambda M, u, s, v: M + s * np.outer(u, v), "added"),
    (nb01.check_peel, lambda M, u, s, v: M - s**2 * np.outer(u, v), "v by s (s - 1)"),
    (nb01.check_peel, lambda M, u, s, v: M - s * np.outer(v, u), "shapes don't fit"),

    (nb02.check_break_even, 240, "solved"),
    (nb02.check_break_even, 241, "241,000"),
    (nb02.check_break_even, 200, "a column AND a row"),
    (nb02.check_break_even, 12, "one more rank"),
    (nb02.check_truncate, svd_with(lambda U, S, Vt, r: (U[:, :r] * S[:r]) @ Vt[:r]), "solved"),
    (nb02.check_truncate, svd_with(lambda U, S, Vt, r: U[:, :r] @ Vt[:r]), "values are missing"),
    (nb02.check_truncate, svd_with(lambda U, S, Vt, r: (U[:, -r:] * S[-r:]) @ Vt[-r:]), "smallest"),
    (nb02.check_truncate, svd_with(lambda U, S, Vt, r: U[:, :r] * S[:r]), "the shape of the X"),
    (nb02.check_truncate, svd_with(lambda U, S, Vt, r: (U[:, :r] * S[:r]**2) @ Vt[:r]), "squared"),
    (nb02.check_truncate, svd_with(lambda U, S, Vt, r: (U[:, :r] * S[:r]) @ Vt[:, :r].T), "rows"),
    (nb02.check_truncate, svd_with(lambda U, S, Vt, r: (U[:, :3] * S[:3]) @ Vt[:3]), "another"),
    (nb02.check_rank_for_error, rank_with(2), "solved"),
    (nb02.check_rank_for_error, rank_with(1), "at most 0.59, yours still says rank 1"),
    (nb02.check_rank_for_error, rank_with(2, short=1), "one short"),
    (nb02.check_rank_for_error, rank_with(2, at_most=False), "'at most' allows that"),

    (nb03.check_most_rank, 38, "solved"),
    (nb03.check_most_rank, 6144, "the whole matrix"),
    (nb03.check_most_rank, 160, "what one rank costs"),
    (nb03.check_most_rank, 38.4, "whole number"),
    (nb03.check_most_rank, 39, "6,240 are more"),
    (nb03.check_most_rank, 64, "10,240 numbers"),
    (nb03.check_most_rank, 8, "still fewer"),
    (nb03.check_most_rank, 1280, "more numbers than 6,144"),
    (nb03.check_grad_B, lambda G, x, A, s: s * G.T @ (x @ A.T), "solved"),
    (nb03.check_grad_B, lambda G, x, A, s: G.T @ (x @ A.T), "scale is missing"),
    (nb03.check_grad_B, lambda G, x, A, s: (s * G.T @ (x @ A.T)).T, "transposed"),
    (nb03.check_grad_B, lambda G, x, A, s: s * G.T @ x, "only through A"),
    (nb03.check_grad_B, lambda G, x, A, s: s * G.T @ x @ A, "shapes don't fit"),
    (nb03.check_update, lambda A, B, a: a / len(A) * B @ A, "solved"),
    (nb03.check_update, lambda A, B, a: a * B @ A, "should be 12, and is 24"),
    (nb03.check_update, lambda A, B, a: B @ A, "alpha has no effect"),
    (nb03.check_update, lambda A, B, a: a / A.shape[1] * B @ A, "every entry is too small"),
    (nb03.check_update, lambda A, B, a: a / len(A) ** 0.5 * B @ A, "every entry is too large"),
    (nb03.check_update, lambda A, B, a: a / 2 * B @ A, "at r 4 the scale is off"),

    (nb04.check_adam_numbers, 896, "solved"),
    (nb04.check_adam_numbers, 448, "two more for each"),
    (nb04.check_adam_numbers, 6144, "nothing for what is frozen"),
    (nb04.check_merged_weight, lambda m: m.base.weight + m.update(), "solved"),
    (nb04.check_merged_weight, lambda m: m.base.weight + m.lora_B @ m.lora_A, "scale is missing"),
    (nb04.check_merged_weight, lambda m: m.update(), "update alone"),
    (nb04.check_merged_weight, in_place, "wrote into the frozen weight"),
    (nb04.check_merged_weight, lambda m: m.base.weight + 5 * m.lora_B @ m.lora_A, "not by alpha"),
    (nb04.check_merged_weight, lambda m: m.base.weight + 5 // 2 * m.lora_B @ m.lora_A, "//"),
    (nb04.check_merged_forward, lambda x, W, m: F.linear(x, W, m.bias), "solved"),
    (nb04.check_merged_forward, lambda x, W, m: F.linear(x, W, m.bias) + branch(m, x), "one more"),
    (nb04.check_merged_forward, lambda x, W, m: F.linear(x, W), "bias has gone"),
    (nb04.check_merged_forward, lambda x, W, m: m(x), "the outputs stay the same"),
    (nb04.check_merged_forward, lambda x, W, m: m.base(x), "without its adapter"),
    (lambda f: nb04.check_set_up(f, step), set_up(), "solved"),
    (lambda f: nb04.check_set_up(f, step), set_up("early"), "not every A and B has moved"),
    (lambda f: nb04.check_set_up(f, step), set_up("thawed"), "more numbers train than the factors"),

    (nb05.check_chance, 0.168, "solved"),
    (nb05.check_chance, 0.042, "'around'"),
    (nb05.check_chance, 0.392, "without the adjective"),
    (nb05.check_chance, 0.072, "without the closing"),
    (nb05.check_chance, 0.24, "one factor is missing"),
    (nb05.check_chance, 1.2, "multiply"),
    (nb05.check_causal, lambda T: torch.ones(T, T).tril().bool(), "solved"),
    (nb05.check_causal, lambda T: torch.ones(T, T).tril(), "True and False"),
    (nb05.check_causal, lambda T: torch.ones(T, T).triu().bool(), "hides the past"),
    (nb05.check_causal, lambda T: torch.ones(T, T).tril(-1).bool(), "look at itself"),
    (nb05.check_causal, lambda T: torch.ones(T, T).triu(1).bool(), "other way round"),
    (nb05.check_causal, lambda T: torch.eye(T).bool(), "forgets the past"),
    (nb05.check_causal, lambda T: torch.ones(4, 4).tril().bool(), "but not for T = 7"),
    (nb05.check_sentence_loss, lambda e, m: (e * m).sum() / m.sum(), "solved"),
    (nb05.check_sentence_loss, lambda e, m: e.mean(), "more than any of them"),
    (nb05.check_sentence_loss, lambda e, m: (e * m).sum(), "that is the sum"),
    (nb05.check_sentence_loss, lambda e, m: (e * m).mean(), "that you divide by"),
    (nb05.check_sentence_loss, lambda e, m: ((e * m).sum(1) / m.sum(1)).mean(), "rows' means"),
    (nb05.check_sentence_loss, lambda e, m: (e * m).sum() / 3, "3 rows and 5"),

    (nb06.check_bytes, 147_456, "solved"),
    (nb06.check_bytes, 73_728, "two numbers for each"),
    (nb06.check_bytes, 36_864, "four bytes"),
    (nb06.check_bytes, 974_848, "the rest is frozen"),
    (nb06.check_train_lora, lora_loop(), "solved"),
    (nb06.check_train_lora, lora_loop("optimizer before attach"), "What does the optimizer hold"),
    (nb06.check_train_lora, lora_loop("no attach"), "no adapter"),
    (nb06.check_train_lora, lora_loop("thawed"), "of the base"),
    (nb06.check_train_lora, lora_loop("no zero_grad"), "from the second step on"),
    (nb06.check_train_lora, lora_loop("no backward"), "still zero"),
    (nb06.check_train_lora, lora_loop("no step"), "still zero"),
    (nb06.check_train_lora, lora_loop("no mask"), "at the first step the gradients"),
    (nb06.check_train_lora, lora_loop("rank 2 always"), "should have rank 3"),
    (nb06.check_train_lora, lora_loop("six steps always"), "expected 9 batches"),
    (nb06.check_train_lora, lora_loop("uphill"), "it should fall"),
    (nb06.check_train_lora, lora_loop("tensors"), "as floats"),
    (nb06.check_judged, judged_with(), "solved"),
    (nb06.check_judged, judged_with(lambda low, high: "better" if low > 1 else "worse" if high < 1
                                    else "equal"), "too little to count"),
    (nb06.check_judged, judged_with(lambda low, high: "equal"), "nearly everything is possible"),
    (nb06.check_judged, judged_with(lambda low, high: low < 0.6 and high < 0.7 and "open"),
     "all of it"),
    (nb06.check_judged, judged_with(lambda low, high: 1 < low and high < 1.95 and "equal"),
     "upper end"),
    (nb06.check_judged, judged_with(lambda low, high: high < 0.85 and low < 0.6 and "worse"),
     "1/1.5"),
    (nb06.check_judged, judged_with(lambda low, high: 0), "one of the four words"),
    (nb06.check_judged, lambda low, high: None, "not attempted yet"),
    (nb06.check_report, honest, "solved"),
    (nb06.check_report, lambda e: np.mean([v for s, v in e.get(0.003, e[max(e)]).items() if s > 3]),
     "not for three rates"),
    (nb06.check_report, lambda e: min(np.mean(list(s.values())) for s in e.values()), "2.4"),
    (nb06.check_report, lambda e: 3.0, "On bases 1 to 3"),
    (nb06.check_report, lambda e: 0.003, "that is a rate"),
    (nb06.check_report, lambda e: 1.0, "on which the rate was chosen"),
    (nb07.check_rank_needed, needed(lambda e, margin: margin * min(e.values())), "solved"),
    (nb07.check_rank_needed, needed(lambda e, margin: min(e.values())), "32 is the best rank"),
    (nb07.check_rank_needed, needed(lambda e, margin: 1.2 * min(e.values())), "but 8 is, too"),
    (nb07.check_rank_needed, needed(lambda e, margin: 3 * min(e.values())),
     "more than 1.5 times what"),
    (nb07.check_rank_needed, needed(lambda e, margin: margin + min(e.values())),
     "The margin multiplies"),
    (nb07.check_rank_needed, no_more_gain, "not with the next"),
    (nb07.check_rank_needed, needed(lambda e, margin: 1.5 * min(e.values())), "12 the least"),
    (nb07.check_rank_needed, lambda e, margin: 0.0235, "that is an excess"),
    (nb07.check_rank_needed, lambda e, margin: [8, 16, 32], "return the least"),
    (nb07.check_rank_needed, lambda e, margin: next(
        r for r in e if e[r] <= margin * min(e.values())), "not the first"),
    (nb07.check_guesser, (2 * np.log(8) + np.log(4)) / 3, "solved"),
    (nb07.check_guesser, 1.85, "solved"),
    (nb07.check_guesser, 5.545, "a mean over its three words"),
    (nb07.check_guesser, 8 / 3, "that is in bits"),
    (nb07.check_guesser, 8, "whole entry, in bits"),
    (nb07.check_guesser, np.log(8), "only 4"),
    (nb07.check_guesser, np.log(4), "there are 8"),
    (nb07.check_guesser, np.log(20 / 3), "not the logarithm of the mean"),
    (nb07.check_guesser, np.log(20), "not one choice out of 20"),
    (nb07.check_guesser, -1.848, "the sign is not"),
    (nb07.check_guesser, np.log(150), "knows the kind of word"),
    (nb07.check_attention_rank, lambda r, shapes: r * sum(map(sum, shapes.values())) // sum(
        sum(shapes[name]) for name in shapes if name[0] in "qkvo"), "solved"),
    (nb07.check_attention_rank, lambda r, shapes: 36, "needs rank 20"),
    (nb07.check_attention_rank, lambda r, shapes: r * 1152 // 512, "needs rank 20"),
    (nb07.check_attention_rank, lambda r, shapes: r * len(shapes) // 4, "12,288"),
    (nb07.check_attention_rank, lambda r, shapes: r * sum(m * n for m, n in shapes.values())
     // (4 * 64 * 64), "counts the entries"),
    (nb07.check_attention_rank, lambda r, shapes: r, "that is the same rank"),
    (nb07.check_attention_rank, lambda r, shapes: r * 640 // 512, "count all six"),
    (nb09.check_extra, 20, "solved"),
    (nb09.check_extra, 5, "64 is d_in"),
    (nb09.check_extra, 256, "in percent of LoRA's"),
    (nb09.check_extra, 0.2, "that is the share"),
    (nb09.check_extra, 120, "how many more"),
    (nb09.check_extra, 80, "r is missing"),
    (nb09.check_extra, 0.078125, "not one for the layer"),
    (nb09.check_dora_weight, dora(), "solved"),
    (nb09.check_dora_weight, dora(bring=False), "every row has length 1"),
    (nb09.check_dora_weight, dora(norm=lambda W, V: 1.0), "divide by the length"),
    (nb09.check_dora_weight, dora(norm=lambda W, V: np.linalg.norm(W, axis=1, keepdims=True)),
     "not of W"),
    (nb09.check_dora_weight, dora(norm=lambda W, V: np.linalg.norm(V, axis=0)), "of the columns"),
    (nb09.check_dora_weight, dora(norm=lambda W, V: np.linalg.norm(V)), "each row has its own"),
    (nb09.check_dora_weight, dora(scaled=False), "the scale is missing"),
    (nb09.check_ahead, ahead(), "solved"),
    (nb09.check_ahead, ahead(theirs="variant"), "behind by 0.02"),
    (nb09.check_ahead, ahead(ours="lora"), "LoRA's rate is borrowed"),
    (nb09.check_ahead, ahead(judges=lambda b: b < 4), "on which the rates were chosen"),
    (nb09.check_ahead, ahead(judges=lambda b: True), "leave out bases"),
    (nb09.check_ahead, lambda v, x: 0.02, "the sign"),
    (nb09.check_ahead, lambda v, x: -0.02, "three rates and six"),
    (nb09.check_dora_weight, lambda W, A, B, m, s: m * (W + s * B @ A), "stand as a column"),
    (nb09.check_dora_weight, lambda W, A, B, m, s: W + s * A @ B, "don't go together in a product"),
    (nb09.check_dora_weight, dora(norm=lambda W, V: np.linalg.norm(V, axis=1, keepdims=True)
                                  if V.shape == (3, 5) else 1.0), "but not for one of (6, 4)"),

    (nb08.check_cut, cut(), "solved"),
    (nb08.check_cut, cut(base=0.0), "add it to W0"),
    (nb08.check_cut, lambda W0, W, k: cut()(0 * W0, W, k), "cuts W itself"),
    (nb08.check_cut, lambda W0, W, k: W0 + cut()(0 * W0, W, k), "cuts W itself"),
    (nb08.check_cut, lambda W0, W, k: W - cut(base=0.0)(W0, W, k), "directions to drop"),
    (nb08.check_cut, lambda W0, W, k: W0 + cut(base=0.0)(W, W0, k), "not W0 - W"),
    (nb08.check_cut, lambda W0, W, k: W, "nothing was dropped"),
    (nb08.check_cut, lambda W0, W, k: k, "the shape of W0"),
    (nb08.check_cut, lambda W0, W, k: cut()(W0, W, k + 1), "with all directions kept"),
    (nb08.check_cut, lambda W0, W, k: cut()(W0, W, 2), "but not for k = 1"),
    (nb08.check_newcomers, lambda U0, U, t: np.flatnonzero(
        np.abs(U0.T @ U).max(axis=0) < t), "solved"),
    (nb08.check_newcomers, lambda U0, U, t: [
        j for j in range(U.shape[1]) if abs(U0[:, j] @ U[:, j]) < t], "holds both of them"),
    (nb08.check_newcomers, lambda U0, U, t: np.flatnonzero((U0.T @ U).max(axis=0) < t), "sign"),
    (nb08.check_newcomers, lambda U0, U, t: np.flatnonzero(
        np.abs(U0.T @ U).max(axis=0) >= t), "those are the old ones"),
    (nb08.check_newcomers, lambda U0, U, t: np.flatnonzero(
        np.abs(U0.T @ U).mean(axis=0) < t), "LARGEST"),
    (nb08.check_newcomers, lambda U0, U, t: [
        j for j in range(U.shape[1]) if np.abs(U0.T @ U)[j].max() < t], "at the columns of U"),
    (nb08.check_newcomers, lambda U0, U, t: np.flatnonzero(
        np.abs(U0.T @ U).max(axis=0) < 0.6), "a cosine of 0.8"),
    (nb10.check_update, lambda A, B, c: scale_of(c) * B @ A, "solved"),
    (nb10.check_update, lambda A, B, c: 2 * B @ A, "where does the 2 come from"),
    (nb10.check_update, lambda A, B, c: B @ A, "without any scale"),
    (nb10.check_update, lambda A, B, c: c["lora_alpha"] * B @ A, "was not divided"),
    (nb10.check_update, lambda A, B, c: c["lora_alpha"] / c["r"]**0.5 * B @ A, "only rsLoRA does"),
    (nb10.check_update, lambda A, B, c: c["lora_alpha"] / c["r"] * B @ A, "right for LoRA"),
    (nb10.check_update, lambda A, B, c: (B @ A).T, "has the shape (d_out, d_in)"),
    (nb10.check_update, lambda A, B, c: 7 * B @ A, "the number of A's rows"),
    (nb10.check_concat, side_by_side(lambda s, w: s * w), "solved"),
    (nb10.check_concat, side_by_side(lambda s, w: 1), "weights and the scales are missing"),
    (nb10.check_concat, side_by_side(lambda s, w: w), "the scales s1 and s2 are not"),
    (nb10.check_concat, side_by_side(lambda s, w: s), "the weights w1 and w2 are not"),
    (nb10.check_concat, side_by_side(lambda s, w: (s * w)**2), "they count twice"),
    (nb10.check_concat, lambda *a: side_by_side(lambda s, w: s * w)(*a)[::-1], "A first, then B"),
    (nb10.check_concat, lambda A1, B1, *a: (A1, B1), "the rows of both"),
    (nb10.check_concat, lambda *a: [1, 2, 3], "return two arrays"),
    (nb10.check_concat, side_by_side(lambda s, w: 9), "must be w1 s1"),
    (nb10.check_apart, distance(), "solved"),
    (nb10.check_apart, lambda A1, B1, s1, A2, B2, s2: np.linalg.norm(A1 - A2), "not the factors"),
    (nb10.check_apart, distance(scaled=False), "a scale of 2 and one of 1"),
    (nb10.check_apart, distance(over="second"), "the norm of the first update"),
    (nb10.check_apart, distance(over=None), "divide it by the norm"),
    (nb10.check_apart, lambda *a: distance()(*a)**2, "over the norm of the first one"),
    (nb11.check_round_block, in_levels(lambda w: np.abs(w).max()), "solved"),
    (nb11.check_round_block, in_levels(lambda w: w.max()), "largest *absolute* value"),
    (nb11.check_round_block, in_levels(lambda w: 1.0), "divide by the block's scale"),
    (nb11.check_round_block, lambda w, levels: in_levels(lambda w: np.abs(w).max())(w, levels)
     / np.abs(w).max(), "multiply by the scale again"),
    (nb11.check_round_block, lambda w, levels: w, "one of the levels"),
    (nb11.check_round_block, lambda w, levels: w[:2], "in its shape"),
    (nb11.check_round_block, lambda w, levels: np.abs(w).max() * levels[np.searchsorted(
        levels[:-1], w / np.abs(w).max())], "the least distance"),
    (nb11.check_bits, 5.0, "solved"),
    (nb11.check_bits, 4.5, "two numbers of 16 bits"),
    (nb11.check_bits, 1, "the code has 4 more"),
    (nb11.check_bits, 4, "that is the code alone"),
    (nb11.check_bits, 4.25, "count bits"),
    (nb11.check_bits, 20, "for 32 weights"),
    (nb11.check_unpack, lambda p: np.stack([p >> 4, p & 15], axis=1).ravel(), "solved"),
    (nb11.check_unpack, lambda p: np.stack([p & 15, p >> 4], axis=1).ravel(), "as 15, 3, 7, 0"),
    (nb11.check_unpack, lambda p: np.concatenate([p >> 4, p & 15]), "then flatten"),
    (nb11.check_unpack, lambda p: p >> 4, "twice as many"),
    (nb11.check_unpack, lambda p: np.stack([p >> 4, p], axis=1).ravel(), "at most 15"),
    (nb11.check_unpack, lambda p: np.stack([p >> 4, p >> 4], axis=1).ravel(), "first of the two"),
    (nb12.check_trained, trained(), "solved"),
    (nb12.check_trained, trained(blocks=False), "that is one block"),
    (nb12.check_trained, lambda linear, layers, targets, rank: trained()(
        linear, layers, linear, rank), "only the layers in `targets`"),
    (nb12.check_trained, trained(lambda out, into, r: out * into), "that is W itself"),
    (nb12.check_trained, trained(lambda out, into, r: 2 * r * into), "not all layers are square"),
    (nb12.check_trained, trained(lambda out, into, r: 7), "in A and d_out * rank in B"),
    (nb12.check_break_even, 171, "solved"),
    (nb12.check_break_even, 1024 / 6, "at 170"),
    (nb12.check_break_even, 512, "as many numbers as W"),
    (nb12.check_break_even, 1024 / 3, "6 N R are spent"),
    (nb12.check_break_even, 6144, "larger than N"),
    (nb12.check_break_even, 8, "solve for R"),
    (nb12.check_factor_gradients, lambda G, X, A, B, s: (s * (G @ B).T @ X, s * G.T @ (X @ A.T)),
     "solved"),
    (nb12.check_factor_gradients, lambda G, X, A, B, s: (
        s * (B.T @ G.T) @ X, ((s * A) @ X.T @ G).T), "solved"),
    (nb12.check_factor_gradients, lambda G, X, A, B, s: (s * G.T @ (X @ A.T), s * (G @ B).T @ X),
     "for A first"),
    (nb12.check_factor_gradients, lambda G, X, A, B, s: ((G @ B).T @ X, s * G.T @ (X @ A.T)),
     "A's gradient is"),
    (nb12.check_factor_gradients, lambda G, X, A, B, s: (s * (G @ B).T @ X, G.T @ (X @ A.T)),
     "B's gradient is"),
    (nb12.check_factor_gradients, lambda G, X, A, B, s: (
        s * B.T @ (G.T @ X), s * G.T @ X @ A.T), "a whole (d_out, d_in)"),
    (nb13.check_by_heart, lambda excess, entropy: max(-excess / entropy, 0), "solved"),
    (nb13.check_by_heart, lambda excess, entropy: -excess / entropy, "0, not less"),
    (nb13.check_by_heart, lambda excess, entropy: max(excess / entropy, 0), "mind the sign"),
    (nb13.check_by_heart, lambda excess, entropy: max(excess + entropy, 0) / entropy,
     "that the model still pays"),
    (nb13.check_by_heart, lambda excess, entropy: excess, "how much of it is not paid"),
    (nb13.check_by_heart, lambda excess, entropy: None, "not attempted"),
    (nb13.check_differing, lambda frame, slot, words: [
        frame._replace(**{slot: word}) for word in words], "solved"),
    (nb13.check_differing, lambda frame, slot, words: tuple(
        frame._replace(**{slot: word}) for word in words), "solved"),
    (nb13.check_differing, lambda frame, slot, words: [frame] * len(words), "gives a new frame"),
    (nb13.check_differing, lambda frame, slot, words: [
        frame._replace(who=word) for word in words], "given by its name"),
    (nb13.check_differing, lambda frame, slot, words: [frame._replace(**{slot: words[0]})],
     "one frame for each word"),
    (nb13.check_differing, lambda frame, slot, words: words, "changes one slot"),
    (nb13.check_inherited, lambda p, q, a, b: (p - q) / (a - b), "solved"),
    (nb13.check_inherited, lambda p, q, a, b: p / a, "gets 0.33 here"),
    (nb13.check_inherited, lambda p, q, a, b: p - q, "as a share of"),
    (nb13.check_inherited, lambda p, q, a, b: (p - q) / a, "half of it 0.5"),
    (nb13.check_inherited, lambda p, q, a, b: p + q, "between marked and unmarked"),
    (nb14.check_load, loading(), "solved"),
    (nb14.check_load, lambda model, tensors: model.load_state_dict(tensors, strict=False) and None,
     "no error, and no factor has changed"),
    (nb14.check_load, loading(looks=False), "other names in place of lora_A"),
    (nb14.check_load, loading(missing=False), "one factor is missing"),
    (nb14.check_load, loading(more=False), "a layer that is not there"),
    (nb14.check_load, loading(prefix=""), "should load, and it raised"),
    (nb14.check_load, lambda model, tensors: None, "the factors don't arrive"),
    (nb14.check_load, lambda model, tensors: model.load_state_dict(tensors),
     "your code raised RuntimeError"),
    (nb14.check_load, lambda model, tensors: [p.data.zero_() for p in model.parameters()] and None,
     "a number of the base was changed"),
    (nb14.check_counts, lambda t, lengths, end: torch.arange(t.shape[1]) < lengths[:, None],
     "solved"),
    (nb14.check_counts, lambda t, lengths, end: (np.arange(6) < lengths.numpy()[:, None]) * 1.0,
     "solved"),
    (nb14.check_counts, lambda t, lengths, end: t != end, "who learns to stop"),
    (nb14.check_counts, lambda t, lengths, end: t == t, "all padding counts"),
    (nb14.check_counts, lambda t, lengths, end: torch.arange(6) >= lengths[:, None],
     "turn it round"),
    (nb14.check_counts, lambda t, lengths, end: torch.arange(6) <= lengths[:, None],
     "some padding counts"),
    (nb14.check_counts, lambda t, lengths, end: torch.arange(6) < lengths[:, None] - 2,
     "the last of them is its end"),
    (nb14.check_counts, lambda t, lengths, end: lengths, "the shape of the tokens"),
    (nb14.check_ready, attached_then(lambda model: [p for p in model.parameters()
                                                    if p.requires_grad]), "solved"),
    (nb14.check_ready, lambda model, rate: attached_then(lambda _: old)(model, rate)
     if (old := list(model.parameters())) else None, "the optimizer holds nothing"),
    (nb14.check_ready, attached_then(lambda model: list(model.parameters())), "what is frozen"),
    (nb14.check_ready, attached_then(lambda model: [
        p for n, p in model.named_parameters() if n.endswith("lora_A")]), "not in the optimizer"),
    (nb14.check_ready, lambda model, rate: torch.optim.AdamW(model.parameters(), lr=rate),
     "has no adapter"),
    (nb14.check_ready, lambda model, rate: attached_then(lambda m: [
        p for p in m.parameters() if p.requires_grad])(model, 0.5), "not the one"),
    (nb15.check_count, 8 * 30 * 10176, "solved"),
    (nb15.check_count, 8 * 10176, "one block"),
    (nb15.check_count, 30 * 10176, "8 columns or rows, not one"),
    (nb15.check_count, 30 * 7 * 8, "not their rows"),
    (nb15.check_count, 106168320, "frozen weights"),
    (nb15.check_count, 8 * 30 * 3840, "attention alone"),
    (nb15.check_count, 8 * 30 * 4992, "one factor"),
    (nb15.check_count, 12345, "too few"),
    (nb15.check_count, 134515008, "too many"),
    (nb15.check_count, None, "not attempted"),
    (nb15.check_row, lambda p, s, e: (p + s + [e], [-100] * len(p) + s + [e]), "solved"),
    (nb15.check_row, lambda p, s, e: (torch.tensor(p + s + [e]), [-100] * len(p) + s + [e]),
     "solved"),
    (nb15.check_row, lambda p, s, e: p + s + [e], "your code raised TypeError"),
    (nb15.check_row, lambda p, s, e: (p, s, [e]), "return two lists"),
    (nb15.check_row, lambda p, s, e: (p + s, [-100] * len(p) + s), "no token of the row"),
    (nb15.check_row, lambda p, s, e: (s + p + [e], s), "then the end"),
    (nb15.check_row, lambda p, s, e: (p + s + [e], s + [e]), "one label for each"),
    (nb15.check_row, lambda p, s, e: (p + s + [e], p + s + [e]), "the question counts as well"),
    (nb15.check_row, lambda p, s, e: (p + s + [e], [-100] * len(p) + s + [-100]), "end is masked"),
    (nb15.check_row, lambda p, s, e: (p + s + [e], [-100] * (len(p) - 1) + s + [e, -100]),
     "don't shift"),
    (nb15.check_row, lambda p, s, e: (p + s + [e], p + [-100] * (len(s) + 1)), "turn it round"),
    (nb15.check_row, lambda p, s, e: (p + s + [e], [0] * len(p) + s + [e]),
     "the tokens themselves"),
    (nb15.check_row, lambda p, s, e: None, "not attempted"),
    (nb15.check_for_llama, lambda rows, heads: rows.reshape(heads, 2, -1, rows.shape[1]).swapaxes(
        1, 2).reshape(rows.shape), "solved"),
    (nb15.check_for_llama, lambda rows, heads: rows, "where they were"),
    (nb15.check_for_llama, lambda rows, heads: rows.reshape(2, -1, rows.shape[1]).swapaxes(
        0, 1).reshape(rows.shape), "land in the other"),
    (nb15.check_for_llama, lambda rows, heads: rows.reshape(heads, -1, 2, rows.shape[1]).swapaxes(
        1, 2).reshape(rows.shape), "the way back"),
    (nb15.check_for_llama, lambda rows, heads: rows[::-1], "come out as 0 2 1 3"),
    (nb15.check_for_llama, lambda rows, heads: rows.T, "the shape stays"),
]


@pytest.mark.parametrize("check, attempt, words", CASES)
def test_a_check_knows_this_answer(check, attempt, words, capsys):
    check(attempt)
    said = " ".join(capsys.readouterr().out.split())
    assert words in said
    assert (said == "solved") == (words == "solved")


@pytest.mark.parametrize("check", {case[0]: None for case in CASES})
def test_a_check_stands_everything_and_raises_nothing(check, capsys):
    checks_a_function = callable(next(attempt for c, attempt, _ in CASES if c is check))
    for junk in (None, "a word", 3j, [], np.zeros((2, 2, 2)), object(), np.nan, {"a": 1}):
        check((lambda *args, junk=junk: junk) if checks_a_function else junk)
        assert capsys.readouterr().out.startswith(("not attempted yet", "not yet: "))
    if checks_a_function:
        check(lambda *args: 1 / 0)
        assert "raised ZeroDivisionError" in capsys.readouterr().out


def test_an_empty_stub_is_not_a_mistake(capsys):
    checks.answer(None, bool)
    checks.answer(..., bool)
    checks.answer(lambda: None, bool)
    assert [line.split(" (")[0] for line in capsys.readouterr().out.splitlines()] == [
        "not attempted yet"] * 3


# Notebooks 03 and 04: a second shape, the memory in use, and bug hunts that tell symptoms alone.
MORE = [
    (nb03.check_grad_B, lambda G, x, A, s: s * G.T @ x @ A.T, "as many numbers as D has"),
    (nb03.check_grad_B, lambda G, x, A, s: s * sum(
        np.outer(g, row) @ A.T for g, row in zip(G, x, strict=True)), "as many numbers as D has"),
    (nb03.check_grad_B, lambda G, x, A, s: s * sum(
        np.outer(g, A @ row) for g, row in zip(G, x, strict=True)), "solved"),
    (nb03.check_grad_B, lambda G, x, A, s: s * G.T @ (x @ A[:2].T), "but not for 400, 500 and 3"),
    (nb03.check_update, lambda A, B, a: 3 * B @ A, "alpha has no effect"),
    (nb03.check_update, lambda A, B, a: a / len(B) * B @ A, "at r 4 the scale is off"),
    (nb03.check_update, lambda A, B, a: (a / len(A) * B @ A).T, "the shape of W"),
    (nb04.check_merged_weight, lambda m: m.base.weight + 2.5 * m.lora_B @ m.lora_A, "from 3 to 7"),
    (nb04.check_merged_weight, lambda m: (m.base.weight + m.update()).T, "the shape of W"),
    (nb04.check_merged_forward, lambda x, W, m: F.linear(x, W, m.bias if len(x) == 3 else None),
     "not for one from 3 to 7"),
    (nb04.check_merged_forward, lambda x, W, m: F.linear(x, W, m.bias).T, "of shape (3, 4)"),
    (lambda f: nb04.check_set_up(f, step), set_up("no attach"), "no layer is adapted"),
    (lambda f: nb04.check_set_up(f, step), set_up("B at random"), "not those of its base"),
]
HUNTS = {nb03.check_update: ("rank", "divide", "alpha / r", "should be 3"),
         nb04.check_merged_forward: ("twice", "holds", "already", "what does", "use the merged"),
         nb04.check_set_up: ("optimiser", "optimizer", "attach", "freeze", "whose", "?")}


@pytest.mark.parametrize("check, attempt, words", MORE)
def test_a_check_of_03_or_04_knows_this_answer_too(check, attempt, words, capsys):
    test_a_check_knows_this_answer(check, attempt, words, capsys)


@pytest.mark.parametrize("hunt", HUNTS)
def test_a_bug_hunt_of_03_or_04_never_names_the_cause(hunt, capsys):
    for check, attempt, _ in CASES + MORE:
        if check is hunt or hunt.__name__ in check.__code__.co_names:
            check(attempt)
    said = " ".join(capsys.readouterr().out.lower().split())
    assert said.count("not yet:") >= 3
    assert not [cause for cause in HUNTS[hunt] if cause in said]


# Notebook 16


def by_hand(*words):
    return dict(zip(nb16.BY_HAND, words, strict=True))


def counted_word(came, holds):
    holding = [each for each in came.values() if each in holds]
    failing = [each for each in came.values() if each not in holds and each != "open"]
    return ("holds" if len(holding) == len(came) else "holds when" if holding
            else "misleading" if failing else "not decided")


def hiding(came, holds):
    if "open" in came.values():
        return "not decided"
    return "holds" if all(each in holds for each in came.values()) else "misleading"


def bases(gap, power=2, more=1):
    return lambda mean, s, margin, t: int((t * s / gap(mean, margin)) ** power) + more


@pytest.mark.parametrize("check, attempt, words", [
    (nb16.check_by_hand, by_hand("better", "equal", "open", "worse", "open"), "solved"),
    (nb16.check_by_hand, by_hand(*[None] * 5), "not attempted"),
    (nb16.check_by_hand, ..., "not attempted"),
    (nb16.check_by_hand, by_hand("better", None, "open", "worse", None), "2 of five have no word"),
    (nb16.check_by_hand, by_hand("better", "better", "open", "worse", "open"), "too little"),
    (nb16.check_by_hand, by_hand("better", "open", "open", "worse", "open"), "That is a finding"),
    (nb16.check_by_hand, by_hand("better", "equal", "worse", "worse", "open"), "on which 0.48"),
    (nb16.check_by_hand, by_hand("better", "equal", "open", "open", "open"), "lies on one side"),
    (nb16.check_by_hand, by_hand("better", "equal", "open", "worse", "equal"), "counts from 0.2"),
    (nb16.check_by_hand, by_hand("more", "equal", "open", "worse", "open"), "the words are"),
    (nb16.check_by_hand, {"a": "better"}, "keep the five intervals"),
    (nb16.check_by_hand, ["better"], "keep the dictionary"),
    (nb16.check_word, counted_word, "solved"),
    (nb16.check_word, lambda came, holds: None, "not attempted"),
    (nb16.check_word, hiding, "What is known of the first?"),
    (nb16.check_word, lambda came, holds: counted_word(came, ["better"]), "ask `holds`"),
    (nb16.check_word, lambda came, holds: "better", "return one of four words"),
    (nb16.check_word, lambda came, holds: "holds when", "not yet"),
    (nb16.check_bases_needed, bases(lambda m, e: abs(abs(m) - e)), "solved"),
    (nb16.check_bases_needed, lambda mean, s, margin, t: None, "not attempted"),
    (nb16.check_bases_needed, bases(lambda m, e: abs(m - e)), "near the other edge"),
    (nb16.check_bases_needed, bases(lambda m, e: e), "starts from the mean"),
    (nb16.check_bases_needed, bases(lambda m, e: abs(abs(m) - e), power=1), "the root of n"),
    (nb16.check_bases_needed, bases(lambda m, e: abs(abs(m) - e), more=0), "a whole number"),
    (nb16.check_bases_needed, lambda mean, s, margin, t: 3, "must be smaller than the way"),
])
def test_16_tells_intervals_words_and_bases_apart(check, attempt, words, capsys):
    check(attempt)
    assert words in " ".join(capsys.readouterr().out.split())


# Notebooks 01 and 02: half-fixed answers, and answers that fit one shape only

def half_fixed(squares):
    """`rank_for_error` with the squares on one side only: of the values, or of the error."""
    def rank_for_error(S, error):
        left = np.append(np.cumsum((S**2 if squares == "values" else S)[::-1])[::-1], 0)
        return int(np.argmax(left <= (error if squares == "values" else error**2) * left[0]))
    return rank_for_error


@pytest.mark.parametrize("check, attempt, words", [
    (nb02.check_rank_for_error, half_fixed("values"), "at most 0.4, yours still says rank 1"),
    (nb02.check_rank_for_error, half_fixed("error"), "at most 0.61, yours says rank 2"),
    (nb02.check_rank_for_error, rank_with(2, short=-1), "one more than needed"),
    (nb02.check_rank_for_error, lambda S, e: 1, "nothing may be dropped"),
    (nb02.check_rank_for_error, lambda S, e: len(S), "'at most' allows that"),
    (nb02.check_truncate, lambda X, rank: X, "another rank"),
    (nb02.check_truncate, svd_with(lambda U, S, Vt, r: (U[:, :2] * S[:2]) @ Vt[:2]),
     "but not for a (3, 6) one"),
    (nb02.check_truncate, svd_with(lambda U, S, Vt, r: (U[:, 1:3] * S[1:3]) @ Vt[1:3]),
     "a nearer one"),
    (nb01.check_power_step, lambda M, v: np.ones(len(v)), "(1, 2) / 2.236"),
    (nb01.check_power_step, lambda M, v: v, "v has not moved"),
    (nb01.check_power_step, lambda M, v: np.ones(3), "n entries"),
    (nb01.check_peel, lambda M, u, s, v: M, "sends it elsewhere"),
    (nb01.check_peel, lambda M, u, s, v: s * np.outer(u, v), "that is the layer"),
    (nb01.check_peel, lambda M, u, s, v: 0 * M, "other directions"),
    (nb01.check_peel, lambda M, u, s, v: M[:2, :2], "the shape of M"),
])
def test_a_half_fixed_answer_gets_its_own_symptom(check, attempt, words, capsys):
    check(attempt)
    assert words in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("line, sizes", [
    (lambda: np.ones((4, 2)) @ np.ones((5, 3)), "5 and 2"),
    (lambda: np.ones((4, 2)).dot(np.ones((5, 3))), "(4,2) and (5,3)"),
    (lambda: np.ones((4, 2)) + np.ones((5, 2)), "(4,2) and (5,2)"),
    (lambda: np.ones(4) @ np.ones(5), "5 and 4"),
    (lambda: torch.ones(4, 2) @ torch.ones(5, 3), "4x2 and 5x3"),
    (lambda: torch.ones(4, 2) + torch.ones(5, 2), "4 and 5"),
])
def test_shapes_that_do_not_fit_get_a_hint_with_both(capsys, line, sizes):
    checks.answer(line, lambda _: True)
    said = " ".join(capsys.readouterr().out.split())
    assert f"two shapes don't fit together, {sizes}. Write the shape" in said


def test_any_other_error_is_told_as_it_is(capsys):
    checks.answer(lambda: 1 / 0, lambda _: True)
    assert "your code raised ZeroDivisionError: division by zero" in capsys.readouterr().out
