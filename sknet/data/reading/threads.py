"""One thread makes and reads all of MindSpore's pipelines, one call after the other.

MindSpore tells an error of any pipeline to the thread that made the first one, and kills the
process (SIGSEGV) if the pipeline that failed is read by another. And the seed of operations is a
setting of the whole process, read where a pipeline is made.
"""

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

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
