"""Checks for notebook 06: Adam's bytes, a Pareto envelope, and rates chosen on the wrong seeds."""

from lora_mini.desk.checks import answer, close


def check_bytes(number):
    """The bytes of AdamW's memory for 18,432 trained numbers in float32."""
    answer(number, lambda n: n == 18_432 * 2 * 4, [
        (lambda n: n == 18_432 * 4, "AdamW keeps two numbers for each that trains"),
        (lambda n: n == 18_432 * 2, "those are numbers; a float32 number has four bytes"),
        (lambda n: n == 18_432 * 3 * 4, "that counts the trained numbers in, or their gradients"),
        (lambda n: 0 < n - 147_456 < 2_000, "nearly: leave out the step counters, and count bytes"),
        (lambda n: n == 122_112 * 2 * 4, "that would be for all the model; the rest is frozen"),
    ])


def check_envelope(envelope):
    """`envelope(points)` keeps the points that no other beats in both numbers, by the first."""
    points = [(3.0, 1.0), (1.0, 4.0), (2.0, 2.0), (2.5, 3.0), (4.0, 1.5)]
    right = [(1.0, 4.0), (2.0, 2.0), (3.0, 1.0)]

    def found():
        kept = envelope(list(points))
        return None if kept is None else [tuple(map(float, p)) for p in kept]

    answer(found, lambda e: e == right, [
        (lambda e: sorted(e) == right, "the right points; sort them by the first number"),
        (lambda e: sorted(e) == sorted(points), "nothing was left out: (2.5, 3) is beaten by (2, 2) in "
                                                "both numbers"),
        (lambda e: e == [], "no point is left. A point must not be compared with itself"),
        (lambda e: (4.0, 1.5) in e or (2.5, 3.0) in e, "a point stays only if no other is smaller in "
                                                       "both numbers"),
        (lambda e: set(e) < set(right), "a point is beaten only by one that is smaller in both "
                                        "numbers; you left out too many"),
    ])


def check_report(report):
    """`report(excess)` chooses a rate on seeds 0 to 2 and reports its mean on the others."""
    excess = {0.001: {0: 2.0, 1: 2.0, 2: 2.0, 10: 3.0, 11: 3.0},
              0.003: {0: 1.0, 1: 1.0, 2: 1.0, 10: 4.0, 11: 6.0}}
    answer(lambda: report(excess), lambda r: close(r, 5.0), [
        (lambda r: close(r, 2.4), "2.4 is the mean of all of one rate's seeds: seeds that chose the "
                                  "rate must not also judge it"),
        (lambda r: close(r, 2.6), "2.6 is the mean over all seeds; report those that did not choose"),
        (lambda r: close(r, 0.003) or close(r, 0.001), "that is a rate; report the excess that it gets"),
        (lambda r: close(r, 3.0), "3.0 belongs to the rate 0.001. On seeds 0 to 2 the rate 0.003 is the "
                                  "better one"),
        (lambda r: close(r, 1.0), "that reports the seeds on which the rate was chosen"),
    ])
