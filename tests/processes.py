"""Processes that tests start, find again by a mark in their environment, and end."""

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import psutil

MARK = "SKNET_TEST_ID"
"""Variable whose value a test's processes inherit."""
# The shell of a background job, and with it the test process, may have SIGINT ignored.
WITH_SIGINT = ["env", "--default-signal=INT"]
ROOT = Path(__file__).resolve().parents[1]
PYTHONPATH = f"{ROOT}{os.pathsep}{ROOT / 'tests/tiny_model'}"
"""For all processes that tests start: it has the package `tests` and the model `tiny`."""


class Service:
    """A program that runs in the repository's root while this context is open."""

    def __init__(self, command: list[str], log: Path, environment: Mapping[str, str]) -> None:
        self._command, self._environment = command, environment
        self.log = log
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def process(self) -> subprocess.Popen[str]:
        assert self._process is not None, "it was not started"
        return self._process

    def start(self) -> None:
        with self.log.open("a") as out:
            self._process = subprocess.Popen(
                [*WITH_SIGINT, *self._command],
                cwd=ROOT,
                env={**os.environ, **self._environment},
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def log_tail(self) -> str:
        return self.log.read_text("utf-8", "replace")[-5000:]

    def kill(self) -> None:
        """Kill this process, and none of those that it has started."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Ask it to end, and kill it if it does not."""
        if not self.is_alive:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()


def processes_marked(name: str, value: str) -> list[psutil.Process]:
    """Return the living processes with this variable in their environment."""
    return [process for process in psutil.process_iter() if is_marked(process, {name: value})]


def is_marked(process: psutil.Process, environment: Mapping[str, str]) -> bool:
    """Tell whether the process is alive and has these variables."""
    try:
        alive = process.status() != psutil.STATUS_ZOMBIE
        return alive and environment.items() <= process.environ().items()
    except psutil.Error:
        return False  # it has ended meanwhile, or belongs to another user
