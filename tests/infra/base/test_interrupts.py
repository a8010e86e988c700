"""Signals to a command at work: it saves and says one line; a second signal ends it at once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from infra.base.interrupts import INTERRUPTED, handle_while_importing
from tests.processes import ROOT, WITH_SIGINT
from tests.waiting import HANG_SECONDS

# Saves for as many seconds as its argument says, and has a child.
COMMAND = """
import subprocess, sys, time
from infra.base.interrupts import run_interruptible, saving

def work():
    child = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL)
    try:
        print(child.pid, flush=True)
        time.sleep(600)
    except KeyboardInterrupt:
        with saving():
            time.sleep(float(sys.argv[1]))
        print("saved", flush=True)
        child.kill()
        raise

sys.exit(run_interruptible(work))
"""


def start(seconds: float) -> tuple[subprocess.Popen[str], psutil.Process]:
    """Start the command in a session of its own; return it, and its child, once it is at work."""
    process = subprocess.Popen(
        [*WITH_SIGINT, sys.executable, "-c", COMMAND, str(seconds)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    return process, psutil.Process(int(process.stdout.readline()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_lets_it_save_and_say_one_line(number: signal.Signals) -> None:
    process, _ = start(0.1)
    process.send_signal(number)
    output, _ = process.communicate(timeout=HANG_SECONDS)
    assert (process.returncode, output) == (1, f"saved\n{INTERRUPTED}\n")


def test_a_second_signal_ends_it_and_its_children_at_once() -> None:
    process, child = start(600)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=HANG_SECONDS)
    assert (process.returncode, output) == (1, f"{INTERRUPTED}\n")
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_the_two_signals_that_timeout_sends_are_one() -> None:
    """It sends SIGTERM to the command, and then to the command's process group."""
    process, _ = start(0.5)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.02)
    os.killpg(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=HANG_SECONDS)
    assert (process.returncode, output) == (1, f"saved\n{INTERRUPTED}\n")


@pytest.mark.parametrize("words", [["-m", "prefect", "version"], ["-c", "import infra"], ["a.py"]])
def test_other_programs_that_import_this_package_keep_their_handlers(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, *words])
    monkeypatch.setattr(sys, "argv", ["-m" if words[0] == "-m" else str(Path(words[0]))])
    before = signal.getsignal(signal.SIGTERM)
    handle_while_importing("infra")
    assert signal.getsignal(signal.SIGTERM) is before
