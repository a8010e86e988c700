"""Names of a network's classes: files of them, and sources that must agree on them."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from sknet.errors import UserError

MAX_CLASSES_BYTES = 1 << 24

_T = TypeVar("_T")


def read_classes(path: Path) -> tuple[str, ...]:
    """Return the class names in a file, which has one a line in the order of the labels.

    Raises:
        UserError: The file can't be read, is empty or has an empty line.
    """
    try:
        if path.stat().st_size > MAX_CLASSES_BYTES:
            raise UserError(f"--classes {path} is larger than {MAX_CLASSES_BYTES} bytes")
        names = tuple(line.strip() for line in path.read_text("utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UserError(f"--classes {path} can't be read: {reason}") from None
    if not names:
        raise UserError(f"--classes {path} is empty, expected one name a line")
    if "" in names:
        raise UserError(f"--classes {path}: line {names.index('') + 1} is empty, expected a name")
    return names


def agreed_classes(values: Mapping[str, tuple[str, ...]]) -> None:
    """Check that all sources name the same classes in the same order.

    Raises:
        UserError: Two of them differ.
    """
    agreed("num_classes", {source: len(names) for source, names in values.items()})
    for index, pair in enumerate(zip(*values.values(), strict=True)):
        agreed(f"class {index}", dict(zip(values, pair, strict=True)))


def agreed(what: str, values: Mapping[str, _T | None]) -> _T | None:
    """Return the value on which all sources that have one agree.

    Args:
        what: What the value describes, for the message.
        values: The value that each source has.

    Raises:
        UserError: Two sources have different values.
    """
    known = [(source, value) for source, value in values.items() if value is not None]
    for source, value in known[1:]:
        if value != known[0][1]:
            raise UserError(
                f"{what} is {known[0][1]!r} in {known[0][0]}, but {value!r} in {source}: "
                "leave one out"
            )
    return known[0][1] if known else None
