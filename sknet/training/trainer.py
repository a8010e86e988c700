"""A rank's training from its start to its end: where it begins, and with what.

Starts, in the order in which they are looked for: done already, the newest sound checkpoint of
the directory, the first step.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms

from infra.base.files import file_sha256
from sknet.data.shards import ShardSet
from sknet.errors import UserError
from sknet.models import create_model
from sknet.models.sknet import SKNet
from sknet.models.weights import load_weights
from sknet.recipe import Recipe
from sknet.records import Checkpoint, Evaluation, Layout, Run, Shards
from sknet.training import checkpoint
from sknet.training.checkpoint import Saver
from sknet.training.loop import Loop, Network
from sknet.training.metrics import (
    METRICS_FILE,
    MetricsLog,
    Progress,
    ProgressFile,
    Sink,
    TensorBoard,
)
from sknet.training.schedule import learning_rates
from sknet.training.step import TrainStep
from sknet.training.stopping import StopRequest
from sknet.training.watchdog import FLOOR_SECONDS, Watchdog
from sknet.world import World


def plan_run(recipe: Recipe, shards: Shards, world_size: int, device_target: str) -> Run:
    """The run as planned for `world_size` ranks.

    Raises UserError where recipe, data, machine and world don't fit.
    """
    classes = shards.dataset.classes
    if recipe.num_classes not in (None, len(classes)):
        raise UserError(
            f"num_classes is {recipe.num_classes}, but the data set has {len(classes)} classes"
        )
    processors = os.cpu_count() or 1
    if recipe.num_parallel_workers > processors:
        raise UserError(
            f"num_parallel_workers is {recipe.num_parallel_workers}, but this machine has "
            f"{processors} processors: --set num_parallel_workers={processors}, which draws other "
            "augmentations"
        )
    global_batch = recipe.global_batch(world_size)
    num_samples = shards.num_samples("train")
    if num_samples < global_batch:
        raise UserError(
            f"the global batch is {global_batch}, but there are {num_samples} training samples: "
            "choose a smaller batch"
        )
    return Run(
        recipe=recipe.model_copy(update={"name": "recipe", "ckpt_path": ""}),
        classes=classes,
        shards_digest=shards.content_digest,
        world_size=world_size,
        global_batch_size=global_batch,
        steps_per_epoch=num_samples // global_batch,
        device_target=device_target,
        mindspore=ms.__version__,
    )


def refuse_indivisible(run: Run, world_size: int) -> None:
    """Raises UserError if `world_size` ranks can't share the run's global batch."""
    if not run.recipe.can_divide(run.global_batch_size, world_size):
        passes = run.recipe.gradient_accumulation_steps
        accumulated = f" in {passes} passes" if passes > 1 else ""
        raise UserError(
            f"the global batch of {run.global_batch_size}{accumulated}, planned for "
            f"{run.world_size} workers, "
            f"can't be divided among {world_size}: choose a number of workers that divides it"
        )


def with_layout(layouts: tuple[Layout, ...], step: int, world_size: int) -> tuple[Layout, ...]:
    """The layouts of a training that goes on after `step` steps with `world_size` ranks."""
    used = tuple(layout for layout in layouts if layout.first_step < step)
    if used and used[-1].world_size == world_size:
        return used
    return (*used, Layout(first_step=step, world_size=world_size))


def starting_network(recipe: Recipe, num_classes: int, weights: Path | None) -> SKNet:
    """The recipe's network, from the global seed or, if given, from the file of weights.

    Raises UserError if the file isn't the recipe's or doesn't fit the network.
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


# The ranks of a job that was just killed get time to end.
LOCK_SECONDS = 60


@contextmanager
def locked(directory: Path, rank: int) -> Iterator[None]:
    """The rank's place in the directory, whose lock ends with the process at the latest.

    Raises UserError if another process holds it for LOCK_SECONDS, or the directory can't be
    written.
    """
    try:
        opened = (directory / f".rank-{rank}.lock").open("w")
    except OSError as error:
        raise UserError(f"{directory} can't be written: {error.strerror}") from None
    with opened as lock:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise UserError(
                        f"another training has been at work in {directory} for {LOCK_SECONDS} s: "
                        "wait for it, or give another directory"
                    ) from None
                time.sleep(0.5)
        yield


# Ranks compare as many steps as float32 sums hold exactly, whatever the number of ranks.
_COMPARED_STEPS = 1 << 12


@dataclass(frozen=True, kw_only=True)
class Options:
    """What changes nothing of what is computed."""

    tensorboard: Path | None = None
    """Directory for event files."""
    progress_file: Path | None = None
    """File in which rank 0 reports the fraction of the steps that are done."""
    hang_floor: float = FLOOR_SECONDS
    """Seconds: see sknet.training.watchdog."""


class Trainer:
    """One rank's training of a run in a directory."""

    def __init__(
        self,
        run: Run,
        shards: ShardSet,
        run_dir: Path,
        world: World,
        say: Callable[[str], None],
        stop: StopRequest,
        options: Options = Options(),
        *,
        weights: Path | None = None,
    ) -> None:
        self._planned, self._shards = run, shards
        self._run_dir, self._world, self._say = run_dir, world, say
        self._stop, self._options, self._weights = stop, options, weights

    def train(self) -> Path:
        """Train to the end and return the final checkpoint.

        Raises NonFiniteLossError, StoppedError, CheckpointError, and UserError if the directory
        belongs to another run or the ranks can't share the batch.
        """
        self._run_dir.mkdir(parents=True, exist_ok=True)
        with locked(self._run_dir, self._world.rank):
            newest = self._newest()
            run = newest[1].run if newest else self._planned
            refuse_indivisible(run, self._world.size)
            if newest and newest[1].step == run.total_steps:
                final, state = newest
                if self._world.rank == 0:
                    # It may have been killed between the last checkpoint and this.
                    keep = run.recipe.keep_checkpoint_max
                    checkpoint.remove_old(self._run_dir, keep, state.best_step)
            else:
                final = self._train(run, newest)
        self._say(f"trained {run.total_steps} steps: {final}")
        return final

    def _newest(self) -> tuple[Path, Checkpoint] | None:
        damaged = []

        def skip(path: Path, fault: str) -> None:
            self._say(f"skipping {path.name}: {fault}")
            damaged.append(path)

        newest = checkpoint.newest_valid(self._run_dir, self._planned, skip)
        step = newest[1].step if newest else 0
        compared = step % _COMPARED_STEPS
        if self._world.sum(compared) != compared * self._world.size:
            raise UserError(
                f"rank {self._world.rank} finds step {step} in {self._run_dir}, other ranks find "
                "another one: all need the same --ckpt_save_dir on a shared file system"
            )
        if self._world.rank == 0:
            # Newer than what follows, they would crowd out sound ones.
            for path in damaged:
                checkpoint.set_aside(path)
        if newest:
            self._say(
                f"resuming from {newest[0].name}: {step} of {newest[1].run.total_steps} steps "
                "are done"
            )
        return newest

    def _train(self, run: Run, newest: tuple[Path, Checkpoint] | None) -> Path:
        recipe, world = run.recipe, self._world
        ms.set_seed(recipe.seed)
        # A checkpoint replaces all of them.
        weights = None if newest else self._weights
        model = starting_network(recipe, len(run.classes), weights)
        rates = learning_rates(run)
        step_cell = TrainStep(model, recipe, rates, world.size)
        start: int = 0
        layouts: tuple[Layout, ...] = ()
        evaluations: tuple[tuple[int, Evaluation], ...] = ()
        if newest:
            path, state = newest
            start, layouts, evaluations = state.step, state.layouts, state.evaluations
            checkpoint.restore(step_cell, path)
            if (gathered := checkpoint.read_statistics(path)) is not None:
                checkpoint.assign(step_cell, gathered, world.rank, world.size)
        self._say_plan(run, start)
        # Rank 0 speaks and saves for all.
        log = self._open_log(run, start) if world.rank == 0 else None
        watchdog = Watchdog(self._options.hang_floor)
        try:
            with Saver(self._run_dir, recipe.keep_checkpoint_max, self._say) as saver:
                Loop(
                    run,
                    self._shards,
                    world,
                    network=Network(model, step_cell, rates),
                    layouts=with_layout(layouts, start, world.size),
                    evaluations=evaluations,
                    progress=Progress(run, rates, start, log, self._say),
                    saver=saver,
                    watchdog=watchdog,
                    stop=self._stop,
                    say=self._say,
                ).train(start)
        finally:
            watchdog.end()
            if log:
                log.close()
        return self._run_dir / checkpoint.checkpoint_name(run.total_steps)

    def _say_plan(self, run: Run, start: int) -> None:
        recipe, size = run.recipe, self._world.size
        if size != run.world_size:
            self._say(
                f"planned for {run.world_size} workers, going on with {size}: the global batch "
                f"stays {run.global_batch_size}, {run.global_batch_size // size} for each"
            )
        scaled = recipe.peak_lr(run.world_size)
        if scaled != recipe.lr:
            self._say(
                f"learning rate {recipe.lr} scaled to {scaled} for a global batch of "
                f"{run.global_batch_size} (reference {recipe.reference_global_batch_size})"
            )
        self._say(
            f"training steps {start + 1} to {run.total_steps} with {size} workers; "
            "the first compiles the graph"
        )

    def _open_log(self, run: Run, start: int) -> MetricsLog:
        sinks: list[Sink] = []
        if self._options.tensorboard:
            sinks.append(TensorBoard(self._options.tensorboard, start))
        if self._options.progress_file:
            sinks.append(ProgressFile(self._options.progress_file, run.total_steps))
        log = MetricsLog(self._run_dir / METRICS_FILE, start, self._say, tuple(sinks))
        planned = {"planned_workers": run.world_size}
        log.write("start", start, world_size=self._world.size, **planned)
        return log
