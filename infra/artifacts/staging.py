"""Preparing a commit: files gathered under a directory that nobody looks into yet."""

import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from pydantic import ValidationError

from infra.artifacts.records import FileEntry, StoreError
from infra.base.files import file_sha256, fsync, link_or_copy, scan
from infra.base.locks import exclusive
from infra.base.records import one_line


def gather(directory: Path, files: Iterable[str] | None) -> tuple[str, ...]:
    """Return the paths to commit from a directory: those named, or all.

    Raises:
        StoreError: there are none, one is missing, or one is a symlink or special file.
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
        StoreError: a manifest can't hold one of the names.
    """
    try:
        return tuple(
            FileEntry(
                path=path,
                size=(directory / path).lstat().st_size,
                sha256=file_sha256(directory / path),
            )
            for path in paths
        )
    except ValidationError as error:
        raise StoreError(f"file can't be committed: {one_line(error)}") from error


def stage(directory: Path, entries: Iterable[FileEntry], staging: Path) -> None:
    """Link the files into the staging directory and wait until they are on disk.

    Links leave the source whole if the process dies before the commit.

    Raises:
        StoreError: a file isn't any more what its entry says.
    """
    for entry in entries:
        staged = staging / entry.path
        same = link_or_copy(directory / entry.path, staged)
        status = fsync(staged)
        if status.st_size != entry.size or not (same or file_sha256(staged) == entry.sha256):
            raise StoreError(f"{str(directory / entry.path)!r} was changed while it was committed")


@contextmanager
def staging_directory(parent: Path) -> Iterator[Path]:
    """Make a new directory, held by a lock beside it, and remove what is left of it at the end."""
    parent.mkdir(parents=True, exist_ok=True)
    directory = parent / str(uuid4())
    with exclusive(_lock_of(directory)):
        directory.mkdir()
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)  # a commit has renamed it


def sweep(parent: Path) -> None:
    """Remove the staging directories whose process has died: their locks are free."""
    for lock in parent.glob("*.lock"):
        with suppress(BlockingIOError), exclusive(lock, wait=False):
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)


def _lock_of(directory: Path) -> Path:
    return directory.with_suffix(".lock")
