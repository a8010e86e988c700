"""The supervisor leaves no process behind, whatever ends it."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

SUPERVISOR = [sys.executable, "-m", "infra.launch.supervisor"]

# Below the command: a child in a session of its own, and an orphan by double fork
FAMILY = textwrap.dedent("""
    import os, subprocess, sys, time
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    subprocess.Popen(sleep, start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv(sleep[0], sleep)
        os._exit(0)
    os.wait()
    print("ready", flush=True)
""")
LASTING_FAMILY = FAMILY + "time.sleep(600)\n"


Alive = Callable[[], set[psutil.Process]]


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


def test_end_of_stdin_ends_every_descendant(marker: dict[str, str], alive: Alive) -> None:
    with supervised(marker, LASTING_FAMILY) as supervisor:
        wait_for_line(supervisor, "ready")
        deadline = time.monotonic() + 10
        while len(alive()) < 5 and time.monotonic() < deadline:
            time.sleep(0.05)  # one that is just starting has no environment yet
        assert len(alive()) == 5  # two supervisors, command, two below it
        supervisor.stdin.close()
        assert supervisor.wait(10) == 143
        assert alive() == set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_every_descendant(
    marker: dict[str, str], alive: Alive, number: signal.Signals
) -> None:
    with supervised(marker, LASTING_FAMILY) as supervisor:
        wait_for_line(supervisor, "ready")
        supervisor.send_signal(number)
        assert supervisor.wait(10) == 143
        assert alive() == set()


def test_deadline_ends_every_descendant(marker: dict[str, str], alive: Alive) -> None:
    with supervised(marker, LASTING_FAMILY, "--deadline", "0.5") as supervisor:
        assert supervisor.wait(10) == 124
        assert alive() == set()


def test_natural_end_ends_what_the_command_left_running(
    marker: dict[str, str], alive: Alive
) -> None:
    with supervised(marker, FAMILY) as supervisor:
        assert supervisor.wait(10) == 0
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
        assert supervisor.wait(10) == (-9 if victim == "outer" else 137)
        end = time.monotonic() + 10
        while alive():
            assert time.monotonic() < end
            time.sleep(0.05)


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
            time.sleep(20)
            os._exit(0)
        time.sleep(600)
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
        end = time.monotonic() + 10
        while alive() - forks:
            assert time.monotonic() < end
            time.sleep(0.05)
        for fork in forks:
            fork.kill()


def test_stopped_process_is_ended(marker: dict[str, str], alive: Alive) -> None:
    code = "import os, signal; print('ready', flush=True); os.kill(os.getpid(), signal.SIGSTOP)"
    with supervised(marker, code) as supervisor:
        wait_for_line(supervisor, "ready")
        supervisor.stdin.close()
        assert supervisor.wait(10) == 143
        assert alive() == set()


def test_process_that_ignores_sigterm_is_ended(marker: dict[str, str], alive: Alive) -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); "
    with supervised(marker, code + "time.sleep(600)") as supervisor:
        wait_for_line(supervisor, "ready")
        supervisor.stdin.close()
        assert supervisor.wait(10) == 143
        assert alive() == set()


def test_process_started_on_sigterm_is_ended(marker: dict[str, str], alive: Alive) -> None:
    code = textwrap.dedent("""
        import signal, subprocess, sys, time
        def start_another(*_):
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            sys.exit()
        signal.signal(signal.SIGTERM, start_another)
        print("ready", flush=True)
        time.sleep(600)
    """)
    with supervised(marker, code) as supervisor:
        wait_for_line(supervisor, "ready")
        supervisor.stdin.close()
        assert supervisor.wait(10) == 143
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
        assert supervisor.wait(10) == expected


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
