"""A sample's random numbers depend on its position alone, and are uniform."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sknet.data.reading.draws import draws

SEEDS = st.integers(0, 1 << 63)


@given(SEEDS, st.integers(0, 500), st.integers(1, 9), st.data())
def test_a_slice_has_the_numbers_of_the_whole(
    seed: int, epoch: int, count: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, 1 << 40))
    size = data.draw(st.integers(1, 20))
    whole = draws("crop", seed, epoch, start, start + size, count)
    assert whole.shape == (size, count)
    cut = data.draw(st.integers(0, size))
    parts = [
        draws("crop", seed, epoch, start, start + cut, count),
        draws("crop", seed, epoch, start + cut, start + size, count),
    ]
    assert np.array_equal(np.concatenate(parts), whole)


def test_stream_seed_epoch_and_position_all_change_the_numbers() -> None:
    arguments = [("a", 1, 0, 0), ("b", 1, 0, 0), ("a", 2, 0, 0), ("a", 1, 1, 0), ("a", 1, 0, 1)]
    drawn = {
        draws(stream, seed, epoch, first, first + 1, 4).tobytes()
        for stream, seed, epoch, first in arguments
    }
    assert len(drawn) == len(arguments)


@pytest.mark.parametrize("count", [1, 4, 24])
def test_numbers_are_uniform_and_those_of_neighbours_independent(count: int) -> None:
    numbers = draws("crop", 42, 0, 0, 20_000, count)
    assert 0 <= numbers.min() < numbers.max() < 1
    for column in numbers.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-4
        assert abs(np.corrcoef(column[1:], column[:-1])[0, 1]) < 0.03


def test_no_numbers_are_drawn_where_none_are_needed() -> None:
    assert draws("crop", 1, 0, 5, 9, 0).shape == (4, 0)
