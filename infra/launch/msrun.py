"""Run a program as the ranks of one job, or this host's share of them, and say how it ended.

More than one rank is started by msrun; a single one is started directly. Either way a supervisor
process stands between the caller and the ranks, so that none outlives the call: not after an
exception, not after SIGKILL of the caller.
"""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from infra.base.outcomes import Outcome, read_outcome
from infra.launch.environment import rank_environment, seconds
from infra.launch.job import Control, Job, JobResult, stop_on_signal
from infra.launch.memory import MemoryWatch
from infra.launch.ranks import RankLogs, Workers

POLL_SECONDS = 0.2
MSRUN_SECONDS = 1.5  # msrun looks after its ranks each second


def run(job: Job, *, on_line: Callable[[str], None], control: Control | None = None) -> JobResult:
    """Run `job` to its end and return how it ended.

    `on_line` receives each line that a rank prints as `[rank <rank>] <line>`, soon after it was
    printed and in this thread; lines that all ranks print alike come once per rank.

    SIGUSR1 to this process, or `control.stop`, lets the ranks save and stop, for which they have
    `job.grace` seconds; the status is then STOPPED unless they had finished or failed by
    themselves. So does an exception that is no Exception (KeyboardInterrupt, an orchestrator's
    cancellation), which is raised on afterwards; a second one ends the job at once.

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
    control = control or Control()
    job.log_dir.mkdir(parents=True, exist_ok=True)
    job.outcome_file.unlink(missing_ok=True)
    alone = job.num_workers == 1
    launcher_log = job.log_dir / ("worker_0.log" if alone else "msrun.log")
    logs = RankLogs(job.log_dir, job.ranks)

    started = time.monotonic()
    with launcher_log.open("wb") as output:
        supervisor = subprocess.Popen(
            _command(job),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=job.cwd,
            env=rank_environment(job.workers, job.env),
            start_new_session=True,  # Ctrl-C reaches the caller, which then stops the job
        )
    workers = Workers(supervisor.pid, job.ranks, alone=alone)
    memory = MemoryWatch(supervisor.pid)
    try:
        with stop_on_signal(control):
            ended_because = _watch(job, supervisor, workers, memory, logs, on_line, control)
    except Exception:
        raise
    except BaseException:
        control.stop = True
        with suppress(BaseException):  # a second one is the end of patience
            _watch(job, supervisor, workers, memory, logs, on_line, control)
        raise
    finally:
        supervisor.communicate()  # closes its stdin, on which it ends the job, and waits
    return_code = supervisor.returncode
    for line in logs.last_lines():
        on_line(line)

    log_tail = logs.tail() or _tail(launcher_log)
    took = time.monotonic() - started
    status, message = _judge(job, return_code, took, stop_asked=control.stop)
    if status is Outcome.LOST_WORKER:
        cause, lines = ended_because or f"exit code {return_code}", log_tail
        if failed := workers.first_failed(launcher_log):
            rank, how = failed
            cause, lines = f"rank {rank} {how}", logs.tail(rank)
        message = "\n".join([f"{cause}, and {message}; logs in {job.log_dir}", *lines])
        if starved := memory.verdict():
            status, message = Outcome.OUT_OF_MEMORY, f"{starved}\n{message}"
    return JobResult(
        status=status,
        message=message,
        return_code=return_code,
        seconds=took,
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
    supervisor.append(f"--grace={job.grace}")
    if job.deadline is not None:
        supervisor.append(f"--deadline={job.deadline}")
    program = [str(job.program.absolute()), *job.args]
    if job.num_workers == 1:
        return [*supervisor, "--", sys.executable, *program]
    if job.rendezvous is None:
        meeting = ["--master_addr=127.0.0.1", f"--master_port={free_port('127.0.0.1')}"]
    else:
        place = job.rendezvous
        meeting = [
            f"--master_addr={place.address}",
            f"--master_port={place.port}",
            f"--node_rank={place.node_rank}",
        ]
    return [
        *supervisor,
        "--",
        *(sys.executable, "-m", "mindspore.parallel.cluster.run"),  # what `msrun` calls
        f"--worker_num={job.num_workers}",
        f"--local_worker_num={job.workers}",
        *meeting,
        "--join=True",  # without it, msrun leaves with 0 whatever happens
        f"--log_dir={job.log_dir.absolute()}",
        f"--tail_worker_log={job.num_workers}",  # no such rank: this process follows the logs
        f"--cluster_time_out={seconds('cluster_time_out'):g}",
        *(["--bind_core=True"] if job.bind_core else []),
        "python3",
        *program,
    ]


def free_port(address: str) -> int:
    """Return a port that is free at this host's `address`; if it is taken first, the job fails."""
    with socket.socket() as listener:
        listener.bind((address, 0))
        port: int = listener.getsockname()[1]
        return port


def _watch(
    job: Job,
    supervisor: subprocess.Popen[bytes],
    workers: Workers,
    memory: MemoryWatch,
    logs: RankLogs,
    on_line: Callable[[str], None],
    control: Control,
) -> str | None:
    """Relay lines until the job has ended, or return why it is to be ended."""
    last_sign = time.monotonic()
    ranks_left: float | None = None
    stopped_since: float | None = None
    asked_to_stop = False
    while supervisor.poll() is None:
        now = time.monotonic()
        memory.look()
        # First, as the caller may take long over a line
        if control.stop and not asked_to_stop:
            supervisor.send_signal(signal.SIGUSR1)
            asked_to_stop = True
        for line in logs.new_lines():
            last_sign = now
            on_line(line)
        if control.end_because is not None:
            return control.end_because
        if ranks_left is None and workers.all_ended():
            # Now it is up to msrun and its scheduler, which print nothing
            ranks_left = last_sign = now
        if ranks_left is not None and now - ranks_left > MSRUN_SECONDS and _is_leader(job):
            outcome = read_outcome(job.outcome_file)
            if outcome is None or outcome.status != Outcome.DONE:
                return "all ranks have ended"
        if number := workers.scheduler_killed_by():
            return f"msrun's scheduler was killed by signal {number}"
        stopped = workers.first_stopped()
        stopped_since = None if stopped is None else stopped_since or now
        if stopped_since is not None and now - stopped_since > seconds("stopped_rank"):
            return f"rank {stopped} was stopped by a signal (SIGSTOP)"
        if job.silence is not None and now - last_sign > job.silence:
            return f"no rank printed a line for {job.silence:g} s: ended as hung"
        time.sleep(POLL_SECONDS)
    return None


def _judge(job: Job, return_code: int, took: float, *, stop_asked: bool) -> tuple[Outcome, str]:
    """Return status and message of an ended job; for done, exit code and outcome must agree."""
    outcome = read_outcome(job.outcome_file)
    if outcome is not None and outcome.status != Outcome.DONE:
        return Outcome(outcome.status), outcome.message
    if outcome is not None and return_code == 0:
        return Outcome.DONE, outcome.message
    if stop_asked:
        return Outcome.STOPPED, "ended on request"
    if return_code == 0 and not _is_leader(job):
        return Outcome.DONE, ""
    if job.deadline is not None and took >= job.deadline and return_code != 0:
        return Outcome.FAILED, f"not done within {job.deadline:g} s"
    report = "there is no valid outcome" if outcome is None else "rank 0 reported done"
    return Outcome.LOST_WORKER, report


def _is_leader(job: Job) -> bool:
    """Whether rank 0, who reports, is on this host."""
    return 0 in job.ranks


def _tail(path: Path) -> tuple[str, ...]:
    return tuple(path.read_text(errors="replace").splitlines()[-40:])
