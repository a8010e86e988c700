"""A process that can print nothing is heard of all the same, and takes its heartbeat with it."""

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra.base import console as module
from infra.base.console import PlainConsole
from infra.base.heartbeat import Heartbeat
from infra.base.progress import Progress
from tests.processes import ROOT
from tests.waiting import wait_for

LINE = re.compile(r"\d\d:\d\d:\d\d (.*)\n")


def lines(file: Path) -> list[str]:
    return LINE.findall(file.read_text("utf-8"))


def test_a_library_that_holds_the_interpreters_lock_does_not_silence_a_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SECONDS_TO_STALL", 0.5)
    monkeypatch.setattr(module, "SECONDS_OF_SILENCE", 0.2)
    # Called through PyDLL, a function of C keeps the lock until it returns.
    sleep = ctypes.PyDLL(None).usleep
    file = tmp_path / "errors"
    with file.open("w") as stream:
        console = PlainConsole(stream, first_line_after=100, may_stall=True)
        console.stage("train")
        console.show(Progress(phase="compiling the graph"))
        sleep(900_000)
        during = lines(file)
        console.close()
    assert len(during) >= 2, "it was silent"
    assert set(during) <= {f"train: compiling the graph, 0:0{number} so far" for number in "012"}


def test_it_says_nothing_of_a_process_that_says_it_itself_and_ends_with_it(
    tmp_path: Path,
) -> None:
    file = tmp_path / "out"
    with file.open("w") as out:
        heartbeat = Heartbeat(out.fileno(), first=1.0, again=0.1)
        for number in range(12):
            heartbeat.tell(f"step {number}", since=None)
            time.sleep(0.05)
        assert lines(file) == []
        wait_for(lambda: len(lines(file)) > 1, pause=0.02)
        assert set(lines(file)) == {"step 11"}
        heartbeat.close()
    assert heartbeat._process.returncode == 0


def test_a_killed_process_leaves_no_heartbeat() -> None:
    code = (
        "import os, time; from infra.base.heartbeat import Heartbeat;"
        "print(Heartbeat(1, first=600, again=600)._process.pid, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout
        heartbeat = int(program.stdout.readline())
        os.kill(program.pid, signal.SIGKILL)
    wait_for(lambda: not is_alive(heartbeat), pause=0.02)


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text("ascii")
    except OSError:
        return False
