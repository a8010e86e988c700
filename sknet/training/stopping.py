"""Stop on request: a signal sets a flag, and all ranks stop after the same step.

| signal | handled by | sent by |
|---|---|---|
| SIGUSR1 | every process | the launcher |
| SIGTERM, SIGINT | a process that trains alone | people and schedulers |

Under msrun, SIGTERM keeps its meaning: MindSpore ends the ranks of a lost job with it, and a Python
handler could not run while its rank waits in a collective operation. A second signal of the same
kind has the effect that it had before.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether this process was asked to stop."""

    def __init__(self) -> None:
        self.signal: str | None = None
        """Name of the signal that arrived."""

    @contextmanager
    def listening(self, *, distributed: bool) -> Iterator[None]:
        """Handle the signals inside this context, which belongs to the main thread."""
        alone = () if distributed else (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, *alone)}

        def note(number: int, _frame: FrameType | None) -> None:
            self.signal = signal.Signals(number).name
            signal.signal(number, before[number])

        for number in before:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
