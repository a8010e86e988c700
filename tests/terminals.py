"""A command in a terminal of its own, where Ctrl-C reaches all processes of the foreground.

It is started outside the repository, whose prefect.toml it must not need.
"""

import fcntl
import os
import select
import subprocess
import termios
import threading

from tests.flow_runs import CommandRun
from tests.processes import WITH_SIGINT
from tests.screens import COLUMNS, Screen, open_terminal

CTRL_C = b"\x03"


class TerminalRun(CommandRun):
    """`python -m …`, started in a terminal; what it prints is in its log."""

    columns = COLUMNS
    """Width of the terminal."""

    def start(self) -> None:
        self.num_starts += 1
        self._log.touch()
        self._keyboard, inside = open_terminal(self.columns)
        # A new session takes the first terminal that it is given for its own.
        process = subprocess.Popen(
            [*WITH_SIGINT, *self._command],
            cwd=self._log.parent,
            env={**os.environ, **self.environment},
            stdin=inside,
            stdout=inside,
            stderr=inside,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(inside)
        self._started.append(process)
        self._is_closed = threading.Event()
        self._reader = threading.Thread(target=self._keep_output, daemon=True)
        self._reader.start()

    def _keep_output(self) -> None:
        with self._log.open("ab", buffering=0) as log:
            while not self._is_closed.is_set():
                if not select.select([self._keyboard], [], [], 0.05)[0]:
                    continue
                try:
                    log.write(os.read(self._keyboard, 65536))
                except OSError:  # the last process that had the terminal open has ended
                    return

    def screen(self) -> Screen:
        """Return what the terminal shows."""
        screen = Screen(self.columns)
        screen.write(self.output().encode())
        return screen

    def press_ctrl_c(self) -> None:
        os.write(self._keyboard, CTRL_C)

    def close(self) -> None:
        """Close the terminal: its foreground processes get SIGHUP."""
        self._is_closed.set()
        self._reader.join()
        os.close(self._keyboard)
