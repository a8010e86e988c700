"""Connect to a running Ray cluster, and map a function over items on it despite lost hosts.

The hosts need the same installation as this one (the function is sent by its name), with the extra
`cluster`. Ray shares nothing else: what the function reads and writes is its own affair.
"""

import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar

TICK_SECONDS = 0.5
CONNECT_SECONDS = 10.0
# Retries of one item after the loss of a host or a process; exceptions of the function are final.
MAX_RETRIES = 3

Item = TypeVar("Item")
Result = TypeVar("Result")


class ClusterError(RuntimeError):
    """The cluster doesn't exist, can't be reached, or can't run this."""


class LostHostError(RuntimeError):
    """Hosts or processes were lost, and so were the retries."""


def map_on_cluster(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    address: str,
    on_tick: Callable[[], None],
) -> Iterator[Result]:
    """Yield the results in the order in which they are ready.

    Each item takes one CPU. At most two items per CPU are drawn from `items` and sent ahead.

    Args:
        function: Applied to each item; an exception that it raises ends all items and is raised.
        items: The items.
        address: `auto` for the cluster of which this host is part, or `ray://HOST:PORT`.
        on_tick: Called at least twice a second.

    Raises:
        ClusterError: There is no cluster at the address, or a host can't run the function.
        LostHostError: An item was lost again after all retries.
    """
    ray = connect(address)
    from ray.exceptions import RayError, RayTaskError

    task = ray.remote(num_cpus=1, max_retries=MAX_RETRIES, scheduling_strategy="SPREAD")(_apply)
    shared = ray.put(function)
    waiting = iter(items)
    pending: list[Any] = []
    try:
        while True:
            ahead = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
            while len(pending) < ahead:
                try:
                    pending.append(task.remote(shared, next(waiting)))
                except StopIteration:
                    break
            if not pending:
                return
            done, pending = ray.wait(pending, num_returns=1, timeout=TICK_SECONDS)
            for reference in done:
                yield ray.get(reference)
            on_tick()
    except RayTaskError as error:
        if error.cause is None or isinstance(error.cause, RayError):
            raise ClusterError(f"a host can't run this: {_first_line(error.cause)}") from None
        raise error.cause from None
    except RayError as error:
        raise LostHostError(f"after {MAX_RETRIES} retries: {_first_line(error)}") from None
    finally:
        ray.shutdown()  # ends the items that are still running, too


def connect(address: str) -> ModuleType:
    """Return the module `ray`, connected to the cluster until its `shutdown` is called.

    Raises:
        ClusterError: Ray isn't installed, or there is no cluster at `address`.
    """
    try:
        ray = import_module("ray")
    except ImportError:
        raise ClusterError("work on a cluster needs Ray: pip install 'sknet[cluster]'") from None
    handler = signal.getsignal(signal.SIGTERM)
    try:
        if ":" in address:
            # Ray itself would try for minutes.
            host, _, port = address.removeprefix("ray://").rpartition(":")
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        ray.init(address, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ClusterError(f"no Ray cluster at {address!r}: {reason}") from None
    finally:
        # Ray installs its own handler, with which SIGTERM ends this process without a message.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
    return ray


def leaving_hosts() -> set[str]:
    """Return the node ids of the hosts that have been told to leave; call it within the cluster.

    Ray starts nothing new on them. Whoever told them may end them at any moment.

    Raises:
        ray.exceptions.RpcError: The head can't be reached.
    """
    ray = import_module("ray")
    client = ray._raylet.GcsClient(address=ray.get_runtime_context().gcs_address)
    return set(client.get_draining_nodes(timeout=CONNECT_SECONDS))


def _apply(function: Callable[[Item], Result], item: Item) -> Result:
    return function(item)


def _first_line(error: BaseException | None) -> str:
    return str(error).strip().partition("\n")[0]
