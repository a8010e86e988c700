"""A function over items in several processes that end with this one."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, get_context, parent_process
from typing import TypeVar

from sknet.errors import LostProcessError

TICK_SECONDS = 0.5

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_processes(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    num_workers: int,
    on_tick: Callable[[], None],
) -> Iterator[Result]:
    """Yield results as they come; items are taken when a process is about to be free.

    Raises what `function` raises, and LostProcessError if a process was killed.
    """
    waiting = iter(items)
    pending: set[Future[Result]] = set()
    # MindSpore's threads don't survive a fork.
    pool = ProcessPoolExecutor(
        max(1, num_workers), mp_context=get_context("spawn"), initializer=_end_with_parent
    )
    try:
        while True:
            while len(pending) <= num_workers:
                try:
                    pending.add(pool.submit(function, next(waiting)))
                except StopIteration:
                    break
            if not pending:
                return
            done, pending = wait(pending, TICK_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
            on_tick()
    except BrokenProcessPool:
        raise LostProcessError(
            "a worker process was killed, perhaps for want of memory: "
            "start again to go on from what is finished"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Not to go on writing beside the next attempt, when this one is killed."""
    if parent := parent_process():
        threading.Thread(target=_exit_after, args=[parent.sentinel], daemon=True).start()


def _exit_after(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
