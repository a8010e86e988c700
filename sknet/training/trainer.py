"""Train a run on one rank, from where its directory of checkpoints stands.

A training that is finished does nothing, one with a valid checkpoint resumes from the newest, and
any other starts at the first step.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
from filelock import FileLock, Timeout

from infra.base.console import console
from infra.base.files import file_sha256
from infra.base.progress import Progress
from sknet.data.shards import ShardSet
from sknet.errors import UserError, shortened
from sknet.models import create_model
from sknet.models.sknet import SKNet
from sknet.models.weights import load_weights
from sknet.planning import refuse_odd_mixing, refuse_single_images
from sknet.recipe import Recipe
from sknet.records import Checkpoint, Layout, Run
from sknet.records.training import METRICS_FILE, run_of
from sknet.training import checkpoint
from sknet.training.checkpoint import Saver
from sknet.training.loop import Loop, Start
from sknet.training.metrics import (
    MetricsLog,
    Sink,
    TensorBoard,
    TrainingMetrics,
)
from sknet.training.rarity import class_counts, describe
from sknet.training.schedule import learning_rates
from sknet.training.step import TrainStep, set_statistics
from sknet.training.stopping import StopRequest
from sknet.training.watchdog import FLOOR_SECONDS, Watchdog
from sknet.world import World

# The ranks of a job that was just killed get this time to end.
LOCK_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a rank of a training needs beside its run and its data."""

    directory: Path
    """Directory of the checkpoints and of metrics.jsonl."""
    report: Callable[[str], None]
    """Prints a line if this is rank 0."""
    log_interval: int
    """Steps between two lines of metrics.jsonl."""
    keep_checkpoint_max: int
    """Number of newest checkpoints to keep."""
    num_workers: int
    """Threads that read images, if the machine has as many processors."""
    weights: Path | None = None
    """File of weights from which the network starts, instead of new ones."""
    tensorboard: Path | None = None
    """Directory for event files."""
    hang_floor: float = FLOOR_SECONDS
    """Seconds that any step may take, see `sknet.training.watchdog`."""


class Trainer:
    """The training of a run on one rank."""

    def __init__(
        self, run: Run, shards: ShardSet, world: World, stop: StopRequest, options: Options
    ) -> None:
        self._planned, self._shards, self._world, self._stop = run, shards, world, stop
        self._options = options
        self._directory, self._report = options.directory, options.report

    def train(self) -> Path:
        """Train to the end and return the final checkpoint.

        Raises:
            UserError: The directory belongs to another run or is in use, or the ranks can't divide
                the global batch.
            NonFiniteLossError: The loss or a weight is NaN or infinite.
            StoppedError: A rank was asked to stop.
            CheckpointError: The last checkpoint could not be saved.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        with locked(self._directory, self._world.rank):
            newest = self._newest()
            run = newest[1].run if newest else self._planned
            refuse_indivisible(run, self._world.size)
            if newest and newest[1].step == run.total_steps:
                final, state = newest
                if self._world.rank == 0:
                    # The last process may have been killed between saving and removing.
                    keep = self._options.keep_checkpoint_max
                    checkpoint.remove_old(self._directory, keep, state.best_step)
            else:
                final = self._train(run, newest)
        self._report(f"trained {run.total_steps} steps: {final}")
        return final

    def _newest(self) -> tuple[Path, Checkpoint] | None:
        damaged = []

        def skip(path: Path, fault: str) -> None:
            self._report(f"skipping {path.name}: {fault}")
            damaged.append(path)

        newest = checkpoint.newest_of_all(
            self._directory, self._planned, self._world, skip, self._report
        )
        if self._world.rank == 0:
            # As the newest checkpoints, they would make remove_old remove valid ones.
            for path in damaged:
                checkpoint.set_aside(path)
        if newest:
            self._report(
                f"resuming from {newest[0].name}: {newest[1].step} of {newest[1].run.total_steps} "
                "steps are done"
            )
        return newest

    def _train(self, run: Run, newest: tuple[Path, Checkpoint] | None) -> Path:
        world, report = self._world, self._report
        start = self._start(run, newest)
        self._report_plan(run, start.step)
        log = self._open_log(run, start.step) if world.rank == 0 else None
        watchdog = Watchdog(self._options.hang_floor)
        try:
            with Saver(self._directory, self._options.keep_checkpoint_max, report) as saver:
                Loop(
                    run,
                    self._shards,
                    world,
                    start,
                    metrics=TrainingMetrics(
                        run,
                        start.rates,
                        start.step,
                        log,
                        report,
                        log_interval=self._options.log_interval,
                    ),
                    saver=saver,
                    watchdog=watchdog,
                    stop=self._stop,
                    num_workers=self._options.num_workers,
                ).train()
        finally:
            watchdog.end()
            if log:
                log.close()
        return self._directory / checkpoint.checkpoint_name(run.total_steps)

    def _start(self, run: Run, newest: tuple[Path, Checkpoint] | None) -> Start:
        world, recipe = self._world, run.recipe
        console().show(Progress(phase="making the network"))
        ms.set_seed(recipe.seed)
        # A checkpoint replaces all weights.
        weights = None if newest else self._options.weights
        if weights and not recipe.replace_head and (warning := other_classes(weights, run)):
            self._report(f"warning: {warning}")
        network = starting_network(recipe, len(run.classes), weights)
        rates = learning_rates(run)
        counts = class_counts(recipe, self._shards)
        if counts is not None:
            length = run.steps_per_epoch * run.global_batch_size
            self._report(describe(recipe, run.classes, counts, length))
        step_cell = TrainStep(network, recipe, rates, world, counts)
        if newest is None:
            return Start(step_cell, rates, 0, with_layout((), 0, world.size))
        path, state = newest
        checkpoint.restore(step_cell, path)
        if (gathered := checkpoint.read_statistics(path)) is not None:
            set_statistics(step_cell, gathered, world)
        layouts = with_layout(state.layouts, state.step, world.size)
        return Start(step_cell, rates, state.step, layouts, state.evaluations)

    def _report_plan(self, run: Run, start: int) -> None:
        recipe, size = run.recipe, self._world.size
        if size != run.world_size:
            self._report(
                f"planned for {run.world_size} workers, continuing with {size}: the global batch "
                f"stays {run.global_batch_size}, {run.global_batch_size // size} for each"
            )
        scaled = recipe.peak_lr(run.world_size)
        if scaled != recipe.lr:
            self._report(
                f"learning rate {recipe.lr} scaled to {scaled} for a global batch of "
                f"{run.global_batch_size} (reference {recipe.reference_global_batch_size})"
            )
        self._report(f"training steps {start + 1} to {run.total_steps} with {size} workers")
        console().show(Progress(phase="compiling the graph"))

    def _open_log(self, run: Run, start: int) -> MetricsLog:
        sinks: list[Sink] = []
        if self._options.tensorboard:
            sinks.append(TensorBoard(self._options.tensorboard, start))
        log = MetricsLog(self._directory / METRICS_FILE, start, self._report, tuple(sinks))
        log.write("start", start, world_size=self._world.size, planned_workers=run.world_size)
        return log


@contextmanager
def locked(directory: Path, rank: int) -> Iterator[None]:
    """Keep other trainings out of a directory. The lock ends with this process at the latest.

    Raises:
        UserError: Another process has held the lock of this rank for LOCK_SECONDS, or the directory
            can't be written.
    """
    path = directory / f".rank-{rank}.lock"
    # A lock that is only a file would outlive this process.
    lock = FileLock(path, timeout=LOCK_SECONDS, fallback_to_soft=False)
    try:
        # If a file can't be created, as in /proc, FileLock may wait as if another held the lock.
        path.touch()
        lock.acquire()
    except Timeout:
        raise UserError(
            f"another training has been at work in {directory} for {LOCK_SECONDS} s: "
            "wait for it, or give another directory"
        ) from None
    except OSError as error:
        raise UserError(f"{directory} can't be written: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()


def refuse_indivisible(run: Run, world_size: int) -> None:
    """Check that `world_size` ranks can divide the global batch of a run.

    Raises:
        UserError: They can't, get one image at a time, or an odd number where two are mixed.
    """
    refuse_single_images(run.recipe, run.global_batch_size, world_size)
    if not run.recipe.can_divide(run.global_batch_size, world_size):
        passes = run.recipe.gradient_accumulation_steps
        accumulated = f" in {passes} passes" if passes > 1 else ""
        raise UserError(
            f"the global batch of {run.global_batch_size}{accumulated}, planned for "
            f"{run.world_size} workers, "
            f"can't be divided among {world_size}: choose a number of workers that divides it"
        )
    refuse_odd_mixing(run.recipe, run.global_batch_size, world_size)


def other_classes(weights: Path, run: Run) -> str | None:
    """Return what to tell of weights of a training on other classes; None if there are none.

    Raises:
        UserError: The state.json beside the weights can't be read.
    """
    origin = run_of(weights)
    if origin is None or origin.classes == run.classes:
        return None
    return (
        f"{weights} was trained on other classes ({shortened(origin.classes)}) than this data has "
        f"({shortened(run.classes)}): replace_head=true starts the classifier anew"
    )


def starting_network(recipe: Recipe, num_classes: int, weights: Path | None) -> SKNet:
    """Return the recipe's network, newly initialised or with weights from a file.

    Raises:
        UserError: The file isn't the one that the recipe names by SHA-256, or doesn't fit the
            network.
    """
    network = create_model(recipe.model, num_classes=num_classes)
    if weights:
        if not weights.is_file():
            raise UserError(f"ckpt_path {weights} does not exist")
        if (digest := file_sha256(weights)) != recipe.ckpt_sha256:
            raise UserError(
                f"ckpt_path {weights} has SHA-256 {digest}, but ckpt_sha256 is {recipe.ckpt_sha256}"
            )
        load_weights(network, weights, replace_head=recipe.replace_head)
    return network


def with_layout(layouts: tuple[Layout, ...], step: int, world_size: int) -> tuple[Layout, ...]:
    """Return the layouts of a training that continues after `step` steps with so many ranks."""
    used = tuple(layout for layout in layouts if layout.first_step < step)
    if used and used[-1].world_size == world_size:
        return used
    return (*used, Layout(first_step=step, world_size=world_size))
