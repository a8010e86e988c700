"""The training loop: one step after the other, and what happens between them.

A step's loss is read when the next step has begun, so that the device always has work. Before a
checkpoint, all losses have been read. With the loss comes whether a rank was asked to stop.

Where shards come on demand, all ranks of a host begin a step when all of them have its shards. In
the middle of a step, a rank that waits for another one could neither say why nor keep itself from
being taken for one that hangs.

The order of the samples, their augmentation and the state of the optimizer follow from the step. So
a run that resumes at any checkpoint computes the same bits as one that was never interrupted.
"""

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass

from mindspore import Tensor

from sknet.data.reading.pipeline import sample_keys
from sknet.data.reading.threads import BATCHES_AHEAD, read_ahead
from sknet.data.reading.training_batches import TrainingBatches, rank_samples
from sknet.data.shards import ShardSet
from sknet.errors import NonFiniteLossError, StoppedError
from sknet.evaluation.predicting import evaluate
from sknet.records import Checkpoint, Evaluation, Layout, Run
from sknet.training.checkpoint import Saver, Snapshot, checkpoint_name, parameters_of
from sknet.training.compile_cache import compile_cache
from sknet.training.inputs import InputMaker, MicroBatch
from sknet.training.metrics import TrainingMetrics
from sknet.training.step import SynchroniseStatistics, TrainStep, gather_statistics
from sknet.training.stopping import StopRequest
from sknet.training.watchdog import Watchdog
from sknet.world import World

# Samples that the error of a diverged training names; the rest of the batch follows from the step.
KEYS_SHOWN = 16


@dataclass(frozen=True)
class Start:
    """The state from which a loop starts: new, or restored from a checkpoint."""

    step_cell: TrainStep
    rates: list[float]
    """The learning rate of each step of the run."""
    step: int
    """Steps done before."""
    layouts: tuple[Layout, ...]
    """Numbers of ranks so far, up to that of this start."""
    evaluations: tuple[tuple[int, Evaluation], ...] = ()
    """(epochs done, evaluation), in order."""


@dataclass(frozen=True)
class _RunningStep:
    """A step that the device may still be computing."""

    step: int
    """Steps done, including this one."""
    result: Tensor
    """What `TrainStep` returned."""
    began: float
    """When the host began with it, in seconds of the monotonic clock."""
    wait: float
    """Seconds of waiting for its data."""


class Loop:
    """The steps of a run on one rank, from any step to the last."""

    def __init__(
        self,
        run: Run,
        shards: ShardSet,
        world: World,
        start: Start,
        *,
        metrics: TrainingMetrics,
        saver: Saver,
        watchdog: Watchdog,
        stop: StopRequest,
        num_workers: int,
    ) -> None:
        self._run, self._shards, self._world = run, shards, world
        self._batches = TrainingBatches(run, shards, world, num_workers)
        self._num_workers = num_workers
        self._start, self._step_cell = start, start.step_cell
        self._evaluations = start.evaluations
        self._metrics, self._saver, self._watchdog, self._stop = metrics, saver, watchdog, stop
        self._synchronise = SynchroniseStatistics(self._step_cell) if world.size > 1 else None
        self._checkpoint_seconds = 0.0

    def train(self) -> None:
        """Take all remaining steps, including the last checkpoint.

        Raises:
            NonFiniteLossError: The loss or a weight is NaN or infinite.
            StoppedError: A rank was asked to stop; all ranks did so after the same step.
            CheckpointError: The last checkpoint could not be saved.
        """
        run, start = self._run, self._start.step
        with ExitStack() as stack:
            inputs = read_ahead(self._inputs(), BATCHES_AHEAD, self._while_waiting)
            ahead = stack.enter_context(closing(inputs))
            # Only the graph of the step is cached. Those of evaluation and synchronisation compile
            # quickly.
            first: AbstractContextManager[None] = compile_cache(run, self._world)
            running: _RunningStep | None = None
            for step in range(start + 1, run.total_steps + 1):
                if running is None:
                    self._step_cell.set_train(True)
                if (step - 1) % run.steps_per_epoch == 0:
                    self._metrics.begin_epoch()
                with first:
                    following = self._begin_step(step, ahead)
                first = nullcontext()
                if step == start + 1:
                    stack.enter_context(self._stop.listening())
                # The device has its next step while the host waits for the one before.
                stopping = running is not None and self._end_step(running, following.began)
                running = following
                planned = is_checkpoint_step(run, step)
                if not (stopping or planned or self._asked_alone()):
                    continue
                stopping |= self._end_step(running) or self._asked_alone()
                stopping &= step < run.total_steps
                running = None
                with self._watchdog.paused():
                    self._checkpoint(step, planned=planned, stopping=stopping)
                if stopping:
                    raise StoppedError(
                        f"after step {step} of {run.total_steps}, with checkpoint "
                        f"{checkpoint_name(step)}: start the same command again to resume"
                    )

    def _inputs(self) -> Iterator[tuple[MicroBatch, ...]]:
        """Yield the tensors of all remaining steps; the thread that reads ahead makes them."""
        start = self._start.step
        make = InputMaker(self._step_cell.network, self._run.recipe, self._world)
        with closing(self._batches.after(start)) as batches:
            for step, batch in enumerate(batches, start):
                yield make(batch, step)

    def _begin_step(self, step: int, inputs: Iterator[tuple[MicroBatch, ...]]) -> _RunningStep:
        began = time.monotonic()
        batch = next(inputs)
        self._shards.wait_for_all(self._batches.read_with(step - 1), self._watchdog.postpone)
        arrived = time.monotonic()
        result = self._step_cell(batch, stop=self._stop.signal is not None)
        return _RunningStep(step, result, began, arrived - began)

    def _while_waiting(self) -> None:
        """Don't take waiting for shards for a hang."""
        if self._shards.is_awaited():
            self._watchdog.postpone()

    def _end_step(self, running: _RunningStep, ended: float | None = None) -> bool:
        """Wait for a step, and tell whether any rank was asked to stop before it.

        Args:
            running: The step.
            ended: When the host began with the next step, so that the times of all steps sum up to
                the time that passed; None: when this step is done.
        """
        loss, num_asked = running.result.asnumpy().tolist()
        if not math.isfinite(loss):
            raise self._divergence(f"the loss is {loss} at", running.step)
        seconds = (ended or time.monotonic()) - running.began
        self._metrics.step_done(
            running.step, loss, wait=running.wait, compute=seconds - running.wait
        )
        self._watchdog.step_done()
        return bool(num_asked)

    def _asked_alone(self) -> bool:
        """Tell whether this process was asked to stop and needs no answer of other ranks."""
        return self._world.size == 1 and self._stop.signal is not None

    def _checkpoint(self, step: int, *, planned: bool, stopping: bool) -> None:
        """Evaluate and save as planned; where a stop comes in between, save what is there."""
        run, world, step_cell = self._run, self._world, self._step_cell
        began = time.monotonic()
        if planned and self._synchronise:
            self._synchronise()
        own = None if planned or world.size == 1 else gather_statistics(step_cell)
        snapshot = Snapshot(parameters_of(step_cell), own)
        self._refuse_non_finite(snapshot, step)
        self._checkpoint_seconds += time.monotonic() - began
        # Logged before the checkpoint, because a run that resumes from it never writes these lines.
        if step % run.steps_per_epoch == 0:
            self._metrics.epoch_done(step, self._evaluate(step // run.steps_per_epoch))
        last = stopping or step == run.total_steps
        if step == run.total_steps:
            self._metrics.training_done(self._checkpoint_seconds)
        began = time.monotonic()
        state = self._state(step)
        if world.rank == 0 and (last or self._is_saved(state)):
            save = self._saver.save_last if last else self._saver.save
            save(snapshot, state)
        self._checkpoint_seconds += time.monotonic() - began
        if last:
            # When one rank ends, msrun ends the others: all wait until rank 0 has saved.
            world.sum(0.0)

    def _is_saved(self, state: Checkpoint) -> bool:
        """Tell whether the recipe wants a checkpoint of a state at a planned step."""
        ends_epoch = state.step % self._run.steps_per_epoch == 0
        return (
            not ends_epoch
            or state.epoch % self._run.recipe.checkpoint_every_epochs == 0
            or state.step == state.best_step
        )

    def _refuse_non_finite(self, snapshot: Snapshot, step: int) -> None:
        """Check the weights: the loss shows their state one step late, after the checkpoint."""
        if name := snapshot.find_non_finite():
            raise self._divergence(f"{name} has non-finite values after", step)

    def _divergence(self, what: str, step: int) -> NonFiniteLossError:
        rate = self._start.rates[step - 1]
        return divergence(what, step, rate, self._run, self._shards, self._world)

    def _evaluate(self, epochs_done: int) -> Evaluation | None:
        recipe = self._run.recipe
        if epochs_done % recipe.val_interval and epochs_done != recipe.epoch_size:
            return None
        self._metrics.evaluating(epochs_done * self._run.steps_per_epoch)
        evaluation = evaluate(
            self._step_cell.evaluated(),
            recipe.model_copy(update={"num_parallel_workers": self._num_workers}),
            self._shards,
            batch_size=self._run.global_batch_size // self._world.size,
            world=self._world,
        )
        self._evaluations = (*self._evaluations, (epochs_done, evaluation))
        return evaluation

    def _state(self, step: int) -> Checkpoint:
        run = self._run
        # Of equally good evaluations, max returns the first.
        best = max(self._evaluations, key=lambda entry: entry[1].correct_top1, default=None)
        return Checkpoint(
            run=run,
            layouts=self._start.layouts,
            step=step,
            epoch=step // run.steps_per_epoch,
            samples_seen=step * run.global_batch_size,
            num_params=sum(p.size for p in self._step_cell.network.trainable_params()),
            best_top1=best[1].correct_top1 if best else None,
            best_step=best[0] * run.steps_per_epoch if best else None,
            evaluations=self._evaluations,
            files=(),
        )


def is_checkpoint_step(run: Run, step: int) -> bool:
    """Tell whether a checkpoint is planned after `step` steps of the run.

    There is one after each epoch, and within epochs where the recipe has checkpoint_every_steps.
    """
    position = step % run.steps_per_epoch
    interval = run.recipe.checkpoint_every_steps or run.steps_per_epoch
    return position % interval == 0


def divergence(
    what: str, step: int, rate: float, run: Run, shards: ShardSet, world: World
) -> NonFiniteLossError:
    """Return the error of a rank whose training diverged, with the samples that it read.

    Args:
        what: The beginning of the message.
        step: The step, from 1 to the run's total.
        rate: The learning rate of the step.
        run: The run.
        shards: The data.
        world: The rank.
    """
    epoch, position = divmod(step - 1, run.steps_per_epoch)
    indices = rank_samples(run, shards, epoch, position, position + 1, world)
    few, numbers = shards.of_samples("train", indices[:KEYS_SHOWN])
    keys = sample_keys(few, "train", numbers)
    more = len(indices) - len(keys)
    return NonFiniteLossError(
        f"{what} step {step} (epoch {epoch + 1}, learning rate {rate:.6g}): lower lr or lengthen "
        f"the warm-up; samples of rank {world.rank}: {', '.join(keys)}"
        f"{f' and {more} more' if more else ''}"
    )
