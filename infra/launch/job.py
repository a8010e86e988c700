"""What a job is, how it ended, and what can be asked of it while it runs."""

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from infra.base.outcomes import Outcome
from infra.launch.environment import seconds


@dataclass(frozen=True, kw_only=True)
class Rendezvous:
    """One host's place in a job of several, and where they meet."""

    num_workers: int
    """Ranks on all hosts, the same number on each."""
    address: str
    """Of the host of rank 0, as the others reach it."""
    port: int
    """Free on that host."""
    node_rank: int
    """0 for the host of rank 0."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A program and how to run it.

    The program learns `outcome_file` from its `args`; its rank 0 writes there, as its last act,
    `{"status": "done"|"user_error"|"non_finite"|"stopped"|"disk_full"|"failed", "message": str}`.
    `infra.launch.environment` says how it can tell whether it is distributed.

    A program that can stop handles SIGUSR1: its ranks end with the outcome "stopped", none of them
    before all is saved, as msrun kills the others when one leaves with an error.
    """

    program: Path
    """The script that every rank runs."""
    args: tuple[str, ...]
    """The script's arguments, the same for every rank."""
    workers: int
    """The number of ranks on a host."""
    log_dir: Path
    """Empty or absent; worker_<rank>.log, and with msrun scheduler.log and msrun.log, land here."""
    outcome_file: Path
    """Where rank 0 reports; removed before the start."""
    cwd: Path
    """An existing directory that MindSpore may litter."""
    env: Mapping[str, str]
    """Additions to the environment."""
    deadline: float | None
    """Seconds until the job is ended as failed; None: no limit."""
    silence: float | None
    """Seconds without a new log line from any rank until it is ended as hung; None: no limit.

    Must exceed the start-up, any compilation, and the 6 s that msrun may take to end.
    """
    grace: float = seconds("stop_grace")
    """Seconds from a request to stop until the job is ended hard."""
    bind_core: bool = False
    """Let msrun give each rank cores of its own: those near its device, on Ascend."""
    rendezvous: Rendezvous | None = None
    """None: all ranks are on this host."""

    @property
    def num_workers(self) -> int:
        """The number of ranks on all hosts."""
        return self.rendezvous.num_workers if self.rendezvous else self.workers

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
    """For a person; the last log lines included where a rank was lost."""
    return_code: int
    """That of msrun, or of the program if alone; 143 if the job was ended, 124 at its deadline."""
    seconds: float
    """Wall time."""
    log_tail: tuple[str, ...]
    """The last lines of each rank; those of msrun if no rank printed any."""


@dataclass
class Control:
    """What is asked of a running job, by a signal handler or another thread."""

    stop: bool = False
    """Save, and end as stopped."""
    end_because: str | None = None
    """End at once as a lost worker, for this reason."""


@contextmanager
def stop_on_signal(control: Control) -> Iterator[None]:
    """While this lasts, SIGUSR1 sets `control.stop`. Outside the main thread it changes nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(_number: int, _frame: FrameType | None) -> None:
        control.stop = True

    before = signal.signal(signal.SIGUSR1, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)
