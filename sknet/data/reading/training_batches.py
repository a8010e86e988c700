"""Training batches as a function of the run, the step and the rank.

What a sample becomes follows from (seed, epoch, position in the epoch), and how a step is mixed
from (seed, epoch, step). So the tensors of a step are the same on any number of ranks and threads,
and a run that starts at any step reads the same bits as one that came there from the beginning.
"""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import cast

import numpy as np

from sknet.data.balanced_order import balanced_slice
from sknet.data.block_order import BlockOrder
from sknet.data.order import Indices, order_slice, rank_indices
from sknet.data.reading.batch_operations import Images, Labels, Pixels, Targets, erase, mix
from sknet.data.reading.pipeline import encoded_samples, explained
from sknet.data.reading.threads import usable_threads
from sknet.data.reading.training_images import Normalisation, SampleDraws, TrainingImages
from sknet.data.shards import ShardSet
from sknet.recipe import Recipe
from sknet.records import Run
from sknet.world import World

TrainBatch = tuple[Pixels | Images, Labels | Targets]
"""Images (N, 3, R, R), and labels (N,) or, where the recipe mixes, fractions (N, classes)."""

MAX_SAMPLES_OPENED = 1 << 16
"""Samples of a rank for which MindSpore's reader is opened at once: it makes a list of them."""

WINDOWS_AHEAD = 2
"""Windows whose shards are announced before they are needed, where shards come on demand."""

_BATCHES_AT_WORK = 2  # while one is finished, no thread waits for the next
_TASKS_PER_THREAD = 4  # parts of a batch, so that no thread waits for a slow image of another one


def rank_samples(
    run: Run, shards: ShardSet, epoch: int, start: int, stop: int, world: World
) -> Indices:
    """Return the samples that a rank reads in steps [start, stop) of an epoch, in order."""
    recipe, batch = run.recipe, run.global_batch_size
    first, last = start * batch, stop * batch
    if recipe.shuffle == "blocks":
        own = rank_indices(np.arange(first, last), batch, world.rank, world.size)
        return block_order(run, shards, epoch).at(own)
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


def block_order(run: Run, shards: ShardSet, epoch: int) -> BlockOrder:
    """Return the order by blocks of an epoch of a run."""
    return BlockOrder.of(
        [file.num_samples for file in shards.record.files_of("train")],
        parts=run.recipe.shuffle_parts,
        window=run.recipe.shuffle_window,
        batch=run.global_batch_size,
        seed=run.recipe.seed,
        epoch=epoch,
    )


def normalises_on_device(recipe: Recipe, device_target: str) -> bool:
    """Tell whether batches are pixels, a quarter of the bytes, which the device normalises.

    By default they are on Ascend; on CPU, the threads that read have time for it. Random erasing,
    mixup and CutMix work on normalised images, hence on the host.
    """
    if recipe.re_prob or recipe.mixes:
        return False
    return recipe.normalise_on == "device" or (
        recipe.normalise_on == "auto" and device_target == "Ascend"
    )


@dataclass(frozen=True)
class _Batch:
    """The part of a step that a rank reads."""

    epoch: int
    step: int
    """From the start of the epoch."""
    first: int
    """Position of its first sample in the epoch."""
    shards: ShardSet
    """The shards that are open."""
    indices: Indices
    """Its samples, by their number among those of the open shards."""
    contents: list[bytes]
    """Encoded images."""
    labels: Labels


@dataclass(frozen=True)
class _AtWork:
    """A batch whose images are being made."""

    batch: _Batch
    images: Pixels | Images
    parts: list[Future[None]]


class TrainingBatches:
    """The batches that one rank trains on, from any step to the last."""

    def __init__(self, run: Run, shards: ShardSet, world: World, num_workers: int) -> None:
        """Plan the batches.

        Args:
            run: The run.
            shards: Its data.
            world: The rank, and the number of ranks that share each step.
            num_workers: Threads that decode and augment, if the machine has as many processors.
        """
        self._run, self._shards, self._world = run, shards, world
        self._threads = usable_threads(num_workers)
        self._images = TrainingImages(run.recipe)
        self._normalise: Normalisation | None = None
        if not normalises_on_device(run.recipe, run.device_target):
            self._normalise = Normalisation(run.recipe)
        self._size = run.global_batch_size // world.size

    def read_with(self, step: int) -> int:
        """Return the last step whose samples have been read when the batch of a step is there.

        Args:
            step: The step of the run, the first of which is 0.
        """
        return min(step + _BATCHES_AT_WORK, self._run.total_steps) - 1

    def after(self, step: int) -> Generator[TrainBatch, None, None]:
        """Yield the batches of all steps after the first `step` ones of the run.

        Raises:
            SampleError: A sample doesn't decode.
            MemoryRefusedError: Memory was refused.
        """
        at_work: deque[_AtWork] = deque()
        with (
            ThreadPoolExecutor(self._threads, thread_name_prefix="training-images") as pool,
            closing(self._read(step)) as batches,
        ):
            try:
                for batch in batches:
                    at_work.append(self._begin(batch, pool))
                    if len(at_work) == _BATCHES_AT_WORK:
                        yield self._finish(at_work.popleft())
                while at_work:
                    yield self._finish(at_work.popleft())
            finally:
                pool.shutdown(cancel_futures=True)

    def _read(self, step: int) -> Generator[_Batch, None, None]:
        """Yield the encoded images of all steps after the first `step` ones."""
        run = self._run
        for epoch in range(step // run.steps_per_epoch, run.recipe.epoch_size):
            begin = max(0, step - epoch * run.steps_per_epoch)
            while begin < run.steps_per_epoch:
                shards, indices = self._next(epoch, begin)
                samples = encoded_samples(shards, "train", indices, self._threads)
                with closing(samples):
                    yield from self._in_batches(samples, shards, indices, epoch, begin)
                begin += len(indices) // self._size

    def _next(self, epoch: int, begin: int) -> tuple[ShardSet, Indices]:
        """Return the samples that are read next, and the shards that are opened for them.

        Args:
            epoch: The epoch.
            begin: The first step, from the start of the epoch.
        """
        run, shards, world = self._run, self._shards, self._world
        num_steps = max(1, MAX_SAMPLES_OPENED // self._size)
        if run.recipe.shuffle == "full":
            stop = min(begin + num_steps, run.steps_per_epoch)
            return shards, rank_samples(run, shards, epoch, begin, stop, world)
        order = block_order(run, shards, epoch)
        # Up to the end of the window, so that the shards of few windows are open.
        stop = min(begin + num_steps, self._end_of_window(order, begin))
        before = epoch * run.steps_per_epoch
        following = self._following(order, epoch, stop)
        shards.announce("train", following, (before + begin, before + stop))
        return shards.of_samples("train", rank_samples(run, shards, epoch, begin, stop, world))

    def _end_of_window(self, order: BlockOrder, step: int) -> int:
        """Return the step of an epoch after the last one of the window in which a step lies."""
        window = order.steps_of_window()
        return min((step // window + 1) * window, self._run.steps_per_epoch)

    def _following(self, order: BlockOrder, epoch: int, step: int) -> list[int]:
        """Return the shards of the next windows, in the order of need.

        Args:
            order: The order of the epoch.
            epoch: The epoch.
            step: The step of the epoch with which these windows begin.
        """
        run, world = self._run, self._world
        numbers: dict[int, None] = {}
        for _ in range(WINDOWS_AHEAD):
            if step == run.steps_per_epoch:
                epoch, step = epoch + 1, 0
                if epoch == run.recipe.epoch_size:
                    break
                order = block_order(run, self._shards, epoch)
            stop = self._end_of_window(order, step)
            parts = order.parts_of(world.rank, world.size)
            numbers |= dict.fromkeys(order.shards_of(*parts, step, stop))
            step = stop
        return [*numbers]

    def _in_batches(
        self,
        samples: Iterator[tuple[bytes, int]],
        shards: ShardSet,
        indices: Indices,
        epoch: int,
        start: int,
    ) -> Iterator[_Batch]:
        for number, part in enumerate(indices.reshape(-1, self._size)):
            read = list(islice(samples, self._size))
            if len(read) < self._size:
                raise RuntimeError(f"MindRecord left samples out of {shards.paths('train')}")
            contents, labels = zip(*read, strict=True)
            step = start + number
            yield _Batch(
                epoch=epoch,
                step=step,
                first=step * self._run.global_batch_size + self._world.rank * self._size,
                shards=shards,
                indices=part,
                contents=list(contents),
                labels=np.array(labels, np.int32),
            )

    def _begin(self, batch: _Batch, pool: ThreadPoolExecutor) -> _AtWork:
        side, size = self._run.recipe.image_resize, self._size
        images: Pixels | Images
        if self._normalise:
            images = np.empty((size, 3, side, side), np.float32)
        else:
            images = np.empty((size, 3, side, side), np.uint8)
        draws = self._images.draws(batch.epoch, batch.first, batch.first + size)
        rows = np.array_split(np.arange(size), min(size, _TASKS_PER_THREAD * self._threads))
        parts = [pool.submit(self._make, batch, draws, each.tolist(), images) for each in rows]
        return _AtWork(batch, images, parts)

    def _make(
        self, batch: _Batch, draws: SampleDraws, rows: list[int], images: Pixels | Images
    ) -> None:
        """Make some of a batch's images."""
        for row in rows:
            try:
                pixels = self._images.pixels(batch.contents[row], draws, row)
            except Exception as error:
                index = batch.indices[row : row + 1]
                if (cause := explained(error, batch.shards, "train", index)) is error:
                    raise
                raise cause from error
            if self._normalise:
                self._normalise(pixels, images[row])
            else:
                images[row] = pixels.transpose(2, 0, 1)

    def _finish(self, at_work: _AtWork) -> TrainBatch:
        """Wait for a batch, then erase and mix."""
        for part in at_work.parts:
            part.result()
        batch, recipe = at_work.batch, self._run.recipe
        if at_work.images.dtype == np.uint8:
            return at_work.images, batch.labels
        positions = np.arange(batch.first, batch.first + self._size)
        images = erase(cast("Images", at_work.images), recipe, batch.epoch, positions)
        if not recipe.mixes:
            return images, batch.labels
        num_classes = len(self._run.classes)
        return mix(images, batch.labels, num_classes, recipe, epoch=batch.epoch, step=batch.step)
