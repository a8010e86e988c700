"""Prepares a commit: files gathered under a directory that nobody looks into yet."""

import errno
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from pydantic import ValidationError

from infra.artifacts.documents import StoreError, one_line
from infra.artifacts.records import MANIFEST, FileEntry
from infra.base.files import file_sha256, fsync, scan, set_access
from infra.base.locks import exclusive
from infra.base.progress import work

# Another file system, one without hard links, too many links; or another user's file, or group.
_CANNOT_LINK = {errno.EXDEV, errno.ENOTSUP, errno.EPERM, errno.EMLINK}


def gather(directory: Path, files: Iterable[str] | None) -> tuple[str, ...]:
    """Return the paths to commit from a directory: those in `files`, or all.

    Raises:
        StoreError: There are none, one is missing, or one is a symbolic link or special file.
    """
    if not directory.is_dir():
        raise StoreError(f"{str(directory)!r} is not a directory, expected the files to commit")
    present = dict(scan(directory))
    chosen = tuple(sorted(present if files is None else set(files)))
    if not chosen:
        raise StoreError(f"{str(directory)!r} has no files, expected at least one to commit")
    for path in chosen:
        if path not in present:
            raise StoreError(f"{str(directory)!r} has no file {path!r} to commit")
        if not stat.S_ISREG(present[path].st_mode):
            raise StoreError(f"{str(directory / path)!r} is a symlink or special file: copy it in")
    return chosen


def describe(directory: Path, paths: Iterable[str]) -> tuple[FileEntry, ...]:
    """Read the files whole and return their entries.

    Raises:
        StoreError: A manifest can't hold one of the names.
    """
    sizes = {path: (directory / path).lstat().st_size for path in paths}
    try:
        with work(f"hashing {len(sizes)} files", sum(sizes.values())) as count:
            return tuple(
                FileEntry(path=path, size=size, sha256=file_sha256(directory / path, count))
                for path, size in sizes.items()
            )
    except ValidationError as error:
        raise StoreError(f"file can't be committed: {one_line(error)}") from error


def stage(directory: Path, entries: Iterable[FileEntry], staging: Path) -> None:
    """Link the files into the staging directory and wait until they are on disk.

    Because they are links, the source stays whole if the process dies before the commit. Each has
    the mode and the group of the manifest, which is there already.

    Raises:
        StoreError: A file differs from its entry.
    """
    access = (staging / MANIFEST).lstat()
    for entry in entries:
        staged = staging / entry.path
        linked = link_or_copy(directory / entry.path, staged, access)
        status = fsync(staged)
        if status.st_size != entry.size or not (linked or file_sha256(staged) == entry.sha256):
            raise StoreError(f"{str(directory / entry.path)!r} was changed while it was committed")
    for parent, _, _ in os.walk(staging, topdown=False):
        fsync(Path(parent))


def link_or_copy(source: Path, target: Path, access: os.stat_result) -> bool:
    """Give a file a second name, or copy it where that can't be done.

    Args:
        source: The file.
        target: Its second name.
        access: The mode and the group that it gets. The file of another user can't get them.

    Returns:
        Whether both names are the same file.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target, follow_symlinks=False)
        set_access(target, access)
    except OSError as error:
        if error.errno not in _CANNOT_LINK:
            raise
        target.unlink(missing_ok=True)
        shutil.copyfile(source, target, follow_symlinks=False)
        return False
    return True


@contextmanager
def staging_directory(parent: Path) -> Iterator[Path]:
    """Make a new directory with a lock beside it, and remove what is left of it at the end."""
    parent.mkdir(parents=True, exist_ok=True)
    directory = parent / str(uuid4())
    with exclusive(directory.with_suffix(".lock")):
        directory.mkdir()
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)  # gone, if a commit has renamed it


def sweep(parent: Path) -> None:
    """Remove the staging directories of dead processes: their locks are free."""
    for lock in parent.glob("*.lock"):
        with suppress(BlockingIOError), exclusive(lock, wait=False):
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
