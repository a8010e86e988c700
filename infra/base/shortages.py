"""Shortages of memory and disk: recognised, and reported with the figures that the cure needs."""

import errno
import re
import resource
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# MindSpore's writer of shards raises this when it finds less than this free (measured: a kilobyte
# less is refused), however little it has to write.
_NO_ROOM_FOR_MINDSPORE = "No free disk"
_LEAST_ROOM_FOR_MINDSPORE = 10 << 20
# MindSpore raises these when the host or the device refuses an operator its memory.
_REFUSED_BY_MINDSPORE = re.compile(
    "[Mm]emory not enough|Allocate (device )?memory failed|Insufficient memory"
)


class DiskFullError(OSError):
    """The disk is full: says how much is needed, how much is free, and where. Exit code 1.

    Finished parts remain, so a retry costs little.
    """


class MemoryRefusedError(MemoryError):
    """The process was refused memory; a retry would end in the same way. Exit code 1."""


def is_disk_full(error: OSError) -> bool:
    """Tell whether the disk, or the user's quota of it, is full."""
    return isinstance(error, DiskFullError) or error.errno in _DISK_FULL


def room(needed: int, directory: Path, *, also: str = "") -> str:
    """Return the text "needs X MB, Y MB are free in DIRECTORY", given the needed bytes.

    `also` says what is needed beside them.
    """
    free = shutil.disk_usage(directory).free
    return f"needs {size_text(needed)}{also}, {size_text(free)} are free in {directory}"


def disk_full(
    error: OSError | RuntimeError, what: str, needed: int, directory: Path
) -> DiskFullError | None:
    """Return the error to raise instead if this one comes from a full disk, or else None.

    Args:
        error: The error of whoever wrote.
        what: What was to be written, for the message.
        needed: Its size in bytes.
        directory: Where it was to be written.
    """
    if isinstance(error, OSError):
        full = is_disk_full(error)
    else:
        free = shutil.disk_usage(directory).free
        full = _NO_ROOM_FOR_MINDSPORE in str(error) or free < needed
    if not full:
        return None
    also = ""
    if _NO_ROOM_FOR_MINDSPORE in str(error):
        also = f" and MindSpore's writer {size_text(_LEAST_ROOM_FOR_MINDSPORE)}"
    return DiskFullError(
        f"disk full: {what} {room(needed, directory, also=also)}: make room, then start the same "
        "command again"
    )


def memory_refused(
    error: MemoryError | RuntimeError, what: str = "", options: Sequence[str] = ()
) -> MemoryRefusedError | None:
    """Return the error to raise instead if this one comes from refused memory, or else None.

    Args:
        error: The error; one that this function returned is returned as it is.
        what: What needed the memory, for the message.
        options: What the user can lower, so that less memory is needed.
    """
    if isinstance(error, MemoryRefusedError):
        return error
    cause = " ".join(str(error).split("\n\n")[0].split()).rstrip("!.")
    if isinstance(error, RuntimeError) and not _REFUSED_BY_MINDSPORE.search(cause):
        return None
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    allowed = "no limit" if limit == resource.RLIM_INFINITY else f"limit {size_text(limit)}"
    cause = ": ".join(filter(None, (what, cause or "an allocation was refused")))
    advice = (
        f"lower {' or '.join(options)}, or allow more memory" if options else "allow more memory"
    )
    return MemoryRefusedError(
        f"out of memory: {cause}; the process held at most "
        f"{size_text(held)} (address space: {allowed}): {advice}"
    )


@contextmanager
def memory_for(what: str, options: Sequence[str] = ()) -> Iterator[None]:
    """Say in the error what needed the memory, and what to lower, if the body is refused some.

    Raises:
        MemoryRefusedError: The body was refused memory.
    """
    try:
        yield
    except MemoryError as error:
        raise memory_refused(error, what, options) or error from None


def size_text(num_bytes: int) -> str:
    """Return a size as people read it, such as "6.2 MB", "412 MB" or "15 GB"."""
    if num_bytes >= 10e9:
        return f"{num_bytes / 1e9:.0f} GB"
    return f"{num_bytes / 1e6:.0f} MB" if num_bytes >= 100e6 else f"{num_bytes / 1e6:.3g} MB"
