"""Ends a rank whose training stands still, after writing where every thread of it stands.

| | |
|---|---|
| a step may take | 20 (`FACTOR`) times the median of the last 100 (`WINDOW`) steps, |
| | and not less than the floor (`--hang_floor`): 600 s, which alone counts until |
| | there is a median; 0 for no watchdog |
| then a rank writes its stacks, and ends after | 5 s (`GRACE_SECONDS`) |
| or, where native code holds Python's lock, as | |
| MindSpore does while it waits for other ranks, | |
| it writes them and ends after | 2 s (`FALLBACK_SECONDS`), before those that could |

Only steps are watched: not the first one, which compiles, nor evaluations and the wait for a
checkpoint, which take as long as they take. For these there is the launcher's limit of silence.
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

FACTOR = 20
WINDOW = 100
FLOOR_SECONDS = 600.0
GRACE_SECONDS = 5.0
FALLBACK_SECONDS = 2.0
_POLL_SECONDS = 0.25
_EXIT_CODE = 1


class Watchdog:
    """Knows when steps end; off until the first one has.

    Two timers, as neither is enough: a thread of Python can say what the matter is but needs the
    interpreter, which native code may hold; faulthandler's needs nothing but can only dump and
    leave.
    """

    def __init__(self, floor: float = FLOOR_SECONDS) -> None:
        self.limit = self._floor = floor
        """Seconds that a step may take."""
        self._durations: deque[float] = deque(maxlen=WINDOW)
        self._last: float | None = None
        self._ended = threading.Event()
        if floor:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def step_done(self) -> None:
        """The next one has to end in time."""
        now = time.monotonic()
        if self._last is not None:
            self._durations.append(now - self._last)
        self._last = now
        self._arm()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens meanwhile is no step."""
        was_on = self._last is not None
        self._stop()
        yield
        if was_on:
            self._last = time.monotonic()
            self._arm()

    def end(self) -> None:
        """Watch no more."""
        self._stop()
        self._ended.set()

    def _arm(self) -> None:
        if self._floor:
            if self._durations:
                self.limit = max(self._floor, FACTOR * statistics.median(self._durations))
            # 0.1 ms. At each step, so that the timers of all ranks end at the same time.
            faulthandler.dump_traceback_later(self.limit + FALLBACK_SECONDS, exit=True)

    def _stop(self) -> None:
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
                os._exit(_EXIT_CODE)
