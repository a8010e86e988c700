"""Locks between processes and threads, which the kernel frees when their holder dies.

flock(2) belongs to the open file, so a forked child would keep the lock of a parent that died.
Children therefore close all locks at once (across exec, Python closes them).
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_open_locks: set[int] = set()


def _close_in_child() -> None:
    for descriptor in _open_locks:
        os.close(descriptor)
    _open_locks.clear()


os.register_at_fork(after_in_child=_close_in_child)


@contextmanager
def exclusive(
    path: Path, *, wait: bool = True, on_wait: Callable[[], None] | None = None
) -> Iterator[None]:
    """Hold a lock file, which exists only while somebody holds it or waits for it.

    Args:
        path: The lock file, in a directory that exists.
        wait: Whether to wait for another holder.
        on_wait: Called once if there is another holder to wait for.

    Raises:
        BlockingIOError: Another holds the lock, and `wait` is off.
    """
    descriptor = _acquire(path, fcntl.LOCK_EX, wait=wait, on_wait=on_wait)
    try:
        yield
    finally:
        if descriptor in _open_locks:  # not in a forked child: the lock is the parent's
            path.unlink(missing_ok=True)
            _close(descriptor)


def is_held(path: Path) -> bool:
    """Tell whether somebody holds a lock file, without touching it."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def share_for_life(path: Path) -> None:
    """Hold a lock file until this process ends; any number of processes may do so together."""
    _acquire(path, fcntl.LOCK_SH)


def _acquire(
    path: Path, operation: int, *, wait: bool = True, on_wait: Callable[[], None] | None = None
) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        _open_locks.add(descriptor)
        try:
            try:
                fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    raise
                if on_wait is not None:
                    on_wait()
                    on_wait = None
                fcntl.flock(descriptor, operation)
            if os.fstat(descriptor).st_nlink > 0:
                return descriptor
        except BaseException:
            _close(descriptor)
            raise
        _close(descriptor)  # the former holder has removed this file: lock its successor


def _close(descriptor: int) -> None:
    _open_locks.discard(descriptor)
    os.close(descriptor)
