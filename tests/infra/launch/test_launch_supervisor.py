"""The supervisor leaves no process behind, whatever ends it."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.infra.launch.launch_jobs import SUPERVISOR, Alive
from tests.waiting import HANG_SECONDS, wait_for

# The command has two descendants: a child in its own session, and an orphan by double fork.
FAMILY = textwrap.dedent("""
    import os, subprocess, sys, time
    sleep = [sys.executable, "-c", "import time; time.sleep(6000)"]
    subprocess.Popen(sleep, start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv(sleep[0], sleep)
        os._exit(0)
    os.wait()
    print("ready", flush=True)
""")
LASTING_FAMILY = FAMILY + "time.sleep(6000)\n"


@contextmanager
def supervised(marker: dict[str, str], code: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*SUPERVISOR, *options, "--", sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **marker},
    ) as process:
        yield process


def wait_for_line(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == f"{line}\n"


def end_stdin_of(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()


def test_end_of_stdin_ends_every_descendant(marker: dict[str, str], alive: Alive) -> None:
    with supervised(marker, LASTING_FAMILY) as supervisor:
        wait_for_line(supervisor, "ready")
        # Two supervisors, the command, and two processes below it; one that is just starting has
        # no environment yet.
        wait_for(lambda: len(alive()) == 5, lambda: str(alive()))
        end_stdin_of(supervisor)
        assert supervisor.wait(HANG_SECONDS) == 143
        assert alive() == set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_every_descendant(
    marker: dict[str, str], alive: Alive, number: signal.Signals
) -> None:
    with supervised(marker, LASTING_FAMILY) as supervisor:
        wait_for_line(supervisor, "ready")
        supervisor.send_signal(number)
        assert supervisor.wait(HANG_SECONDS) == 143
        assert alive() == set()


def test_deadline_ends_every_descendant(marker: dict[str, str], alive: Alive) -> None:
    with supervised(marker, LASTING_FAMILY, "--deadline", "0.5") as supervisor:
        assert supervisor.wait(HANG_SECONDS) == 124
        assert alive() == set()


def test_end_of_the_command_ends_every_descendant(marker: dict[str, str], alive: Alive) -> None:
    with supervised(marker, FAMILY) as supervisor:
        assert supervisor.wait(HANG_SECONDS) == 0
        assert alive() == set()


@pytest.mark.parametrize("victim", ["outer", "inner"])
def test_sigkill_of_one_supervisor_ends_every_descendant(
    marker: dict[str, str], alive: Alive, victim: str
) -> None:
    with supervised(marker, LASTING_FAMILY) as supervisor:
        wait_for_line(supervisor, "ready")
        outer = psutil.Process(supervisor.pid)
        (inner,) = outer.children()
        (outer if victim == "outer" else inner).kill()
        assert supervisor.wait(HANG_SECONDS) == (-9 if victim == "outer" else 137)
        wait_for(lambda: not alive(), lambda: str(alive()))


@pytest.mark.parametrize("pipe_held_by_a_fork", [False, True])
def test_sigkill_of_the_parent_ends_every_descendant(
    marker: dict[str, str], alive: Alive, tmp_path: Path, pipe_held_by_a_fork: bool
) -> None:
    caller = textwrap.dedent(f"""
        import os, subprocess, sys, time
        supervisor = subprocess.Popen(
            {SUPERVISOR!r} + ["--", sys.executable, "-c", {LASTING_FAMILY!r}],
            stdin=subprocess.PIPE, start_new_session=True,
        )
        if {pipe_held_by_a_fork} and os.fork() == 0:
            time.sleep(6000)
            os._exit(0)
        time.sleep(6000)
    """)
    with subprocess.Popen(
        [sys.executable, "-c", caller],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **marker},
    ) as parent:
        wait_for_line(parent, "ready")
        forks = {p for p in psutil.Process(parent.pid).children() if p.cmdline()[-1] == caller}
        assert len(forks) == pipe_held_by_a_fork
        parent.kill()
        parent.wait()
        wait_for(lambda: not alive() - forks, lambda: str(alive()))
        for fork in forks:
            fork.kill()


def test_frozen_process_is_ended(marker: dict[str, str], alive: Alive) -> None:
    code = "import os, signal; print('ready', flush=True); os.kill(os.getpid(), signal.SIGSTOP)"
    with supervised(marker, code) as supervisor:
        wait_for_line(supervisor, "ready")
        end_stdin_of(supervisor)
        assert supervisor.wait(HANG_SECONDS) == 143
        assert alive() == set()


def test_process_that_ignores_sigterm_is_ended(marker: dict[str, str], alive: Alive) -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); "
    with supervised(marker, code + "time.sleep(6000)") as supervisor:
        wait_for_line(supervisor, "ready")
        end_stdin_of(supervisor)
        assert supervisor.wait(HANG_SECONDS) == 143
        assert alive() == set()


def test_process_started_on_sigterm_is_ended(marker: dict[str, str], alive: Alive) -> None:
    code = textwrap.dedent("""
        import signal, subprocess, sys, time
        def start_another(*_):
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(6000)"])
            sys.exit()
        signal.signal(signal.SIGTERM, start_another)
        print("ready", flush=True)
        time.sleep(6000)
    """)
    with supervised(marker, code) as supervisor:
        wait_for_line(supervisor, "ready")
        end_stdin_of(supervisor)
        assert supervisor.wait(HANG_SECONDS) == 143
        assert alive() == set()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("pass", 0),
        ("raise SystemExit(3)", 3),
        ("import os; os.kill(os.getpid(), 9)", 137),
        ("import sys; assert sys.stdin.read() == ''", 0),
    ],
)
def test_exit_code_passes_through(marker: dict[str, str], code: str, expected: int) -> None:
    with supervised(marker, code) as supervisor:
        assert supervisor.wait(HANG_SECONDS) == expected


def test_unknown_command_gives_127() -> None:
    supervisor = subprocess.run(
        [*SUPERVISOR, "--", "no-such-command"],
        stdin=subprocess.PIPE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert supervisor.returncode == 127
    assert "no-such-command" in supervisor.stderr
