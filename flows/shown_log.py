"""The log of a flow that a command runs, as the command's console shows it."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.logging.handlers import PrefectConsoleHandler

from infra.base.console import Console
from tasks.programs import SHOWN_OTHERWISE

FIRST_RANK = "[rank 0] "
OF_PREFECT = ("Beginning flow run", "Finished in state", "Created ")
"""How Prefect's own lines begin in the log of a run."""
OF_EVERY_PROGRAM = re.compile(r"device \S+: chosen by --device_target")
"""What a program says of the device that its task has told it; the flow says why it is this one."""


@contextmanager
def log_on(console: Console, *, verbose: bool) -> Iterator[None]:
    """Show the log on a console, instead of Prefect's way, until the body ends.

    Args:
        console: Where the lines appear.
        verbose: Whether every line stays as Prefect shows it, but for what the command shows
            otherwise.
    """
    root = logging.getLogger()
    of_prefect = [each for each in root.handlers if isinstance(each, PrefectConsoleHandler)]
    handler = LogHandler(console)
    if verbose:
        for each in of_prefect:
            each.addFilter(_is_shown_here)
    else:
        for each in of_prefect:
            root.removeHandler(each)
        root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        for each in of_prefect:
            each.removeFilter(_is_shown_here)
            if each not in root.handlers:
                root.addHandler(each)


class LogHandler(logging.Handler):
    """Shows warnings, errors, and what tasks say of themselves; the same line once."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._seen: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record, if it is news."""
        text = self.format(record)
        # The command's last line says how the run ended.
        if not _is_shown_here(record) or text.startswith(OF_PREFECT):
            return
        if record.levelno >= logging.WARNING:
            self._console.warn(self._in_stage(record, f"{record.levelname.lower()}: {text}"))
            return
        is_of_run = record.name in ("prefect.task_runs", "prefect.flow_runs")
        if not (is_of_run or record.name.startswith("infra.")):
            return
        text = text.removeprefix(FIRST_RANK)
        if record.name == "prefect.task_runs" and OF_EVERY_PROGRAM.fullmatch(text):
            return
        if text not in self._seen:
            self._seen.add(text)
            self._console.say(self._in_stage(record, text))

    def _in_stage(self, record: logging.LogRecord, text: str) -> str:
        """Return a line with the name of its task or stage before it, if it isn't there."""
        task = str(getattr(record, "task_run_name", "")).rpartition("-")[0]
        name = task or self._console.stage_name
        return text if not name or f"{name}: " in text else f"{name}: {text}"


def _is_shown_here(record: logging.LogRecord) -> bool:
    return not getattr(record, SHOWN_OTHERWISE, False)
