"""Requests to stop: ranks that can stop get the time to save, others are ended."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from infra.launch import Control, Job, Outcome, run
from tests.infra.launch.launch_jobs import SUPERVISOR, Alive, Interruption, MakeJob, caller_of
from tests.processes import WITH_SIGINT
from tests.waiting import HANG_SECONDS, wait_for

# Stops at its next step, and saves for as many seconds as its second argument says.
STOPPABLE = """
import signal
stop = False
def request(*_):
    global stop
    stop = True
signal.signal(signal.SIGUSR1, request)
print("in step", flush=True)
while not stop:
    time.sleep(0.05)
print("saving", flush=True)
time.sleep(float(sys.argv[2]))
report("stopped", "at step 7")
"""
WITHOUT_HANDLER = "print('in step', flush=True)\ntime.sleep(6000)"


def saving_for(make_job: MakeJob, seconds: float, body: str = STOPPABLE, **changes: object) -> Job:
    job = make_job(body, **changes)
    return make_job(body, args=(*job.args, str(seconds)), **changes)


@pytest.mark.parametrize(
    ("body", "saving", "grace", "message"),
    [
        pytest.param(STOPPABLE, 0.5, 300, "at step 7", id="saves in time"),
        pytest.param(STOPPABLE, 6000, 1, "ended on request", id="saves for too long"),
        pytest.param(WITHOUT_HANDLER, 0, 6000, "ended on request", id="can't stop"),
    ],
)
def test_request_to_stop(
    body: str, saving: float, grace: float, message: str, make_job: MakeJob, alive: Alive
) -> None:
    control = Control()

    def stop(_line: str) -> None:
        control.stop = True

    result = run(saving_for(make_job, saving, body, grace=grace), on_line=stop, control=control)
    assert (result.status, result.message) == (Outcome.STOPPED, message)
    assert alive() == set()


@pytest.mark.slow
def test_all_ranks_under_msrun_can_save(make_job: MakeJob, alive: Alive) -> None:
    control = Control()
    lines: list[str] = []

    def stop_when_all_are_in_step(line: str) -> None:
        lines.append(line)
        control.stop = sum(text.endswith("in step") for text in lines) == 2

    job = saving_for(make_job, 0.5, workers=2, grace=300)
    result = run(job, on_line=stop_when_all_are_in_step, control=control)
    assert (result.status, result.message) == (Outcome.STOPPED, "at step 7")
    assert sorted(lines)[1::2] == ["[rank 0] saving", "[rank 1] saving"]
    assert alive() == set()


@pytest.mark.parametrize(
    ("number", "last"),
    [(signal.SIGUSR1, ["stopped\n", "at step 7\n"]), (signal.SIGINT, ["interrupted\n"])],
)
def test_signal_to_the_caller_lets_the_ranks_save(
    number: signal.Signals, last: list[str], make_job: MakeJob, alive: Alive
) -> None:
    job = saving_for(make_job, 0.5, grace=300)
    with subprocess.Popen(
        [*WITH_SIGINT, sys.executable, "-c", caller_of(job)], stdout=subprocess.PIPE, text=True
    ) as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline() == "[rank 0] in step\n"
        caller.send_signal(number)
        lines = [line for line in caller.stdout if "supervisor: " not in line]
        assert lines == ["[rank 0] saving\n", *last]
        assert caller.wait(HANG_SECONDS) == 0
    assert job.outcome_file.exists()
    assert alive() == set()


def test_an_interrupted_caller_is_told_if_the_ranks_could_not_save(make_job: MakeJob) -> None:
    body = STOPPABLE.replace('report("stopped", "at step 7")', 'report("disk_full", "no room")')
    lines: list[str] = []

    def interrupt(line: str) -> None:
        lines.append(line)
        if line.endswith("in step"):
            raise Interruption

    with pytest.raises(Interruption):
        run(saving_for(make_job, 0, body), on_line=interrupt)
    assert lines[-1] == "[launcher] the last steps were not saved: no room"


def test_second_interrupt_ends_the_job_at_once(make_job: MakeJob, alive: Alive) -> None:
    job = saving_for(make_job, 6000, grace=6000)
    with subprocess.Popen(
        [*WITH_SIGINT, sys.executable, "-c", caller_of(job)], stdout=subprocess.PIPE, text=True
    ) as caller:
        assert caller.stdout is not None
        for awaited in ("[rank 0] in step\n", "[rank 0] saving\n"):
            assert awaited in iter(caller.stdout.readline, "")
            caller.send_signal(signal.SIGINT)
        assert caller.stdout.readlines()[-1] == "interrupted\n"
        assert caller.wait(HANG_SECONDS) == 0
    assert alive() == set()


def test_caller_that_is_slow_to_handle_a_line_does_not_delay_a_stop(
    make_job: MakeJob, alive: Alive
) -> None:
    body = STOPPABLE.replace("time.sleep(0.05)", "print('step', flush=True); time.sleep(0.05)")
    job = saving_for(make_job, 0, body)
    log = job.log_dir / "worker_0.log"
    seen: list[bool] = []

    def handle(_line: str) -> None:
        if not seen:
            seen.append(False)
            raise Interruption
        if len(seen) == 1:
            wait_for(lambda: "saving" in log.read_text())
            seen.append(True)

    with pytest.raises(Interruption):
        run(job, on_line=handle)
    assert seen == [False, True]
    assert alive() == set()


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM, signal.SIGINT])
def test_signal_to_the_supervisor_reaches_only_processes_that_handle_it(
    number: signal.Signals, marker: dict[str, str], alive: Alive
) -> None:
    # The command handles SIGUSR1, which would kill the child below it.
    code = textwrap.dedent("""
        import signal, subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(6000)"])
        def leave(*_):
            time.sleep(0.5)
            sys.exit(3 if child.poll() is None else 4)
        signal.signal(signal.SIGUSR1, leave)
        print("ready", flush=True)
        time.sleep(6000)
    """)
    with subprocess.Popen(
        [*SUPERVISOR, "--grace=6000", "--", sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **marker},
        text=True,
    ) as supervisor:
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline() == "ready\n"
        supervisor.send_signal(number)
        assert supervisor.wait(HANG_SECONDS) == 3
    assert alive() == set()


def test_frozen_rank_ends_the_job(make_job: MakeJob, alive: Alive) -> None:
    job = saving_for(make_job, 0)

    def freeze(line: str) -> None:
        def later() -> None:
            # Processes come and go while the table is read, so one look may miss the rank.
            while not (ranks := [p for p in alive() if str(job.program) in p.cmdline()[1:2]]):
                time.sleep(0.1)
            ranks[0].suspend()

        if line.endswith("in step"):
            threading.Thread(target=later).start()

    result = run(job, on_line=freeze)
    assert result.status is Outcome.LOST_WORKER
    assert "rank 0 was stopped by a signal (SIGSTOP)" in result.message
    assert alive() == set()
