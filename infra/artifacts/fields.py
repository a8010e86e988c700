"""The types of a record's fields: what is refused in each, and the one JSON text of a value."""

import hashlib
import json
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    JsonValue,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

from infra.artifacts.errors import StoreError, one_line

MANIFEST = "manifest.json"
MAX_INPUTS = 1000
RESERVED_KINDS = {"refs"}  # shares the store's root with the kinds


def canonical_json(value: Any) -> bytes:
    """Return the one JSON text of a value: sorted keys, no white space, UTF-8.

    Raises:
        ValueError: the value holds NaN, an infinity or text that is not Unicode.
    """
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def sha256_of_json(value: Any) -> str:
    """Return the sha256, in lower-case hex, of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def _has_canonical_json(value: Any) -> Any:
    canonical_json(value)
    return value


def _has_few_entries(value: Any) -> Any:
    if isinstance(value, dict) and len(value) > MAX_INPUTS:
        raise ValueError(f"has {len(value)} entries, expected at most {MAX_INPUTS}")
    return value


def _not_reserved(kind: str) -> str:
    if kind in RESERVED_KINDS:
        raise ValueError(f"{kind!r} is reserved by the layout of the store")
    return kind


def _stays_inside(path: str) -> str:
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or str(pure) != path or path == ".":
        raise ValueError(f"{path!r} is not a plain relative POSIX path")
    if "\\" in path or not path.isprintable():
        raise ValueError(f"{path!r} has a backslash or characters that don't print")
    if path == MANIFEST:
        raise ValueError(f"{path!r} is the store's own file")
    return path


Kind = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z][a-z0-9-]*$", max_length=64),
    AfterValidator(_not_reserved),
]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Version = Annotated[int, Field(ge=1, lt=2**63)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
FilePath = Annotated[str, AfterValidator(_stays_inside)]
# Counted first, as each wrong entry costs a kilobyte of complaint.
Digests = Annotated[
    dict[str, Sha256], BeforeValidator(_has_few_entries), AfterValidator(_has_canonical_json)
]
JsonObject = Annotated[dict[str, JsonValue], AfterValidator(_has_canonical_json)]

_ADDRESS = TypeAdapter(tuple[Kind, Sha256])


def check_address(kind: str, key: str) -> None:
    """Refuse a kind or a key that can't name an artifact.

    Raises:
        StoreError: one of them has the wrong form.
    """
    try:
        _ADDRESS.validate_python((kind, key))
    except ValidationError as error:
        raise StoreError(
            f"no artifact can be called {f'{kind}/{key}'!r}: {one_line(error)}"
        ) from error


def is_address(kind: str, key: str) -> bool:
    """Tell whether a kind and a key can name an artifact."""
    try:
        check_address(kind, key)
    except StoreError:
        return False
    return True
