"""Commands of flows in the test's own process, for what they refuse before a flow starts."""

import signal
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

from flows.command import run_flow

# What run_flow listens to.
STOPPING = (signal.SIGTERM, signal.SIGUSR1)


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., str]]:
    """The last line of a refusal; nothing else is printed, unless by the parser of the options."""
    handlers = {number: signal.getsignal(number) for number in STOPPING}

    def run(module: ModuleType, *options: object) -> str:
        code: int | str | None
        usage = ""
        try:
            code = run_flow(module.main, module.parser().parse_args([*map(str, options)]))
        except SystemExit as ended:
            code, usage = ended.code, module.parser().format_usage()
        said, errors = capfd.readouterr()
        assert (code, said) == (2, "")
        (line,) = errors.removeprefix(usage).splitlines()
        return line

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)
