"""The processes of a job are found, and how they ended is known, whenever they die."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.launch.ranks import RankProcesses

# Like msrun, it starts the scheduler, then the ranks, and waits for the scheduler only at the end.
MSRUN = """
import os, subprocess, sys, time

def start(code, **environment):
    return subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **environment})

scheduler = start(sys.argv[1], MS_ROLE="MS_SCHED")
if sys.argv[2] == "ends":
    os.waitid(os.P_PID, scheduler.pid, os.WEXITED | os.WNOWAIT)
for rank in range(2):
    start("import time; time.sleep(600)", MS_ROLE="MS_WORKER", RANK_ID=str(rank))
print("started", flush=True)
time.sleep(600)
"""
SUPERVISOR = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"


@pytest.fixture
def processes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RankProcesses]:
    """The processes of a job, looked at only once its scheduler has ended, if it does end."""
    scheduler, after = request.param
    msrun_log = tmp_path / "msrun.log"
    msrun_log.touch()
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, MSRUN, scheduler, after],
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"started\n"
            yield RankProcesses(process.pid, range(2), msrun_log)
        finally:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("processes", "number"),
    [
        (("import os; os.kill(os.getpid(), 9)", "ends"), 9),
        (("import os; os.kill(os.getpid(), 15)", "ends"), 15),
        (("pass", "ends"), None),
        (("import time; time.sleep(600)", "lives"), None),
    ],
    indirect=["processes"],
)
def test_scheduler_that_was_killed_before_it_was_seen_is_noticed(
    processes: RankProcesses, number: int | None
) -> None:
    # The environment of a process can be read only a moment after its start.
    for _ in range(20):
        assert not processes.all_ended()
        time.sleep(0.05)
    assert processes.scheduler_killed_by() == number


def test_a_rank_that_failed_before_it_was_found_is_known_from_msruns_log(tmp_path: Path) -> None:
    log = tmp_path / "msrun.log"
    log.write_text("[WARNING] starting 2 ranks\n")
    processes = RankProcesses(os.getpid(), range(2), log)
    assert not processes.all_ended()
    log.write_text("[ERROR] Worker process 4711 exit with exception. Error code: 7.\n")
    assert processes.all_ended()
    assert processes.first_failed() == (None, "exited with 7")
