"""The processes of a job are known, and how they ended, whenever they die."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from infra.launch.ranks import RankProcesses

# As msrun does: the scheduler, then the ranks; it waits for the scheduler at the end only.
MSRUN = """
import os, subprocess, sys, time

def start(code, **environment):
    return subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **environment})

scheduler = start(sys.argv[1], MS_ROLE="MS_SCHED")
if sys.argv[2] == "ends":
    os.waitid(os.P_PID, scheduler.pid, os.WEXITED | os.WNOWAIT)
for rank in range(2):
    start("import time; time.sleep(60)", MS_ROLE="MS_WORKER", RANK_ID=str(rank))
print("started", flush=True)
time.sleep(60)
"""
SUPERVISOR = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"


@pytest.fixture
def workers(request: pytest.FixtureRequest) -> Iterator[RankProcesses]:
    """Of a job that is looked at once its scheduler has done what the test says."""
    scheduler, after = request.param
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, MSRUN, scheduler, after],
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"started\n"
            yield RankProcesses(process.pid, range(2), alone=False)
        finally:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("workers", "number"),
    [
        (("import os; os.kill(os.getpid(), 9)", "ends"), 9),
        (("import os; os.kill(os.getpid(), 15)", "ends"), 15),
        (("pass", "ends"), None),
        (("import time; time.sleep(60)", "lives"), None),
    ],
    indirect=["workers"],
)
def test_a_scheduler_that_was_killed_before_it_was_seen_is_missed(
    workers: RankProcesses, number: int | None
) -> None:
    # A program's environment can be read a moment after it was started.
    for _ in range(20):
        assert not workers.all_ended()
        time.sleep(0.05)
    assert workers.scheduler_killed_by() == number
