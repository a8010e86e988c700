"""The training loop: from the newest valid checkpoint, or the start, to the last step.

An epoch is cut into segments at its checkpoint steps. Order and augmentation of a segment follow
from (seed, epoch, step), so a run that resumes at any checkpoint computes the same bits as one
that was never interrupted.
"""

import fcntl
import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor

from sknet.data.ahead import read_ahead
from sknet.data.segments import Segment, TrainBatch, batches_of, segments_from
from sknet.errors import NonFiniteLossError, UserError
from sknet.evaluation import evaluate
from sknet.models import create_model
from sknet.recipe import Recipe
from sknet.records import Checkpoint, CheckpointFile, Evaluation, Run, Shards
from sknet.training import checkpoint
from sknet.training.device import World
from sknet.training.metrics import Clock, MetricsLog, StepTimes
from sknet.training.schedule import learning_rates
from sknet.training.step import SynchroniseStatistics, TrainStep

LOCK_SECONDS = 60
METRICS_FILE = "metrics.jsonl"
# Batches of this rank, ready for their step; MindSpore's pipeline holds more before them.
BATCHES_AHEAD = 2


def plan_run(recipe: Recipe, shards: Shards, world_size: int, device_target: str) -> Run:
    """What is about to be trained. Raises UserError where recipe, data and world don't fit."""
    classes = shards.dataset.classes
    if recipe.num_classes not in (None, len(classes)):
        raise UserError(
            f"num_classes is {recipe.num_classes}, but the data set has {len(classes)} classes"
        )
    global_batch = recipe.global_batch(world_size)
    num_samples = shards.num_samples("train")
    if num_samples < global_batch:
        raise UserError(
            f"the global batch is {global_batch}, but there are {num_samples} training samples: "
            "choose a smaller batch"
        )
    return Run(
        recipe=recipe.model_copy(update={"name": "recipe"}),
        classes=classes,
        shards_digest=shards.digest,
        world_size=world_size,
        global_batch_size=global_batch,
        steps_per_epoch=num_samples // global_batch,
        device_target=device_target,
        mindspore=ms.__version__,
    )


class Trainer:
    """One rank's training of a run in a directory."""

    def __init__(
        self,
        run: Run,
        shards: Shards,
        shards_dir: Path,
        run_dir: Path,
        world: World,
        say: Callable[[str], None],
    ) -> None:
        self._run, self._shards, self._shards_dir = run, shards, shards_dir
        self._run_dir, self._world, self._say = run_dir, world, say
        ms.set_seed(run.recipe.seed)
        self._network = create_model(run.recipe.model, num_classes=len(run.classes))
        self._rates = learning_rates(run)
        self._step_cell = TrainStep(self._network, run.recipe, self._rates, world.size)
        self._synchronise = (
            SynchroniseStatistics(self._network, world.size) if world.size > 1 else None
        )
        self._evaluations: tuple[tuple[int, Evaluation], ...] = ()
        self._times = StepTimes()

    def train(self) -> Path:
        """Train to the end and return the final checkpoint.

        Raises NonFiniteLossError, and UserError if the directory belongs to another run.
        """
        self._run_dir.mkdir(parents=True, exist_ok=True)
        with (self._run_dir / f".rank-{self._world.rank}.lock").open("w") as lock:
            _acquire(lock.fileno(), self._run_dir)
            return self._train()

    def _train(self) -> Path:
        run, recipe = self._run, self._run.recipe
        newest = checkpoint.newest_valid(self._run_dir, run, self._say)
        start = 0
        if newest:
            path, state = newest
            checkpoint.restore(self._step_cell, path)
            start, self._evaluations = state.step, state.evaluations
            self._say(f"resuming from {path.name}: {start} of {run.total_steps} steps are done")
            if start == run.total_steps:
                return path
        scaled = recipe.peak_lr(run.world_size)
        if scaled != recipe.lr:
            self._say(
                f"learning rate {recipe.lr} scaled to {scaled} for a global batch of "
                f"{run.global_batch_size} (reference {recipe.reference_global_batch_size})"
            )
        # of rank 0, which speaks and saves for all
        leads = self._world.rank == 0
        log = MetricsLog(self._run_dir / METRICS_FILE, start) if leads else None
        self._say(
            f"training steps {start + 1} to {run.total_steps} with {run.world_size} workers; "
            "the first compiles the graph"
        )
        if log:
            log.write("start", start, world_size=run.world_size)
        batches = batches_of(
            segments_from(run, start), run, self._shards, self._shards_dir, self._world.rank
        )
        with closing(read_ahead(batches, BATCHES_AHEAD)) as ahead:
            final = self._train_segments(start, ahead, log)
        if log:
            log.close()
        return final

    def _train_segments(
        self, start: int, batches: Iterator[TrainBatch], log: MetricsLog | None
    ) -> Path:
        """Returns the final checkpoint."""
        run, recipe = self._run, self._run.recipe
        clock = Clock(start, run.total_steps)
        losses: list[float] = []
        epoch_began = time.monotonic()
        for segment in segments_from(run, start):
            if segment.start == 0:
                losses, epoch_began = [], time.monotonic()
            losses += self._train_segment(segment, batches, clock, log)
            step = segment.epoch * run.steps_per_epoch + segment.stop
            if self._synchronise:
                self._synchronise()
            self._refuse_non_finite(step)
            ends_epoch = segment.stop == run.steps_per_epoch
            evaluation = self._evaluate(segment.epoch + 1) if ends_epoch else None
            # Before the checkpoint: a run that resumes from it would never write the line.
            if log and ends_epoch:
                counts = (
                    evaluation.model_dump(
                        include={"seen", "correct_top1", "correct_top5", "loss_sum"}
                    )
                    if evaluation
                    else {}
                )
                log.write(
                    "epoch",
                    step,
                    epoch=segment.epoch,
                    # of the steps since the start, if it was within the epoch
                    train_loss=sum(losses) / len(losses),
                    seconds=time.monotonic() - epoch_began,
                    **counts,
                )
            if log and step == run.total_steps:
                log.write(
                    "end",
                    step,
                    compile_seconds=self._times.compile_seconds,
                    restarts=log.restarts,
                    **self._times.summary(run.global_batch_size),
                )
            if log:
                checkpoint.save(self._step_cell, self._run_dir, self._describe(step))
                checkpoint.remove_old(self._run_dir, recipe.keep_checkpoint_max)
        return self._run_dir / f"step-{run.total_steps:08}"

    def _train_segment(
        self,
        segment: Segment,
        batches: Iterator[TrainBatch],
        clock: Clock,
        log: MetricsLog | None,
    ) -> list[float]:
        """Returns the loss of each step."""
        run, recipe = self._run, self._run.recipe
        self._step_cell.set_train(True)
        losses = []
        for position in range(segment.start, segment.stop):
            began = time.monotonic()
            images, labels = next(batches)
            arrived = time.monotonic()
            loss = float(self._step_cell(Tensor(images), Tensor(labels)).asnumpy())
            self._times.add(arrived - began, time.monotonic() - arrived)
            losses.append(loss)
            step = segment.epoch * run.steps_per_epoch + position + 1
            if not math.isfinite(loss):
                raise NonFiniteLossError(
                    f"the loss is {loss} at step {step} (epoch {segment.epoch + 1}, learning rate "
                    f"{self._rates[step - 1]:.6g}): lower lr or lengthen the warm-up"
                )
            if log and (step % recipe.log_interval == 0 or step == run.total_steps):
                self._report(log, clock, segment.epoch, step, loss)
        return losses

    def _refuse_non_finite(self, step: int) -> None:
        """The loss tells of weights one step late: too late for a checkpoint."""
        for parameter in self._step_cell.get_parameters():
            if not np.isfinite(parameter.asnumpy()).all():
                raise NonFiniteLossError(
                    f"{parameter.name} has non-finite values after step {step} (learning rate "
                    f"{self._rates[step - 1]:.6g}): lower lr or lengthen the warm-up"
                )

    def _report(self, log: MetricsLog, clock: Clock, epoch: int, step: int, loss: float) -> None:
        run = self._run
        recent = self._times.summary(run.global_batch_size, last=run.recipe.log_interval)
        keys = ("ms_per_step", "images_per_second", "data_wait_share")
        measured = {key: recent[key] for key in keys if key in recent}
        log.write("step", step, epoch=epoch, loss=loss, lr=self._rates[step - 1], **measured)
        self._say(
            f"epoch {epoch + 1}/{run.recipe.epoch_size} step {step}/{run.total_steps} "
            f"loss {loss:.4f} {measured.get('images_per_second', 0):.0f} images/s "
            f"ETA {clock.eta(step)}"
        )

    def _evaluate(self, epochs_done: int) -> Evaluation | None:
        run, recipe = self._run, self._run.recipe
        if epochs_done % recipe.val_interval and epochs_done != recipe.epoch_size:
            return None
        evaluation = evaluate(
            self._network,
            recipe,
            self._shards,
            self._shards_dir,
            batch_size=run.global_batch_size // run.world_size,
            rank=self._world.rank,
            world_size=run.world_size,
        )
        self._evaluations = (*self._evaluations, (epochs_done, evaluation))
        self._say(
            f"epoch {epochs_done}/{recipe.epoch_size} accuracy@1 {evaluation.accuracy_top1:.2%} "
            f"({evaluation.correct_top1}/{evaluation.seen})"
        )
        return evaluation

    def _describe(self, step: int) -> Callable[..., Checkpoint]:
        run = self._run
        best = max((e.correct_top1 for _, e in self._evaluations), default=None)

        def describe(*, files: tuple[CheckpointFile, ...]) -> Checkpoint:
            return Checkpoint(
                run=run,
                step=step,
                epoch=step // run.steps_per_epoch,
                samples_seen=step * run.global_batch_size,
                num_params=sum(int(np.prod(p.shape)) for p in self._network.trainable_params()),
                best_top1=best,
                evaluations=self._evaluations,
                files=files,
            )

        return describe


def _acquire(descriptor: int, directory: Path) -> None:
    """One training a directory; the ranks of a job that was just killed get time to end."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise UserError(
                    f"another training has been at work in {directory} for {LOCK_SECONDS} s: "
                    "wait for it, or give another directory"
                ) from None
            time.sleep(0.5)
