"""Intervals from a handful of seeds: where the mean lies, and where the next run should land.

Both are Student's (1908): they take the effects of independent seeds to be roughly normal.
"""

import math
import statistics
from dataclasses import dataclass

# The 97.5 % point of Student's t for 1 to 15 degrees of freedom: two-sided intervals of 95 %.
T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
     2.145, 2.131)


@dataclass(frozen=True)
class Interval:
    """A mean over n seeds, and the ends of an interval of 95 % around it."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self):
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}], {self.n} seeds"

    def holds(self, value):
        """Whether `value` lies in the interval."""
        return self.low <= value <= self.high


def interval(values):
    """Where the mean lies: mean +- t s / sqrt(n), for the values of 2 to 16 seeds."""
    return _around(values, lambda n: 1 / math.sqrt(n), 0.0)


def prediction(values, floor=0.0):
    """Where one further seed should land: mean +- t s sqrt(1 + 1/n), at least +- `floor`."""
    return _around(values, lambda n: math.sqrt(1 + 1 / n), floor)


def _around(values, factor, floor):
    values = [float(v) for v in values]
    n = len(values)
    if not 2 <= n <= len(T) + 1 or not all(map(math.isfinite, values)):
        raise ValueError(f"expected 2 to {len(T) + 1} finite values, one a seed, got {values}")
    mean = statistics.fmean(values)
    reach = max(T[n - 2] * statistics.stdev(values) * factor(n), floor)
    return Interval(mean, mean - reach, mean + reach, n)
