"""A terminal to which a test writes, and what it shows."""

import fcntl
import os
import pty
import re
import struct
import termios
import threading

import pyte

LINES, COLUMNS = 24, 80
COLOUR = re.compile(r"\x1b\[(?:[0-9]+;)*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])[;m]")
"""A sequence that chooses a colour of letters or of what is behind them."""


def open_terminal(columns: int = COLUMNS) -> tuple[int, int]:
    """Return the file descriptors of a new terminal's outside, and of its inside."""
    outside, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, columns, 0, 0))
    return outside, inside


class Screen:
    """What a terminal shows, with the lines that have left it at the top."""

    def __init__(self, columns: int = COLUMNS) -> None:
        self._screen = pyte.Screen(columns, 2000)
        self._stream = pyte.ByteStream(self._screen)

    def write(self, text: bytes) -> None:
        self._stream.feed(text)

    def lines(self) -> list[str]:
        """Return the lines without what is empty at their ends and below them."""
        lines = [line.rstrip() for line in self._screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    @property
    def hides_cursor(self) -> bool:
        return bool(self._screen.cursor.hidden)


class Terminal:
    """A terminal to which this process writes."""

    def __init__(self, columns: int = COLUMNS) -> None:
        self._outside, inside = open_terminal(columns)
        self.stream = os.fdopen(inside, "w")
        self.screen = Screen(columns)
        self._written = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                more = os.read(self._outside, 65536)
            except OSError:
                return
            self._written += more
            self.screen.write(more)

    def written(self) -> str:
        """Return all that was written, with its escape codes."""
        return self._written.decode()

    def text(self) -> str:
        """Return what is on the screen now."""
        return "\n".join(self.screen.lines())

    def close(self) -> None:
        self.stream.close()
        self._reader.join()
        os.close(self._outside)
