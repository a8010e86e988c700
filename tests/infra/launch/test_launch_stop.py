"""A request to stop reaches the ranks that can stop, and ends those that can't."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from infra.launch import Control, Job, Outcome, run

Alive = Callable[[], set[psutil.Process]]

# A rank that stops at its next step, after a while for the checkpoint.
RANK = """
import json, os, signal, sys, time
from pathlib import Path
if os.environ.get("MS_ROLE") == "MS_SCHED":
    sys.exit()
rank = int(os.environ.get("RANK_ID", 0))
stop = False
def note(*_):
    global stop
    stop = True
signal.signal(signal.SIGUSR1, note)
print("in step", flush=True)
while not stop:
    time.sleep(0.05)
print("saving", flush=True)
time.sleep(float(sys.argv[2]))
if rank == 0:
    Path(sys.argv[1]).write_text(json.dumps({"status": "stopped", "message": "at step 7"}))
"""
SUPERVISOR = [sys.executable, "-m", "infra.launch.supervisor"]
DEAF_RANK = "import time; print('in step', flush=True); time.sleep(600)"


def job_of(
    code: str, tmp_path: Path, marker: dict[str, str], workers: int, saving: float, grace: float
) -> Job:
    program = tmp_path / "rank.py"
    program.write_text(code)
    outcome = tmp_path / "outcome.json"
    return Job(
        program=program,
        args=(str(outcome), str(saving)),
        workers=workers,
        log_dir=tmp_path / "logs",
        outcome_file=outcome,
        cwd=tmp_path,
        env=marker,
        deadline=100,
        silence=None,
        grace=grace,
    )


@pytest.mark.parametrize(
    ("code", "saving", "grace", "message"),
    [
        (RANK, 0.5, 20, "at step 7"),
        (RANK, 600, 1, "ended on request"),  # patience has an end
        (DEAF_RANK, 0, 600, "ended on request"),  # nothing to wait for
    ],
)
def test_asked_to_stop(
    code: str,
    saving: float,
    grace: float,
    message: str,
    tmp_path: Path,
    marker: dict[str, str],
    alive: Alive,
) -> None:
    control = Control()

    def stop_it(line: str) -> None:
        control.stop = True

    job = job_of(code, tmp_path, marker, 1, saving, grace)
    result = run(job, on_line=stop_it, control=control)
    assert (result.status, result.message) == (Outcome.STOPPED, message)
    assert result.seconds < 10
    assert alive() == set()


@pytest.mark.slow
@pytest.mark.alone
def test_all_ranks_under_msrun_get_to_save(
    tmp_path: Path, marker: dict[str, str], alive: Alive
) -> None:
    control = Control()
    lines: list[str] = []

    def stop_when_all_are_in_step(line: str) -> None:
        lines.append(line)
        control.stop = sum(text.endswith("in step") for text in lines) == 2

    job = job_of(RANK, tmp_path, marker, 2, 0.5, 60)
    result = run(job, on_line=stop_when_all_are_in_step, control=control)
    assert (result.status, result.message) == (Outcome.STOPPED, "at step 7")
    assert sorted(lines)[1::2] == ["[rank 0] saving", "[rank 1] saving"]
    assert alive() == set()


def caller_of(job: Job) -> str:
    return textwrap.dedent(f"""
        from pathlib import {type(job.program).__name__}
        from infra.launch import Job, run
        try:
            result = run({job!r}, on_line=lambda line: print(line, flush=True))
            print(result.status, result.message, flush=True)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    """)


@pytest.mark.parametrize(
    ("number", "last"),
    [(signal.SIGUSR1, "stopped at step 7\n"), (signal.SIGINT, "interrupted\n")],
)
def test_signal_to_the_caller_lets_the_ranks_save(
    number: signal.Signals,
    last: str,
    tmp_path: Path,
    marker: dict[str, str],
    alive: Alive,
) -> None:
    job = job_of(RANK, tmp_path, marker, 1, 0.5, 60)
    with subprocess.Popen(
        [sys.executable, "-c", caller_of(job)], stdout=subprocess.PIPE, text=True
    ) as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline() == "[rank 0] in step\n"
        caller.send_signal(number)
        said = [line for line in caller.stdout if "supervisor: " not in line]
        assert said == ["[rank 0] saving\n", last]
        assert caller.wait(10) == 0
    assert job.outcome_file.exists()
    assert alive() == set()


def test_second_interrupt_ends_the_job_at_once(
    tmp_path: Path, marker: dict[str, str], alive: Alive
) -> None:
    job = job_of(RANK, tmp_path, marker, 1, 600, 600)
    with subprocess.Popen(
        [sys.executable, "-c", caller_of(job)], stdout=subprocess.PIPE, text=True
    ) as caller:
        assert caller.stdout is not None
        for awaited in ("[rank 0] in step\n", "[rank 0] saving\n"):
            assert awaited in iter(caller.stdout.readline, "")
            caller.send_signal(signal.SIGINT)
        assert caller.stdout.readlines()[-1] == "interrupted\n"
        assert caller.wait(10) == 0
    assert alive() == set()


class Interruption(BaseException):
    """Like KeyboardInterrupt."""


def test_caller_that_takes_long_over_a_line_delays_no_stop(
    tmp_path: Path, marker: dict[str, str], alive: Alive
) -> None:
    chatty = RANK.replace("time.sleep(0.05)", "print('step', flush=True); time.sleep(0.05)")
    job = job_of(chatty, tmp_path, marker, 1, 0, 60)
    log = job.log_dir / "worker_0.log"
    seen: list[bool] = []

    def slow(line: str) -> None:
        if not seen:
            seen.append(False)
            raise Interruption
        if len(seen) == 1:
            time.sleep(3)
            seen.append("saving" in log.read_text())

    with pytest.raises(Interruption):
        run(job, on_line=slow)
    assert seen == [False, True]
    assert alive() == set()


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM, signal.SIGINT])
def test_signal_to_the_supervisor_reaches_only_those_who_handle_it(
    number: signal.Signals, tmp_path: Path, marker: dict[str, str], alive: Alive
) -> None:
    # Below the command, which stops, a child that SIGUSR1 would kill.
    code = textwrap.dedent("""
        import signal, subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        def leave(*_):
            time.sleep(0.5)
            sys.exit(3 if child.poll() is None else 4)
        signal.signal(signal.SIGUSR1, leave)
        print("ready", flush=True)
        time.sleep(600)
    """)
    with subprocess.Popen(
        [*SUPERVISOR, "--grace=60", "--", sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **marker},
        text=True,
    ) as supervisor:
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline() == "ready\n"
        supervisor.send_signal(number)
        assert supervisor.wait(10) == 3
    assert alive() == set()


def test_stopped_process_is_no_rank_to_wait_for(
    tmp_path: Path, marker: dict[str, str], alive: Alive
) -> None:
    job = job_of(RANK, tmp_path, marker, 1, 0, 60)

    def freeze(line: str) -> None:
        def later() -> None:
            # Processes come and go while the table is read: one look may miss it.
            while not (ranks := [p for p in alive() if str(job.program) in p.cmdline()[1:2]]):
                time.sleep(0.1)
            ranks[0].suspend()

        if line.endswith("in step"):
            threading.Thread(target=later).start()

    result = run(job, on_line=freeze)
    assert result.status is Outcome.LOST_WORKER
    assert "rank 0 was stopped by a signal (SIGSTOP)" in result.message
    assert result.seconds < 12
    assert alive() == set()
