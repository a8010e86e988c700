"""Stopping on request: a signal sets a flag, and the ranks agree on the step after which they go.

| signal | who | why |
|---|---|---|
| SIGUSR1 | any rank of a job, or a process alone | what a launcher sends |
| SIGTERM, SIGINT | a process alone | what people and schedulers send |

Under msrun SIGTERM stays as it is: MindSpore ends the ranks of a lost job by it, and a handler in
Python could not run while its rank waits in a collective operation. A second signal of the kind
does what it does without this.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether this process was asked to stop; listens within its context, in the main thread."""

    def __init__(self) -> None:
        self.signal: str | None = None
        """Name of the one that came."""

    @contextmanager
    def listening(self, *, distributed: bool) -> Iterator[None]:
        """To be entered before what takes long."""
        alone = () if distributed else (signal.SIGTERM, signal.SIGINT)
        handlers = {number: signal.getsignal(number) for number in (signal.SIGUSR1, *alone)}

        def note(number: int, _frame: FrameType | None) -> None:
            self.signal = signal.Signals(number).name
            signal.signal(number, signal.SIG_DFL)

        for number in handlers:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
