"""What a command shows of its work: a live display in a terminal, plain lines anywhere else.

| | a terminal | a file, a pipe, cron |
|---|---|---|
| progress | a bar and figures that are redrawn in place | a line, at most one each 10 s |
| work that can't say how far it is | its name and the time since it began | the same, each 20 s |
| results and warnings | lines above the bar | lines |

`--quiet` leaves warnings and errors alone, `--verbose` shows every line of the log.

All of it goes to stderr, so that stdout has nothing but results. Exactly one console is open at a
time in a process, and any thread may use it; where none is open, nothing is shown.
"""

import math
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, TextIO

from infra.base.first_line import first_line
from infra.base.heartbeat import Heartbeat
from infra.base.interrupts import before_the_last_line
from infra.base.outcomes import UserError
from infra.base.progress import Progress, Sink, clock, watching

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

SECONDS_BETWEEN_LINES = 10.0
"""Shortest time between two plain lines of which the first is about progress."""
SECONDS_OF_SILENCE = 20.0
"""Time without a plain line after which one says what is being done. Users shall wait for no more
than 30 s; a loaded machine may delay it."""
SECONDS_TO_STALL = 25.0
"""Time without a line after which another process says what is being done: a library keeps the
threads of this one from running."""
SECONDS_BETWEEN_TELLING = 1.0
"""Shortest time between two messages to that process about the same work."""
SECONDS_TO_FIRST_LINE = 2.2
"""Age of the process at which the first plain line says what is being done. Users shall wait for no
more than 3 s; longer imports say a line of their own, see `infra.base.first_line`."""
SECONDS_OF_CHECKS = 0.6
"""Shortest time from the opening of a console to its first line, in which wrong input is refused
with one line alone."""
FRAMES_PER_SECOND = 4

BAR_WIDTH = 36
LEAST_BAR_WIDTH = 8
NAME_WIDTH = 8
"""Columns of the longest stage of a flow."""
INDENT = 2


class Console:
    """Takes the stages of a command, how far they are, and lines that stay. Shows nothing of it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._stage, self._began = "", time.monotonic()
        self._progress = Progress()

    def stage(self, name: str, phase: str = "") -> None:
        """Begin a stage; `phase` says what it does until it says more itself."""
        with self._lock:
            self._stage, self._began = name, time.monotonic()
            self._progress = Progress(phase=phase)

    @property
    def stage_name(self) -> str:
        """Name of the stage."""
        return self._stage

    @property
    def progress(self) -> Progress:
        """How far the stage is."""
        return self._progress

    def show(self, progress: Progress) -> None:
        """Show how far the stage is."""
        with self._lock:
            if progress.fraction is None and progress.phase != self._progress.phase:
                self._began = time.monotonic()
            self._progress = progress
            self._progressed()

    def say(self, line: str) -> None:
        """Show a line that stays."""
        self._write(line, is_warning=False)

    def warn(self, line: str) -> None:
        """Show a warning or an error, which stays."""
        self._write(line, is_warning=True)

    def close(self) -> None:
        """Take away what doesn't stay."""
        self._end()

    def _write(self, line: str, *, is_warning: bool) -> None:
        """Show a line that stays."""

    def _progressed(self) -> None:
        """Do what is due when there is other progress. The lock is held."""

    def _end(self) -> None:
        """Take away what doesn't stay."""

    def _status(self) -> str:
        """Return what is being done as one line."""
        progress = self._progress
        text = progress.describe() or "at work"
        if progress.fraction is None:
            text += f", {clock(time.monotonic() - self._began)} so far"
        return f"{self._stage}: {text}" if self._stage else text


class QuietConsole(Console):
    """Shows warnings and errors alone."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream

    def _write(self, line: str, *, is_warning: bool) -> None:
        if is_warning:
            write_line(self._stream, line)


class PlainConsole(Console):
    """Writes lines with the time of day. A thread breaks long silence."""

    def __init__(self, stream: TextIO, *, first_line_after: float, may_stall: bool = False) -> None:
        """Open the console.

        Args:
            stream: Where the lines go.
            first_line_after: Seconds after which the first line comes at the latest.
            may_stall: Whether a library may keep all threads of this process from running.
        """
        super().__init__()
        self._stream = stream
        self._may_stall = may_stall
        self._heartbeat: Heartbeat | None = None
        self._told, self._told_at = ("", ""), -math.inf
        self._due = time.monotonic() + first_line_after
        self._not_before = self._due
        self._closed = threading.Event()
        self._shown = Progress()
        self._thread = threading.Thread(target=self._break_silence, name="console", daemon=True)
        self._thread.start()

    def _write(self, line: str, *, is_warning: bool) -> None:
        del is_warning
        with self._lock:
            self._pause()
            write_line(self._stream, f"{datetime.now():%H:%M:%S} {line}")
            self._tell()

    def _pause(self) -> None:
        """Begin the pause until the next line about progress."""
        now = time.monotonic()
        self._due = now + SECONDS_OF_SILENCE
        self._not_before = now + SECONDS_BETWEEN_LINES

    def _progressed(self) -> None:
        if self._progress != self._shown and time.monotonic() >= self._not_before:
            self._write_status()
        else:
            self._tell()

    def _tell(self) -> None:
        """Let another process know what is being done, in case this one can't say it."""
        now, doing = time.monotonic(), (self._stage, self._progress.phase)
        is_news = doing != self._told or now - self._told_at >= SECONDS_BETWEEN_TELLING
        if not (self._may_stall and is_news):
            return
        self._told, self._told_at = doing, now
        if self._heartbeat is None:
            try:
                self._heartbeat = Heartbeat(
                    self._stream.fileno(), first=SECONDS_TO_STALL, again=SECONDS_OF_SILENCE
                )
            except OSError:  # the stream is no file, or there may be no further process
                self._may_stall = False
        if self._heartbeat:
            is_timed = self._progress.fraction is None
            since = time.time() - (now - self._began) if is_timed else None
            said = self._progress.describe() or "at work"
            self._heartbeat.tell(f"{self._stage}: {said}" if self._stage else said, since=since)

    def _end(self) -> None:
        self._closed.set()
        self._thread.join()
        if self._heartbeat:
            self._heartbeat.close()

    def _write_status(self) -> None:
        self._shown = self._progress
        self._write(self._status(), is_warning=False)

    def _break_silence(self) -> None:
        while not self._closed.wait(0.1):
            with self._lock:
                if time.monotonic() >= self._due and not self._closed.is_set():
                    self._write_status()


class LiveConsole(Console):
    """Redraws the last lines of a terminal: a bar, and figures below it."""

    def __init__(self, stream: TextIO, *, redirects_stdout: bool) -> None:
        """Open the console.

        Args:
            stream: The terminal.
            redirects_stdout: Whether stdout is the same terminal, so that what is printed there
                must appear above the bar.
        """
        super().__init__()
        from rich.console import Console as RichConsole
        from rich.live import Live
        from rich.spinner import Spinner

        self._spinner = Spinner("dots")
        # Rich would break what is printed into lines, which no one could copy as one.
        self._console = RichConsole(file=stream, highlight=False, soft_wrap=True)
        self._live = Live(
            get_renderable=self._drawing,
            console=self._console,
            refresh_per_second=FRAMES_PER_SECOND,
            transient=True,
            redirect_stdout=redirects_stdout,
            redirect_stderr=True,
        )
        self._live.start()
        # Otherwise it would stay hidden after a process that is killed.
        self._console.show_cursor(True)
        before_the_last_line(self._leave)

    def _write(self, line: str, *, is_warning: bool) -> None:
        with suppress(OSError):  # the terminal is gone
            style = "yellow" if is_warning else None
            self._console.print(line, markup=False, style=style)

    def _end(self) -> None:
        before_the_last_line(None)
        with suppress(OSError):
            self._live.stop()

    def _leave(self) -> None:
        """Make room for the last line of a process that ends at once, whatever it holds locked."""
        with suppress(OSError):
            os.write(self._console.file.fileno(), b"\r\n")

    def _drawing(self) -> "RenderableType":
        from rich.console import Group
        from rich.padding import Padding
        from rich.text import Text

        with self._lock:
            progress, stage = self._progress, self._stage
            took = Text(clock(time.monotonic() - self._began), style="dim")
        words = ", ".join(part for part in (progress.phase, *progress.figures) if part)
        known = Text(words, no_wrap=False, overflow="fold")
        if progress.fraction is None:
            text = known or Text("at work")
            text.truncate(max(1, self._room(stage, took)), overflow="ellipsis")
            return self._row(stage, text, took)
        left = progress.seconds_left
        told = None if left is None else Text(f"{clock(left)} left", style="cyan")
        row = self._bar_row(stage, progress.fraction, took, told)
        return Group(row, Padding(known, (0, 0, 0, INDENT))) if known else row

    def _bar_row(self, stage: str, fraction: float, took: "Text", left: "Text | None") -> "Table":
        """Return a bar and times, as far as the terminal has room for them."""
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        percent = Text(f"{fraction:4.0%}")
        for words in ([percent, took, *([left] if left else [])], [percent, left or took]):
            width = min(BAR_WIDTH, self._room(stage, *words))
            if width >= LEAST_BAR_WIDTH:
                bar = ProgressBar(total=1.0, completed=fraction, width=width)
                return self._row(stage, bar, *words)
        return self._row(stage, percent)

    def _room(self, stage: str, *words: "Text") -> int:
        """Return the columns that a line of these words leaves for one more cell."""
        name = max(NAME_WIDTH, len(stage)) + 1 if stage else 0
        return self._console.width - 2 - name - sum(len(word) + 1 for word in words)

    def _row(self, stage: str, *cells: "RenderableType") -> "Table":
        from rich.table import Table
        from rich.text import Text

        row = Table.grid(padding=(0, 1))
        name = [Text(stage.ljust(NAME_WIDTH), style="bold")] if stage else []
        for _ in (self._spinner, *name, *cells):
            row.add_column(no_wrap=True)
        row.add_row(self._spinner, *name, *cells)
        return row


def write_line(stream: TextIO, line: str) -> None:
    """Write a whole line at once; nothing fails because nobody reads it any more."""
    with suppress(OSError, ValueError):
        stream.write(f"{line}\n")
        stream.flush()


_open: Console = Console()


def console() -> Console:
    """Return the console that is open in this process."""
    return _open


@contextmanager
def opened(console: Console) -> Iterator[Console]:
    """Make a console that of this process, until the body ends."""
    global _open  # a process has one terminal
    before, _open = _open, console
    try:
        yield console
    finally:
        _open = before
        console.close()


def open_console(*, quiet: bool = False, verbose: bool = False, may_stall: bool = False) -> Console:
    """Return the console for stderr as it is, and for the user's choice.

    Args:
        quiet: Whether the user wants no progress.
        verbose: Whether the user wants lines in any case.
        may_stall: Whether a library may keep all threads of this process from running.

    Raises:
        UserError: The user chose both.
    """
    if quiet and verbose:
        raise UserError("--quiet and --verbose contradict each other: leave one of them out")
    if quiet:
        return QuietConsole(sys.stderr)
    # The cells of a Jupyter notebook show a terminal's output, but every redrawing of it again.
    can_redraw = os.environ.get("TERM") != "dumb" and "JPY_PARENT_PID" not in os.environ
    if sys.stderr.isatty() and not verbose and can_redraw:
        return LiveConsole(sys.stderr, redirects_stdout=sys.stdout.isatty())
    first_line.end()
    if first_line.is_said:
        wait = SECONDS_BETWEEN_LINES
    else:
        wait = max(SECONDS_OF_CHECKS, SECONDS_TO_FIRST_LINE - process_age())
    return PlainConsole(sys.stderr, first_line_after=wait, may_stall=may_stall)


def show_work(name: str) -> Sink:
    """Return a sink that shows how far the work of this name is."""
    return lambda fraction: console().show(Progress(phase=name, fraction=fraction))


@contextmanager
def showing_work(phase: str, *, quiet: bool, verbose: bool) -> Iterator[None]:
    """Open a console, and show on it how far all work of the body is.

    Args:
        phase: What is done while no work says more.
        quiet: Whether the user wants no progress.
        verbose: Whether the user wants lines in any case.

    Raises:
        UserError: The user chose both.
    """
    with opened(open_console(quiet=quiet, verbose=verbose)) as shown, watching(show_work):
        shown.show(Progress(phase=phase))
        yield


def process_age() -> float:
    """Return how long this process has run, in seconds."""
    import psutil

    return time.time() - psutil.Process().create_time()
