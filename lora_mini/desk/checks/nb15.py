"""Checks for notebook 15: a count by hand, what the loss counts, the order of a head's rows."""

import numpy as np

from lora_mini.desk.checks import answer, close

SHAPES = {"q": (576, 576), "k": (192, 576), "v": (192, 576), "o": (576, 576), "gate": (1536, 576),
          "up": (1536, 576), "down": (576, 1536)}
SUM = sum(map(sum, SHAPES.values()))  # of both sides, over the seven layers of a block


def check_count(numbers):
    """LoRA r = 8 on the seven layers of 30 blocks: r (d_in + d_out) each."""
    answer(numbers, lambda n: n == 8 * 30 * SUM, [
        (lambda n: n == 8 * SUM, "that is one block: there are 30"),
        (lambda n: n == 30 * SUM, "each factor has 8 columns or rows, not one"),
        (lambda n: n == 8 * 7 * 30, "count the numbers in A and B, not their rows"),
        (lambda n: n == 30 * sum(a * b for a, b in SHAPES.values()), "those are the frozen weights"),
        (lambda n: n == 8 * 30 * sum(SHAPES[x][0] + SHAPES[x][1] for x in ("q", "k", "v", "o")),
         "that is attention alone: gate, up and down get an adapter, too"),
        (lambda n: n in (8 * 30 * sum(d[i] for d in SHAPES.values()) for i in (0, 1)),
         "that is one factor: A has d_in columns, B has d_out rows"),
        (lambda n: 0 < n < 8 * 30 * SUM, "too few: r (d_in + d_out) for each layer, seven layers a block"),
        (lambda n: True, "too many: r (d_in + d_out) for each layer, seven layers a block"),
    ])


def check_row(row):
    """`row(prompt, said, end)` gives all tokens, and labels that are -100 for the prompt alone."""
    cases = [([4, 9, 7], [5, 6], 2), ([8], [3, 9, 9, 1], 2)]

    def found():
        seen = [row(list(prompt), list(said), end) for prompt, said, end in cases]
        return None if None in seen else ... if ... in seen else [
            [[int(t) for t in part] for part in pair] for pair in seen]

    wanted = [[p + s + [e], [-100] * len(p) + s + [e]] for p, s, e in cases]

    def labels(make):
        return lambda seen: [pair[1] for pair in seen] == [make(*case) for case in cases]

    answer(found, lambda seen: seen == wanted, [
        (lambda seen: any(len(pair) != 2 for pair in seen), "return two lists: tokens, labels"),
        (lambda seen: [pair[0] for pair in seen] == [p + s for p, s, _ in cases],
         "the end is no token of the row: who learns to stop?"),
        (lambda seen: [pair[0] for pair in seen] != [pair[0] for pair in wanted],
         "the tokens are the prompt's, the answer's, then the end"),
        (lambda seen: any(len(tokens) != len(marked) for tokens, marked in seen),
         "one label for each token"),
        (labels(lambda p, s, e: p + s + [e]), "now the question counts as well"),
        (labels(lambda p, s, e: [-100] * len(p) + s + [-100]), "the end is masked: who learns to stop?"),
        (labels(lambda p, s, e: [-100] * (len(p) - 1) + s + [e, -100]),
         "don't shift the labels: the loss does that itself"),
        (labels(lambda p, s, e: p + [-100] * (len(s) + 1)), "that masks the answer: turn it round"),
        (lambda seen: True, "labels are -100 for each token of the prompt, and the tokens themselves after it"),
    ])


def check_for_llama(for_llama):
    """`for_llama(rows, heads)`: in each head, row 0 of one half, row 0 of the other, row 1, ..."""
    cases = [(np.arange(24.0).reshape(12, 2), 2), (np.arange(24.0).reshape(8, 3), 1)]

    def turned(rows, heads):
        return np.concatenate([head.reshape(2, -1, head.shape[1]).transpose(1, 0, 2).reshape(head.shape)
                               for head in np.split(rows, heads)])

    def found():
        seen = [for_llama(rows.copy(), heads) for rows, heads in cases]
        return None if any(s is None for s in seen) else ... if any(s is ... for s in seen) else seen

    def like(make):
        return lambda seen: all(close(s, make(*case)) for s, case in zip(seen, cases, strict=True))

    answer(found, like(turned), [
        (lambda seen: any(np.shape(s) != rows.shape for s, (rows, _) in zip(seen, cases, strict=True)),
         "the shape stays (d_out, r)"),
        (like(lambda rows, heads: rows), "the rows are where they were"),
        (like(lambda rows, heads: turned(rows, 1)), "with one head it is right, and with two rows of one head land "
                                                    "in the other"),
        (like(lambda rows, heads: np.concatenate([
            head.reshape(-1, 2, head.shape[1]).transpose(1, 0, 2).reshape(head.shape)
            for head in np.split(rows, heads)])), "that is the way back, from llama.cpp's order"),
        (lambda seen: True, "one head of four rows 0 1 2 3 should come out as 0 2 1 3"),
    ])
