"""Differences of accuracies: their intervals and McNemar's test."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sknet.statistics import (
    PairedCounts,
    independent_difference,
    mcnemar_p_value,
    paired_difference,
)

counts = st.integers(0, 400)
pairs = st.builds(PairedCounts, counts, counts, counts, counts).filter(lambda each: each.seen > 0)
shares = st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def test_newcombes_own_example_of_independent_shares() -> None:
    # Newcombe 1998, p. 873, table II, example (a): 56/70 against 48/80 gives 0.0524 … 0.3339.
    difference = independent_difference((48, 80), (56, 70))
    assert tuple(difference) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


@settings(deadline=None)  # measures nothing
@given(shares, shares)
def test_an_independent_difference_turns_its_sign_with_the_order(
    first: tuple[int, int], second: tuple[int, int]
) -> None:
    there, back = independent_difference(first, second), independent_difference(second, first)
    assert (there.value, there.low, there.high) == pytest.approx(
        (-back.value, -back.high, -back.low)
    )
    assert -1 <= there.low <= there.value <= there.high <= 1


@settings(deadline=None)  # measures nothing
@given(pairs)
def test_a_paired_difference_turns_its_sign_with_the_order(counted: PairedCounts) -> None:
    there = paired_difference(counted)
    turned = PairedCounts(counted.both, counted.only_second, counted.only_first, counted.neither)
    back = paired_difference(turned)
    assert (there.value, there.low, there.high) == pytest.approx(
        (-back.value, -back.high, -back.low), abs=1e-9
    )
    assert -1 <= there.low <= there.value + 1e-12
    assert there.value - 1e-12 <= there.high <= 1


def test_the_paired_interval_covers_the_true_difference_about_as_often_as_it_says() -> None:
    # Over all outcomes of 12 pairs, weighted with their exact probability.
    chances = (0.5, 0.2, 0.1, 0.2)
    true = chances[2] - chances[1]
    covered = 0.0
    for both, only_first, only_second in itertools.product(range(13), repeat=3):
        neither = 12 - both - only_first - only_second
        if neither < 0:
            continue
        drawn = (both, only_first, only_second, neither)
        chance = math.factorial(12) * math.prod(
            p**n / math.factorial(n) for p, n in zip(chances, drawn, strict=True)
        )
        interval = paired_difference(PairedCounts(*drawn))
        covered += chance * (interval.low <= true <= interval.high)
    assert 0.93 < covered < 0.99


def test_pairs_that_agree_mostly_give_a_narrower_interval_than_independent_samples() -> None:
    paired = paired_difference(PairedCounts(900, 10, 25, 65))
    independent = independent_difference((910, 1000), (925, 1000))
    assert paired.value == independent.value
    assert paired.high - paired.low < 0.7 * (independent.high - independent.low)


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    # Sums of binomial coefficients over powers of two.
    [(0, 0, 1.0), (0, 5, 2 / 32), (1, 9, 2 * 11 / 1024), (5, 5, 1.0), (3, 0, 2 / 8)],
)
def test_mcnemars_p_counts_the_outcomes_at_least_as_uneven(
    only_first: int, only_second: int, p: float
) -> None:
    assert mcnemar_p_value(PairedCounts(100, only_first, only_second, 7)) == pytest.approx(p)
