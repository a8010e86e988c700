"""Preparing a commit: files gathered under a directory that nobody looks into yet."""

import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from pydantic import ValidationError

from infra.artifacts.errors import StoreError, one_line
from infra.artifacts.files import link_or_copy, scan, seal
from infra.artifacts.locks import exclusive
from infra.artifacts.records import FileEntry


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


def stage(directory: Path, paths: Iterable[str], staging: Path) -> tuple[FileEntry, ...]:
    """Link the files into the staging directory, bring them to disk, and describe them.

    Links leave the source whole if the process dies before the commit.

    Raises:
        StoreError: a manifest can't hold one of the names.
    """
    entries = []
    for path in paths:
        link_or_copy(directory / path, staging / path)
        try:
            entries.append(seal(staging, path))
        except ValidationError as error:
            raise StoreError(f"file can't be committed: {one_line(error)}") from error
    return tuple(entries)


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
