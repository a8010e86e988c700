"""Large objects in parts: which, and several of them at a time."""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

MOST_PARTS = 9000
"""S3 takes 10,000."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes `start` to `stop` (exclusive) of an object."""

    number: int
    """From 1, as S3 counts."""
    start: int
    stop: int

    @property
    def size(self) -> int:
        """In bytes."""
        return self.stop - self.start

    @property
    def range(self) -> str:
        """As HTTP has it."""
        return f"bytes={self.start}-{self.stop - 1}"


def parts_of(size: int, part_bytes: int) -> list[Part]:
    """Cut `size` bytes; an empty object is one empty part."""
    step = max(part_bytes, -(-size // MOST_PARTS))
    starts = range(0, size, step) if size else [0]
    return [Part(at, start, min(start + step, size)) for at, start in enumerate(starts, 1)]


def in_order(work: Callable[[T], R], items: Sequence[T], threads: int) -> Iterator[R]:
    """`work` of every item, several at a time, with the results in the items' order.

    The first failure is raised, and no further item begun. The threads don't keep the
    interpreter from ending, as those of concurrent.futures do.
    """
    futures: list[Future[R]] = [Future() for _ in items]
    waiting: queue.SimpleQueue[tuple[T, Future[R]]] = queue.SimpleQueue()
    for pair in zip(items, futures, strict=True):
        waiting.put(pair)
    stopped = threading.Event()

    def take() -> None:
        while not stopped.is_set():
            try:
                item, future = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                future.set_result(work(item))
            except BaseException as error:  # noqa: BLE001 (it is raised where it is waited for)
                stopped.set()
                future.set_exception(error)

    for _ in range(min(threads, len(items))):
        threading.Thread(target=take, name="s3-parts", daemon=True).start()
    try:
        # The queue keeps the order: whatever comes before a failed item has been begun.
        for future in futures:
            yield future.result()
    finally:
        stopped.set()
