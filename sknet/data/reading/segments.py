"""Training data as a function of where it is read: epoch, step and rank.

An epoch is cut into segments at its checkpoint steps. Order, augmentation, erasing and mixing of a
segment follow from the run and from its place, so that whoever starts at a checkpoint reads the
same bits as whoever came there from the beginning.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sknet.data.order import Indices, order_slice, rank_indices
from sknet.data.reading.mixing import erase, mix, mixes
from sknet.data.reading.pipeline import segment_seed, train_batches
from sknet.data.shards import ShardSet
from sknet.records import Run
from sknet.world import World

# Labels (N,) int32, or shares of classes (N, classes) float32 where the recipe mixes.
TrainBatch = tuple[npt.NDArray[np.float32], npt.NDArray[np.int32] | npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Segment:
    """Steps [start, stop) of an epoch; a checkpoint follows."""

    epoch: int
    start: int
    stop: int
    done: int = 0
    """Its first steps that were done before a stop. They are read all the same, and dropped: the
    augmentation of a segment draws from one stream."""

    @property
    def steps(self) -> range:
        """Still to do, as steps of the epoch."""
        return range(self.start + self.done, self.stop)


def segments_from(run: Run, step: int) -> Iterator[Segment]:
    """The segments still to do after `step` steps."""
    interval = run.recipe.checkpoint_every_steps or run.steps_per_epoch
    for epoch in range(run.recipe.epoch_size):
        cuts = [*range(0, run.steps_per_epoch, interval), run.steps_per_epoch]
        for start, stop in itertools.pairwise(cuts):
            if (ahead := epoch * run.steps_per_epoch + stop - step) > 0:
                yield Segment(epoch, start, stop, max(0, stop - start - ahead))


def batches_of(
    segments: Iterable[Segment],
    run: Run,
    shards: ShardSet,
    world: World,
) -> Iterator[TrainBatch]:
    """Yield the batches that a rank trains on, one segment after the other."""
    for segment in segments:
        yield from segment_batches(segment, run, shards, world)


def segment_indices(
    run: Run, shards: ShardSet, epoch: int, start: int, stop: int, world: World
) -> Indices:
    """Which samples a rank reads in steps [start, stop) of an epoch, batch after batch."""
    order = order_slice(
        shards.num_samples("train"),
        run.recipe.seed,
        epoch,
        start * run.global_batch_size,
        stop * run.global_batch_size,
    )
    return rank_indices(order, run.global_batch_size, world.rank, world.size)


def segment_batches(
    segment: Segment, run: Run, shards: ShardSet, world: World
) -> Iterator[TrainBatch]:
    """A rank's part of the segment's steps, ready for training."""
    recipe, epoch, global_batch = run.recipe, segment.epoch, run.global_batch_size
    batch_size = global_batch // world.size
    batches = train_batches(
        recipe,
        shards,
        segment_indices(run, shards, epoch, segment.start, segment.stop, world),
        batch_size,
        seed=segment_seed(recipe, epoch, segment.start, world.rank),
    )
    for step, (images, labels) in enumerate(batches, segment.start):
        if step not in segment.steps:
            continue
        first = step * global_batch + world.rank * batch_size
        erased = erase(images, recipe, epoch, np.arange(first, first + batch_size))
        if mixes(recipe):
            yield mix(
                erased, labels, len(run.classes), recipe, epoch=epoch, step=step, rank=world.rank
            )
        else:
            yield erased, labels
