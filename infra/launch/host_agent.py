"""A Ray actor that prepares one host of a gang, and runs its part.

It tells the caller when its host has to leave the cluster, and ends the ranks when the caller falls
silent. When the actor itself ends, for whatever reason, the ranks end with it, because their
supervisor sees its stdin close.
"""

import dataclasses
import logging
import os
import shutil
import socket
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from uuid import uuid4

from infra.base.files import cache_directory
from infra.base.locks import exclusive
from infra.base.outcomes import Outcome, UserError
from infra.base.progress import Progress, Sink, watching
from infra.base.shortages import is_disk_full
from infra.launch.cluster import leaving_hosts
from infra.launch.environment import HOST_ADDRESS, is_foreign_address, seconds
from infra.launch.job import Control, Job, JobResult, Preparation, PreparedHost, Rendezvous
from infra.launch.msrun import free_port, run

# Returned at the end; the lines of the ranks' logs are returned while the job runs.
LAUNCH_LOGS = ("msrun.log", "scheduler.log")
TICK_SECONDS = 0.5


@dataclass(frozen=True)
class HostAddress:
    """The host of an agent."""

    name: str
    address: str


@dataclass(frozen=True)
class Report:
    """What happened on a host since the last report."""

    lines: tuple[str, ...]
    is_prepared: bool
    """Whether ranks can start here."""
    progress: bytes | None
    """What is known of how far the host's part is, as in a job's `progress_file`."""
    ranks: JobResult | None
    """How the ranks have ended, while what they have saved is brought to safety; None before."""
    result: JobResult | None
    """How the host's part has ended; None while it runs."""
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
        self._address = ""
        self._is_prepared = False
        self._rendezvous: Rendezvous | None = None
        self._progress: bytes | None = None
        self._progress_file: Path | None = None
        self._ranks: JobResult | None = None
        self._result: JobResult | None = None
        self._launch_logs: dict[str, str] = {}
        self._last_asked = time.monotonic()
        self._must_leave = False

    def locate(self, address: str) -> HostAddress:
        """Return this host's name and address, which is `address`, as Ray knows it."""
        self._address = address
        return HostAddress(socket.gethostname(), address)

    def prepare(self, job: Job, prepare: Preparation | None, number: int) -> None:
        """Begin to prepare this host, host `number` of the gang; `begin` starts the ranks then."""
        self._last_asked = time.monotonic()
        for work in (
            lambda: self._run(job, prepare or _nothing, number),
            self._end_when_caller_is_silent,
            self._notice_that_the_host_must_leave,
        ):
            threading.Thread(target=work, daemon=True).start()

    def free_port(self) -> int:
        """Return a free port of this host, which others may take at any moment."""
        return free_port(self._address)

    def begin(self, rendezvous: Rendezvous) -> None:
        """Start the ranks: all hosts are prepared."""
        self._rendezvous = rendezvous

    def report(self) -> Report:
        """Return what happened since the last call; the caller must call often (see above)."""
        self._last_asked = time.monotonic()
        result = self._result  # before the lines, so that the last report has all of them
        lines = []
        while self._lines:
            lines.append(self._lines.popleft())
        if self._progress_file is not None:
            with suppress(OSError):
                self._progress = self._progress_file.read_bytes()
        return Report(
            lines=tuple(lines),
            is_prepared=self._is_prepared,
            progress=self._progress,
            ranks=self._ranks,
            result=result,
            launch_logs=self._launch_logs if result else {},
            must_leave=self._must_leave,
        )

    def stop(self) -> None:
        """Let the ranks save and stop."""
        self._control.stop = True

    def end(self, because: str) -> None:
        """End the ranks at once."""
        self._control.end_because = because

    def _run(self, job: Job, prepare: Preparation, number: int) -> None:
        try:
            with (
                _own_directory() as directory,
                _lines_of_log(self._say),
                watching(self._show),
                prepare(directory, number) as prepared,
            ):
                self._ranks = self._run_prepared(directory, job, prepared)
            failure = None
        except Exception as error:  # noqa: BLE001 (the caller gets it as the result)
            failure = self._failed(error, has_begun=self._rendezvous is not None)
        # Of ranks that have failed, their own result says more.
        is_good = self._ranks is None or self._ranks.status in (Outcome.DONE, Outcome.STOPPED)
        self._result = failure if failure and is_good else self._ranks

    def _run_prepared(self, directory: Path, job: Job, prepared: PreparedHost) -> JobResult:
        """Wait until all hosts are prepared, then run the ranks of this one."""
        job = self._without_foreign_address(_with_files_in(directory, job))
        self._is_prepared = True
        while self._rendezvous is None:
            if self._control.end_because is not None:
                return _ended(Outcome.LOST_WORKER, self._control.end_because)
            if self._control.stop:
                return _ended(Outcome.STOPPED, "stopped before the first step")
            time.sleep(TICK_SECONDS)
        self._progress_file = job.progress_file
        job = dataclasses.replace(job.with_options(prepared.options), rendezvous=self._rendezvous)
        try:
            result = run(job, on_line=self._lines.append, control=self._control)
        except (OSError, ValueError) as error:  # such as a program missing on this host
            result = _ended(Outcome.FAILED, f"{type(error).__name__}: {error}")
        for path in map(job.log_dir.joinpath, LAUNCH_LOGS):
            if path.is_file():
                self._launch_logs[path.name] = path.read_text("utf-8", "replace")
        if cause := prepared.cause(result):
            return self._failed(cause, has_begun=True)
        return result

    def _failed(self, error: Exception, *, has_begun: bool) -> JobResult:
        """Return the result of a host on which what serves the ranks has failed.

        Args:
            error: Why.
            has_begun: Whether ranks had started.
        """
        reason = " ".join(_reason(error).split())
        match error:
            case OSError() if not is_disk_full(error):
                return _ended(Outcome.LOST_WORKER, reason)  # the caller names the host
            case OSError():
                status = Outcome.DISK_FULL
            case UserError():
                status = Outcome.USER_ERROR
            case _:  # a fault of the program, which the message alone doesn't explain
                status = Outcome.FAILED
                for line in "".join(traceback.format_exception(error)).splitlines():
                    self._say(line)
                reason = f"{type(error).__name__}: {reason}"
        return _ended(status, _refused("go on" if has_begun else "be prepared", reason))

    def _say(self, line: str) -> None:
        self._lines.append(f"[launcher] {line}")

    def _show(self, work: str) -> Sink:
        """Report how far the preparation is."""

        def sink(fraction: float) -> None:
            self._progress = Progress(phase=work, fraction=fraction).model_dump_json().encode()

        return sink

    def _without_foreign_address(self, job: Job) -> Job:
        """Leave out the caller's HCCL_IF_IP if it isn't this host's, which may have set its own."""
        address = job.env.get(HOST_ADDRESS)
        if address is None or not is_foreign_address(address):
            return job
        self._say(f"{HOST_ADDRESS}={address} is no address of this host, and is left out")
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


@contextmanager
def _own_directory() -> Iterator[Path]:
    """Make a directory in this host's cache; remove it, and those of agents that were killed."""
    # Hosts may share the cache, and not the locks in it.
    parent = cache_directory("hosts") / socket.gethostname()
    parent.mkdir(parents=True, exist_ok=True)
    for left in [path for path in parent.iterdir() if path.is_dir()]:
        with suppress(BlockingIOError), exclusive(left.with_suffix(".lock"), wait=False):
            shutil.rmtree(left, ignore_errors=True)
    directory = parent / uuid4().hex
    with exclusive(directory.with_suffix(".lock")):
        directory.mkdir()
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)


class _LineHandler(logging.Handler):
    """Passes the lines of a log on."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a line on."""
        self._say(record.getMessage())


@contextmanager
def _lines_of_log(say: Callable[[str], None]) -> Iterator[None]:
    """Pass on what the store and others of `infra` log on this host, which the caller shows."""
    logger, handler = logging.getLogger("infra"), _LineHandler(say)
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _nothing(directory: Path, host: int) -> AbstractContextManager[PreparedHost]:
    """Prepare nothing; see `Preparation`."""
    del directory, host
    return nullcontext(PreparedHost(options={}))


def _reason(error: Exception) -> str:
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    return f"{error.strerror}: {error.filename}" if error.filename else error.strerror


def _refused(what: str, reason: str) -> str:
    return f"host {socket.gethostname()} can't {what}: {reason}"


def _ended(status: Outcome, message: str) -> JobResult:
    """Return the result of a host on which no rank reported anything."""
    return JobResult(status=status, message=message, return_code=1, seconds=0.0, log_tail=())


def _with_files_in(directory: Path, job: Job) -> Job:
    """Return the job with its local files in `directory`, and its arguments changed to match."""
    moved = {job.outcome_file: directory / "outcome.json"}
    if job.progress_file is not None:
        moved[job.progress_file] = directory / "progress"
    scratch = directory / "scratch"
    scratch.mkdir()
    args = job.args
    for old, new in moved.items():
        args = tuple(arg.replace(str(old), str(new)) for arg in args)
    return dataclasses.replace(
        job,
        log_dir=directory / "logs",
        outcome_file=moved[job.outcome_file],
        progress_file=moved[job.progress_file] if job.progress_file is not None else None,
        cwd=scratch,
        args=args,
    )
