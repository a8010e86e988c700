"""A rank's training from its start to its end: where it begins, and with what.

Starts, in the order in which they are looked for: done already, the newest sound checkpoint of
the directory, the first step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms

from sknet.errors import UserError
from sknet.records import Checkpoint, Evaluation, Layout, Run, Shards
from sknet.training import checkpoint, statistics
from sknet.training.world import World
from sknet.training.locking import locked
from sknet.training.loop import Loop, Network
from sknet.training.metrics import METRICS_FILE, MetricsLog
from sknet.training.planning import refuse_indivisible, with_layout
from sknet.training.progress import Progress
from sknet.training.saver import Saver
from sknet.training.schedule import learning_rates
from sknet.training.starting import starting_network
from sknet.training.step import TrainStep
from sknet.training.stopping import StopRequest
from sknet.training.tensorboard import TensorBoard
from sknet.training.watchdog import FLOOR_SECONDS, Watchdog

# Ranks compare as many steps as float32 sums hold exactly, whatever the number of ranks.
_COMPARED_STEPS = 1 << 12


@dataclass(frozen=True, kw_only=True)
class Options:
    """What changes nothing of what is computed."""

    tensorboard: Path | None = None
    """Directory for event files."""
    hang_floor: float = FLOOR_SECONDS
    """Seconds: see sknet.training.watchdog."""


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
        stop: StopRequest,
        options: Options = Options(),
        *,
        weights: Path | None = None,
    ) -> None:
        self._planned, self._shards, self._shards_dir = run, shards, shards_dir
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
                statistics.assign(step_cell, gathered, world.rank, world.size)
        self._say_plan(run, start)
        # Rank 0 speaks and saves for all.
        log = self._open_log(run, start) if world.rank == 0 else None
        watchdog = Watchdog(self._options.hang_floor)
        try:
            with Saver(self._run_dir, recipe.keep_checkpoint_max, self._say) as saver:
                Loop(
                    run,
                    self._shards,
                    self._shards_dir,
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
        directory = self._options.tensorboard
        sinks = (TensorBoard(directory, start),) if directory else ()
        log = MetricsLog(self._run_dir / METRICS_FILE, start, self._say, sinks)
        planned = {"planned_workers": run.world_size}
        log.write("start", start, world_size=self._world.size, **planned)
        return log
