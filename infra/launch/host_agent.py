"""One host's part of a gang: an actor that runs this host's share of the ranks.

It ends them when the caller falls silent, and they end with it, whatever ends it: the supervisor
sees its stdin close.
"""

import dataclasses
import os
import shutil
import socket
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from infra.base.outcomes import Outcome
from infra.launch.environment import seconds
from infra.launch.job import Control, Job, JobResult
from infra.launch.msrun import free_port, run

# Beside the logs of the ranks, which are relayed line by line.
LAUNCH_LOGS = ("msrun.log", "scheduler.log")
TICK_SECONDS = 0.5


@dataclass(frozen=True)
class Place:
    """Where an agent is, and a port that is free there."""

    host: str
    address: str
    port: int


@dataclass(frozen=True)
class Report:
    """What happened since the last one."""

    lines: tuple[str, ...]
    result: JobResult | None
    """None while the job runs."""
    launch_logs: dict[str, str]
    """Name → text, with the result."""


class HostAgent:
    """A Ray actor. Its methods return at once; the job runs in a thread."""

    def __init__(self) -> None:
        # Ray sets it for its own workers; a rank's share of the cores is decided by the launcher
        os.environ.pop("OMP_NUM_THREADS", None)
        self._control = Control()
        self._lines: deque[str] = deque()
        self._result: JobResult | None = None
        self._launch_logs: dict[str, str] = {}
        self._last_asked = time.monotonic()

    def place(self, address: str) -> Place:
        """Say who this is; `address` is this host's, as Ray knows it."""
        return Place(socket.gethostname(), address, free_port(address))

    def start(self, job: Job) -> None:
        """Run the job, with its files in a directory of this host's own, gone at its end."""
        self._last_asked = time.monotonic()
        for work in (lambda: self._run(job), self._guard):
            threading.Thread(target=work, daemon=True).start()

    def report(self) -> Report:
        """What is new. Being asked is what keeps the job alive."""
        self._last_asked = time.monotonic()
        result = self._result  # before the lines: those of an ended job are all there
        lines = []
        while self._lines:
            lines.append(self._lines.popleft())
        return Report(tuple(lines), result, self._launch_logs if result else {})

    def stop(self) -> None:
        """Let the ranks save and stop."""
        self._control.stop = True

    def end(self, because: str) -> None:
        """End the ranks at once."""
        self._control.end_because = because

    def _run(self, job: Job) -> None:
        directory = Path(tempfile.mkdtemp(prefix="gang-"))
        try:
            here = _in_directory(job, directory)
            self._result_of(here)
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def _result_of(self, job: Job) -> None:
        try:
            result = run(job, on_line=self._lines.append, control=self._control)
        except (OSError, ValueError) as error:
            # Such as a program that is not installed on this host
            text = f"{type(error).__name__}: {error}"
            result = JobResult(
                status=Outcome.FAILED, message=text, return_code=1, seconds=0.0, log_tail=()
            )
        for path in map(job.log_dir.joinpath, LAUNCH_LOGS):
            if path.is_file():
                self._launch_logs[path.name] = path.read_text("utf-8", "replace")
        self._result = result

    def _guard(self) -> None:
        limit = seconds("caller_silence")
        while self._result is None:
            if time.monotonic() - self._last_asked > limit:
                self.end(f"the caller has been silent for {limit:g} s")
            time.sleep(TICK_SECONDS)


def _in_directory(job: Job, directory: Path) -> Job:
    """The job with its local files in `directory`, also where its arguments name them."""
    outcome_file = directory / "outcome.json"
    scratch = directory / "scratch"
    scratch.mkdir()
    return dataclasses.replace(
        job,
        log_dir=directory / "logs",
        outcome_file=outcome_file,
        cwd=scratch,
        args=tuple(arg.replace(str(job.outcome_file), str(outcome_file)) for arg in job.args),
    )
