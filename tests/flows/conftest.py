"""Calls the commands of flows in the test's process, for what they refuse at once."""

import signal
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

from flows.command import run_flow

HANDLED_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""The signals for which run_flow sets a handler."""


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., str]]:
    """Calls a flow's command with options that it refuses, and returns the line that it prints."""
    handlers = {number: signal.getsignal(number) for number in HANDLED_SIGNALS}

    def run(module: ModuleType, *options: object) -> str:
        code: int | str | None
        usage = ""
        try:
            code = run_flow(module.main, module.parser().parse_args([*map(str, options)]))
        except SystemExit as ended:
            code, usage = ended.code, module.parser().format_usage()
        output, errors = capfd.readouterr()
        assert (code, output) == (2, "")
        (line,) = errors.removeprefix(usage).splitlines()
        return line

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)
