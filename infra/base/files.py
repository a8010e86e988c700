"""Files that survive a crash: listing, linking, hashing, and waiting for the disk."""

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from infra.artifacts.errors import StoreError

MAX_DOCUMENT_BYTES = 32 * 2**20
"""Limit of a manifest or a ref. Anything bigger is refused unread."""

# Another file system, one without hard links, a file of another user, or too many links.
_CANNOT_LINK = {errno.EXDEV, errno.ENOTSUP, errno.EPERM, errno.EMLINK}

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


def scan(directory: Path, prefix: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """Yield the path and status of all that is not a directory, following no symlink."""
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_dir(follow_symlinks=False):
                yield from scan(Path(entry.path), f"{prefix}{entry.name}/")
            else:
                yield prefix + entry.name, entry.stat(follow_symlinks=False)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def link_or_copy(source: Path, target: Path) -> bool:
    """Give a file a second name, or its content a second file where a link can't be made.

    Returns:
        Whether it is the same file.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _CANNOT_LINK:
            raise
        shutil.copyfile(source, target, follow_symlinks=False)
        return False
    return True


def fault_with_figures(error: OSError, directory: Path, needed: int) -> str:
    """Return what was wrong; of a full disk, what it should take and what is free, too."""
    if error.errno not in _DISK_FULL:
        return str(error.strerror)
    free = shutil.disk_usage(directory).free
    return f"{error.strerror}: it takes {needed / 1e6:.3g} MB, {free / 1e6:.3g} MB are free"


def bring_to_disk(path: Path) -> os.stat_result:
    """Wait until a file's content is on disk, and return its status."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return os.fstat(file.fileno())


def write_durably(path: Path, content: bytes) -> None:
    """Write a file and bring it to disk; its name needs `fsync_directory`."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def fsync_directory(directory: Path) -> None:
    """Bring the names in a directory to disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(directory: Path) -> None:
    """Bring the names in a directory and in all below it to disk."""
    for parent, _, _ in os.walk(directory, topdown=False):
        fsync_directory(Path(parent))


def read_document(path: Path) -> bytes:
    """Return the content of a JSON document.

    Raises:
        StoreError: it is missing, not a regular file, or bigger than `MAX_DOCUMENT_BYTES`.
    """
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise StoreError(f"{path.name!r} is not a regular file")
        if status.st_size > MAX_DOCUMENT_BYTES:
            raise StoreError(
                f"{path.name!r} has {status.st_size} bytes, expected at most {MAX_DOCUMENT_BYTES}"
            )
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(f"{path.name!r} is missing") from None
