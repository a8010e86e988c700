"""SIGUSR1 to the caller of a job is a request to stop it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from infra.launch.job import Control


@contextmanager
def stop_on_signal(control: Control) -> Iterator[None]:
    """While this lasts, SIGUSR1 sets `control.stop`. Outside the main thread it changes nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(_number: int, _frame: FrameType | None) -> None:
        control.stop = True

    before = signal.signal(signal.SIGUSR1, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)
