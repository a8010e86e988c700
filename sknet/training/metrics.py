"""metrics.jsonl: one JSON line per logged step, per epoch, per start and end of the program.

`docs/training.md` lists the fields. The file is for people and reports: no training fails for it.
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil

from sknet.errors import UserError
from sknet.progress import write_progress
from sknet.records import Evaluation, Run

METRICS_FILE = "metrics.jsonl"

_MEBIBYTE = 1 << 20


class Sink(Protocol):
    """Where the numbers of a line go as well."""

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Take what is a number, and fits."""

    def close(self) -> None:
        """Flush."""


class MetricsLog:
    """Appends lines; those beyond the step that a resumed run starts from are dropped first."""

    def __init__(
        self,
        path: Path,
        start_step: int,
        say: Callable[[str], None],
        sinks: tuple[Sink, ...] = (),
    ) -> None:
        self.restarts = 0
        self._path, self._say, self._sinks = path, say, sinks
        self._file = path.open("ab", buffering=0)
        self._warned = False
        self._file.truncate(self._size_until(start_step))

    def write(self, kind: str, step: int, **values: Any) -> None:
        """One line; `step` counts steps done."""
        self._append(json.dumps({"type": kind, "step": step, **values}) + "\n")
        for sink in self._sinks:
            sink.write(kind, step, values)

    def close(self) -> None:
        """Flush everything."""
        self._file.close()
        for sink in self._sinks:
            sink.close()

    def _append(self, line: str) -> None:
        """The whole line or none of it."""
        size = os.fstat(self._file.fileno()).st_size
        try:
            fault = "" if self._file.write(line.encode()) == len(line) else "it is full"
        except OSError as error:
            fault = str(error)
        if fault:
            self._file.truncate(size)
            if not self._warned:
                self._say(f"warning: the disk takes no more lines of {self._path}: {fault}")
            self._warned = True

    def _size_until(self, start_step: int) -> int:
        """Bytes of the lines to keep: steps only grow within a file."""
        size, keeping = 0, True
        for line in self._path.read_bytes().splitlines(keepends=True):
            try:
                entry = json.loads(line)
                self.restarts += entry["type"] == "start"
                keeping &= entry["step"] <= start_step and line.endswith(b"\n")
            except (ValueError, LookupError, TypeError):
                keeping = False  # the line that a kill cut short
            size += len(line) * keeping
        return size


class StepTimes:
    """Where the time of the steps went, as measured on this rank."""

    def __init__(self) -> None:
        self.compile_seconds = 0.0
        self._steps: list[float] = []
        self._waits: list[float] = []

    def add(self, wait: float, compute: float) -> None:
        """Seconds of one step: waiting for data, then computing. The first one compiles."""
        if self.compile_seconds == 0.0:
            self.compile_seconds = compute
            return
        self._steps.append(wait + compute)
        self._waits.append(wait)

    @property
    def num_steps(self) -> int:
        """Measured ones: all but the first, which compiles."""
        return len(self._steps)

    def summary(self, global_batch: int, first: int = 0) -> dict[str, float]:
        """From the `first` measured step on: milliseconds, images/s, share of time without data."""
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
    """Resident memory of this process, in MiB."""
    resident: int = psutil.Process().memory_info().rss
    return round(resident / _MEBIBYTE, 1)


class Clock:
    """Remaining time by the pace of this start."""

    def __init__(self, start_step: int, total_steps: int) -> None:
        self._start_step, self._total = start_step, total_steps
        self._start = time.monotonic()

    def eta(self, step: int) -> str:
        """As m:ss."""
        done = step - self._start_step
        seconds = round((time.monotonic() - self._start) / max(done, 1) * (self._total - step))
        return f"{seconds // 60}:{seconds % 60:02}"


class TensorBoard:
    """A sink of MetricsLog: tags are `step/loss`, `epoch/train_loss` and so on."""

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
        """Everything that is a number."""
        for name, value in values.items():
            if isinstance(value, int | float):
                self._writer.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Flush."""
        self._writer.close()


class ProgressFile:
    """A sink of MetricsLog that reports the fraction of the steps that are done."""

    def __init__(self, path: Path, total_steps: int) -> None:
        self._path, self._total_steps = path, total_steps

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Replace the file; every line tells the number of steps done."""
        del kind, values
        write_progress(self._path, step / self._total_steps)

    def close(self) -> None:
        """Do nothing: the file is always whole."""


class Progress:
    """Of one rank; without a log (every rank but the first) it only measures."""

    def __init__(
        self,
        run: Run,
        rates: list[float],
        start: int,
        log: MetricsLog | None,
        say: Callable[[str], None],
    ) -> None:
        self._run, self._rates, self._log, self._say = run, rates, log, say
        self._start, self._clock = start, Clock(start, run.total_steps)
        self._times = StepTimes()
        self._reported = 0
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """The next step is the first that counts for the epoch."""
        self._losses: list[float] = []
        self._epoch_began, self._epoch_first = time.monotonic(), self._times.num_steps

    def step_done(self, step: int, loss: float, *, wait: float, compute: float) -> None:
        """The step took `wait` seconds until its data was there, then `compute`."""
        times, log = self._times, self._log
        times.add(wait, compute)
        self._losses.append(loss)
        if log is None:
            return
        if step == self._start + 1:
            log.write(
                "compile",
                self._start,
                compile_seconds=times.compile_seconds,
                first_batch_seconds=wait,
            )
        if step % self._run.recipe.log_interval == 0 or step == self._run.total_steps:
            measured = self._measured(self._reported)
            self._reported = times.num_steps
            epoch = (step - 1) // self._run.steps_per_epoch
            log.write("step", step, epoch=epoch, loss=loss, lr=self._rates[step - 1], **measured)
            self._say(
                f"epoch {epoch + 1}/{self._run.recipe.epoch_size} "
                f"step {step}/{self._run.total_steps} loss {loss:.4f} "
                f"{measured.get('images_per_second', 0):.0f} images/s ETA {self._clock.eta(step)}"
            )

    def epoch_done(self, step: int, evaluation: Evaluation | None) -> None:
        """The step was the epoch's last; its numbers are of the steps since the start, if later."""
        if self._log is None:
            return
        counted = {"seen", "correct_top1", "correct_top5", "loss_sum"}
        counts: dict[str, Any] = evaluation.model_dump(include=counted) if evaluation else {}
        self._log.write(
            "epoch",
            step,
            epoch=(step - 1) // self._run.steps_per_epoch,
            train_loss=sum(self._losses) / len(self._losses),
            lr=self._rates[step - 1],
            seconds=time.monotonic() - self._epoch_began,
            **self._measured(self._epoch_first),
            **counts,
        )

    def training_done(self, checkpoint_seconds: float) -> None:
        """All steps; `checkpoint_seconds` of the time no step was done because of checkpoints."""
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
