"""Intervals and tests over counts: what the difference of two accuracies is worth."""

import math
from typing import NamedTuple

Z_95 = 1.959963984540054
"""Quantile of the normal distribution for a two-sided 95 % interval."""


def wilson_interval(correct: int, seen: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; it stays within 0 … 1, also for 0 or all correct."""
    share = correct / seen
    spread = Z_95**2 / seen
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


class Interval(NamedTuple):
    """A share, or a difference of shares, and its 95 % interval."""

    value: float
    low: float
    high: float


class Paired(NamedTuple):
    """Two runs' predictions of the same samples."""

    both: int
    only_first: int
    only_second: int
    neither: int

    @property
    def seen(self) -> int:
        """Samples."""
        return sum(self)


def independent_difference(first: tuple[int, int], second: tuple[int, int]) -> Interval:
    """The second share minus the first one, each as (correct, seen), of different samples.

    Newcombe's hybrid of two Wilson intervals (Statistics in Medicine 17, 1998, p. 873, method 10).
    """
    return _hybrid(first, second, correlation=0.0)


def paired_difference(counts: Paired) -> Interval:
    """The second share minus the first one, of the same samples.

    Newcombe's hybrid for paired data (Statistics in Medicine 17, 1998, p. 2635, method 10).
    """
    both, only_first, only_second, neither = counts
    margins = (both + only_first) * (only_second + neither) * (both + only_second)
    margins *= only_first + neither
    agreement = both * neither - only_first * only_second
    # Newcombe's correction for continuity: half of the samples off a positive association.
    numerator = max(agreement - counts.seen / 2, 0.0) if agreement > 0 else float(agreement)
    correlation = numerator / math.sqrt(margins) if margins else 0.0
    first = (both + only_first, counts.seen)
    return _hybrid(first, (both + only_second, counts.seen), correlation)


def _hybrid(first: tuple[int, int], second: tuple[int, int], correlation: float) -> Interval:
    share_1, share_2 = first[0] / first[1], second[0] / second[1]
    (low_1, high_1), (low_2, high_2) = wilson_interval(*first), wilson_interval(*second)
    below = _joined(share_2 - low_2, high_1 - share_1, correlation)
    above = _joined(high_2 - share_2, share_1 - low_1, correlation)
    value = share_2 - share_1
    return Interval(value, max(-1.0, value - below), min(1.0, value + above))


def _joined(one: float, other: float, correlation: float) -> float:
    return math.sqrt(max(0.0, one**2 - 2 * correlation * one * other + other**2))


def mcnemar_p(counts: Paired) -> float:
    """McNemar's exact test, two-sided: how probable so uneven a split of the differing samples is,
    were both runs equally good.
    """
    from scipy.stats import binomtest  # takes a quarter of a second to import

    differing = counts.only_first + counts.only_second
    return float(binomtest(counts.only_first, differing).pvalue) if differing else 1.0
