"""Progress of long work of a task, on Prefect's pages and in the log."""

import time
from contextvars import copy_context

from prefect import get_run_logger

from tasks.programs import ProgressBar

SECONDS_BETWEEN_LINES = 10.0
"""Work that takes no longer is not shown."""


class LongWork:
    """Shows the fraction of the work that is done, whatever thread calls it."""

    def __init__(self, name: str) -> None:
        """Start the clock of work with this name."""
        self._name = name
        self._bar = ProgressBar("work", name[:1].upper() + name[1:])
        self._next = time.monotonic() + SECONDS_BETWEEN_LINES
        self._is_shown = False
        # Prefect looks up the run in the context, which other threads don't have.
        self._context = copy_context()

    def __call__(self, fraction: float) -> None:
        """Show the fraction, if it is time for that."""
        now = time.monotonic()
        if now < self._next and not (self._is_shown and fraction == 1):
            return
        self._next, self._is_shown = now + SECONDS_BETWEEN_LINES, True
        self._context.run(self._show, fraction)

    def _show(self, fraction: float) -> None:
        get_run_logger().info("%s: %.0f%%", self._name, 100 * fraction)
        self._bar.update(fraction)
