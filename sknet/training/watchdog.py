"""End a rank whose training hangs, after writing the stacks of all its threads.

| limit | value |
|---|---|
| duration of a step | 20 (`FACTOR`) times the median of the last 100 (`WINDOW`) steps, but at |
| | least the floor (`--hang_floor`, 600 s). The floor alone counts until there is |
| | a median. 0 turns the watchdog off |
| from writing the stacks to the end | 5 s (`GRACE_SECONDS`) |
| if native code holds Python's lock | 2 s (`FALLBACK_SECONDS`) after the limit; this is the case |
| | while MindSpore waits for other ranks |

Only steps are watched. The first step, which compiles, as well as evaluations and waiting for a
checkpoint have no limit here; the launcher limits how long a job may be silent. Nor does the time
count in which a process of this host waits for shards that are being fetched.
"""

import faulthandler
import os
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from infra.base.outcomes import ExitCode

FACTOR = 20
WINDOW = 100
FLOOR_SECONDS = 600.0
GRACE_SECONDS = 5.0
FALLBACK_SECONDS = 2.0
_POLL_SECONDS = 0.25


class Watchdog:
    """Limits the duration of steps, from the end of the first one on.

    It needs two timers. A Python thread can report the cause, but it needs the interpreter, which
    native code may hold. The timer of faulthandler always works, but can only dump stacks and exit.
    """

    def __init__(self, floor: float = FLOOR_SECONDS) -> None:
        """Start the watchdog.

        Args:
            floor: Seconds that every step may take; 0 turns the watchdog off.
        """
        self.limit = self._floor = floor
        """Seconds that the current step may take."""
        self._durations: deque[float] = deque(maxlen=WINDOW)
        self._last: float | None = None
        self._ended = threading.Event()
        if floor:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def step_done(self) -> None:
        """Start the limit of the next step."""
        now = time.monotonic()
        if self._last is not None:
            self._durations.append(now - self._last)
        self._last = now
        self._arm()

    def postpone(self) -> None:
        """Start the limit of the current step anew, if it has one."""
        if self._last is not None:
            self._last = time.monotonic()
            self._arm()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Suspend the limit inside this context."""
        was_on = self._last is not None
        self._disarm()
        yield
        if was_on:
            self._last = time.monotonic()
            self._arm()

    def end(self) -> None:
        """Stop watching."""
        self._disarm()
        self._ended.set()

    def _arm(self) -> None:
        if self._floor:
            if self._durations:
                self.limit = max(self._floor, FACTOR * statistics.median(self._durations))
            # Takes 0.1 ms. It is set at each step, so that the timers of all ranks end together.
            faulthandler.dump_traceback_later(self.limit + FALLBACK_SECONDS, exit=True)

    def _disarm(self) -> None:
        self._last = None
        if self._floor:
            faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        while not self._ended.wait(min(_POLL_SECONDS, self._floor / 4)):
            last, limit = self._last, self.limit
            if last is not None and time.monotonic() - last > limit:
                sys.stderr.write(f"error: no step within {limit:.0f} s; where all threads are:\n")
                sys.stderr.flush()
                faulthandler.dump_traceback(all_threads=True)
                time.sleep(GRACE_SECONDS)
                os._exit(ExitCode.FAILED)
