"""Run one command and leave none of its processes behind.

    python -m infra.launch.supervisor [--deadline SECONDS] -- COMMAND [ARGUMENT ...]

msrun puts each rank in a session of its own and handles SIGINT only: neither a signal to msrun nor
one to its process group reaches the ranks. This process therefore adopts every orphan below it
(PR_SET_CHILD_SUBREAPER, Linux only), so that all descendants can be found whatever session they
are in, and ends them when

- the command ends by itself: exits with its code, 128 + n if signal n ended it;
- stdin reaches its end or the parent process dies: exits with 143. Whoever starts a supervisor
  keeps the write end of its stdin open for as long as the command may run;
- SIGTERM or SIGINT arrives: exits with 143;
- the deadline passes: exits with 124, as timeout(1) does.

A command that cannot be started gives 127. The command inherits stdout and stderr; its stdin is
/dev/null. Only SIGKILL to the supervisor itself defeats it.
"""

import argparse
import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType

import psutil

POLL_SECONDS = 0.1
GRACE_SECONDS = 2.0  # from SIGTERM to SIGKILL
STOPPED = 143
DEADLINE_PASSED = 124
NOT_STARTED = 127
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


class _Children:
    """The processes below this one; as a subreaper, it is the ancestor of every one of them."""

    def __init__(self) -> None:
        self.exit_codes: dict[int, int] = {}
        self._asked_to_end: set[psutil.Process] = set()

    def reap(self) -> bool:
        """Collect every process that has ended and return whether any process is left.

        The kernel's word (ECHILD) decides: a scan of the process table can miss a process whose
        parent ends meanwhile.
        """
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            self.exit_codes[pid] = os.waitstatus_to_exitcode(status)

    def end(self) -> None:
        """Return once no descendant is left, those that appear meanwhile included."""
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


def supervise(command: list[str], deadline: float | None) -> int:
    """Run `command` for at most `deadline` seconds and return the exit code of this process.

    Raises:
        OSError: the kernel refuses to make this process a subreaper.
    """
    signals: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        signals.append(number)

    signal.signal(signal.SIGTERM, note)
    signal.signal(signal.SIGINT, note)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")

    children = _Children()
    try:
        return _run(command, deadline, children, signals)
    finally:
        children.end()


def _run(
    command: list[str], deadline: float | None, children: _Children, signals: Sequence[int]
) -> int:
    """Start `command`, wait for a reason to end, and return the exit code that goes with it."""
    parent = os.getppid()
    started = time.monotonic()
    try:
        # Not Popen, whose own waiting would take exit codes from reap()
        pid = os.posix_spawnp(
            command[0],
            command,
            os.environ,
            file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # which Python ignores
        )
    except OSError as error:
        _say(f"cannot start {command[0]}: {error}")
        return NOT_STARTED
    while True:
        children.reap()
        if pid in children.exit_codes:
            code = children.exit_codes[pid]
            return code if code >= 0 else 128 - code
        if signals:
            _say(f"{signal.Signals(signals[0]).name}: ending all processes")
            return STOPPED
        # A process forked off the parent may still hold the pipe open, hence the look at the parent
        if _at_end_of_stdin(POLL_SECONDS) or os.getppid() != parent:
            _say("the caller is gone or closed stdin: ending all processes")
            return STOPPED
        if deadline is not None and time.monotonic() - started >= deadline:
            _say(f"the deadline of {deadline:g} s has passed: ending all processes")
            return DEADLINE_PASSED


def _at_end_of_stdin(timeout: float) -> bool:
    """Wait up to `timeout` seconds for stdin; what it holds is discarded."""
    readable, _, _ = select.select([sys.stdin], [], [], timeout)
    return bool(readable) and os.read(sys.stdin.fileno(), 4096) == b""


def _say(text: str) -> None:
    sys.stderr.write(f"supervisor: {text}\n")


def main() -> int:
    """Parse the command line and supervise."""
    parser = argparse.ArgumentParser(prog="python -m infra.launch.supervisor")
    parser.add_argument("--deadline", type=float, metavar="SECONDS")
    parser.add_argument("command", nargs="+", metavar="COMMAND")
    arguments = parser.parse_args()
    return supervise(arguments.command, arguments.deadline)


if __name__ == "__main__":
    sys.exit(main())
