"""Remembers which files were read whole and had the right content, so as not to read them again.

The artifact store, its cache and training all use this one rule. A file counts as unchanged if its
device, inode, size and both times are those that it had when it was read; if its last change was
long enough ago by then (`SETTLED_NS`); and if the machine hasn't been restarted since. What is
remembered is a hint: if anything about it is odd, the file is read again.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated, NamedTuple, Self

from pydantic import FailFast

from infra.base.files import replace_file
from infra.base.outcomes import UserError
from infra.base.records import Record

SETTLED_NS = 2_000_000_000
"""A file that changes twice within the resolution of its time stamp shows only the first change.
The coarsest resolution is that of FAT: 2 s."""


@cache
def boot_id() -> str:
    """Return the identifier that the kernel draws at each start of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


def is_settled(changed_ns: int, read_ns: int) -> bool:
    """Tell whether a file that last changed at `changed_ns` shows every change after `read_ns`.

    Both are times in nanoseconds since the epoch.
    """
    return changed_ns < read_ns - SETTLED_NS


class FileStatus(NamedTuple):
    """The part of a file's status that changes when it is written or replaced."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """Take it from what `os.stat` returned."""
        return cls(
            status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        )

    def had_settled(self, read_ns: int) -> bool:
        """Apply `is_settled` to the later of both times."""
        return is_settled(max(self.mtime_ns, self.ctime_ns), read_ns)


class VerifiedFiles(Record):
    """The statuses that the files of one set had when they were verified."""

    content: str
    """Identifies what the files were compared with, such as a digest."""
    boot: str
    """The start of the machine. What was written before it may not have reached the disk."""
    files: Annotated[dict[str, FileStatus], FailFast()]


def read_verified(path: Path, content: str) -> dict[str, FileStatus]:
    """Return what is remembered at a path of files with this content; nothing if in doubt."""
    try:
        verified = VerifiedFiles.read(path)
    except UserError:
        return {}
    known = (verified.content, verified.boot) == (content, boot_id())
    return verified.files if known else {}


def write_verified(path: Path, content: str, files: Mapping[str, FileStatus]) -> None:
    """Remember statuses at a path, unless the disk is full or read-only."""
    document = VerifiedFiles(content=content, boot=boot_id(), files=dict(files)).encode()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, document)
