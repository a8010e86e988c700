"""Preparing a commit: files gathered under a directory that nobody looks into yet."""

import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from pydantic import ValidationError

from infra.artifacts.errors import StoreError, one_line
from infra.base.files import bring_to_disk, link_or_copy, scan, sha256_of
from infra.base.locks import exclusive
from infra.artifacts.records import FileEntry
from infra.artifacts.verified import FileStatus


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
                sha256=sha256_of(directory / path),
            )
            for path in paths
        )
    except ValidationError as error:
        raise StoreError(f"file can't be committed: {one_line(error)}") from error


def stage(directory: Path, entries: Iterable[FileEntry], staging: Path) -> dict[str, FileStatus]:
    """Link the files into the staging directory, bring them to disk, and return their statuses.

    Links leave the source whole if the process dies before the commit.

    Raises:
        StoreError: a file isn't any more what its entry says.
    """
    statuses = {}
    for entry in entries:
        staged = staging / entry.path
        same = link_or_copy(directory / entry.path, staged)
        status = bring_to_disk(staged)
        if status.st_size != entry.size or not (same or sha256_of(staged) == entry.sha256):
            raise StoreError(f"{str(directory / entry.path)!r} was changed while it was committed")
        statuses[entry.path] = FileStatus.of(status)
    return statuses


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
