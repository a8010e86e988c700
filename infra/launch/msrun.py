"""Run a program as the ranks of one job on this host, and say how it ended.

More than one rank is started by msrun; a single one is started directly. Either way a supervisor
process stands between the caller and the ranks, so that none outlives the call: not after an
exception, not after SIGKILL of the caller.
"""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.launch.environment import rank_environment
from infra.launch.outcome import JobStatus, read_outcome
from infra.launch.rank_logs import RankLogs
from infra.launch.workers import Workers

POLL_SECONDS = 0.2
# Until all ranks have joined, which slow imports on a shared disk delay. A rank that dies before
# is seen at once, so that being generous costs nothing.
CLUSTER_SECONDS = 300
MSRUN_SECONDS = 1.5  # msrun looks after its ranks each second


@dataclass(frozen=True, kw_only=True)
class Job:
    """A program and how to run it.

    The program learns `outcome_file` from its `args`; its rank 0 writes there, as its last act,
    `{"status": "done"|"user_error"|"non_finite"|"stopped"|"failed", "message": str}`.
    `infra.launch.environment` says how it can tell whether it is distributed.
    """

    program: Path
    """The script that every rank runs."""
    args: tuple[str, ...]
    """The script's arguments, the same for every rank."""
    workers: int
    """The number of ranks."""
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


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """How a job ended."""

    status: JobStatus
    message: str
    """For a person; the last log lines included where a rank was lost."""
    return_code: int
    """That of msrun, or of the program if alone; 143 if the job was ended, 124 at its deadline."""
    seconds: float
    """Wall time."""
    log_tail: tuple[str, ...]
    """The last lines of each rank; those of msrun if no rank printed any."""


def run(job: Job, *, on_line: Callable[[str], None]) -> JobResult:
    """Run `job` to its end and return how it ended.

    `on_line` receives each line that a rank prints as `[rank <rank>] <line>`, soon after it was
    printed and in this thread; lines that all ranks print alike come once per rank.

    No process of the job is left when this returns or raises, whatever the exception.

    After success msrun waits for its scheduler, which looks every 5 s whether the ranks have left:
    the price for msrun's own word that every rank succeeded. After a failure its word adds nothing
    and the job is ended shortly after the last rank.

    Raises:
        ValueError: `workers` is below 1, `program` is no file, or `log_dir` is not empty (the logs
            of two attempts must not mix).
        FileNotFoundError: `cwd` does not exist.
    """
    _check(job)
    job.log_dir.mkdir(parents=True, exist_ok=True)
    job.outcome_file.unlink(missing_ok=True)
    launcher_log = job.log_dir / ("worker_0.log" if job.workers == 1 else "msrun.log")
    logs = RankLogs(job.log_dir, job.workers)

    started = time.monotonic()
    with launcher_log.open("wb") as output:
        supervisor = subprocess.Popen(
            _command(job),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=job.cwd,
            env=rank_environment(job.workers, job.env),
            start_new_session=True,  # Ctrl-C reaches the caller, which then ends the job
        )
    workers = Workers(supervisor.pid, job.workers)
    try:
        ended_because = _watch(job, supervisor, workers, logs, on_line)
    finally:
        supervisor.communicate()  # closes its stdin, on which it ends the job, and waits
    return_code = supervisor.returncode
    seconds = time.monotonic() - started
    for line in logs.last_lines():
        on_line(line)

    log_tail = logs.tail() or _tail(launcher_log)
    status, message = _judge(job, return_code, seconds)
    if status is JobStatus.LOST_WORKER:
        cause, lines = ended_because or f"exit code {return_code}", log_tail
        if failed := workers.first_failed(launcher_log):
            rank, how = failed
            cause, lines = f"rank {rank} {how}", logs.tail(rank)
        message = "\n".join([f"{cause}, and {message}; logs in {job.log_dir}", *lines])
    return JobResult(
        status=status,
        message=message,
        return_code=return_code,
        seconds=seconds,
        log_tail=log_tail,
    )


def _check(job: Job) -> None:
    if job.workers < 1:
        raise ValueError(f"workers is {job.workers}, expected at least 1")
    if not job.program.is_file():
        raise ValueError(f"program {job.program} is not a file")
    if job.log_dir.exists() and any(job.log_dir.iterdir()):
        raise ValueError(f"log_dir {job.log_dir} is not empty: give each attempt its own")


def _command(job: Job) -> list[str]:
    supervisor = [sys.executable, "-P", str(Path(__file__).with_name("supervisor.py"))]
    if job.deadline is not None:
        supervisor.append(f"--deadline={job.deadline}")
    program = [str(job.program.absolute()), *job.args]
    if job.workers == 1:
        return [*supervisor, "--", sys.executable, *program]
    return [
        *supervisor,
        "--",
        *(sys.executable, "-m", "mindspore.parallel.cluster.run"),  # what `msrun` calls
        f"--worker_num={job.workers}",
        f"--local_worker_num={job.workers}",
        "--master_addr=127.0.0.1",
        f"--master_port={_free_port()}",
        "--join=True",  # without it, msrun leaves with 0 whatever happens
        f"--log_dir={job.log_dir.absolute()}",
        f"--tail_worker_log={job.workers}",  # no such rank: this process follows the logs itself
        f"--cluster_time_out={CLUSTER_SECONDS}",
        "python3",
        *program,
    ]


def _free_port() -> int:
    """Return a free port of the loopback; if another process takes it first, the job fails."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _watch(
    job: Job,
    supervisor: subprocess.Popen[bytes],
    workers: Workers,
    logs: RankLogs,
    on_line: Callable[[str], None],
) -> str | None:
    """Relay lines until the job has ended, or return why it is to be ended."""
    last_sign = time.monotonic()
    ranks_left: float | None = None
    while supervisor.poll() is None:
        now = time.monotonic()
        for line in logs.new_lines():
            last_sign = now
            on_line(line)
        if ranks_left is None and workers.all_ended():
            # Now it is up to msrun and its scheduler, which print nothing
            ranks_left = last_sign = now
        if ranks_left is not None and now - ranks_left > MSRUN_SECONDS:
            outcome = read_outcome(job.outcome_file)
            if outcome is None or outcome.status != "done":
                return "all ranks have ended"
        if job.silence is not None and now - last_sign > job.silence:
            return f"no rank printed a line for {job.silence:g} s: ended as hung"
        time.sleep(POLL_SECONDS)
    return None


def _judge(job: Job, return_code: int, seconds: float) -> tuple[JobStatus, str]:
    """Return status and message of an ended job; for done, exit code and outcome must agree."""
    outcome = read_outcome(job.outcome_file)
    if outcome is not None and outcome.status != "done":
        return JobStatus(outcome.status), outcome.message
    if outcome is not None and return_code == 0:
        return JobStatus.DONE, outcome.message
    if job.deadline is not None and seconds >= job.deadline and return_code != 0:
        return JobStatus.FAILED, f"not done within {job.deadline:g} s"
    report = "there is no valid outcome" if outcome is None else "rank 0 reported done"
    return JobStatus.LOST_WORKER, report


def _tail(path: Path) -> tuple[str, ...]:
    return tuple(path.read_text(errors="replace").splitlines()[-40:])
