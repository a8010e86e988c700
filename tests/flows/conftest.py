"""Calls the commands of flows in the test's own process."""

import signal
import subprocess
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

from infra.base.commands import app_of, start
from infra.base.interrupts import SIGNALS

Ended = subprocess.CompletedProcess[str]


@pytest.fixture
def keep_handlers() -> Iterator[None]:
    """Restores the handlers that commands set."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def call_command(capfd: pytest.CaptureFixture[str], keep_handlers: None) -> Callable[..., Ended]:
    """Calls a flow's command with options."""

    def call(module: ModuleType, *options: object) -> Ended:
        words = [*map(str, options)]
        capfd.readouterr()
        try:
            code = start(app_of(module.command, module.__name__), words)
        except SystemExit as ended:
            code = int(str(ended.code))
        return Ended(words, code, *capfd.readouterr())

    return call


@pytest.fixture
def refused(call_command: Callable[..., Ended]) -> Callable[..., str]:
    """Calls a flow's command with options that it refuses, and returns the line that it prints."""

    def call(module: ModuleType, *options: object) -> str:
        # Otherwise a machine that is busy would say what it does meanwhile.
        ended = call_command(module, *options, "--quiet")
        assert (ended.returncode, ended.stdout) == (2, "")
        (line,) = ended.stderr.splitlines()
        return line

    return call
