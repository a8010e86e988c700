"""Which files were read whole and found sound, so that an unchanged file isn't read again.

One rule serves the store, its cache and the shards of a training: a file counts as unchanged only
if its device, inode, size and both times are those it had when it was read, if it had settled by
then, and if the machine hasn't been restarted since. The memory is a hint: anything odd about it,
and the file is read again.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated, NamedTuple, Self

from pydantic import FailFast

from infra.base.files import replace_file
from infra.base.records import RecordError, SealedRecord, read_document

SETTLED_NS = 2_000_000_000
"""A file that changes again within the resolution of its time stamp keeps the stamp. The coarsest
resolution is FAT's, 2 s."""


@cache
def boot_id() -> str:
    """Return what the kernel draws anew at each start of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


def is_settled(changed_ns: int, now_ns: int) -> bool:
    """Tell whether a file last changed at `changed_ns` would show a change after `now_ns`.

    Both are nanoseconds since the epoch.
    """
    return changed_ns < now_ns - SETTLED_NS


class FileStatus(NamedTuple):
    """What changes when a file is written to or replaced."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """Return the part of a file's status that tells whether it changed."""
        return cls(
            status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        )

    def had_settled(self, now_ns: int) -> bool:
        """Tell whether a change after `now_ns` would show in the times; see `is_settled`."""
        return is_settled(max(self.mtime_ns, self.ctime_ns), now_ns)


class VerifiedFiles(SealedRecord):
    """The statuses at which the files of one set were found sound."""

    content: str
    """What the files were compared with: a digest or a checksum."""
    boot: str
    """The machine's start. What was written before it may not have reached the disk."""
    files: Annotated[dict[str, FileStatus], FailFast()]


def read_verified(path: Path, content: str) -> dict[str, FileStatus]:
    """Return the statuses that are kept at a path for this content; none if in doubt."""
    try:
        verified = VerifiedFiles.decode(read_document(path))
    except (RecordError, OSError):
        return {}
    known = (verified.content, verified.boot) == (content, boot_id())
    return verified.files if known else {}


def write_verified(path: Path, content: str, files: Mapping[str, FileStatus]) -> None:
    """Keep the statuses if they can be kept: the disk may be full, or not ours to write."""
    document = VerifiedFiles(content=content, boot=boot_id(), files=dict(files)).encode()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, document)
