"""The order of samples: a permutation fixed by seed and epoch, the same for any world size."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sknet.data.order import derive_seed, epoch_order, order_slice, rank_indices

counts = st.integers(1, 3000)
seeds = st.integers(0, 2**32 - 1)
epochs = st.integers(0, 1000)


@given(counts, seeds, epochs)
def test_epoch_reads_every_sample_exactly_once(count: int, seed: int, epoch: int) -> None:
    assert sorted(epoch_order(count, seed, epoch).tolist()) == list(range(count))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 65, 256, 257, 1024, 1025])
def test_counts_around_powers_of_two_are_permuted_too(count: int) -> None:
    assert sorted(epoch_order(count, 42, 0).tolist()) == list(range(count))


def test_order_of_no_samples_is_empty() -> None:
    assert epoch_order(0, 42, 0).tolist() == []


@given(counts, seeds, epochs, st.data())
def test_slice_is_a_part_of_the_whole_order(
    count: int, seed: int, epoch: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, count))
    stop = data.draw(st.integers(start, count))
    whole = epoch_order(count, seed, epoch)
    assert order_slice(count, seed, epoch, start, stop).tolist() == whole[start:stop].tolist()


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (3, 2), (0, 11)])
def test_slice_beyond_the_epoch_is_refused(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match=r"is not within 0:10"):
        order_slice(10, 42, 0, start, stop)


def test_each_epoch_and_seed_has_another_order() -> None:
    orders = [
        tuple(epoch_order(1000, seed, epoch)) for seed in (0, 1, 42, 43) for epoch in range(25)
    ]
    assert len(set(orders)) == 100


def test_positions_are_spread_evenly_over_the_samples() -> None:
    # Mean of the first tenth of an epoch: 499.5 with a standard deviation of 27.4.
    means = [order_slice(1000, 42, epoch, 0, 100).mean() for epoch in range(100)]
    assert abs(np.mean(means) - 499.5) < 4 * 2.74
    assert 27.4 / 2 < np.std(means) < 27.4 * 2


def test_orders_are_those_of_all_earlier_versions() -> None:
    # With another order, runs would resume from their checkpoints with other samples.
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


def test_slice_of_a_billion_samples_is_computed_alone() -> None:
    # The whole epoch would be 8 GB.
    part = order_slice(10**9, 42, 0, 999_999_000, 10**9)
    assert len(set(part.tolist())) == 1000
    assert part.min() >= 0
    assert part.max() < 10**9


@given(st.integers(1, 500), st.sampled_from([1, 2, 3, 4, 6, 12]), st.integers(1, 3), st.data())
def test_ranks_together_read_the_epoch_in_order(
    count: int, world: int, factor: int, data: st.DataObject
) -> None:
    global_batch = world * factor
    order = epoch_order(count, 42, 0)
    steps = count // global_batch
    start = data.draw(st.integers(0, steps))
    parts = [rank_indices(order, global_batch, rank, world, start) for rank in range(world)]
    together = np.stack(parts).reshape(world, steps - start, factor).swapaxes(0, 1).reshape(-1)
    assert together.tolist() == order[start * global_batch : steps * global_batch].tolist()


def test_world_size_that_does_not_divide_the_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="global batch 8 can't be divided among 3 ranks"):
        rank_indices(epoch_order(16, 42, 0), 8, 0, 3)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4), st.data())
def test_derived_seed_depends_on_each_part(parts: list[int], data: st.DataObject) -> None:
    changed = list(parts)
    changed[data.draw(st.integers(0, len(parts) - 1))] += 1
    assert derive_seed(*changed) != derive_seed(*parts)


@given(
    st.integers(13, 600),
    st.lists(st.tuples(st.sampled_from([1, 2, 3, 4, 6, 12]), st.integers(1, 9)), min_size=1),
)
def test_changing_the_world_size_loses_repeats_and_moves_no_sample(
    count: int, legs: list[tuple[int, int]]
) -> None:
    global_batch = 12
    order = epoch_order(count, 42, 0)
    steps = count // global_batch
    read: list[int] = []
    step = 0
    for world, length in [*legs, (1, steps)]:
        stop = min(step + length, steps)
        ranks = [
            rank_indices(order[: stop * global_batch], global_batch, rank, world, step)
            for rank in range(world)
        ]
        for at in range(stop - step):
            size = global_batch // world
            read += [i for part in ranks for i in part[at * size : (at + 1) * size].tolist()]
        step = stop
    assert read == order[: steps * global_batch].tolist()


def chi_square(observed: np.ndarray, expected: float) -> float:
    return float(((observed - expected) ** 2 / expected).sum())


def test_every_sample_is_in_every_part_of_an_epoch_equally_often() -> None:
    """Compare with numpy's shuffle: chi-square over 10 x 10 cells of 2,000 epochs."""
    count, epochs = 1000, 2000
    ours, numpys = np.zeros((10, 10)), np.zeros((10, 10))
    rng = np.random.default_rng(0)
    parts = np.arange(count) * 10 // count
    for epoch in range(epochs):
        for table, order in (
            (ours, epoch_order(count, 1, epoch)),
            (numpys, rng.permutation(count)),
        ):
            np.add.at(table, (parts, order * 10 // count), 1)
    expected = count * epochs / 100
    # 81 degrees of freedom; 99.99 % of uniform tables lie below 138. Without replacement within an
    # epoch, the counts vary a little less.
    assert chi_square(numpys, expected) < 138
    assert chi_square(ours, expected) < 138


def test_positions_in_successive_epochs_and_of_neighbours_are_not_correlated() -> None:
    count, epochs = 2048, 200
    positions = np.array([np.argsort(epoch_order(count, 3, epoch)) for epoch in range(epochs)])
    between_epochs = [
        np.corrcoef(positions[epoch], positions[epoch + 1])[0, 1] for epoch in range(epochs - 1)
    ]
    between_samples = [np.corrcoef(row[:-1], row[1:])[0, 1] for row in positions]
    for found in (between_epochs, between_samples):
        # Of uniform orders: mean 0, deviation 1 / sqrt(count), here the mean of 200.
        assert abs(np.mean(found)) < 4 / np.sqrt(count * epochs)
        assert np.std(found) == pytest.approx(1 / np.sqrt(count), rel=0.2)


def test_batches_mix_classes_as_with_numpys_shuffle() -> None:
    """Count one of 10 classes, in sorted order as folders give them, in batches of 50."""
    labels = np.repeat(np.arange(10), 500)
    rng = np.random.default_rng(0)
    ours = [labels[epoch_order(5000, 5, epoch)].reshape(-1, 50) == 0 for epoch in range(40)]
    numpys = [labels[rng.permutation(5000)].reshape(-1, 50) == 0 for _ in range(40)]
    for batches in (ours, numpys):
        counts = np.concatenate(batches).sum(1)
        assert counts.mean() == 5  # each epoch holds every sample once
        # The hypergeometric deviation.
        assert counts.std() == pytest.approx(np.sqrt(5 * 0.9 * 4950 / 4999), rel=0.04)


def test_long_slice_of_a_billion_samples_needs_little_memory() -> None:
    """Compute 10,000 steps of 256 samples: 2.56 million of a billion."""
    tracemalloc.start()
    part = order_slice(10**9, 42, 0, 5 * 10**8, 5 * 10**8 + 2_560_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(part) == 2_560_000
    assert peak < 100 << 20
