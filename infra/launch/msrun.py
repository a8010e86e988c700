"""Run a program as the ranks of a job, or as this host's part of them, and return how it ended.

msrun starts the ranks, unless there is only one, which is started directly. In both cases a
supervisor process stands between the caller and the ranks, so that no rank outlives the call: not
after an exception, and not after SIGKILL of the caller.
"""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from infra.base.cann import version_warning
from infra.base.outcomes import Outcome, read_outcome
from infra.launch.binding import binding_obstacle, report_binding
from infra.launch.environment import rank_environment, seconds
from infra.launch.job import Control, Job, JobResult, run_to_end
from infra.launch.memory import MemoryMonitor
from infra.launch.ranks import TAIL_LINES, RankLogs, RankProcesses

POLL_SECONDS = 0.2
MSRUN_SECONDS = 1.5  # msrun checks its ranks every second


def run(job: Job, *, on_line: Callable[[str], None], control: Control | None = None) -> JobResult:
    """Run `job` to its end and return how it ended.

    SIGUSR1 to this process, or `control.stop`, lets the ranks save and stop, for which they have
    `job.grace` seconds; the status is then STOPPED unless they had finished or failed before. So
    does an exception that is not an `Exception` (see `run_to_end`).

    No process of the job is left when this function returns or raises, whatever the exception.

    After success, this waits for msrun's scheduler, which checks only every 5 s whether the ranks
    have ended; only then does msrun's exit code confirm that every rank succeeded. After a failure
    msrun has nothing to add, and the job is ended shortly after the last rank.

    Args:
        job: The job.
        on_line: Called in this thread for each line that a rank prints, with `[rank <rank>] <line>`
            and soon after it was printed. A line that all ranks print comes once per rank. The
            launcher's own lines begin with `[launcher]`: for a job on Ascend, a CANN that MindSpore
            doesn't accept, whose warning the ranks' log level hides; and the cores of each rank.
        control: Requests from other threads.

    Raises:
        ValueError: `workers` is below 1, `program` is no file, or `log_dir` is not empty (the logs
            of two attempts must not be mixed).
        FileNotFoundError: `cwd` does not exist.
    """
    _check(job)
    control = control or Control()
    job.log_dir.mkdir(parents=True, exist_ok=True)
    job.outcome_file.unlink(missing_ok=True)
    attempt = _Attempt(job, on_line, control)
    try:
        ended_because = run_to_end(control, attempt.follow, attempt.end)
    except BaseException:
        # The caller is interrupted, and won't hear otherwise that its ranks could not save.
        outcome = read_outcome(job.outcome_file)
        if outcome and outcome.status not in (Outcome.DONE, Outcome.STOPPED):
            on_line(f"[launcher] the last steps were not saved: {outcome.message}")
        raise
    return attempt.result(ended_because)


def free_port(address: str) -> int:
    """Return a free port of this host. If another process takes it first, the job fails."""
    with socket.socket() as listener:
        listener.bind((address, 0))
        port: int = listener.getsockname()[1]
        return port


class _Attempt:
    """The started processes of a job on this host."""

    def __init__(self, job: Job, on_line: Callable[[str], None], control: Control) -> None:
        self._job, self._on_line, self._control = job, on_line, control
        alone = job.num_workers == 1
        self._launcher_log = job.log_dir / ("worker_0.log" if alone else "msrun.log")
        self._logs = RankLogs(job.log_dir, job.ranks)
        environment = rank_environment(job.workers, job.env)
        self._path = environment["PATH"]
        self._must_report_cores = job.bind_core and not alone
        if job.uses_ascend and (warning := version_warning(environment)):
            self._say(warning)
        self._began = time.monotonic()
        with self._launcher_log.open("wb") as output:
            self._supervisor = subprocess.Popen(
                _command(job),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=job.cwd,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches the caller only, which stops the job
            )
        msrun_log = None if alone else self._launcher_log
        self._processes = RankProcesses(self._supervisor.pid, job.ranks, msrun_log)
        self._memory = MemoryMonitor(self._supervisor.pid)

    def follow(self) -> str | None:
        """Pass lines on until the job has ended; return why it must be ended if it has not."""
        job, control = self._job, self._control
        last_sign = time.monotonic()
        ranks_ended: float | None = None
        stopped_since: float | None = None
        asked_to_stop = False
        while self._supervisor.poll() is None:
            now = time.monotonic()
            self._memory.sample()
            # Before the lines, because the caller may take long to handle one.
            if control.stop and not asked_to_stop:
                self._supervisor.send_signal(signal.SIGUSR1)
                asked_to_stop = True
            for line in self._logs.new_lines():
                last_sign = now
                self._on_line(line)
            if control.end_because is not None:
                return control.end_because
            if self._must_report_cores and (cores := self._processes.cores()) is not None:
                self._must_report_cores = False
                for line in report_binding(cores, binding_obstacle(self._path)):
                    self._say(line)
            if ranks_ended is None and self._processes.all_ended():
                # From here on only msrun and its scheduler run, which print nothing.
                ranks_ended = last_sign = now
            # Ranks that stopped on request have nothing that msrun could add.
            patience = 0 if control.stop else MSRUN_SECONDS
            if ranks_ended is not None and now - ranks_ended > patience and _has_rank_0(job):
                outcome = read_outcome(job.outcome_file)
                if outcome is None or outcome.status != Outcome.DONE:
                    return "all ranks have ended"
            if number := self._processes.scheduler_killed_by():
                return f"msrun's scheduler was killed by signal {number}"
            stopped = self._processes.first_stopped()
            stopped_since = None if stopped is None else stopped_since or now
            if stopped_since is not None and now - stopped_since > seconds("stopped_rank"):
                return f"rank {stopped} was stopped by a signal (SIGSTOP)"
            if job.silence is not None and now - last_sign > job.silence:
                return f"no rank printed a line for {job.silence:g} s: ended as hung"
            time.sleep(POLL_SECONDS)
        return None

    def _say(self, line: str) -> None:
        self._on_line(f"[launcher] {line}")

    def end(self) -> None:
        """End all processes and wait for the supervisor, for which closing its stdin suffices."""
        self._supervisor.communicate()

    def result(self, ended_because: str | None) -> JobResult:
        """Return how the job ended, once all its processes have."""
        for line in self._logs.last_lines():
            self._on_line(line)
        log_tail = self._logs.tail() or _tail(self._launcher_log)
        took = time.monotonic() - self._began
        return_code = self._supervisor.returncode
        status, message = _outcome(self._job, return_code, took, stop_asked=self._control.stop)
        if status is Outcome.LOST_WORKER:
            cause, lines = ended_because or f"exit code {return_code}", log_tail
            if failed := self._processes.first_failed():
                rank, how = failed
                if rank is None:
                    cause = f"a rank {how} as soon as it was started"
                else:
                    cause, lines = f"rank {rank} {how}", self._logs.tail(rank)
            message = "\n".join([f"{cause}, and {message}; logs in {self._job.log_dir}", *lines])
            if kill_report := self._memory.kill_report():
                status, message = Outcome.OUT_OF_MEMORY, f"{kill_report}\n{message}"
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
        master = ["--master_addr=127.0.0.1", f"--master_port={free_port('127.0.0.1')}"]
    else:
        master = [
            f"--master_addr={job.rendezvous.address}",
            f"--master_port={job.rendezvous.port}",
            f"--node_rank={job.rendezvous.node_rank}",
        ]
    return [
        *supervisor,
        "--",
        *(sys.executable, "-m", "mindspore.parallel.cluster.run"),  # the program behind `msrun`
        f"--worker_num={job.num_workers}",
        f"--local_worker_num={job.workers}",
        *master,
        "--join=True",  # without it, msrun exits with 0 whatever happens
        f"--log_dir={job.log_dir.absolute()}",
        f"--tail_worker_log={job.num_workers}",  # no such rank: this process reads the logs
        f"--cluster_time_out={seconds('cluster_time_out'):g}",
        *(["--bind_core=True"] if job.bind_core else []),
        "python3",
        *program,
    ]


def _outcome(job: Job, return_code: int, took: float, *, stop_asked: bool) -> tuple[Outcome, str]:
    """Return status and message of an ended job; DONE needs both exit code and outcome file."""
    outcome = read_outcome(job.outcome_file)
    if outcome is not None and outcome.status != Outcome.DONE:
        return Outcome(outcome.status), outcome.message
    if outcome is not None and return_code == 0:
        return Outcome.DONE, outcome.message
    if stop_asked:
        return Outcome.STOPPED, "ended on request"
    if return_code == 0 and not _has_rank_0(job):
        return Outcome.DONE, ""
    if job.deadline is not None and took >= job.deadline and return_code != 0:
        return Outcome.FAILED, f"not done within {job.deadline:g} s"
    report = "there is no valid outcome" if outcome is None else "rank 0 reported done"
    return Outcome.LOST_WORKER, report


def _has_rank_0(job: Job) -> bool:
    """Tell whether rank 0, which writes the outcome, is on this host."""
    return 0 in job.ranks


def _tail(path: Path) -> tuple[str, ...]:
    return tuple(path.read_text(errors="replace").splitlines()[-TAIL_LINES:])
