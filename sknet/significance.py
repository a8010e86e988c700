"""Confidence intervals and tests for results that are given as counts."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

Z_95 = 1.959963984540054
"""Quantile of the normal distribution for a two-sided 95 % interval."""


class Interval(NamedTuple):
    """An estimate and its 95 % confidence interval."""

    value: float
    low: float
    high: float


class PairedCounts(NamedTuple):
    """How often each of two classifiers is correct on the same samples."""

    both: int
    only_first: int
    only_second: int
    neither: int

    @property
    def seen(self) -> int:
        """Number of samples."""
        return sum(self)


def wilson_interval(correct: float, seen: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a fraction.

    It stays within 0 … 1, even if no sample or every sample is correct.

    Args:
        correct: Number of correct samples. No whole number if the fraction is no count, but behaves
            as one, as average precision does.
        seen: Number of samples, at least 1.
    """
    fraction = correct / seen
    spread = Z_95**2 / seen
    centre = (fraction + spread / 2) / (1 + spread)
    half = math.sqrt(fraction * (1 - fraction) * spread + spread**2 / 4) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def mover(estimates: Sequence[Interval]) -> Interval:
    """Return the mean of estimates from different samples, each with the same weight.

    The method of variance estimates recovery (Zou and Donner, Statistics in Medicine 27, 2008,
    p. 1693), which combines the estimates' own intervals. If these are Wilson's, it has a width
    even where every sample is correct, which a bootstrap has not.

    Args:
        estimates: At least one, within 0 … 1.
    """
    num = len(estimates)
    value = math.fsum(each.value for each in estimates) / num
    below = math.hypot(*(each.value - each.low for each in estimates)) / num
    above = math.hypot(*(each.high - each.value for each in estimates)) / num
    return Interval(value, max(0.0, value - below), min(1.0, value + above))


def wilson(correct: float, seen: int) -> Interval:
    """Return a fraction with `wilson_interval`, which rounding must not put beside it."""
    low, high = wilson_interval(correct, seen)
    return Interval(correct / seen, min(low, correct / seen), max(high, correct / seen))


def f1(correct: int, wrong: int) -> Interval:
    """Return the F1 of a class, the harmonic mean of its precision and recall.

    Of the samples that are of the class or are taken for it, the fraction J that is both is
    binomial, and F1 = 2J / (1 + J) rises with it. So Wilson's interval of J gives that of F1 (Lam,
    Gopal and Qian 2023, arXiv 2309.14621).

    Args:
        correct: Number of samples of the class that are predicted as it.
        wrong: Number of samples that are only one of both; with `correct`, at least one.
    """
    return Interval(
        *(2 * fraction / (1 + fraction) for fraction in wilson(correct, correct + wrong))
    )


def independent_difference(first: tuple[int, int], second: tuple[int, int]) -> Interval:
    """Return the second accuracy minus the first one, if they are of different samples.

    Newcombe's hybrid of two Wilson intervals (Statistics in Medicine 17, 1998, p. 873, method 10).

    Args:
        first: Number of correct samples, number of samples.
        second: The same of the second classifier.
    """
    return _hybrid(first, second, correlation=0.0)


def paired_difference(counts: PairedCounts) -> Interval:
    """Return the second accuracy minus the first one, on the same samples.

    Newcombe's hybrid for paired data (Statistics in Medicine 17, 1998, p. 2635, method 10).
    """
    both, only_first, only_second, neither = counts
    margins = (both + only_first) * (only_second + neither) * (both + only_second)
    margins *= only_first + neither
    agreement = both * neither - only_first * only_second
    # Newcombe's continuity correction: a positive association is lowered by half the samples.
    numerator = max(agreement - counts.seen / 2, 0.0) if agreement > 0 else float(agreement)
    correlation = numerator / math.sqrt(margins) if margins else 0.0
    first = (both + only_first, counts.seen)
    return _hybrid(first, (both + only_second, counts.seen), correlation)


def mcnemar_p_value(
    counts: PairedCounts, *, alternative: Literal["two-sided", "greater"] = "two-sided"
) -> float:
    """Return the p value of McNemar's exact test.

    Its null hypothesis: of the samples that only one of two equally good classifiers gets right,
    each is as likely to be the first one's as the second one's.

    Args:
        counts: The outcome of the comparison.
        alternative: `two-sided`: one classifier is better. `greater`: the first one is better.
    """
    from scipy.stats import binomtest  # takes a quarter of a second to import

    differing = counts.only_first + counts.only_second
    if differing == 0:
        return 1.0
    return float(binomtest(counts.only_first, differing, alternative=alternative).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values that are corrected for being many, by Holm's method.

    If each is compared with a level, the probability that any true null hypothesis is rejected is
    at most that level, however the tests depend on each other (Scandinavian Journal of Statistics
    6, 1979, p. 65).
    """
    corrected = [1.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def _hybrid(first: tuple[int, int], second: tuple[int, int], correlation: float) -> Interval:
    fraction_1, fraction_2 = first[0] / first[1], second[0] / second[1]
    (low_1, high_1), (low_2, high_2) = wilson_interval(*first), wilson_interval(*second)
    below = _combined(fraction_2 - low_2, high_1 - fraction_1, correlation)
    above = _combined(high_2 - fraction_2, fraction_1 - low_1, correlation)
    value = fraction_2 - fraction_1
    return Interval(value, max(-1.0, value - below), min(1.0, value + above))


def _combined(one: float, other: float, correlation: float) -> float:
    return math.sqrt(max(0.0, one**2 - 2 * correlation * one * other + other**2))
