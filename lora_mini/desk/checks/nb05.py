"""Checks for notebook 05: a sentence's chance, a causal mask, and a loss that counts too much."""

import math

import torch

from lora_mini.desk.checks import answer, close, none_or


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
    right, larger = (torch.ones(T, T).tril().bool() for T in (4, 7))

    def of_four(is_so):  # of the table for T = 4
        return lambda found: is_so(found[0])

    answer(lambda: none_or([causal(4), causal(7)]), lambda found: all(
        m.dtype == torch.bool and torch.equal(m, r)
        for m, r in zip(found, (right, larger), strict=True)), [
        (of_four(lambda m: not isinstance(m, torch.Tensor)), "return a tensor, made with torch"),
        (of_four(lambda m: torch.isinf(m).any()), "True and False, please; the scores come later"),
        (of_four(lambda m: tuple(m.shape) != (4, 4)), "expected T rows and T columns"),
        (of_four(lambda m: m.bool().all()), "row 0 can look at column 1, which is in its future"),
        (of_four(lambda m: torch.equal(m.bool(), torch.eye(4).bool())),
         "each token sees itself alone: it forgets the past"),
        (of_four(lambda m: m.dtype == torch.bool and torch.equal(m, right)),
         "right for T = 4, but not for T = 7"),
        (of_four(lambda m: torch.equal(m.bool(), right)), "right places; it should hold True and False"),
        (of_four(lambda m: torch.equal(m.bool(), right.T)),
         "this lets each token see the future and hides the past: rows look, columns are looked at"),
        (of_four(lambda m: torch.equal(m.bool(), right & ~torch.eye(4).bool())),
         "a token may look at itself; here the first one can look at nothing"),
        (of_four(lambda m: torch.equal(m.bool(), ~right)),
         "that is just the other way round: True means may look"),
        (lambda found: True, "for T = 3 the rows are True False False, True True False and three Trues"),
    ])


def check_sentence_loss(sentence_loss):
    """`sentence_loss(each, mask)` must be the mean of `each` over the tokens whose mask is 1."""
    each = torch.tensor([[5.0, 1.0, 2.0, 9.0], [5.0, 3.0, 9.0, 9.0]])
    mask = torch.tensor([[0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    longer = torch.tensor([[7.0, 8.0, 1.0, 1.0, 2.0], [7.0, 6.0, 0.5, 9.0, 9.0], [7.0, 4.0, 3.0, 5.0, 9.0]])
    counts = torch.tensor([[0.0, 0.0, 1.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0, 0.0]])

    def first(value):
        return lambda found: close(found[0], value)

    answer(lambda: none_or([sentence_loss(each.clone(), mask.clone()),
                            sentence_loss(longer.clone(), counts.clone())]),
           lambda found: close(found[0], 2.0) and close(found[1], 12.5 / 6), [
        (lambda found: found[0].dim() > 0, "a loss is a single number"),
        (first(37.0 / 5), "that is the mean over what does not count: 1 in the mask means that it counts"),
        (first(3.0), "divide by the tokens that count, not by the number of rows"),
        (first(each.mean()), "the words of these sentences cost 1, 2 and 3 nats, and your loss is 5.4: more "
                             "than any of them"),
        (first(6.0), "that is the sum; divide by the number of tokens that count"),
        (first(6.0 / 8), "the masked ones are gone from the sum, but not from the number that you divide by"),
        (first(2.25), "that is the mean of the rows' means: short sentences would weigh more a word than "
                      "long ones"),
        (first(2.0), "right for a batch of 2 rows and 4 tokens, but not for one of 3 rows and 5"),
        (lambda found: True, "what do the tokens with a 1 in the mask cost on average?"),
    ])
