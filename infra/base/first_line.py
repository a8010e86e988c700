"""The first line of a command whose imports take long, as users shall see one within 3 s.

It imports nothing that takes long itself.
"""

import os
import sys
import threading
import time
from contextlib import suppress

SECONDS_TO_FIRST_LINE = 2.0
"""Seconds of imports after which the line comes. Python's own start takes up to half a second."""

WITHOUT_IT = ("--help", "-h", "--version", "--quiet")
"""Options of commands that print nothing but what they are asked for."""


class _FirstLine:
    def __init__(self) -> None:
        self._timer: threading.Timer | None = None
        self.is_said = False
        """Whether the line was printed."""

    def begin(self) -> None:
        """Print the line soon, unless the imports end before."""
        if self._timer or {*WITHOUT_IT} & {*sys.argv}:
            return
        self._timer = threading.Timer(SECONDS_TO_FIRST_LINE, self._say)
        self._timer.daemon = True
        self._timer.start()

    def end(self) -> None:
        """Say nothing any more: the work begins, and says what it does itself."""
        if self._timer:
            self._timer.cancel()

    def _say(self) -> None:
        self.is_said = True
        with suppress(OSError):  # nobody reads it
            os.write(2, f"{time.strftime('%H:%M:%S')} start: loading the libraries\n".encode())


first_line = _FirstLine()
"""That of this process."""
