"""The order for rare classes: whole in its slices, true to its shares, even within each class."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sknet.data.balanced_order import (
    BLOCK,
    SamplesByClass,
    balanced_slice,
    class_shares,
)
from sknet.data.order import Indices
from sknet.recipe.choices import Sampler

SAMPLERS: tuple[Sampler, ...] = ("balanced", "sqrt")
samplers = st.sampled_from(SAMPLERS)
seeds = st.integers(0, 2**32 - 1)
# Of up to eight classes, in any order of the samples.
label_lists = st.lists(st.integers(0, 7), min_size=1, max_size=120)


def grouped(labels: list[int]) -> SamplesByClass:
    return SamplesByClass.of(np.array(labels, np.int32), 8)


def epoch_of(
    by_class: SamplesByClass, sampler: Sampler, length: int, *, seed: int = 42, epoch: int = 0
) -> Indices:
    return balanced_slice(
        by_class, sampler, length=length, seed=seed, epoch=epoch, start=0, stop=length
    )


def num_reads(by_class: SamplesByClass, sampler: Sampler, length: int, epochs: int) -> Indices:
    """Return how often each sample is read, (epochs, N)."""
    num_samples = len(by_class.samples)
    orders = (epoch_of(by_class, sampler, length, epoch=epoch) for epoch in range(epochs))
    return np.array([np.bincount(order, minlength=num_samples) for order in orders])


@given(label_lists, samplers, seeds, st.integers(0, 1000), st.data())
def test_slice_is_a_part_of_the_whole_order(
    labels: list[int], sampler: Sampler, seed: int, epoch: int, data: st.DataObject
) -> None:
    by_class = grouped(labels)
    length = data.draw(st.integers(1, len(labels)))
    start = data.draw(st.integers(0, length))
    stop = data.draw(st.integers(start, length))
    whole = epoch_of(by_class, sampler, length, seed=seed, epoch=epoch)
    part = balanced_slice(
        by_class, sampler, length=length, seed=seed, epoch=epoch, start=start, stop=stop
    )
    assert part.tolist() == whole[start:stop].tolist()


def test_slice_over_several_blocks_is_a_part_of_the_whole_order() -> None:
    by_class = SamplesByClass.of(np.arange(3 * BLOCK, dtype=np.int32) % 3, 3)
    whole = epoch_of(by_class, "balanced", 3 * BLOCK)
    part = balanced_slice(
        by_class,
        "balanced",
        length=3 * BLOCK,
        seed=42,
        epoch=0,
        start=BLOCK // 2,
        stop=2 * BLOCK + 5,
    )
    assert np.array_equal(part, whole[BLOCK // 2 : 2 * BLOCK + 5])


def test_slice_beyond_the_epoch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"is not within 0:10"):
        balanced_slice(grouped([0, 1]), "balanced", length=10, seed=42, epoch=0, start=5, stop=11)


@given(label_lists, samplers, st.integers(1, 60), st.integers(1, 12))
def test_every_epoch_gives_each_class_its_share_and_all_epochs_together_do(
    labels: list[int], sampler: Sampler, length: int, epochs: int
) -> None:
    by_class = grouped(labels)
    reads = num_reads(by_class, sampler, length, epochs)
    by_label = np.array([reads[:, np.array(labels) == label].sum(1) for label in range(8)]).T
    share = class_shares(by_class.counts, sampler) * length
    assert (np.abs(by_label - share) < 1).all()
    # Within so few epochs; offsets drawn at random would be off by more.
    assert (np.abs(by_label.sum(0) - epochs * share) < 2).all()


@given(label_lists, samplers, st.integers(1, 60), st.integers(1, 12))
def test_within_a_class_all_samples_are_read_equally_often(
    labels: list[int], sampler: Sampler, length: int, epochs: int
) -> None:
    reads = num_reads(grouped(labels), sampler, length, epochs).cumsum(0)
    for label in set(labels):
        own = reads[:, np.array(labels) == label]
        assert (own.max(1) - own.min(1) <= 1).all()


def test_shares_are_equal_or_those_of_square_roots() -> None:
    counts = np.array([400, 100, 25, 0])
    assert class_shares(counts, "uniform").tolist() == [400 / 525, 100 / 525, 25 / 525, 0]
    assert class_shares(counts, "balanced").tolist() == [1 / 3, 1 / 3, 1 / 3, 0]
    assert class_shares(counts, "sqrt").tolist() == [20 / 35, 10 / 35, 5 / 35, 0]


def test_each_epoch_and_seed_has_another_order_of_positions_and_of_samples() -> None:
    labels = np.repeat([0, 1], 200).astype(np.int32)
    by_class = SamplesByClass.of(labels, 2)
    orders = [
        epoch_of(by_class, "balanced", 400, seed=seed, epoch=epoch)
        for seed in (0, 1)
        for epoch in (0, 1, 2)
    ]
    assert len({tuple(labels[order]) for order in orders}) == len(orders)
    # In a class, too: each epoch reads all of its 200 samples here.
    assert len({tuple(order[labels[order] == 0]) for order in orders}) == len(orders)


def test_order_is_that_of_all_earlier_versions() -> None:
    # With another order, runs would resume from their checkpoints with other samples.
    by_class = grouped([0, 0, 0, 0, 0, 0, 0, 1, 1, 2])
    orders = [
        epoch_of(by_class, sampler, 10, epoch=epoch).tolist()
        for sampler in SAMPLERS
        for epoch in (0, 1)
    ]
    assert orders == [
        [1, 9, 7, 6, 7, 3, 4, 9, 9, 8],
        [7, 5, 8, 9, 9, 7, 0, 8, 9, 2],
        [1, 7, 2, 6, 8, 3, 4, 7, 9, 5],
        [8, 0, 5, 9, 9, 8, 4, 6, 7, 0],
    ]


def test_batches_mix_classes_as_if_each_were_drawn_by_chance() -> None:
    """Count one of 10 classes, of 20 to 2,000 samples, in batches of 50."""
    counts = np.geomspace(20, 2000, 10).astype(int)
    labels = np.repeat(np.arange(10), counts).astype(np.int32)
    by_class = SamplesByClass.of(labels, 10)
    orders = [epoch_of(by_class, "balanced", 5000, epoch=epoch) for epoch in range(40)]
    for label in (0, 9):
        found = (labels[orders] == label).reshape(-1, 50).sum(1)
        assert found.mean() == 5
        # The hypergeometric deviation, as for the uniform order.
        assert found.std() == pytest.approx(np.sqrt(5 * 0.9 * 4950 / 4999), rel=0.06)


def test_a_step_of_millions_of_samples_is_computed_alone_and_in_little_memory() -> None:
    counts = np.geomspace(10, 30_000, 1000).astype(np.int64)
    by_class = SamplesByClass.of(np.repeat(np.arange(1000, dtype=np.int32), counts), 1000)
    length = len(by_class.samples)
    assert length > 3_500_000
    tracemalloc.start()
    part = balanced_slice(
        by_class, "sqrt", length=length, seed=1, epoch=99, start=length - 256, stop=length
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(part) == 256
    assert peak < 2 << 20
