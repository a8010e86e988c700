"""Confidence intervals of accuracies and of their differences, and McNemar's test."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sknet.significance import (
    PairedCounts,
    f1,
    holm,
    independent_difference,
    mcnemar_p_value,
    mover,
    paired_difference,
    wilson,
    wilson_interval,
)

counts = st.integers(0, 400)
pairs = st.builds(PairedCounts, counts, counts, counts, counts).filter(lambda each: each.seen > 0)
accuracies = st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def p_value(only_first: int, only_second: int, **options: str) -> float:
    return mcnemar_p_value(PairedCounts(100, only_first, only_second, 7), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("correct", "seen"), [(351, 360), (1, 10), (5, 7), (49_999, 50_000)])
def test_wilsons_bounds_are_where_the_score_test_just_rejects(correct: int, seen: int) -> None:
    for bound in wilson_interval(correct, seen):
        score = abs(correct / seen - bound) / math.sqrt(bound * (1 - bound) / seen)
        assert score == pytest.approx(1.959964, abs=1e-6)


def test_wilsons_interval_of_none_or_all_correct_stays_within_0_and_1() -> None:
    z2 = 1.959963984540054**2
    assert wilson_interval(0, 10) == pytest.approx((0.0, z2 / (10 + z2)))
    assert wilson_interval(10, 10) == pytest.approx((10 / (10 + z2), 1.0))
    assert wilson_interval(10, 10)[1] <= 1
    assert wilson_interval(0, 10)[0] >= 0


def test_newcombes_example_of_independent_accuracies() -> None:
    # Newcombe 1998, p. 873, table II, example (a): 56/70 against 48/80 gives 0.0524 … 0.3339.
    difference = independent_difference((48, 80), (56, 70))
    assert tuple(difference) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


@given(accuracies, accuracies)
def test_an_independent_difference_changes_its_sign_with_the_order(
    first: tuple[int, int], second: tuple[int, int]
) -> None:
    there, back = independent_difference(first, second), independent_difference(second, first)
    assert (there.value, there.low, there.high) == pytest.approx(
        (-back.value, -back.high, -back.low)
    )
    assert -1 <= there.low <= there.value <= there.high <= 1


@given(pairs)
def test_a_paired_difference_changes_its_sign_with_the_order(counted: PairedCounts) -> None:
    there = paired_difference(counted)
    back = paired_difference(
        counted._replace(only_first=counted.only_second, only_second=counted.only_first)
    )
    assert (there.value, there.low, there.high) == pytest.approx(
        (-back.value, -back.high, -back.low), abs=1e-9
    )
    assert -1 <= there.low <= there.value + 1e-12
    assert there.value - 1e-12 <= there.high <= 1


def test_the_paired_interval_covers_the_true_difference_about_as_often_as_it_claims() -> None:
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


def test_pairs_that_mostly_agree_give_a_narrower_interval_than_independent_samples() -> None:
    paired = paired_difference(PairedCounts(900, 10, 25, 65))
    independent = independent_difference((910, 1000), (925, 1000))
    assert paired.value == independent.value
    assert paired.high - paired.low < 0.7 * (independent.high - independent.low)


# Sums of binomial coefficients over powers of two.
@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [(0, 0, 1.0), (0, 5, 2 / 32), (1, 9, 2 * 11 / 1024), (5, 5, 1.0), (3, 0, 2 / 8)],
)
def test_the_two_sided_p_value_counts_the_outcomes_at_least_as_uneven(
    only_first: int, only_second: int, p: float
) -> None:
    assert p_value(only_first, only_second) == pytest.approx(p)


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [
        (0, 0, 1.0),
        (0, 3, 1.0),
        (1, 0, 1 / 2),
        (3, 0, 1 / 8),
        (3, 1, 5 / 16),
        (5, 0, 1 / 32),
        (8, 2, 56 / 1024),
        (9, 1, 11 / 1024),
    ],
)
def test_the_one_sided_p_value_by_hand(only_first: int, only_second: int, p: float) -> None:
    assert p_value(only_first, only_second, alternative="greater") == pytest.approx(p, rel=1e-12)


@settings(deadline=None, max_examples=50)
@given(counts, counts)
def test_the_one_sided_p_value_is_the_upper_tail_of_a_fair_coin(first: int, second: int) -> None:
    thrown = first + second
    exact = sum(math.comb(thrown, heads) for heads in range(first, thrown + 1)) / 2**thrown
    assert p_value(first, second, alternative="greater") == pytest.approx(exact, rel=1e-9)


@settings(deadline=None, max_examples=50)
@given(counts, counts)
def test_the_one_sided_p_value_falls_with_every_sample_that_the_first_wins(
    first: int, second: int
) -> None:
    p = p_value(first, second, alternative="greater")
    assert p_value(first + 1, second, alternative="greater") <= p * (1 + 1e-9)
    assert p_value(first, second + 1, alternative="greater") >= p * (1 - 1e-9)


@given(accuracies, accuracies)
def test_the_interval_of_a_mean_is_newcombes_as_a_difference_is_a_mean(
    first: tuple[int, int], second: tuple[int, int]
) -> None:
    """p - q is twice the mean of p and 1 - q, less 1, and both combine Wilson's intervals."""
    difference = independent_difference(first, second)
    mean = mover([wilson(*second), wilson(first[1] - first[0], first[1])])
    assert [2 * each - 1 for each in mean] == pytest.approx([*difference])


@given(accuracies)
def test_the_mean_of_one_fraction_has_its_interval(counted: tuple[int, int]) -> None:
    assert tuple(mover([wilson(*counted)])) == pytest.approx(wilson(*counted))


def test_the_interval_of_f1_is_wilsons_of_the_samples_that_count_in_it() -> None:
    # 8 right, 2 missed and 2 wrongly taken for the class: J is 8/12, F1 16/20.
    found = f1(8, 4)
    assert found.value == pytest.approx(0.8)
    low, high = wilson_interval(8, 12)
    assert (found.low, found.high) == pytest.approx((2 * low / (1 + low), 2 * high / (1 + high)))
    assert f1(8, 0).low < 0.9 < f1(8, 0).high == 1


def test_holms_example_rejects_step_by_step() -> None:
    # 4 x 0.005, then 3 x 0.01; 2 x 0.04 is raised by 3 x 0.03, which comes before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_corrected_p_values_are_between_the_plain_ones_and_bonferronis(values: list[float]) -> None:
    for plain, corrected in zip(values, holm(values), strict=True):
        assert plain <= corrected <= min(1.0, len(values) * plain) or corrected == pytest.approx(
            len(values) * plain
        )
    assert sorted(values) == [value for _, value in sorted(zip(holm(values), values, strict=True))]
