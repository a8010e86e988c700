"""A Ray cluster of several nodes on this machine, and what tests run on it."""

import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

OBJECT_STORE_BYTES = 80 << 20


@contextmanager
def cluster_of(num_nodes: int) -> Iterator[Any]:
    """Nodes of one CPU; the first is the head, the others can be killed."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0"}
    with warnings.catch_warnings():
        # Ray's own code warns of its own deprecations.
        warnings.simplefilter("ignore")
        from ray.cluster_utils import Cluster
    before = set(psutil.Process().children(recursive=True))
    node = {
        "num_cpus": 1,
        "object_store_memory": OBJECT_STORE_BYTES,
        "include_dashboard": False,
    }
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        for _ in range(num_nodes - 1):
            cluster.add_node(**node)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        started = set(psutil.Process().children(recursive=True)) - before
        cluster.shutdown()
        _, left = psutil.wait_procs(started, timeout=20)
        for process in left:
            process.kill()
        if left:
            raise AssertionError(f"the cluster left {left} behind")


class NoSuchColourError(ValueError):
    """Of a function that is mapped."""


def square(number: int) -> int:
    if number < 0:
        raise NoSuchColourError(f"{number} is no colour")
    return number * number


def say_and_wait(folder: Path, number: int) -> int:
    """Say by which node, and end once that is allowed."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    (folder / f"{number}.{node}.{time.monotonic_ns()}").touch()
    while not (folder / "go-on").exists():
        time.sleep(0.05)
    return number
