"""A Ray actor that runs one host's part of a gang.

It tells the caller when its host has to leave the cluster, and ends the ranks when the caller falls
silent. When the actor itself ends, for whatever reason, the ranks end with it, because their
supervisor sees its stdin close.
"""

import dataclasses
import os
import shutil
import socket
import tempfile
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from infra.base.outcomes import Outcome
from infra.launch.cluster import leaving_hosts
from infra.launch.environment import HOST_ADDRESS, is_foreign_address, seconds
from infra.launch.job import Control, Job, JobResult
from infra.launch.msrun import free_port, run

# Returned at the end; the lines of the ranks' logs are returned while the job runs.
LAUNCH_LOGS = ("msrun.log", "scheduler.log")
TICK_SECONDS = 0.5


@dataclass(frozen=True)
class HostAddress:
    """The host of an agent, and a free port of it."""

    name: str
    address: str
    port: int


@dataclass(frozen=True)
class Report:
    """What happened on a host since the last report."""

    lines: tuple[str, ...]
    result: JobResult | None
    """None while the job runs."""
    launch_logs: dict[str, str]
    """Text of each log of msrun, by its name; empty while the job runs."""
    must_leave: bool
    """Whether the host has been told to leave the cluster."""


class HostAgent:
    """A Ray actor whose methods return at once; the job runs in a thread."""

    def __init__(self) -> None:
        # Ray sets it for its own workers; for ranks, the launcher divides the cores.
        os.environ.pop("OMP_NUM_THREADS", None)
        self._control = Control()
        self._lines: deque[str] = deque()
        self._result: JobResult | None = None
        self._launch_logs: dict[str, str] = {}
        self._last_asked = time.monotonic()
        self._must_leave = False

    def locate(self, address: str) -> HostAddress:
        """Return this host's name and a free port; `address` is this host's, as Ray knows it."""
        return HostAddress(socket.gethostname(), address, free_port(address))

    def start(self, job: Job) -> None:
        """Start the job, with its files in a temporary directory of this host."""
        self._last_asked = time.monotonic()
        for work in (
            lambda: self._run(job),
            self._end_when_caller_is_silent,
            self._notice_that_the_host_must_leave,
        ):
            threading.Thread(target=work, daemon=True).start()

    def report(self) -> Report:
        """Return what happened since the last call; the caller must call often (see above)."""
        self._last_asked = time.monotonic()
        result = self._result  # before the lines, so that the last report has all of them
        lines = []
        while self._lines:
            lines.append(self._lines.popleft())
        logs = self._launch_logs if result else {}
        return Report(tuple(lines), result, logs, self._must_leave)

    def stop(self) -> None:
        """Let the ranks save and stop."""
        self._control.stop = True

    def end(self, because: str) -> None:
        """End the ranks at once."""
        self._control.end_because = because

    def _run(self, job: Job) -> None:
        directory = Path(tempfile.mkdtemp(prefix="gang-"))
        try:
            self._run_in(directory, job)
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def _run_in(self, directory: Path, job: Job) -> None:
        job = self._without_foreign_address(_with_files_in(directory, job))
        try:
            result = run(job, on_line=self._lines.append, control=self._control)
        except (OSError, ValueError) as error:  # such as a program missing on this host
            text = f"{type(error).__name__}: {error}"
            result = JobResult(
                status=Outcome.FAILED, message=text, return_code=1, seconds=0.0, log_tail=()
            )
        for path in map(job.log_dir.joinpath, LAUNCH_LOGS):
            if path.is_file():
                self._launch_logs[path.name] = path.read_text("utf-8", "replace")
        self._result = result

    def _without_foreign_address(self, job: Job) -> Job:
        """Leave out the caller's HCCL_IF_IP if it isn't this host's, which may have set its own."""
        address = job.env.get(HOST_ADDRESS)
        if address is None or not is_foreign_address(address):
            return job
        self._lines.append(
            f"[launcher] {HOST_ADDRESS}={address} is no address of this host, and is left out"
        )
        environment = {name: value for name, value in job.env.items() if name != HOST_ADDRESS}
        return dataclasses.replace(job, env=environment)

    def _end_when_caller_is_silent(self) -> None:
        limit = seconds("caller_silence")
        while self._result is None:
            if time.monotonic() - self._last_asked > limit:
                self.end(f"the caller has been silent for {limit:g} s")
            time.sleep(TICK_SECONDS)

    def _notice_that_the_host_must_leave(self) -> None:
        ray = import_module("ray")
        own = ray.get_runtime_context().get_node_id()
        while self._result is None and not self._must_leave:
            with suppress(ray.exceptions.RpcError):  # the head may answer the next time
                self._must_leave = own in leaving_hosts()
            time.sleep(TICK_SECONDS)


def _with_files_in(directory: Path, job: Job) -> Job:
    """Return the job with its local files in `directory`, and its arguments changed to match."""
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
