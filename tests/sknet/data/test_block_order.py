"""The order by blocks loses, doubles and moves nothing, and each host reads only its own parts."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sknet.data.block_order import BlockOrder
from sknet.data.order import rank_indices


@dataclass(frozen=True)
class Epoch:
    """What decides an epoch's order."""

    sizes: list[int]
    parts: int
    window: int
    batch: int
    seed: int
    epoch: int

    @property
    def order(self) -> BlockOrder:
        return BlockOrder.of(
            self.sizes,
            parts=self.parts,
            window=self.window,
            batch=self.batch,
            seed=self.seed,
            epoch=self.epoch,
        )

    @property
    def num_positions(self) -> int:
        """Number of samples in whole batches."""
        return sum(self.sizes) // self.batch * self.batch

    def samples(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """The samples at positions [start, stop), by default all."""
        return self.order.at(np.arange(start, self.num_positions if stop is None else stop))

    @property
    def owners(self) -> np.ndarray:
        """Number of the shard of each sample."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)


@st.composite
def epochs(draw: st.DrawFn) -> Epoch:
    """Draw epochs with unequal and empty shards, and more parts than shards."""
    sizes = draw(st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(any))
    parts = draw(st.sampled_from([1, 2, 3, 4, 6, 12]))
    return Epoch(
        sizes=sizes,
        parts=parts,
        window=draw(st.integers(1, 60)),
        batch=parts * draw(st.integers(1, 4)),
        seed=draw(st.integers(0, 1 << 62)),
        epoch=draw(st.integers(0, 100)),
    )


@given(epochs())
def test_every_position_has_another_sample_and_only_a_rest_is_left_out(epoch: Epoch) -> None:
    samples, total = epoch.samples(), sum(epoch.sizes)
    assert len(np.unique(samples)) == len(samples)
    assert not len(samples) or 0 <= samples.min() <= samples.max() < total


@given(epochs(), st.data())
def test_any_positions_have_the_samples_that_they_have_among_all(
    epoch: Epoch, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, epoch.num_positions))
    stop = data.draw(st.integers(start, epoch.num_positions))
    assert np.array_equal(epoch.samples(start, stop), epoch.samples()[start:stop])


@given(epochs(), st.data())
def test_a_changed_number_of_ranks_goes_on_with_the_same_samples(
    epoch: Epoch, data: st.DataObject
) -> None:
    steps = epoch.num_positions // epoch.batch
    change = data.draw(st.integers(0, steps))
    worlds = [size for size in range(1, epoch.batch + 1) if epoch.batch % size == 0]
    before, after = data.draw(st.sampled_from(worlds)), data.draw(st.sampled_from(worlds))
    read = []
    for world, first, last in ((before, 0, change), (after, change, steps)):
        part = epoch.samples(first * epoch.batch, last * epoch.batch)
        ranks = [rank_indices(part, epoch.batch, rank, world) for rank in range(world)]
        by_step = [each.reshape(last - first, epoch.batch // world) for each in ranks]
        read.append(np.concatenate(by_step, axis=1).reshape(-1))
    assert np.array_equal(np.concatenate(read), epoch.samples())


@given(epochs(), st.data())
def test_a_host_reads_the_shards_of_its_parts_alone(epoch: Epoch, data: st.DataObject) -> None:
    order = epoch.order
    steps = epoch.num_positions // epoch.batch
    hosts = data.draw(st.sampled_from([n for n in range(1, 13) if epoch.parts % n == 0]))
    start = data.draw(st.integers(0, steps))
    stop = data.draw(st.integers(start, steps))
    samples = epoch.samples(start * epoch.batch, stop * epoch.batch)
    for host in range(hosts):
        own = rank_indices(samples, epoch.batch, host, hosts)
        width = epoch.parts // hosts
        if stop > start:
            needed = order.shards_of(host * width, (host + 1) * width, start, stop)
            assert len(set(needed)) == len(needed)
            assert set(epoch.owners[own]) <= set(needed)
    if steps:
        everything = [
            shard
            for host in range(hosts)
            for shard in order.shards_of(
                host * (epoch.parts // hosts), (host + 1) * (epoch.parts // hosts), 0, steps
            )
        ]
        # A cut between two hosts lies in one shard.
        shared = len(everything) - len(set(everything))
        assert shared <= hosts - 1


@given(epochs(), st.data())
def test_the_parts_of_a_rank_have_all_its_samples(epoch: Epoch, data: st.DataObject) -> None:
    world = data.draw(
        st.sampled_from([size for size in range(1, epoch.batch + 1) if epoch.batch % size == 0])
    )
    rank, order = data.draw(st.integers(0, world - 1)), epoch.order
    first, last = order.parts_of(rank, world)
    of_part, own = epoch.batch // epoch.parts, epoch.batch // world
    positions = np.arange(rank * own, (rank + 1) * own)
    assert {*(positions // of_part).tolist()} == {*range(first, last)}


def test_a_window_is_read_before_the_next_one_begins() -> None:
    epoch = Epoch(sizes=[100] * 20, parts=2, window=250, batch=20, seed=3, epoch=0)
    order = epoch.order
    samples = epoch.samples().reshape(-1, 2, 10)
    for part in range(2):
        lying = np.concatenate([np.arange(100) + order.shards[place] * 100 for place in range(20)])
        places = np.argsort(lying)[samples[:, part].reshape(-1)] - 1000 * part
        windows = places // 250
        assert np.array_equal(windows, np.sort(windows))
        assert set(windows) == {0, 1, 2, 3}
        # Within a window, neighbours lie far from each other.
        assert np.median(np.abs(np.diff(places))) > 30


def test_shards_come_in_the_order_of_need() -> None:
    epoch = Epoch(sizes=[100] * 12, parts=1, window=300, batch=10, seed=3, epoch=0)
    order = epoch.order
    assert order.shards_of(0, 1, 0, 120) == order.shards.tolist()
    assert order.shards_of(0, 1, 30, 60) == order.shards.tolist()[3:6]
    assert order.shards_of(0, 1, 45, 46) == order.shards.tolist()[3:6]
    halves = replace(epoch, parts=2).order
    in_turn = halves.shards.reshape(2, 6).T.reshape(-1)
    assert halves.shards_of(0, 2, 0, 120) == in_turn.tolist()


def test_seeds_and_epochs_have_other_orders() -> None:
    first = Epoch(sizes=[50] * 8, parts=2, window=80, batch=10, seed=1, epoch=0)
    orders = {
        replace(first, **change).samples().tobytes()
        for change in ({}, {"seed": 2}, {"epoch": 1}, {"window": 81}, {"parts": 1})
    }
    assert len(orders) == 5


def test_parts_that_do_not_divide_the_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="a batch of 10 can't be divided among 4 parts"):
        BlockOrder.of([50], parts=4, window=8, batch=10, seed=1, epoch=0)


def test_a_batch_of_a_billion_samples_takes_no_memory_for_the_others() -> None:
    order = BlockOrder.of([100_000] * 10_000, parts=64, window=1 << 20, batch=4096, seed=1, epoch=0)
    samples = order.at(np.arange(500_000_000, 500_004_096))
    assert len(np.unique(samples)) == 4096
