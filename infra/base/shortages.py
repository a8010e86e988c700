"""Want of memory or of disk, recognised and told with the figures that its cure needs."""

import errno
import re
import resource
import shutil
from pathlib import Path

from sknet.errors import DiskFullError, MemoryRefusedError

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# In MindSpore's exception when its writer finds less than about 10 MB free.
_NO_ROOM_FOR_MINDSPORE = "No free disk"
# In MindSpore's exceptions when host or device don't give an operator its memory.
_REFUSED_BY_MINDSPORE = re.compile("[Mm]emory not enough|Allocate (device )?memory failed")


def is_disk_full(error: OSError) -> bool:
    """Whether the disk, or the user's share of it, takes no more."""
    return isinstance(error, DiskFullError) or error.errno in _DISK_FULL


def disk_full(
    error: OSError | RuntimeError, what: str, needed: int, directory: Path
) -> DiskFullError | None:
    """The error to raise instead, if `what`, of `needed` bytes, didn't fit in the directory."""
    free = shutil.disk_usage(directory).free
    if isinstance(error, OSError):
        full = is_disk_full(error)
    else:
        full = _NO_ROOM_FOR_MINDSPORE in str(error) or free < needed
    if not full:
        return None
    return DiskFullError(
        f"disk full: {what} needs {_megabytes(needed)}, {_megabytes(free)} are free in "
        f"{directory}: make room, then start the same command again"
    )


def memory_refused(error: MemoryError | RuntimeError) -> MemoryRefusedError | None:
    """The error to raise instead, with what this process held, if it was refused memory."""
    said = " ".join(str(error).split("\n\n")[0].split()).rstrip("!.")
    if isinstance(error, RuntimeError) and not _REFUSED_BY_MINDSPORE.search(said):
        return None
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    allowed = "no limit" if limit == resource.RLIM_INFINITY else f"limit {_megabytes(limit)}"
    return MemoryRefusedError(
        f"out of memory: {said or 'an allocation was refused'}; the process held at most "
        f"{_megabytes(held)} (address space: {allowed}): lower batch_size, num_parallel_workers "
        "or the number of workers"
    )


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.3g} MB"
