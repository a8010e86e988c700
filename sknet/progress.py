"""The progress file, in which a program reports to the task that supervises it, and its lines.

The program replaces the file whenever it knows more, and prints a line about it now and then, so
that the launcher sees that it is alive. Such a line ends with dots; all other lines are news.
"""

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from infra.base.console import SECONDS_BETWEEN_LINES, Console, open_console, write_line
from infra.base.files import replace_file
from infra.base.progress import Progress

STILL = " ..."
"""The end of a line about progress."""

SECONDS_BETWEEN_REPORTS = 0.5
"""Shortest time between two reports in the file: they are shown no faster."""


def write_progress(path: Path, progress: Progress) -> None:
    """Write how far the work is.

    A file that can't be written is left out: nothing fails because its progress can't be shown.
    """
    with suppress(OSError):
        replace_file(path, progress.model_dump_json().encode())


def read_progress(path: Path) -> Progress | None:
    """Return the progress in a file; None if there is none yet, or it can't be read."""
    try:
        return Progress.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


class SupervisedConsole(Console):
    """Reports to the task that supervises this program; what it prints goes into the task's log.

    It prints nothing while there is nothing new: the launcher must see that a program hangs.
    """

    def __init__(self, file: Path | None) -> None:
        """Report into a file, if there is one, and print lines."""
        super().__init__()
        self._file = file
        self._reported, self._reported_phase = 0.0, ""
        self._pause()

    def _pause(self) -> None:
        self._not_before = time.monotonic() + SECONDS_BETWEEN_LINES

    def _progressed(self) -> None:
        now, phase = time.monotonic(), self._progress.phase
        if (
            self._progress.fraction == 1
            or phase != self._reported_phase
            or now - self._reported >= SECONDS_BETWEEN_REPORTS
        ):
            self._reported, self._reported_phase = now, phase
            if self._file:
                write_progress(self._file, self._progress)
        if now >= self._not_before:
            self._write(f"{self._status()}{STILL}", is_warning=False)

    def _write(self, line: str, *, is_warning: bool) -> None:
        del is_warning
        with self._lock:
            self._pause()
            write_line(sys.stdout, line)


def console_of_program(options: object) -> Console:
    """Return the console of a program with these options; ranks other than 0 show nothing."""
    if os.environ.get("RANK_ID", "0") != "0":
        return Console()
    progress_file = getattr(options, "progress_file", None)
    if progress_file or getattr(options, "outcome_file", None):
        return SupervisedConsole(progress_file)
    quiet, verbose = (getattr(options, name, False) for name in ("quiet", "verbose"))
    # MindSpore compiles in this process.
    return open_console(quiet=quiet, verbose=verbose, may_stall=True)
