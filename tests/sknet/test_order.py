"""The order of samples: a permutation fixed by seed and epoch, the same for any world."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sknet.data.order import derive_seed, epoch_order, order_slice, rank_indices

counts = st.integers(1, 3000)
seeds = st.integers(0, 2**32 - 1)
epochs = st.integers(0, 1000)


@given(counts, seeds, epochs)
def test_an_epoch_reads_every_sample_exactly_once(count: int, seed: int, epoch: int) -> None:
    assert sorted(epoch_order(count, seed, epoch).tolist()) == list(range(count))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 65, 256, 257, 1024, 1025])
def test_counts_around_powers_of_two_are_permuted_too(count: int) -> None:
    assert sorted(epoch_order(count, 42, 0).tolist()) == list(range(count))


def test_nothing_is_read_of_no_samples() -> None:
    assert epoch_order(0, 42, 0).tolist() == []


@given(counts, seeds, epochs, st.data())
def test_a_slice_is_that_part_of_the_whole(
    count: int, seed: int, epoch: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, count))
    stop = data.draw(st.integers(start, count))
    whole = epoch_order(count, seed, epoch)
    assert order_slice(count, seed, epoch, start, stop).tolist() == whole[start:stop].tolist()


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (3, 2), (0, 11)])
def test_a_slice_outside_of_the_epoch_is_refused(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match=r"is not within 0:10"):
        order_slice(10, 42, 0, start, stop)


def test_epochs_and_seeds_all_have_orders_of_their_own() -> None:
    orders = [
        tuple(epoch_order(1000, seed, epoch)) for seed in (0, 1, 42, 43) for epoch in range(25)
    ]
    assert len(set(orders)) == 100


def test_positions_are_spread_evenly_over_the_samples() -> None:
    # Mean of the first tenth of an epoch: 499.5 with a standard deviation of 27.4.
    means = [order_slice(1000, 42, epoch, 0, 100).mean() for epoch in range(100)]
    assert abs(np.mean(means) - 499.5) < 4 * 2.74
    assert 27.4 / 2 < np.std(means) < 27.4 * 2


def test_orders_are_pinned() -> None:
    # Another order is another training: every checkpoint in the world would resume wrongly.
    assert epoch_order(10, 42, 0).tolist() == [4, 8, 3, 7, 1, 2, 9, 6, 0, 5]
    assert epoch_order(10, 42, 1).tolist() == [4, 5, 2, 1, 3, 8, 7, 9, 6, 0]
    assert order_slice(10**9, 42, 3, 123456789, 123456794).tolist() == [
        125183435,
        227771799,
        472000820,
        603879645,
        202651389,
    ]
    assert derive_seed(1, 2, 3) == 7702586659592502839


def test_a_slice_of_a_billion_samples_is_computed_alone() -> None:
    # The whole epoch would be 8 GB.
    part = order_slice(10**9, 42, 0, 999_999_000, 10**9)
    assert len(set(part.tolist())) == 1000
    assert part.min() >= 0
    assert part.max() < 10**9


@given(st.integers(1, 500), st.sampled_from([1, 2, 3, 4, 6, 12]), st.integers(1, 3), st.data())
def test_the_ranks_together_read_the_epoch_in_its_order(
    count: int, world: int, factor: int, data: st.DataObject
) -> None:
    global_batch = world * factor
    order = epoch_order(count, 42, 0)
    steps = count // global_batch
    start = data.draw(st.integers(0, steps))
    parts = [rank_indices(order, global_batch, rank, world, start) for rank in range(world)]
    together = np.stack(parts).reshape(world, steps - start, factor).swapaxes(0, 1).reshape(-1)
    assert together.tolist() == order[start * global_batch : steps * global_batch].tolist()


def test_a_world_that_does_not_divide_the_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="global batch 8 can't be divided among 3 ranks"):
        rank_indices(epoch_order(16, 42, 0), 8, 0, 3)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4), st.data())
def test_every_part_of_a_seed_matters(parts: list[int], data: st.DataObject) -> None:
    changed = list(parts)
    place = data.draw(st.integers(0, len(parts) - 1))
    changed[place] += 1
    assert derive_seed(*changed) != derive_seed(*parts)
