"""Threads that read: one for MindSpore's pipelines, one that reads ahead, several that decode.

One thread makes and reads all pipelines, one call after the other: MindSpore reports an error of
any pipeline to the thread that made the first one, and kills the process (SIGSEGV) if another
thread reads the pipeline that failed.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

_PIPELINES = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pipelines")

BATCHES_AHEAD = 2
"""Batches that are ready while the network computes another one. A pipeline of MindSpore holds more
before them."""

WAIT_SECONDS = 0.5
"""Time between two calls of who is told that no item is ready."""

Item = TypeVar("Item")
Argument = TypeVar("Argument")


def read_pipeline(
    make: Callable[[], Any], at_once: int = 1
) -> Generator[tuple[Any, ...], None, None]:
    """Make a pipeline at once, and yield its rows.

    Args:
        make: Makes the pipeline and returns MindSpore's iterator over its rows.
        at_once: Rows that are fetched with one call to the thread that reads.
    """
    return _rows(_PIPELINES.submit(make).result(), at_once)


def _rows(iterator: Any, at_once: int) -> Generator[tuple[Any, ...], None, None]:
    def fetch() -> list[tuple[Any, ...]]:
        return list(islice(iterator, at_once))

    try:
        while True:
            rows = _PIPELINES.submit(fetch).result()
            yield from rows
            if len(rows) < at_once:  # the iterator raises an error if it is asked again
                return
    finally:
        iterator.stop()


def usable_threads(wanted: int) -> int:
    """Return how many threads shall read: as many as are wanted, but no more than processors."""
    return min(wanted, len(os.sched_getaffinity(0)))


def in_order(
    function: Callable[[Argument], Item], arguments: Iterable[Argument], num_threads: int
) -> Generator[Item, None, None]:
    """Yield the function's results in the order of its arguments, computed by several threads.

    At most two results per thread are computed ahead. An error is raised in its place.

    Args:
        function: Called with each argument.
        arguments: They are taken as they are needed.
        num_threads: Number of threads.
    """
    pending: deque[Future[Item]] = deque()
    with ThreadPoolExecutor(num_threads, thread_name_prefix="in-order") as pool:
        try:
            for argument in arguments:
                pending.append(pool.submit(function, argument))
                if len(pending) > 2 * num_threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def read_ahead(
    items: Iterator[Item], depth: int, on_wait: Callable[[], None] | None = None
) -> Generator[Item, None, None]:
    """Yield items that a thread makes ahead.

    An error of `items` is raised after the items that came before it. The thread ends with this
    generator: close it (`contextlib.closing`) if you don't read it to its end.

    Args:
        items: What to yield.
        depth: Largest number of items that are ready ahead.
        on_wait: Called every `WAIT_SECONDS` by the reader's thread while no item is ready.
    """
    ready: SimpleQueue[tuple[Item] | BaseException | None] = SimpleQueue()
    room = threading.Semaphore(depth)
    stopped = threading.Event()

    def make() -> None:
        try:
            while room.acquire() and not stopped.is_set():
                ready.put((next(items),))
        except StopIteration:
            ready.put(None)
        except BaseException as error:  # noqa: BLE001 (raised again in the reader's thread)
            ready.put(error)
        finally:
            if isinstance(items, Generator):
                items.close()

    def get() -> tuple[Item] | BaseException | None:
        while on_wait:
            with suppress(Empty):
                return ready.get(timeout=WAIT_SECONDS)
            on_wait()
        return ready.get()

    thread = threading.Thread(target=make, name="read-ahead", daemon=True)
    thread.start()
    try:
        while (item := get()) is not None:
            if isinstance(item, BaseException):
                raise item
            room.release()
            yield item[0]
    finally:
        stopped.set()
        room.release()
        thread.join()
