"""The parts `loop` and `checkpoint`: our loop in this process, over one compiled step."""

import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from mindspore import Tensor

from sknet.data.reading.training_batches import TrainingBatches
from sknet.errors import StoppedError
from sknet.models import create_model
from sknet.planning import plan_run
from sknet.recipe import parse_recipe
from sknet.training import checkpoint, loop
from sknet.training.checkpoint import Saver
from sknet.training.inputs import InputMaker
from sknet.training.metrics import MetricsLog, TrainingMetrics
from sknet.training.schedule import learning_rates
from sknet.training.step import TrainStep
from sknet.training.stopping import StopRequest
from sknet.training.trainer import with_layout
from sknet.training.watchdog import Watchdog
from sknet.world import ALONE, set_device
from tests.bench.bench_input import NUM_CLASSES
from tests.bench.training_setup import MODEL, Setup, print_turns, take_turns

MINUTE = 60.0
# Steps between checkpoints in the recipes for ImageNet.
RECIPE_INTERVAL = 500


@dataclass
class Clocks:
    """When the steps of a training ended, and how long it paused between them."""

    steps: list[float] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)

    @property
    def milliseconds(self) -> list[float]:
        """Return the seconds from each step to the next one."""
        return [1000 * float(seconds) for seconds in np.diff(self.steps)]


class Training:
    """Our loop, which can be started repeatedly with one compiled step."""

    def __init__(self, setup: Setup, model: Any = None) -> None:
        """Prepare the step.

        Args:
            setup: The data and the recipe.
            model: The network, instead of the benchmark's model.
        """
        set_device("CPU")
        self._setup = setup
        self.run = self._plan()
        rates = learning_rates(self.run)
        model = model or create_model(MODEL, num_classes=NUM_CLASSES)
        step = TrainStep(model, self.run.recipe, rates)
        self.start = loop.Start(step, rates, 0, with_layout((), 0, 1))
        self._fresh = checkpoint.parameters_of(step)

    def _plan(self, **changes: Any) -> Any:
        recipe = parse_recipe(self._setup.keys | changes, where="bench")
        return plan_run(recipe, self._setup.shards.record, 1, "CPU")

    def reset(self) -> None:
        """Restore the state before the first step, including the step counter."""
        for parameter in self.start.step_cell.get_parameters():
            parameter.set_data(Tensor(self._fresh[parameter.name]))

    def batch(self) -> Any:
        """Return the first batch."""
        return next(TrainingBatches(self.run, self._setup.shards, ALONE, 1).after(0))

    def steps_from_memory(self, batch: Any, count: int, **changes: Any) -> tuple[Clocks, Path]:
        """Take `count` steps on one batch, then stop, without evaluation or input pipeline."""
        if count >= self.run.steps_per_epoch:
            raise SystemExit(f"an epoch has {self.run.steps_per_epoch} steps: give more --images")
        with (
            mock.patch.object(loop, "batches_of", lambda *_: (batch for _ in itertools.count())),
            suppress(StoppedError),
        ):
            clocks, directory = Clocks(), Path(tempfile.mkdtemp(dir=self._setup.root))
            self.train(directory, clocks, stop_after=count, **changes)
        return clocks, directory

    def epoch(self) -> float:
        """Return the seconds of an epoch from shards, with its evaluation and checkpoint."""
        self.reset()
        directory = Path(tempfile.mkdtemp(dir=self._setup.root))
        began = time.perf_counter()
        self.train(directory, Clocks())
        return time.perf_counter() - began

    def train(
        self, directory: Path, clocks: Clocks, *, stop_after: int | None = None, **changes: Any
    ) -> None:
        """Train one epoch, or its first steps, into the directory."""
        run, setup, stop = self._plan(**changes), self._setup, StopRequest(distributed=False)

        class Observed(TrainingMetrics):
            def step_done(self, step: int, loss: float, *, wait: float, compute: float) -> None:
                super().step_done(step, loss, wait=wait, compute=compute)
                clocks.steps.append(time.perf_counter())
                if step == stop_after:
                    stop.signal = "SIGUSR1"

        class Timed(Watchdog):
            @contextmanager
            def paused(self) -> Iterator[None]:
                began = time.perf_counter()
                with super().paused():
                    yield
                clocks.pauses.append(1000 * (time.perf_counter() - began))

        log, watchdog = MetricsLog(directory / "metrics.jsonl", 0, unheard), Timed()
        try:
            with Saver(directory, 2, unheard) as saver:
                loop.Loop(
                    run,
                    setup.shards,
                    ALONE,
                    self.start,
                    metrics=Observed(run, self.start.rates, 0, log, unheard, log_interval=1),
                    saver=saver,
                    watchdog=watchdog,
                    stop=stop,
                ).train()
        finally:
            watchdog.end()
            log.close()


def unheard(_line: str) -> None:
    """Ignore a line of the log."""


@cache
def compiled_training(setup: Setup) -> Training:
    """Return the training that all parts share."""
    training = Training(setup)
    training.steps_from_memory(training.batch(), 2)
    return training


def measure_loop(setup: Setup) -> None:
    """Measure our loop against the bare step, on one batch in memory; ours logs each step."""
    training, count = compiled_training(setup), setup.options.steps
    batch = training.batch()
    inputs = InputMaker(training.start.step_cell.network, training.run.recipe, ALONE)(batch, 0)

    def bare() -> float:
        training.reset()
        training.start.step_cell.set_train(True)
        clocks = Clocks()
        for _ in range(count):
            training.start.step_cell(inputs).asnumpy()
            clocks.steps.append(time.perf_counter())
        return statistics.median(clocks.milliseconds)

    def ours() -> float:
        training.reset()
        clocks, _ = training.steps_from_memory(batch, count)
        return statistics.median(clocks.milliseconds)

    turns = take_turns({"our loop": ours, "the bare step": bare}, setup.options.rounds)
    print_turns("loop, ms a step", turns, "goal at most 1.02")


def measure_checkpoint(setup: Setup) -> None:
    """Measure how a save delays training: its pause, and the slower step while it is written.

    The steps after a save are compared with the others of their round, so a save must be done
    within `--interval` steps.
    """
    training, interval = compiled_training(setup), setup.options.interval
    batch = training.batch()
    rounds = [_round(training, batch, setup, interval) for _ in range(setup.options.rounds)]
    pause, whole, step, written = (
        statistics.median(column) for column in zip(*rounds, strict=True)
    )
    print("\n| a checkpoint, ms | |\n|---|---:|")
    print(f"| training pauses | {pause:.1f} |")
    print(f"| the save and the step beside it take longer than a step by | {whole:.1f} |")
    print(f"| written with training waiting | {written:.1f} |\n| a step | {step:.1f} |")
    for what, milliseconds in (
        ("once a minute", 1000 * MINUTE),
        (f"every {RECIPE_INTERVAL} steps (the recipes for ImageNet)", RECIPE_INTERVAL * step),
        (f"every {interval} steps", interval * step),
    ):
        print(
            f"checkpoint: {what}: {pause / milliseconds:.2%} of the time in pauses, "
            f"{whole / milliseconds:.2%} in all (goal at most 1 %)",
            flush=True,
        )


def _round(
    training: Training, batch: Any, setup: Setup, interval: int
) -> tuple[float, float, float, float]:
    """Return milliseconds of a pause, a whole save, a step, and a save that training waits for."""
    count = setup.options.steps
    training.reset()
    clocks, directory = training.steps_from_memory(batch, count, checkpoint_every_steps=interval)
    # Item i belongs to step i + 2; a step after a save contains its pause.
    times = dict(enumerate(clocks.milliseconds, start=2))
    after_save = [value for number, value in times.items() if (number - 1) % interval == 0]
    others = [value for number, value in times.items() if (number - 1) % interval]
    if not (after_save and others):
        raise SystemExit(f"{count} steps hold no step after a save and one beside none: --interval")
    step = statistics.median(others)
    snapshot = checkpoint.Snapshot(checkpoint.parameters_of(training.start.step_cell))
    state = checkpoint.read_state(checkpoint.list_checkpoints(directory)[-1])
    began = time.perf_counter()
    checkpoint.write(snapshot, setup.new_directory(), state)
    written = 1000 * (time.perf_counter() - began)
    # The last pause is that of the stop, in which training waits for the disk.
    return (
        statistics.median(clocks.pauses[:-1]),
        statistics.median(after_save) - step,
        step,
        written,
    )
