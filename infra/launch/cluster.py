"""Map a function over items as tasks on a running Ray cluster, through the loss of hosts.

Also: how to connect to one.

The hosts need the same installation as this one (the function travels by its name), with the extra
`cluster`. Nothing else is shared by Ray: what tasks read and write lies on a file system that all
hosts see under the same path.
"""

import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

TICK_SECONDS = 0.5
CONNECT_SECONDS = 10.0
# Of one item, each by the loss of a host or a process; an exception of the function is no reason.
MAX_RETRIES = 3

Item = TypeVar("Item")
Result = TypeVar("Result")


class ClusterError(RuntimeError):
    """There is no such cluster to work on, or no way to reach it."""


class LostHostError(RuntimeError):
    """An item's host or process was lost, and so were those that tried it again."""


def map_on_cluster(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    address: str,
    on_tick: Callable[[], None],
) -> Iterator[Result]:
    """Yield results as they come, one CPU for each item; `on_tick` is called twice a second.

    `address` is `auto`, for a cluster of which this host is part, or `ray://HOST:PORT`. At most
    two items for each CPU are taken and sent ahead. Raises what `function` raises, itself, and
    ends the other items then.
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
        # Ends what is still at work, too.
        ray.shutdown()


def connect(address: str) -> Any:
    """Return the module `ray`, connected to the cluster; its `shutdown` ends that.

    Raises ClusterError if there is none at `address`.
    """
    try:
        import ray
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
        # Ray puts its own in its place, under which SIGTERM ends this process without a word.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
    return ray


def _apply(function: Callable[[Item], Result], item: Item) -> Result:
    return function(item)


def _first_line(error: BaseException | None) -> str:
    return str(error).strip().partition("\n")[0]
