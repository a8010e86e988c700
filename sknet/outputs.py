"""Files and directories that the options of programs name: a path that can't be written is refused.

Each error message names the option.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from infra.base.files import is_directory, is_file, replace_file, status_of_new_file
from infra.base.records import Record
from sknet.errors import UserError


def make_directory(path: Path, option: str) -> None:
    """Make the directory that an option names, and its parents.

    Raises:
        UserError: It can't be made; the message names the option.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{option} {path} can't be made: {error.strerror}") from None


def prepare_directory(path: Path, option: str) -> None:
    """Make the directory that an option names; an existing one has to be empty.

    Raises:
        UserError: It has files, or can't be made or read.
    """
    make_directory(path, option)
    with writing(path, option):
        if next(path.iterdir(), None):
            raise UserError(f"{option} {path} is not empty: give another directory")


def prepare_file(path: Path | None, option: str) -> None:
    """Make the directory of the file that an option names, if it was given, before the work starts.

    Raises:
        UserError: No file can be written there.
    """
    if path is None:
        return
    if is_directory(path):
        raise UserError(f"{option} {path} is a directory, expected a file")
    make_directory(path.parent, option)
    if _is_stream(path):
        return
    with writing(path, option):
        target = _target(path)
        # The permissions aren't enough: the file system may be full or read-only.
        status_of_new_file(target.parent)
        with suppress(FileNotFoundError):
            target.with_name(f"{target.name}.part").lstat()  # raises for an overlong name


def write_file(path: Path, content: bytes, option: str) -> None:
    """Write the file that an option names; an existing one is replaced once the new one is whole.

    Raises:
        UserError: The file can't be written.
    """
    with writing(path, option):
        if _is_stream(path):
            path.write_bytes(content)
        else:
            replace_file(_target(path), content)


def write_json(record: Record, path: Path | None) -> None:
    """Write a record to the file of the option --json, if that was given.

    Raises:
        UserError: The file can't be written.
    """
    if path:
        write_file(path, record.encode(), "--json")


@contextmanager
def writing(path: Path, option: str) -> Iterator[None]:
    """Raise a UserError that names the option if the body can't write to its path."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{option} {path} can't be written: {error.strerror}") from None


def _is_stream(path: Path) -> bool:
    """Tell whether a path is a pipe or a device, such as /dev/stdout, which nothing replaces."""
    return os.path.exists(path) and not is_file(path)  # noqa: PTH110 (as in is_file)


def _target(path: Path) -> Path:
    """Return the file to replace, which a symbolic link may name."""
    return Path(os.path.realpath(path))
