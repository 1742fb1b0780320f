"""Checks for notebook 05: a sentence's chance, a causal mask, and a loss that counts too much."""

import math

import torch

from lora_mini.desk.checks import answer, close


def check_chance(chance):
    """The probability of the sentence with the adjective, with "at", and with the closing."""
    answer(chance, lambda p: math.isclose(p, 0.3 * 0.8 * 0.7, abs_tol=5e-4), [
        (lambda p: math.isclose(p, 0.3 * 0.2 * 0.7, abs_tol=5e-4), "0.2 is the chance of 'around'; "
                                                                   "the sentence says 'at'"),
        (lambda p: math.isclose(p, 0.3 * 0.8, abs_tol=5e-4), "one factor is missing: the closing"),
        (lambda p: abs(p - 0.168) < 5e-3, "nearly: three decimals, please"),
        (lambda p: math.isclose(p, 0.7 * 0.8 * 0.7, abs_tol=5e-4), "that is the sentence without "
                                                                   "the adjective"),
        (lambda p: math.isclose(p, 0.3 * 0.8 * 0.3, abs_tol=5e-4), "that is the one without the "
                                                                   "closing"),
        (lambda p: math.isclose(p, 1 / 8, abs_tol=5e-4), "there are eight sentences, but not "
                                                         "equally likely ones"),
        (lambda p: p > 1, "a chance lies between 0 and 1: independent chances multiply"),
    ])


def check_causal(causal):
    """`causal(T)` must be (T, T), True where row t may look at column s, that is s <= t."""
    right = torch.ones(4, 4).tril().bool()
    answer(lambda: causal(4), lambda m: m.dtype == torch.bool and torch.equal(m, right), [
        (lambda m: not isinstance(m, torch.Tensor), "return a tensor, made with torch"),
        (lambda m: torch.isinf(m).any(), "True and False, please; the scores come later"),
        (lambda m: m.bool().all(), "row 0 can look at column 1, which is in its future"),
        (lambda m: torch.equal(m.bool(), torch.eye(4).bool()), "each token sees itself alone: it "
                                                               "forgets the past"),
        (lambda m: torch.equal(m.bool(), right), "right places; it should hold True and False"),
        (lambda m: torch.equal(m.bool(), right.T), "this lets each token see the future and hides "
                                                   "the past: rows look, columns are looked at"),
        (lambda m: torch.equal(m.bool(), right & ~torch.eye(4).bool()),
         "a token may look at itself; here the first one can look at nothing"),
        (lambda m: torch.equal(m.bool(), ~right), "that is just the other way round: True means may "
                                                  "look"),
        (lambda m: tuple(m.shape) != (4, 4), "expected T rows and T columns"),
    ])


def check_sentence_loss(sentence_loss):
    """`sentence_loss(each, mask)` must be the mean of `each` over the tokens whose mask is 1."""
    each = torch.tensor([[5.0, 1.0, 2.0, 9.0], [5.0, 3.0, 9.0, 9.0]])
    mask = torch.tensor([[0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    answer(lambda: sentence_loss(each, mask), lambda v: close(v, 2.0), [
        (lambda v: v.dim() > 0, "a loss is a single number"),
        (lambda v: close(v, 37.0 / 5), "that is the mean over what does not count: 1 in the mask means "
                                       "that it counts"),
        (lambda v: close(v, 3.0), "divide by the tokens that count, not by the number of rows"),
        (lambda v: close(v, each.mean()), "that is the mean over everything: prompt and padding "
                                          "count, and the model is graded on what it was given"),
        (lambda v: close(v, 6.0), "that is the sum; divide by the number of tokens that count"),
        (lambda v: close(v, 6.0 / 8), "the masked ones are gone from the sum, but not from the number "
                                      "that you divide by"),
        (lambda v: close(v, 2.25), "that is the mean of the rows' means: short sentences would weigh "
                                   "more a word than long ones"),
    ])
