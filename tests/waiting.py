"""Wait for what another process or thread does."""

import time
from collections.abc import Callable

HANG_SECONDS = 900.0
"""No wait of a healthy test takes that long on any machine: this limit only ends hangs."""


def wait_for(
    condition: Callable[[], object],
    explain: Callable[[], str] = str,
    *,
    seconds: float = HANG_SECONDS,
    pause: float = 0.05,
) -> None:
    """Return once the condition holds.

    Args:
        condition: Called every `pause` seconds.
        explain: Returns what to say in case it never holds, such as the end of a log.
        seconds: Limit after which the test fails.
        pause: Seconds between two calls; longer for conditions that ask a server.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s:\n{explain()}"
        time.sleep(pause)
