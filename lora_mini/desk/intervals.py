"""Intervals from a handful of runs: where the mean lies, and where the next run should land.

Both are Student's (1908): they take the values of independent runs to be roughly normal.
"""

import functools
import math
import statistics
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A mean over n values, and the ends of an interval around it."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self):
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}], n = {self.n}"

    def holds(self, value):
        """Whether `value` lies in the interval."""
        return self.low <= value <= self.high


def interval(values, confidence=0.95):
    """Where the mean lies: mean +- t s / sqrt(n), for two values or more."""
    return _around(values, lambda n: 1 / math.sqrt(n), confidence, 0.0)


def prediction(values, floor=0.0):
    """Where one further run should land, at 95 %: mean +- t s sqrt(1 + 1/n), at least +- floor."""
    return _around(values, lambda n: math.sqrt(1 + 1 / n), 0.95, floor)


@functools.cache
def student(confidence, freedom):
    """How many standard errors an interval reaches to either side, for `freedom` degrees.

    With x = sqrt(freedom) tan(a), the density of Student's t in a is cos(a) ** (freedom - 1), up to
    a factor: its integral is taken over 100,000 angles.
    """
    edges = np.linspace(0, math.pi / 2, 100_001)
    middles = (edges[:-1] + edges[1:]) / 2
    inside = np.cumsum(np.cos(middles) ** (freedom - 1))
    angle = np.interp(confidence * inside[-1], inside, edges[1:])
    return math.sqrt(freedom) * math.tan(angle)


def _around(values, factor, confidence, floor):
    values = [float(v) for v in values]
    n = len(values)
    if n < 2 or not all(map(math.isfinite, values)):
        raise ValueError(f"expected two finite values or more, one a run, got {values}")
    mean = statistics.fmean(values)
    reach = max(student(confidence, n - 1) * statistics.stdev(values) * factor(n), floor)
    return Interval(mean, mean - reach, mean + reach, n)
