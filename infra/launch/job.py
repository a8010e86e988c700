"""A job of one or more ranks, its result, and the requests that can be made while it runs."""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Protocol, Self, TypeVar

from infra.base.interrupts import saving
from infra.base.outcomes import Outcome
from infra.launch.environment import seconds

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Rendezvous:
    """How one host of several joins a job."""

    num_workers: int
    """Number of ranks on all hosts, the same number on each."""
    address: str
    """Address of the host of rank 0, as the others reach it."""
    port: int
    """A free port of that host."""
    node_rank: int
    """Number of this host; 0 is the host of rank 0."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A program and how to run it.

    The program gets the path of `outcome_file` in its `args`. As its last act, its rank 0 writes
    there an `infra.base.outcomes.OutcomeReport`. `infra.launch.environment` says how the program
    can tell whether it is distributed.

    A program that can stop handles SIGUSR1: its ranks then end with the outcome "stopped". None of
    them may end before everything is saved, because msrun kills the others when one exits with an
    error.
    """

    program: Path
    """The script that every rank runs."""
    args: tuple[str, ...]
    """The script's arguments, the same for every rank."""
    workers: int
    """Number of ranks on each host."""
    log_dir: Path
    """Empty or missing directory for worker_<rank>.log, and msrun's scheduler.log and msrun.log."""
    outcome_file: Path
    """Where rank 0 writes how the job ended; removed before the start."""
    cwd: Path
    """An existing directory, in which MindSpore may leave files."""
    progress_file: Path | None = None
    """Where rank 0 writes how far it is, if the program does; its path is in the `args`, too."""
    env: Mapping[str, str]
    """Variables to add to the environment."""
    deadline: float | None
    """Seconds until the job is ended as failed; None: no limit."""
    silence: float | None
    """Seconds without a new line from any rank until the job is ended as hung; None: no limit.

    Must be longer than the start-up, any compilation, and the 6 s that msrun may take to end.
    """
    grace: float = seconds("stop_grace")
    """Seconds from a request to stop until the ranks are killed."""
    bind_core: bool = False
    """Whether msrun gives each rank its own cores; on Ascend, those near its device."""
    rendezvous: Rendezvous | None = None
    """How this host joins the others; None: all ranks are on this host."""

    def with_options(self, options: Mapping[str, object]) -> Self:
        """Return the same job with more options of the program."""
        words = (f"--{name}={value}" for name, value in options.items())
        return replace(self, args=(*words, *self.args))

    @property
    def num_workers(self) -> int:
        """The number of ranks on all hosts."""
        return self.rendezvous.num_workers if self.rendezvous else self.workers

    @property
    def uses_ascend(self) -> bool:
        """Whether the program is told to compute on Ascend: by `--device_target=Ascend`."""
        return "--device_target=Ascend" in self.args

    @property
    def ranks(self) -> range:
        """The ranks on this host."""
        first = self.rendezvous.node_rank * self.workers if self.rendezvous else 0
        return range(first, first + self.workers)


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """How a job ended."""

    status: Outcome
    message: str
    """The reason, for people; if a rank was lost, followed by the last lines of the logs."""
    return_code: int
    """Exit code of msrun, or of a single rank; 143 if the job was ended, 124 at its deadline."""
    seconds: float
    """Wall time."""
    log_tail: tuple[str, ...]
    """The last lines of each rank, or those of msrun if no rank printed any."""


@dataclass(frozen=True, kw_only=True)
class PreparedHost:
    """What a host has for the ranks on it."""

    options: Mapping[str, object]
    """Options of the program that name files of this host, without the leading dashes."""
    failure: Callable[[], Exception | None] = lambda: None
    """Returns why what serves the ranks on this host has failed; None if it hasn't."""

    def cause(self, result: JobResult) -> Exception | None:
        """Return why ranks have ended, if that is a failure of what serves them.

        They don't know its cause. If they have reported another one themselves, that counts.
        """
        is_unexplained = result.status in (Outcome.LOST_WORKER, Outcome.FAILED)
        return self.failure() if is_unexplained else None


class Preparation(Protocol):
    """Prepares a host for the ranks on it. It is sent to hosts, so it can be pickled."""

    def __call__(self, directory: Path, host: int) -> AbstractContextManager[PreparedHost]:
        """Prepare a host, and serve its ranks while the context is open.

        Args:
            directory: An existing directory of the host.
            host: Number of the host; rank 0 is on host 0.

        Raises:
            UserError: The host can't be prepared; a retry can't help.
            OSError: The host can't be prepared now.
        """


@dataclass
class Control:
    """Requests to a running job, made by a signal handler or another thread."""

    stop: bool = False
    """Whether to let the ranks save and stop."""
    end_because: str | None = None
    """Why to end the job at once, as a lost worker; None: let it run."""


def run_to_end(control: Control, follow: Callable[[], Result], end: Callable[[], None]) -> Result:
    """Follow a running job to its end, and let its ranks save if this process is interrupted.

    SIGUSR1 asks the ranks to stop. So does an exception that is not an `Exception`
    (KeyboardInterrupt, an orchestrator's cancellation), which is raised again afterwards; a second
    one ends the job at once.

    Args:
        control: Receives the request to stop.
        follow: Returns when the job has ended, or must be ended.
        end: Ends what is still running; called in every case.
    """
    try:
        with _stop_on_signal(control):
            return follow()
    except Exception:
        raise
    except BaseException:
        control.stop = True
        with saving(), suppress(BaseException):  # a second interruption doesn't wait for the ranks
            follow()
        raise
    finally:
        with saving():  # hosts may bring to safety what their ranks have saved
            end()


@contextmanager
def _stop_on_signal(control: Control) -> Iterator[None]:
    """Let SIGUSR1 set `control.stop`; outside the main thread, signals can't be handled."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def request(_number: int, _frame: FrameType | None) -> None:
        control.stop = True

    before = signal.signal(signal.SIGUSR1, request)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)
