"""Run a command, and leave none of its processes behind.

    python -m infra.launch.supervisor [OPTION ...] -- COMMAND [ARG ...]

msrun puts each rank in its own session and handles SIGINT only, so neither a signal to msrun nor
one to its process group reaches the ranks. Therefore this program adopts every orphan below it
(PR_SET_CHILD_SUBREAPER, Linux only), which lets it find all descendants, whatever their session.
It ends all of them when

- the command ends by itself: exits with the command's code, 128 + n if signal n ended it;
- stdin reaches its end or the parent process dies: exits with 143. The caller must keep the write
  end of the supervisor's stdin open as long as the command may run;
- SIGTERM, SIGINT or SIGUSR1 arrives, a request to stop (see below): exits with 143 if the command
  did not end by itself;
- the deadline passes: exits with 124, as timeout(1) does.

A request to stop is passed on as SIGUSR1 to those descendants that handle it at that moment,
according to /proc/PID/status; it would kill the others, such as a rank that is still starting. They
have --grace seconds to end, unless a second SIGTERM or SIGINT arrives. If none handles SIGUSR1, all
are ended at once.

A command that cannot be started gives 127. The command inherits stdout and stderr; its stdin is
/dev/null.

There are two supervisor processes, so that SIGKILL to one of them leaves nothing behind: the outer
one, started by the caller, forks the inner one, which starts the command. Each ends everything when
the other is gone. Ray, for example, kills the children of an actor that it ends.
"""

import argparse
import ctypes
import logging
import os
import select
import signal
import sys
import time
from pathlib import Path
from types import FrameType

import psutil

POLL_SECONDS = 0.1
GRACE_SECONDS = 2.0  # from SIGTERM to SIGKILL
STOPPED = 143
DEADLINE_PASSED = 124
NOT_STARTED = 127
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h

_logger = logging.getLogger("supervisor")


class _Children:
    """All processes below this one, which as a subreaper stays the ancestor of each of them."""

    def __init__(self) -> None:
        self.exit_codes: dict[int, int] = {}
        self._asked_to_end: set[psutil.Process] = set()

    def reap(self) -> bool:
        """Collect every process that has ended and return whether any process is left.

        The kernel's answer (ECHILD) decides, because a scan of the process table can miss a process
        whose parent ends meanwhile.
        """
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            self.exit_codes[pid] = os.waitstatus_to_exitcode(status)

    def ask_to_stop(self) -> bool:
        """Send SIGUSR1 to the processes that handle it; return whether there are any."""
        asked = False
        for process in psutil.Process().children(recursive=True):
            try:
                if _handles(process.pid, signal.SIGUSR1):
                    process.send_signal(signal.SIGUSR1)
                    asked = True
            except (OSError, psutil.Error):
                continue  # it has ended meanwhile
        return asked

    def end(self) -> None:
        """End all descendants, including those that start meanwhile; return when none is left."""
        kill_after = time.monotonic() + GRACE_SECONDS
        while self.reap():
            kill = time.monotonic() >= kill_after
            for process in psutil.Process().children(recursive=True):
                try:
                    if kill:
                        process.kill()
                    elif process not in self._asked_to_end:
                        self._asked_to_end.add(process)
                        process.terminate()
                        process.resume()  # a stopped process acts on SIGTERM once it continues
                except psutil.Error:
                    continue  # it has ended meanwhile, or only root may end it
            time.sleep(POLL_SECONDS / 2)


class _Requests:
    """Signals that have arrived and were not handled yet."""

    def __init__(self) -> None:
        self._numbers: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, self._append)

    def next(self) -> signal.Signals | None:
        """Remove and return the oldest signal; None if there is none."""
        return signal.Signals(self._numbers.pop(0)) if self._numbers else None

    def _append(self, number: int, _frame: FrameType | None) -> None:
        self._numbers.append(number)


def supervise(command: list[str], deadline: float | None, grace: float) -> int:
    """Run `command` for at most `deadline` seconds and return the exit code of this process.

    Raises:
        OSError: The kernel refuses to make this process a subreaper.
    """
    requests = _Requests()
    children = _Children()
    parent = os.getppid()
    _adopt_orphans()
    inner = os.fork()
    if not inner:
        _adopt_orphans()  # a forked child does not inherit it
    try:
        if inner:
            return _follow_inner(inner, parent, children, requests)
        return _run(command, deadline, grace, children, requests)
    finally:
        children.end()


def _adopt_orphans() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def _follow_inner(inner: int, parent: int, children: _Children, requests: _Requests) -> int:
    """Pass signals on to the inner process, and return its exit code."""
    while True:
        children.reap()
        if inner in children.exit_codes:
            code = children.exit_codes[inner]
            return code if code >= 0 else 128 - code
        if request := requests.next():
            os.kill(inner, request)
        if os.getppid() != parent:
            return STOPPED
        time.sleep(POLL_SECONDS)


def _run(
    command: list[str],
    deadline: float | None,
    grace: float,
    children: _Children,
    requests: _Requests,
) -> int:
    """Start `command`, wait for a reason to end it, and return the exit code for that reason."""
    parent = os.getppid()
    started = time.monotonic()
    stopping_until: float | None = None
    try:
        # Not Popen, whose own waiting would take exit codes away from reap().
        pid = os.posix_spawnp(
            command[0],
            command,
            os.environ,
            file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # Python ignores them
        )
    except OSError as error:
        _logger.warning("cannot start %s: %s", command[0], error)
        return NOT_STARTED
    while True:
        children.reap()
        if pid in children.exit_codes:
            code = children.exit_codes[pid]
            return code if code >= 0 else 128 - code
        request = requests.next()
        if request and stopping_until is None and grace > 0 and children.ask_to_stop():
            _logger.warning("%s: asked all ranks to stop within %g s", request.name, grace)
            stopping_until = time.monotonic() + grace
        elif request and (stopping_until is None or request is not signal.SIGUSR1):
            _logger.warning("%s: ending all processes", request.name)
            return STOPPED
        if stopping_until is not None and time.monotonic() >= stopping_until:
            _logger.warning("not stopped within %g s: ending all processes", grace)
            return STOPPED
        # A fork of the parent may hold the pipe open, so the parent's process id is checked too.
        if _at_end_of_stdin(POLL_SECONDS) or os.getppid() != parent:
            _logger.warning("the caller is gone or closed stdin: ending all processes")
            return STOPPED
        if deadline is not None and time.monotonic() - started >= deadline:
            _logger.warning("the deadline of %g s has passed: ending all processes", deadline)
            return DEADLINE_PASSED


def _handles(pid: int, number: signal.Signals) -> bool:
    """Tell whether the process has installed a handler for the signal.

    Raises:
        OSError: The process has ended.
    """
    status = Path(f"/proc/{pid}/status").read_text("ascii", "replace")
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) & 1 << number - 1)


def _at_end_of_stdin(timeout: float) -> bool:
    """Wait up to `timeout` seconds for the end of stdin, and discard its content."""
    readable, _, _ = select.select([sys.stdin], [], [], timeout)
    return bool(readable) and os.read(sys.stdin.fileno(), 4096) == b""


def main() -> int:
    """Supervise the command of the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m infra.launch.supervisor")
    parser.add_argument("--deadline", type=float, metavar="SECONDS")
    parser.add_argument("--grace", type=float, metavar="SECONDS", default=0.0)
    parser.add_argument("--quiet", action="store_true", help="don't say why the command is ended")
    parser.add_argument("command", nargs="+", metavar="COMMAND")
    arguments = parser.parse_args()
    logging.basicConfig(format="%(name)s: %(message)s")
    if arguments.quiet:
        _logger.disabled = True
    return supervise(arguments.command, arguments.deadline, arguments.grace)


if __name__ == "__main__":
    sys.exit(main())
