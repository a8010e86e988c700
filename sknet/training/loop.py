"""The training loop: step after step, with what happens between them.

An epoch is cut into segments at its checkpoint steps. Order and augmentation of a segment follow
from (seed, epoch, step), so a run that resumes at any checkpoint computes the same bits as one
that was never interrupted.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass

import numpy as np
from mindspore import Tensor, nn

from sknet.data.reading.pipeline import sample_keys
from sknet.data.reading.segments import TrainBatch, batches_of, segment_indices, segments_from
from sknet.data.reading.threads import read_ahead
from sknet.data.shards import ShardSet
from sknet.errors import NonFiniteLossError, StoppedError
from sknet.evaluation.predicting import evaluate
from sknet.records import Checkpoint, Evaluation, Layout, Run
from sknet.training import checkpoint
from sknet.training.checkpoint import Saver, Snapshot, checkpoint_name, parameters_of
from sknet.training.compile_cache import compile_cache
from sknet.training.metrics import Progress
from sknet.training.step import SynchroniseStatistics, TrainStep
from sknet.training.stopping import StopRequest
from sknet.training.watchdog import Watchdog
from sknet.world import World

# The others of the batch follow from the step.
KEYS_SHOWN = 16


def divergence(
    what: str, step: int, rate: float, run: Run, shards: ShardSet, world: World
) -> NonFiniteLossError:
    """The error of one rank for step 1 … total_steps, with the keys of the samples it read there.

    `what` is the message's beginning, `rate` the learning rate of the step.
    """
    epoch, position = divmod(step - 1, run.steps_per_epoch)
    indices = segment_indices(run, shards, epoch, position, position + 1, world)
    keys = sample_keys(shards, "train", indices[:KEYS_SHOWN])
    more = len(indices) - len(keys)
    return NonFiniteLossError(
        f"{what} step {step} (epoch {epoch + 1}, learning rate {rate:.6g}): lower lr or lengthen "
        f"the warm-up; samples of rank {world.rank}: {', '.join(keys)}"
        f"{f' and {more} more' if more else ''}"
    )


# Batches of this rank, ready for their step; MindSpore's pipeline holds more before them.
BATCHES_AHEAD = 2


@dataclass(frozen=True)
class Network:
    """What is trained, as the loop finds it: fresh or restored."""

    model: nn.Cell
    step_cell: TrainStep
    rates: list[float]
    """Learning rate of each step."""


class Loop:
    """One rank's steps of a run, from any step to the last."""

    def __init__(
        self,
        run: Run,
        shards: ShardSet,
        world: World,
        *,
        network: Network,
        layouts: tuple[Layout, ...],
        evaluations: tuple[tuple[int, Evaluation], ...],
        progress: Progress,
        saver: Saver,
        watchdog: Watchdog,
        stop: StopRequest,
        say: Callable[[str], None],
    ) -> None:
        self._run, self._shards, self._world = run, shards, world
        self._network, self._layouts, self._evaluations = network, layouts, evaluations
        self._progress, self._saver, self._watchdog = progress, saver, watchdog
        self._stop, self._say = stop, say
        self._synchronise = (
            SynchroniseStatistics(network.step_cell, world.size) if world.size > 1 else None
        )
        self._checkpoint_seconds = 0.0

    def train(self, start: int) -> None:
        """Train all steps after `start`, the last checkpoint included.

        Raises NonFiniteLossError, StoppedError and CheckpointError.
        """
        run, world = self._run, self._world
        batches = batches_of(segments_from(run, start), run, self._shards, world)
        with closing(read_ahead(batches, BATCHES_AHEAD)) as ahead:
            # One graph: the others, of evaluation and synchronisation, compile quickly.
            first: AbstractContextManager[None] = compile_cache(run, world)
            for segment in segments_from(run, start):
                self._network.step_cell.set_train(True)
                for position in segment.steps:
                    step = segment.epoch * run.steps_per_epoch + position + 1
                    if position == 0:
                        self._progress.begin_epoch()
                    with first:
                        self._train_step(step, ahead)
                    first = nullcontext()
                    stopping = step < run.total_steps and self._is_stopping()
                    if stopping or position + 1 == segment.stop:
                        with self._watchdog.paused():
                            self._end_segment(
                                step, whole=position + 1 == segment.stop, stopping=stopping
                            )
                    if stopping:
                        raise StoppedError(
                            f"after step {step} of {run.total_steps}, with checkpoint "
                            f"{checkpoint_name(step)}: start the same command again to go on"
                        )

    def _train_step(self, step: int, batches: Iterator[TrainBatch]) -> None:
        began = time.monotonic()
        images, labels = next(batches)
        arrived = time.monotonic()
        loss = float(self._network.step_cell(Tensor(images), Tensor(labels)).asnumpy())
        done = time.monotonic()
        if not math.isfinite(loss):
            raise self._divergence(f"the loss is {loss} at", step)
        self._progress.step_done(step, loss, wait=arrived - began, compute=done - arrived)
        self._watchdog.step_done()

    def _is_stopping(self) -> bool:
        """Whether any rank was asked to stop: they all ask after the same step."""
        return self._world.sum(float(self._stop.signal is not None)) > 0

    def _end_segment(self, step: int, *, whole: bool, stopping: bool) -> None:
        """Evaluate and save as planned; a segment that isn't whole is only saved, as it is."""
        run, world, step_cell = self._run, self._world, self._network.step_cell
        began = time.monotonic()
        if whole and self._synchronise:
            self._synchronise()
        own = None if whole or world.size == 1 else checkpoint.gather(step_cell)
        snapshot = Snapshot(parameters_of(step_cell), own)
        self._refuse_non_finite(snapshot, step)
        self._checkpoint_seconds += time.monotonic() - began
        # Before the checkpoint: a run that resumes from it would never write these lines.
        if step % run.steps_per_epoch == 0:
            self._progress.epoch_done(step, self._evaluate(step // run.steps_per_epoch))
        last = stopping or step == run.total_steps
        if step == run.total_steps:
            self._progress.training_done(self._checkpoint_seconds)
        began = time.monotonic()
        if world.rank == 0:
            save = self._saver.save_last if last else self._saver.save
            save(snapshot, self._state(step))
        self._checkpoint_seconds += time.monotonic() - began
        if last:
            # msrun ends the ranks that are left when one leaves: all wait for rank 0's save.
            world.sum(0.0)

    def _refuse_non_finite(self, snapshot: Snapshot, step: int) -> None:
        """The loss tells of weights one step late: too late for a checkpoint."""
        for name, values in snapshot.parameters.items():
            if not np.isfinite(values).all():
                raise self._divergence(f"{name} has non-finite values after", step)

    def _divergence(self, what: str, step: int) -> NonFiniteLossError:
        rate = self._network.rates[step - 1]
        return divergence(what, step, rate, self._run, self._shards, self._world)

    def _evaluate(self, epochs_done: int) -> Evaluation | None:
        run, recipe = self._run, self._run.recipe
        if epochs_done % recipe.val_interval and epochs_done != recipe.epoch_size:
            return None
        evaluation = evaluate(
            self._network.step_cell.evaluated(),
            recipe,
            self._shards,
            batch_size=run.global_batch_size // self._world.size,
            world=self._world,
        )
        self._evaluations = (*self._evaluations, (epochs_done, evaluation))
        self._say(
            f"epoch {epochs_done}/{recipe.epoch_size} accuracy@1 {evaluation.accuracy_top1:.2%} "
            f"({evaluation.correct_top1}/{evaluation.seen})"
        )
        return evaluation

    def _state(self, step: int) -> Checkpoint:
        run = self._run
        # The first of equals.
        best = max(self._evaluations, key=lambda entry: entry[1].correct_top1, default=None)
        return Checkpoint(
            run=run,
            layouts=self._layouts,
            step=step,
            epoch=step // run.steps_per_epoch,
            samples_seen=step * run.global_batch_size,
            num_params=sum(p.size for p in self._network.model.trainable_params()),
            best_top1=best[1].correct_top1 if best else None,
            best_step=best[0] * run.steps_per_epoch if best else None,
            evaluations=self._evaluations,
            files=(),
        )
