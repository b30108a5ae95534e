"""Intervals and tests on plain numbers, one a problem: the samples of a problem share its difficulty.

Every interval is a 95 % one. Resampling draws from a fixed stream, so that the same records always give the
same figures.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from unmask.rng import derive

Z_95 = 1.959964
NUM_RESAMPLES = 4000
NUM_FLIPS = 10_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its 95 % interval, whose ends are NaN where a single problem leaves it unknown."""

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


Interval = Callable[[Sequence[float], int], Estimate]
"""From the means per problem, each in [0, 1], and the number of samples behind them."""


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def wilson(successes: float, n: float) -> tuple[float, float]:
    """The score interval of a proportion; fractional counts are effective sample sizes.

    Raises:
        ValueError: unless 0 <= successes <= n and n > 0.
    """
    if not (n > 0 and 0 <= successes <= n):
        raise ValueError(f"{successes} successes of {n}: need 0 <= successes <= n and n > 0")
    share, z = successes / n, Z_95
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def wilson_interval(means: Sequence[float], num_samples: int) -> Estimate:
    """A Wilson interval at the effective sample size.

    With n problems whose mean outcomes have variance s², the samples count as n p (1 - p) / s² independent
    ones. That is n when every problem has one sample (then this is Wilson's interval) or its samples always
    agree, and at most the number of samples. Unlike a normal interval over per-problem means it has a width
    where everything is right or everything wrong.
    """
    share = mean(means)
    spread = share * (1 - share)
    variance = sum((one - share) ** 2 for one in means) / len(means)
    if spread <= 0:
        size = float(len(means))
    elif variance <= 0:
        size = float(num_samples)
    else:
        size = min(max(len(means) * spread / variance, len(means)), num_samples)
    low, high = wilson(min(share * size, size), size)
    return Estimate(share, min(low, share), max(high, share))


def bootstrap_interval(means: Sequence[float], num_samples: int = 0) -> Estimate:
    """A percentile bootstrap over problems. It has no width where all problems agree: prefer Wilson there."""
    value = mean(means)
    if len(means) == 1:
        return Estimate(value, math.nan, math.nan)
    levels, counts = np.unique(means, return_counts=True)  # few: drawing how many of each is drawing them
    rng = np.random.default_rng(derive(0, "bootstrap"))
    drawn = rng.multinomial(len(means), counts / len(means), size=NUM_RESAMPLES)
    resampled = drawn @ levels / len(means)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Estimate(value, min(float(low), value), max(float(high), value))


INTERVALS: dict[str, Interval] = {"wilson": wilson_interval, "bootstrap": bootstrap_interval}


def normal_interval(means: Sequence[float]) -> Estimate:
    """Of a mean of unbounded values."""
    value = mean(means)
    if len(means) == 1:
        return Estimate(value, math.nan, math.nan)
    variance = sum((one - value) ** 2 for one in means) / (len(means) - 1)
    half = Z_95 * math.sqrt(variance / len(means))
    return Estimate(value, value - half, value + half)


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p-value of McNemar's test: a sign test on the pairs that differ.

    Raises:
        ValueError: for negative counts.
    """
    if min(only_first, only_second) < 0:
        raise ValueError(f"mcnemar({only_first}, {only_second}): counts cannot be negative")
    n = only_first + only_second
    tail = sum(math.comb(n, k) for k in range(min(only_first, only_second) + 1))
    return min(1.0, tail / 2 ** (n - 1)) if n else 1.0


def sign_flip(differences: Sequence[float]) -> float:
    """The two-sided p-value of a paired permutation test: were the two sides exchangeable in every problem?

    Of 10,000 random exchanges, the share whose mean difference is at least as far from 0 (the observed one
    counts too, so it is never 0).
    """
    sizes, counts = np.unique([abs(one) for one in differences if one], return_counts=True)
    rng = np.random.default_rng(derive(0, "sign flip"))
    positive = rng.binomial(counts, 0.5, size=(NUM_FLIPS, len(sizes)))
    sums = np.abs((2 * positive - counts) @ sizes)
    observed = abs(math.fsum(differences)) * (1 - 1e-12)
    return (1 + int(np.count_nonzero(sums >= observed))) / (NUM_FLIPS + 1)
