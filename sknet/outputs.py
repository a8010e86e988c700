"""Files and directories that the options of programs name: a path that can't be written is refused.

Each error message names the option.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


def write_json(record: Record, path: Path | None) -> None:
    """Write a record to the file of the option --json, if that was given.

    Raises:
        UserError: The file can't be written.
    """
    if path:
        make_directory(path.parent, "--json")
        with writing(path, "--json"):
            record.write(path)


@contextmanager
def writing(path: Path, option: str) -> Iterator[None]:
    """Raise a UserError that names the option if the body can't write to its path."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{option} {path} can't be written: {error.strerror}") from None
