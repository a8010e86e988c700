"""Stop on request: a signal sets a flag, and all ranks stop after the same step.

| signal | handled by | sent by |
|---|---|---|
| SIGUSR1 | every process | the launcher |
| SIGTERM, SIGINT | a process that trains alone | people and schedulers |

Under msrun, SIGTERM keeps its meaning: MindSpore ends the ranks of a lost job with it, and a Python
handler could not run while its rank waits in a collective operation. A second signal
has the effect that it had before.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from infra.base.interrupts import REPEAT_SECONDS

ALONE = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)
"""The signals that a process which trains alone handles."""


class StopRequest:
    """Whether this process was asked to stop."""

    def __init__(self, *, distributed: bool) -> None:
        """Take note of nothing yet.

        Args:
            distributed: Whether this process is a rank that msrun started.
        """
        self.signal: str | None = None
        """Name of the signal that arrived."""
        self._arrived = 0.0
        self._numbers = [signal.SIGUSR1] if distributed else [*ALONE]

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals inside this context, which belongs to the main thread.

        Enter it with the first step. Before that there is nothing to save, and a launcher ends at
        once what doesn't handle SIGUSR1.
        """
        before = {int(number): signal.getsignal(number) for number in self._numbers}

        def note(number: int, _frame: FrameType | None) -> None:
            if self.signal is None:
                self.signal, self._arrived = signal.Signals(number).name, time.monotonic()
            elif time.monotonic() - self._arrived >= REPEAT_SECONDS:
                signal.signal(number, before[number])
                signal.raise_signal(number)

        for number in before:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
