"""Lines of a process of its own, for the time in which this process can print none.

No thread of Python runs while a library holds the interpreter's lock, as MindSpore does for much of
a compilation: 44 s without a line were measured on a busy machine.

The process is this file. It reads what is being done from stdin, a line each time, and ends with
it. It imports Python's own modules only, so that it starts within milliseconds.
"""

import os
import select
import subprocess
import sys
import time
from contextlib import suppress


class Heartbeat:
    """Prints what is being done, if it hears nothing for some time."""

    def __init__(self, stream: int, *, first: float, again: float) -> None:
        """Start the process.

        Args:
            stream: File descriptor to which it prints.
            first: Seconds without `tell` after which it prints.
            again: Seconds between two lines from then on.
        """
        read, self._stdin = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__, str(first), str(again)],
                stdin=read,
                stdout=stream,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C reaches this process only
            )
        except OSError:
            os.close(self._stdin)
            raise
        finally:
            os.close(read)

    def tell(self, doing: str, *, since: float | None) -> None:
        """Say that this process is alive, and what it is doing.

        Args:
            doing: What it is doing, in one line.
            since: Since when, in seconds of the system's clock; None: that is not shown.
        """
        with suppress(OSError):  # it was killed; nothing fails because of that
            os.write(self._stdin, f"{since or 0:.1f} {' '.join(doing.split())}\n".encode())

    def close(self) -> None:
        """End the process."""
        os.close(self._stdin)
        self._process.wait()


def main(first: float, again: float) -> None:
    """Print the newest line of stdin whenever none has come for some time."""
    wait, since, doing = first, 0.0, "at work"
    while True:
        if select.select([0], [], [], wait)[0]:
            if not (said := os.read(0, 1 << 16)):
                return
            number, _, doing = said.decode("utf-8", "replace").splitlines()[-1].partition(" ")
            wait, since = first, float(number)
            continue
        wait, so_far = again, ""
        if since:
            minutes, seconds = divmod(round(time.time() - since), 60)
            so_far = f", {minutes}:{seconds:02} so far"
        os.write(1, f"{time.strftime('%H:%M:%S')} {doing}{so_far}\n".encode())


if __name__ == "__main__":
    with suppress(OSError):
        main(*map(float, sys.argv[1:]))
