"""A job that the kernel ends for want of memory says so, with what it held and what it may hold."""

import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from infra.launch.memory import MemoryLimit, memory_limit, oom_kills
from tests.infra.launch.control_groups import small_group

MEGABYTE = 1_000_000
LIMIT = 300 * MEGABYTE

# The files of a machine in the form that the kernel gives them (Linux 6.1, shortened).
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
def test_kills_and_limit_are_those_of_the_own_group_before_the_machine(
    name: str, tmp_path: Path
) -> None:
    files, kills, limit = MACHINES[name]
    for path, text in {"proc/meminfo": MEMINFO, "proc/vmstat": VMSTAT, **files}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert oom_kills(tmp_path) == kills
    assert memory_limit(tmp_path) == limit


# Holds its memory for so long that somebody looks, then more than it may.
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
        from infra.launch import Job, run
        Path({str(group / "cgroup.procs")!r}).write_text(str(os.getpid()))
        place = Path({str(tmp_path)!r})
        job = Job(
            program=place / "rank.py", args=(), workers=1, log_dir=place / "logs",
            outcome_file=place / "outcome.json", cwd=place, env={marker!r}, deadline=60,
            silence=None,
        )
        result = run(job, on_line=lambda line: None)
        print(result.status, result.message, sep="\\n")
    """)


def said_by(group: Path, rank: str, tmp_path: Path, marker: dict[str, str]) -> list[str]:
    ended = subprocess.run(
        [sys.executable, "-c", caller_in(group, rank, tmp_path, marker)],
        stdout=subprocess.PIPE,
        text=True,
        timeout=90,
        check=True,
    )
    return ended.stdout.splitlines()


def test_job_killed_for_want_of_memory_names_what_it_held_and_the_limit(
    tmp_path: Path, marker: dict[str, str], alive: Callable[[], set[psutil.Process]]
) -> None:
    with small_group(LIMIT) as group:
        status, figures, cause, *tail = said_by(group, GREEDY, tmp_path, marker)
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


def test_job_killed_otherwise_is_not_said_to_lack_memory(
    tmp_path: Path, marker: dict[str, str]
) -> None:
    suicide = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with small_group(LIMIT) as group:
        status, cause, *_ = said_by(group, suicide, tmp_path, marker)
    assert status == "lost_worker"
    assert cause.startswith("exit code 137, and there is no valid outcome; logs in ")
