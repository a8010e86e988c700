"""How busy other programs keep the machine's processors while this process works."""

import time
from typing import NamedTuple

import psutil


class _Taken(NamedTuple):
    """Seconds of processor time up to a moment, in seconds of a clock."""

    clock: float
    by_all: float
    by_own: float
    """By this process, and by those that it started and that they started."""


class OthersLoad:
    """Measures, from its creation on, what other programs take of the processors.

    It subtracts what this process and its descendants take, which a load average would count too.
    """

    def __init__(self) -> None:
        self._began = _taken()

    def fraction(self) -> float:
        """Return the seconds that others took, divided by those that all processors had."""
        began, now = self._began, _taken()
        by_others = (now.by_all - began.by_all) - (now.by_own - began.by_own)
        available = max(now.clock - began.clock, 1e-9) * (psutil.cpu_count() or 1)
        return round(min(max(by_others / available, 0.0), 1.0), 3)


def _taken() -> _Taken:
    own = psutil.Process()
    by_own = 0.0
    for process in (own, *own.children(recursive=True)):
        try:
            # A process that has ended counts in the children's time of the one that waited for it.
            by_own += sum(process.cpu_times()[:4])
        except psutil.Error:
            continue
    of_machine = psutil.cpu_times()
    idle = of_machine.idle + getattr(of_machine, "iowait", 0.0)
    guests = getattr(of_machine, "guest", 0.0) + getattr(of_machine, "guest_nice", 0.0)
    # Linux counts the time of guests twice: it is in `user` and `nice` too.
    return _Taken(time.monotonic(), sum(of_machine) - idle - guests, by_own)
