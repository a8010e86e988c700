"""Training batches as a function of the run, the epoch, the step and the rank.

An epoch is cut into segments at its checkpoint steps. Order, augmentation, erasing and mixing of a
segment depend on the run, the segment and the rank only. So a run that starts at a checkpoint reads
the same bits as one that came there from the beginning.
"""

import itertools
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from sknet.data.balanced_order import balanced_slice
from sknet.data.order import Indices, derive_seed, order_slice, rank_indices
from sknet.data.reading.batch_operations import (
    Images,
    Labels,
    Pixels,
    Targets,
    erase,
    mix,
    mixes,
    normalise,
)
from sknet.data.reading.pipeline import train_batches
from sknet.data.shards import ShardSet
from sknet.recipe import Recipe
from sknet.records import Run
from sknet.world import World

TrainBatch = tuple[Pixels | Images, Labels | Targets]
"""Images (N, 3, R, R), and labels (N,) or, where the recipe mixes, fractions (N, classes)."""


@dataclass(frozen=True)
class Segment:
    """Steps [start, stop) of an epoch, after which there is a checkpoint."""

    epoch: int
    start: int
    stop: int
    done: int = 0
    """Number of steps at its start that an earlier attempt has done. They are read and dropped,
    because the augmentation of a segment draws from one stream."""

    @property
    def steps(self) -> range:
        """Steps that are still to do, counted from the start of the epoch."""
        return range(self.start + self.done, self.stop)


def segments_from(run: Run, step: int) -> Iterator[Segment]:
    """Yield the segments that are still to do after `step` steps of the run."""
    interval = run.recipe.checkpoint_every_steps or run.steps_per_epoch
    for epoch in range(run.recipe.epoch_size):
        cuts = [*range(0, run.steps_per_epoch, interval), run.steps_per_epoch]
        for start, stop in itertools.pairwise(cuts):
            if (left := epoch * run.steps_per_epoch + stop - step) > 0:
                yield Segment(epoch, start, stop, max(0, stop - start - left))


def batches_of(
    segments: Iterable[Segment], run: Run, shards: ShardSet, world: World
) -> Generator[TrainBatch, None, None]:
    """Yield the batches that a rank trains on, one segment after the other."""
    for segment in segments:
        yield from segment_batches(segment, run, shards, world)


def segment_batches(
    segment: Segment, run: Run, shards: ShardSet, world: World
) -> Iterator[TrainBatch]:
    """Yield the batches that a rank trains on in the steps of a segment that are still to do."""
    recipe, epoch = run.recipe, segment.epoch
    batch_size = run.global_batch_size // world.size
    batches = train_batches(
        recipe,
        shards,
        segment_indices(run, shards, epoch, segment.start, segment.stop, world),
        batch_size,
        seed=_augmentation_seed(run, segment, world.rank),
    )
    for step, (pixels, labels) in enumerate(batches, segment.start):
        if step not in segment.steps:
            continue
        if normalises_on_device(recipe, run.device_target):
            yield pixels, labels
            continue
        images = normalise(pixels, recipe.mean, recipe.std)
        first = step * run.global_batch_size + world.rank * batch_size
        erased = erase(images, recipe, epoch, np.arange(first, first + batch_size))
        if mixes(recipe):
            yield mix(
                erased, labels, len(run.classes), recipe, epoch=epoch, step=step, rank=world.rank
            )
        else:
            yield erased, labels


def normalises_on_device(recipe: Recipe, device_target: str) -> bool:
    """Tell whether batches are pixels, a quarter of the bytes, which the device normalises.

    By default they are on Ascend; on CPU, the thread that reads ahead has time for it. Random
    erasing, mixup and CutMix work on normalised images, hence on the host.
    """
    if recipe.re_prob or mixes(recipe):
        return False
    return recipe.normalise_on == "device" or (
        recipe.normalise_on == "auto" and device_target == "Ascend"
    )


def segment_indices(
    run: Run, shards: ShardSet, epoch: int, start: int, stop: int, world: World
) -> Indices:
    """Return the samples that a rank reads in steps [start, stop) of an epoch, in order."""
    recipe, batch = run.recipe, run.global_batch_size
    first, last = start * batch, stop * batch
    if recipe.sampler == "uniform":
        order = order_slice(shards.num_samples("train"), recipe.seed, epoch, first, last)
    else:
        order = balanced_slice(
            shards.by_class,
            recipe.sampler,
            length=run.steps_per_epoch * batch,
            seed=recipe.seed,
            epoch=epoch,
            start=first,
            stop=last,
        )
    return rank_indices(order, batch, world.rank, world.size)


def _augmentation_seed(run: Run, segment: Segment, rank: int) -> int:
    return derive_seed(run.recipe.seed, segment.epoch, segment.start, rank) & 0x7FFFFFFF
