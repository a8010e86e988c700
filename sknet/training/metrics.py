"""metrics.jsonl: one JSON line per logged step, per epoch, per start and end of the program."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np


class MetricsLog:
    """Appends lines; those beyond the step that a resumed run starts from are dropped first."""

    def __init__(self, path: Path, start_step: int) -> None:
        self.restarts = 0
        kept = []
        if path.is_file():
            for line in path.read_text("utf-8").splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue  # the line that a kill cut short
                self.restarts += entry["type"] == "start"
                if entry["step"] <= start_step:
                    kept.append(line)
        path.write_text("".join(f"{line}\n" for line in kept), "utf-8")
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def write(self, kind: str, step: int, **values: Any) -> None:
        """One line; `step` counts steps done."""
        self._file.write(json.dumps({"type": kind, "step": step, **values}) + "\n")

    def close(self) -> None:
        """Flush to the file."""
        self._file.close()


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

    def summary(self, global_batch: int, last: int | None = None) -> dict[str, float]:
        """Over the last steps, or all: milliseconds, images/s, share of time waiting for data."""
        steps = self._steps[-last:] if last else self._steps
        if not steps:
            return {}
        waits = self._waits[-last:] if last else self._waits
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
