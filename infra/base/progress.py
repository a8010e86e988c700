"""Tells whoever watches how far long work is: training, hashing, uploads, reading many records."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Annotated

from pydantic import Field

from infra.base.records import Record

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


class Progress(Record):
    """How far work is, as far as it can be known now."""

    phase: str = ""
    """What is being done, such as `compiling the graph`; empty if the figures say it."""
    fraction: Annotated[float, Field(ge=0, le=1)] | None = None
    """Fraction of all the work that is done; None if it can't be known yet."""
    figures: tuple[str, ...] = ()
    """What else is known, in the order in which it is shown: `epoch 3/20`, `412 images/s`."""
    seconds_left: Annotated[float, Field(ge=0)] | None = None
    """Seconds until the work is done; None if it can't be known yet."""

    def describe(self) -> str:
        """Return the progress as one line without its end."""
        parts = [self.phase, *self.figures]
        if self.fraction is not None:
            parts.append(f"{self.fraction:.0%}")
        if self.seconds_left is not None:
            parts.append(f"{clock(self.seconds_left)} left")
        return ", ".join(part for part in parts if part)


def clock(seconds: float) -> str:
    """Return a duration as `m:ss`, or as `h:mm:ss` from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


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
