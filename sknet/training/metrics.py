"""Measure a training: metrics.jsonl, progress on the console, and event files for TensorBoard.

`docs/training.md` lists the fields of metrics.jsonl. The file is for people and reports; a training
never fails because it can't be written.
"""

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil

from infra.base.console import FRAMES_PER_SECOND, console
from infra.base.progress import Progress, clock
from sknet.errors import UserError
from sknet.records import Evaluation, Run
from sknet.training.pace import WINDOW, Pace

_MEBIBYTE = 1 << 20


class TrainingMetrics:
    """Measures the steps of one rank. On rank 0 it also logs them and reports progress."""

    def __init__(
        self,
        run: Run,
        rates: list[float],
        start: int,
        log: "MetricsLog | None",
        report: Callable[[str], None],
        *,
        log_interval: int,
    ) -> None:
        """Start to measure.

        Args:
            run: The run.
            rates: The learning rate of each step.
            start: Steps done before.
            log: Where rank 0 logs; the other ranks only measure.
            report: Prints a line.
            log_interval: Steps between two logged lines.
        """
        self._run, self._rates, self._log, self._report = run, rates, log, report
        self._log_interval = log_interval
        self._start = start
        self._times = StepTimes()
        self._pace = Pace(run.total_steps, run.steps_per_epoch)
        self._num_logged = 0
        self._shown = -math.inf
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Start the figures of an epoch with the next step."""
        self._pace.epoch_begins(time.monotonic())
        self._losses: list[float] = []
        self._epoch_began, self._epoch_first = time.monotonic(), self._times.num_steps

    def step_done(self, step: int, loss: float, *, wait: float, compute: float) -> None:
        """Add a step, and log it if it is due.

        Args:
            step: Steps done, including this one.
            loss: Its loss.
            wait: Seconds of waiting for its data.
            compute: Seconds of computing.
        """
        times, log = self._times, self._log
        times.add(wait, compute)
        self._losses.append(loss)
        if log is None:
            return
        self._pace.step_ends(time.monotonic())
        self._show(step, loss)
        if step == self._start + 1:
            log.write(
                "compile",
                self._start,
                compile_seconds=times.compile_seconds,
                first_batch_seconds=wait,
            )
        if step % self._log_interval == 0 or step == self._run.total_steps:
            measured = self._measured(self._num_logged)
            self._num_logged = times.num_steps
            epoch = (step - 1) // self._run.steps_per_epoch
            log.write("step", step, epoch=epoch, loss=loss, lr=self._rates[step - 1], **measured)

    def epoch_done(self, step: int, evaluation: Evaluation | None) -> None:
        """Log an epoch after its last step, with its evaluation if there was one.

        The figures start with the epoch, or where the training was resumed within it.
        """
        if self._log is None:
            return
        epoch = (step - 1) // self._run.steps_per_epoch
        train_loss = sum(self._losses) / len(self._losses)
        seconds = time.monotonic() - self._epoch_began
        counts: dict[str, Any] = {}
        if evaluation:
            counts = evaluation.model_dump(
                include={"seen", "correct_top1", "correct_top5", "loss_sum"}
            )
        rate = self._rates[step - 1]
        self._report(f"{self._epoch(step)}: {epoch_line(train_loss, evaluation, rate, seconds)}")
        self._log.write(
            "epoch",
            step,
            epoch=epoch,
            train_loss=train_loss,
            lr=rate,
            seconds=seconds,
            **self._measured(self._epoch_first),
            **counts,
        )

    def evaluating(self, step: int) -> None:
        """Show that the weights after so many steps are being evaluated."""
        if self._log is None:
            return
        fraction = step / self._run.total_steps
        progress = Progress(phase="evaluating", fraction=fraction, figures=(self._epoch(step),))
        console().show(progress)

    def training_done(self, checkpoint_seconds: float) -> None:
        """Log the end of the training.

        Args:
            checkpoint_seconds: Seconds for which checkpoints held up the steps.
        """
        if self._log:
            self._log.write(
                "end",
                self._run.total_steps,
                compile_seconds=self._times.compile_seconds,
                checkpoint_seconds=checkpoint_seconds,
                restarts=self._log.restarts,
                **self._measured(0),
            )

    def _measured(self, first: int) -> dict[str, float]:
        summary = self._times.summary(self._run.global_batch_size, first)
        return {**summary, "host_memory_mib": host_memory_mib()}

    def _epoch(self, step: int) -> str:
        """Return which epoch a step belongs to."""
        return f"epoch {(step - 1) // self._run.steps_per_epoch + 1}/{self._run.recipe.epoch_size}"

    def _show(self, step: int, loss: float) -> None:
        """Show the progress after a step, unless it was shown a moment ago."""
        now, total = time.monotonic(), self._run.total_steps
        if now - self._shown < 1 / FRAMES_PER_SECOND and step != total:
            return
        self._shown = now
        figures = [
            self._epoch(step),
            f"step {step}/{total}",
            f"loss {loss:.4f}",
            f"lr {self._rates[step - 1]:.4g}",
        ]
        recent = self._times.recent(self._run.global_batch_size)
        if recent is not None:
            speed, waiting = recent
            figures += [f"{speed:.0f} images/s", f"data wait {waiting:.0%}"]
        left = self._pace.seconds_left(step)
        in_epoch = self._pace.seconds_left_in_epoch(step)
        if left is None and in_epoch:
            figures.append(f"{clock(in_epoch)} left in this epoch")
        console().show(Progress(fraction=step / total, figures=tuple(figures), seconds_left=left))


def epoch_line(
    train_loss: float, evaluation: Evaluation | None, rate: float, seconds: float
) -> str:
    """Describe an epoch in one line.

    Args:
        train_loss: Mean of the losses of its steps.
        evaluation: The evaluation after it, if there was one.
        rate: The learning rate of its last step.
        seconds: How long it took with its evaluation.
    """
    parts = [f"train loss {train_loss:.4f}"]
    if evaluation:
        parts += [
            f"validation loss {evaluation.loss:.4f}",
            f"accuracy@1 {evaluation.accuracy_top1:.2%} "
            f"({evaluation.correct_top1}/{evaluation.seen})",
        ]
    return ", ".join([*parts, f"lr {rate:.4g}", f"{seconds:.1f} s"])


class StepTimes:
    """The durations of the steps of this rank."""

    def __init__(self) -> None:
        self.compile_seconds = 0.0
        self._steps: list[float] = []
        self._waits: list[float] = []

    def add(self, wait: float, compute: float) -> None:
        """Add a step: seconds of waiting for data, then of computing. The first one compiles."""
        if self.compile_seconds == 0.0:
            self.compile_seconds = compute
            return
        self._steps.append(wait + compute)
        self._waits.append(wait)

    @property
    def num_steps(self) -> int:
        """Number of measured steps: all but the first one, which compiles."""
        return len(self._steps)

    def recent(self, global_batch: int) -> tuple[float, float] | None:
        """Return images/s and the share of waiting of the last steps; None if none is measured."""
        steps, waits = self._steps[-WINDOW:], self._waits[-WINDOW:]
        total = sum(steps)
        return (global_batch * len(steps) / total, sum(waits) / total) if total else None

    def summary(self, global_batch: int, first: int = 0) -> dict[str, float]:
        """Return figures over the measured steps from number `first` on; empty if there are none.

        Times are in milliseconds; `data_wait_share` is the fraction of the time without data.
        """
        steps, waits = self._steps[first:], self._waits[first:]
        if not steps:
            return {}
        total = sum(steps)
        p50, p90, p99 = np.percentile(steps, [50, 90, 99]) * 1000
        return {
            "ms_per_step": 1000 * total / len(steps),
            "ms_per_step_p50": float(p50),
            "ms_per_step_p90": float(p90),
            "ms_per_step_p99": float(p99),
            "images_per_second": global_batch * len(steps) / total,
            "data_wait_share": sum(waits) / total,
        }


def host_memory_mib() -> float:
    """Return the resident memory of this process, in MiB."""
    resident: int = psutil.Process().memory_info().rss
    return round(resident / _MEBIBYTE, 1)


class Sink(Protocol):
    """A second destination for the lines of a `MetricsLog`."""

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Take the values of a line that this destination can show."""

    def close(self) -> None:
        """Write out everything."""


class MetricsLog:
    """metrics.jsonl: one JSON object a line.

    A resumed run first drops the lines beyond the step from which it starts.
    """

    def __init__(
        self,
        path: Path,
        start_step: int,
        report: Callable[[str], None],
        sinks: tuple[Sink, ...] = (),
    ) -> None:
        self.restarts = 0
        """Number of earlier starts of this run."""
        self._path, self._report, self._sinks = path, report, sinks
        self._file = path.open("ab", buffering=0)
        self._warned = False
        self._file.truncate(self._size_until(start_step))

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Append a line; `step` is the number of steps done."""
        self._append(json.dumps({"type": kind, "step": step, **values}) + "\n")
        for sink in self._sinks:
            sink.write(kind, step, values)

    def close(self) -> None:
        """Close the file and all sinks."""
        self._file.close()
        for sink in self._sinks:
            sink.close()

    def _append(self, line: str) -> None:
        """Append the whole line or nothing of it."""
        size = os.fstat(self._file.fileno()).st_size
        try:
            fault = "" if self._file.write(line.encode()) == len(line) else "it is full"
        except OSError as error:
            fault = str(error)
        if fault:
            self._file.truncate(size)
            if not self._warned:
                self._report(f"warning: the disk takes no more lines of {self._path}: {fault}")
            self._warned = True

    def _size_until(self, start_step: int) -> int:
        """Return the size of the lines to keep, in bytes; steps only grow within a file."""
        size, keeping = 0, True
        for line in self._path.read_bytes().splitlines(keepends=True):
            try:
                entry = json.loads(line)
                self.restarts += entry["type"] == "start"
                keeping &= entry["step"] <= start_step and line.endswith(b"\n")
            except (ValueError, LookupError, TypeError):
                keeping = False  # a line that was cut short when the process was killed
            size += len(line) * keeping
        return size


class TensorBoard:
    """A sink that writes event files. Tags are `step/loss`, `epoch/train_loss` and so on."""

    def __init__(self, directory: Path, start_step: int) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise UserError(
                "--tensorboard needs tensorboardX: pip install 'sknet[tensorboard]'"
            ) from None
        # TensorBoard hides what an interrupted run wrote from this step on.
        self._writer = SummaryWriter(str(directory), purge_step=start_step + 1)

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Write all values that are numbers."""
        for name, value in values.items():
            if isinstance(value, int | float):
                self._writer.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Write out everything."""
        self._writer.close()
