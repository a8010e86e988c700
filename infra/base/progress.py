"""Tells whoever watches how far long work is: hashing, uploads, downloads, reading many records."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Count = Callable[[int], None]
"""Counts what is done, or is to be done again if negative; any thread may call it."""

Sink = Callable[[float], None]
"""Gets the fraction of the work that is done, 0 to 1. Called by one thread at a time."""


def uncounted(_: int) -> None:
    """Count nothing: nobody watches."""


SECONDS_BETWEEN = 10.0
"""Seconds between two messages. Work that takes no longer is not shown."""

_watcher: ContextVar[Callable[[str], Sink] | None] = ContextVar("watcher", default=None)


def paced(show: Sink) -> Sink:
    """Return a sink that shows fractions from time to time, and the end if any was shown."""
    next_time, is_shown = time.monotonic() + SECONDS_BETWEEN, False

    def sink(fraction: float) -> None:
        nonlocal next_time, is_shown
        now = time.monotonic()
        if now >= next_time or (is_shown and fraction == 1):
            next_time, is_shown = now + SECONDS_BETWEEN, True
            show(fraction)

    return sink


@contextmanager
def watching(watcher: Callable[[str], Sink]) -> Iterator[None]:
    """Tell `watcher` of all work that this context begins: it returns a sink for work of a name."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


@contextmanager
def work(name: str, amount: int) -> Iterator[Count]:
    """Begin work, and yield what counts how much of it is done.

    Args:
        name: Says what is done, such as `hashing shards/3f2a91`.
        amount: How much there is to do, in bytes or whatever is counted.
    """
    watcher = _watcher.get()
    if watcher is None:
        yield uncounted
        return
    sink, lock, done = watcher(name), threading.Lock(), 0

    def count(more: int) -> None:
        nonlocal done
        with lock:
            done += more
            sink(min(1.0, done / amount) if amount else 1.0)

    yield count
