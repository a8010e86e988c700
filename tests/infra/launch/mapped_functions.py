"""Functions that tests map over items on a cluster; its workers import them from here."""

import time
from pathlib import Path


class NoSuchColourError(ValueError):
    """What `square` raises."""


def square(number: int) -> int:
    if number < 0:
        raise NoSuchColourError(f"{number} is no colour")
    return number * number


def report_and_wait(directory: Path, number: int) -> int:
    """Leave a file named after the item and its node; return once `go-on` exists."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    (directory / f"{number}.{node}.{time.monotonic_ns()}").touch()
    while not (directory / "go-on").exists():
        time.sleep(0.05)
    return number
