"""A job that the kernel killed for lack of memory reports its memory and its limit."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from infra.launch.memory import MemoryLimit, memory_limit, oom_kills
from tests.infra.launch.control_groups import small_group
from tests.infra.launch.launch_jobs import Alive
from tests.waiting import HANG_SECONDS

MEGABYTE = 1_000_000
LIMIT = 300 * MEGABYTE

# Files of a machine in the form of Linux 6.1, shortened.
MEMINFO = "MemTotal:       16384000 kB\nMemFree:         1234 kB\n"
VMSTAT = "nr_free_pages 12345\noom_kill 3\npswpin 0\n"
MACHINES = {
    "version 2": (
        {
            "proc/self/cgroup": "0::/system.slice/worker.service\n",
            "sys/fs/cgroup/system.slice/worker.service/memory.events": (
                "low 0\nhigh 0\nmax 812\noom 2\noom_kill 2\noom_group_kill 0\n"
            ),
            "sys/fs/cgroup/system.slice/worker.service/memory.max": "max\n",
            "sys/fs/cgroup/system.slice/memory.max": "8000000000\n",
        },
        2,
        MemoryLimit(8_000_000_000, "control group system.slice"),
    ),
    "version 1": (
        {
            "proc/self/cgroup": "11:cpu,cpuacct:/batch\n4:memory:/batch\n0::/\n",
            "sys/fs/cgroup/memory/batch/memory.oom_control": (
                "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"
            ),
            "sys/fs/cgroup/memory/batch/memory.limit_in_bytes": "4000000000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
        5,
        MemoryLimit(4_000_000_000, "control group batch"),
    ),
    "version 1 in a container": (
        {
            "proc/self/cgroup": "4:memory:/docker/0a1b\n",
            "sys/fs/cgroup/memory/memory.oom_control": "under_oom 0\noom_kill 1\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "2000000000\n",
        },
        1,
        MemoryLimit(2_000_000_000, "control group memory"),
    ),
    "no control groups": ({}, 3, MemoryLimit(16_384_000 * 1024, "this machine")),
}


@pytest.mark.parametrize("name", MACHINES)
def test_kills_and_limit_are_those_of_the_control_group_if_there_is_one(
    name: str, tmp_path: Path
) -> None:
    files, kills, limit = MACHINES[name]
    for path, text in {"proc/meminfo": MEMINFO, "proc/vmstat": VMSTAT, **files}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert oom_kills(tmp_path) == kills
    assert memory_limit(tmp_path) == limit


# Holds memory until it was sampled, then takes more than it may.
GREEDY = """
import time
held = [bytearray(20_000_000) for _ in range(8)]
print("step 1", flush=True)
time.sleep(3)
while True:
    held.append(bytearray(20_000_000))
"""


def caller_in(group: Path, rank: str, tmp_path: Path, marker: dict[str, str]) -> str:
    program = tmp_path / "rank.py"
    program.write_text(rank)
    return textwrap.dedent(f"""
        import os
        from pathlib import Path
        from infra.launch import Job, memory, run
        memory.SAMPLE_SECONDS = 0
        Path({str(group / "cgroup.procs")!r}).write_text(str(os.getpid()))
        directory = Path({str(tmp_path)!r})
        job = Job(
            program=directory / "rank.py", args=(), workers=1, log_dir=directory / "logs",
            outcome_file=directory / "outcome.json", cwd=directory, env={marker!r}, deadline=600,
            silence=None,
        )
        result = run(job, on_line=lambda line: None)
        print(result.status, result.message, sep="\\n")
    """)


def output_of_job_in(group: Path, rank: str, tmp_path: Path, marker: dict[str, str]) -> list[str]:
    ended = subprocess.run(
        [sys.executable, "-c", caller_in(group, rank, tmp_path, marker)],
        stdout=subprocess.PIPE,
        text=True,
        timeout=HANG_SECONDS,
        check=True,
    )
    return ended.stdout.splitlines()


def test_job_killed_for_lack_of_memory_reports_memory_and_limit(
    tmp_path: Path, marker: dict[str, str], alive: Alive
) -> None:
    with small_group(LIMIT) as group:
        status, figures, cause, *tail = output_of_job_in(group, GREEDY, tmp_path, marker)
        assert alive() == set()
    assert status == "out_of_memory"
    found = re.fullmatch(
        r"out of memory on \S+: the kernel killed 1 of the processes here; resident when last "
        r"measured: (\d+) MB in (\d) processes, the largest with (\d+) MB; "
        rf"limit: 300 MB \(control group {group.name}\)",
        figures,
    )
    assert found is not None, figures
    held, num_processes, largest = map(int, found.groups())
    assert num_processes == 2  # the inner supervisor, and the rank
    assert 160 <= largest <= held < 400
    assert cause.startswith("exit code 137, and there is no valid outcome; logs in ")
    assert tail == ["[rank 0] step 1"]


def test_job_killed_for_another_reason_is_a_lost_worker(
    tmp_path: Path, marker: dict[str, str]
) -> None:
    kill_itself = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with small_group(LIMIT) as group:
        status, cause, *_ = output_of_job_in(group, kill_itself, tmp_path, marker)
    assert status == "lost_worker"
    assert cause.startswith("exit code 137, and there is no valid outcome; logs in ")
