"""One thread makes and reads all of MindSpore's pipelines, one call after the other.

MindSpore tells an error of any pipeline to the thread that made the first one, and kills the
process (SIGSEGV) if the pipeline that failed is read by another. And the seed of operations is a
setting of the whole process, read where a pipeline is made.
"""

import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, TypeVar

_READER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pipelines")


def read_pipeline(make: Callable[[], Any]) -> Generator[tuple[Any, ...], None, None]:
    """The rows of the iterator that `make` returns; it is made at once, not with the first row."""
    return _rows(_READER.submit(make).result())


def _rows(iterator: Any) -> Generator[tuple[Any, ...], None, None]:
    try:
        while (row := _READER.submit(next, iterator, None).result()) is not None:
            yield row
    finally:
        iterator.stop()


Item = TypeVar("Item")


def read_ahead(items: Iterator[Item], depth: int) -> Generator[Item, None, None]:
    """The same items, made by a thread that has up to `depth` of them ready.

    An error of `items` is raised in its place, after what came before it. The thread ends with
    the generator, so close it (`contextlib.closing`) if it isn't read to its end.
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
        except BaseException as error:  # noqa: BLE001 (raised again where it belongs)
            ready.put(error)
        finally:
            if isinstance(items, Generator):
                items.close()

    thread = threading.Thread(target=make, name="read-ahead", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            room.release()
            yield item[0]
    finally:
        stopped.set()
        room.release()
        thread.join()
