"""Ranks of one host: processes that a launcher starts, or threads of the test."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from infra.launch import Job, JobResult, run
from sknet.world import World

Result = TypeVar("Result")


def run_ranks(
    program: Path,
    *args: object,
    directory: Path,
    on_line: Callable[[str], None],
    workers: int = 2,
    env: Mapping[str, str] | None = None,
) -> JobResult:
    """Run a program in ranks.

    Args:
        program: The program.
        *args: Its arguments, without that of the outcome.
        directory: An existing directory for the outcome, the logs, and what MindSpore leaves.
        on_line: Called with each line of the ranks.
        workers: Number of ranks.
        env: Variables to add to the environment.
    """
    outcome = directory / "outcome.json"
    job = Job(
        program=program,
        args=(*map(str, args), "--outcome_file", str(outcome)),
        workers=workers,
        log_dir=directory / "logs",
        outcome_file=outcome,
        cwd=directory,
        env=env or {},
        deadline=1800,
        silence=None,
    )
    return run(job, on_line=on_line)


@dataclass(frozen=True)
class _Thread(World):
    """A rank that is a thread of this process."""

    sent: list[bytes]
    barrier: threading.Barrier

    def gather(self, content: bytes) -> list[bytes]:
        self.sent[self.rank] = content
        self.barrier.wait(60)
        result = [*self.sent]
        self.barrier.wait(60)
        return result


def in_threads(size: int, work: Callable[[World], Result]) -> list[Result]:
    """Call a function at once as each rank, and return the results in the order of the ranks."""
    sent, barrier = [b""] * size, threading.Barrier(size)
    with ThreadPoolExecutor(size) as pool:
        return [*pool.map(work, [_Thread(rank, size, sent, barrier) for rank in range(size)])]
