"""Ctrl-C, SIGTERM and SIGHUP to a command: one line, and no process of it is left.

| while the command | the first signal | the second |
|---|---|---|
| is imported | prints the line and ends it | |
| works | raises KeyboardInterrupt, so that jobs save; five seconds later it is ended | ends it |
| exits | ends it, with the exit code of its work | |

The handlers belong to commands that people start. A flow that a worker runs, and a rank that msrun
starts, keep those of Prefect and of `sknet.training.stopping`.
"""

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from infra.base.first_line import first_line

INTERRUPTED = "interrupted; the same command goes on from here"
FAILED = 1  # ExitCode.FAILED; the import of its module takes time, in which a signal may come
REPEAT_SECONDS = 0.3
"""Seconds in which a second signal is still the first: timeout(1) sends its own to the command, and
at once to the command's process group."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
END_SECONDS = 5.0
"""Seconds in which an interrupted command must end, once its jobs have saved. Without a limit,
Prefect's client would try for minutes to reach a server that is gone."""
CHILDREN_SECONDS = 4.0
"""Seconds in which child processes must end; a supervisor takes two before it kills."""


class _Command:
    """The command that this process runs."""

    def __init__(self) -> None:
        self.interrupted_at: float | None = None
        """When the first signal has arrived, by the monotonic clock."""
        self.num_saving = 0
        """Number of jobs that are saving their work."""
        self._handles_signals = False
        self._ends_with: int | None = None
        """Exit code with which a signal ends this process at once; None: it is at work."""
        self._must_tell = True
        self.before_telling: Callable[[], None] | None = None
        """Called before the line; must not wait for any lock."""
        self._leaving = threading.RLock()

    def handle_signals(self, *, ends_with: int | None, must_tell: bool) -> None:
        self._handles_signals = True
        self._ends_with, self._must_tell = ends_with, must_tell
        self.take_signals_back()

    def take_signals_back(self) -> None:
        """Handle the signals again, except those that the caller's shell has ignored."""
        if not self._handles_signals or threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)

    def tell(self) -> None:
        """Print the line, unless it has been printed, or a signal would not interrupt any work."""
        if self._must_tell:
            self._must_tell = False
            # Not through sys.stderr, which the interrupted code may hold locked. After SIGHUP the
            # terminal is gone.
            with suppress(OSError):
                if self.before_telling:
                    self.before_telling()
                os.write(2, f"{INTERRUPTED}\n".encode())

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._ends_with is not None:
            self._leave()
        if self.interrupted_at is not None:
            if time.monotonic() - self.interrupted_at < REPEAT_SECONDS:
                return
            self._leave()
        self.interrupted_at = time.monotonic()
        threading.Thread(target=self._leave_in_time, name="interrupt", daemon=True).start()
        raise KeyboardInterrupt

    def _leave_in_time(self) -> NoReturn:
        saved = time.monotonic()
        while time.monotonic() - saved < END_SECONDS:
            time.sleep(0.1)
            if self.num_saving:
                saved = time.monotonic()
        self._leave()

    def _leave(self) -> NoReturn:
        """End this process's children, then this process, without exit handlers, which may wait."""
        with self._leaving:
            _end_children()
            self.tell()
            os._exit(FAILED if self._ends_with is None else self._ends_with)


_command = _Command()


def handle_while_importing(package: str, *, script: str = "") -> None:
    """Let a signal end this process while a command of this package is imported: it takes seconds.

    If it takes more than two, a line says so. Call it where the package begins. It does nothing in
    any other process.

    Args:
        package: The package. Its commands are started as `python -m PACKAGE.…`.
        script: Name of the console script that imports the package first, if there is one.
    """
    if not (_is_module_of(package) or (script and Path(sys.argv[0]).name == script)):
        return
    first_line.begin()
    atexit.register(_ignore_signals)  # the first one that is registered runs last
    _command.handle_signals(ends_with=FAILED, must_tell=True)


def _is_module_of(package: str) -> bool:
    """Tell whether this process was started as `python -m PACKAGE.…`."""
    # While `python -m` looks for the module, its parents are imported, and argv[0] is "-m".
    if sys.argv[0] != "-m" or "-m" not in sys.orig_argv:
        return False
    module = sys.orig_argv[sys.orig_argv.index("-m") + 1]
    return module.partition(".")[0] == package


def run_interruptible(work: Callable[[], int]) -> int:
    """Do the work of this process's command in the main thread, and return its exit code.

    The first signal raises KeyboardInterrupt in the work. Once that, or what a library makes of it,
    has ended the work, the line is printed.
    """
    first_line.end()
    _command.interrupted_at = None
    _command.handle_signals(ends_with=None, must_tell=True)
    code = FAILED
    try:
        code = work()
    except KeyboardInterrupt:
        _command.tell()
    except Exception:
        if not is_interrupted():
            raise
    finally:
        if is_interrupted() and code:
            _command.tell()
        _command.handle_signals(ends_with=code, must_tell=False)
    return code


def before_the_last_line(call: Callable[[], None] | None) -> None:
    """Have something called before the line with which an interrupted command ends; None: nothing.

    It may run in a signal handler, so it must not wait for a lock.
    """
    _command.before_telling = call


def take_signals_back() -> None:
    """Handle this command's signals again; others' handlers, such as Prefect's, replace ours.

    Does nothing if this process runs no command.
    """
    _command.take_signals_back()


def is_interrupted() -> bool:
    """Tell whether this command was interrupted, so that what fails now is no news."""
    return _command.interrupted_at is not None


@contextmanager
def saving() -> Iterator[None]:
    """Give the body the time that it needs, even if the command is interrupted."""
    _command.num_saving += 1
    try:
        yield
    finally:
        _command.num_saving -= 1


def _ignore_signals() -> None:
    """Ignore what comes now, as Python's own end takes the handlers away."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _end_children() -> None:
    import psutil

    children = psutil.Process().children()
    # A supervisor takes the first signal for a request to save, the second for one to end.
    for _ in range(2):
        for child in children:
            with suppress(psutil.Error):
                child.terminate()
        time.sleep(0.2)
    _, alive = psutil.wait_procs(children, CHILDREN_SECONDS)
    for child in alive:
        with suppress(psutil.Error):
            child.kill()
