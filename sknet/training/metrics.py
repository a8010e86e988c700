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
