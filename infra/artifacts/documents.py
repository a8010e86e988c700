"""A store's small JSON documents: sealed by a checksum, and replaced as a whole.

Manifests, refs, leases and the like are documents. Where a store keeps them is up to its backend
(`Documents`).
"""

import json
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Protocol, Self

from pydantic import ConfigDict, ValidationError, model_validator

from infra.base.outcomes import UserError
from infra.base.records import Record, Sha256, sha256_of_json

MAX_DOCUMENT_BYTES = 32 * 2**20
"""Largest document that is read."""

MAX_DOCUMENT_VALUES = 500_000
"""Most JSON values in a sealed document, enough for some 120,000 files. A parser takes far more
memory than the text that it parses."""


class StoreError(UserError):
    """The store can't do what was asked: says what was found and what was expected."""


class UnreachableStoreError(OSError, StoreError):
    """The store can't be reached now, which a retry may find otherwise."""


def one_line(error: ValidationError) -> str:
    """Return the first three findings of a validation as ``field: what is wrong``."""
    findings = error.errors(include_url=False, include_input=False)
    texts = [f"{'.'.join(map(str, each['loc'])) or 'document'}: {each['msg']}" for each in findings]
    return " ".join("; ".join(texts[:3]).split())


class SealedRecord(Record):
    """A record that carries a checksum of itself, so that no changed bit goes unnoticed."""

    model_config = ConfigDict(strict=True)

    checksum: Sha256 = ""
    """SHA-256 of the canonical JSON of all other fields; computed where it isn't given."""

    @model_validator(mode="after")
    def _seal(self) -> Self:
        if "checksum" not in self.model_fields_set:
            checksum = sha256_of_json(self.model_dump(mode="json", exclude={"checksum"}))
            object.__setattr__(self, "checksum", checksum)  # the record is frozen
        return self

    def encode(self) -> bytes:
        """Return the document. Unlike other records it holds UTF-8 without escapes."""
        return _text(self.model_dump(mode="json"))

    @classmethod
    def decode(cls, document: bytes) -> Self:
        """Return the record in a document.

        Raises:
            StoreError: The document is not valid, doesn't match its own checksum, or differs from
                what `encode` writes.
        """
        _require_few_values(document)
        try:
            fields = json.loads(document.decode())
            as_written = _text(fields)
        except (ValueError, RecursionError) as error:
            raise StoreError(f"document: Invalid JSON: {' '.join(str(error).split())}") from error
        if not isinstance(fields, dict):
            raise StoreError("document: is no JSON object")
        # Pydantic would list each unknown field, however many there are.
        if unknown := sorted(fields.keys() - cls.model_fields.keys()):
            raise StoreError(
                f"document: {len(unknown)} unknown fields, first {unknown[0][:40]!r}: "
                "written by another version?"
            )
        stored = fields.pop("checksum", None)
        checksum = sha256_of_json(fields)
        if stored != checksum:
            raise StoreError(
                f"document: checksum is {str(stored)[:64]!r}, but the other fields give {checksum}"
            )
        # A checksum over values doesn't notice 1e-05 that became 1E-05.
        if as_written != document:
            raise StoreError("document: is written otherwise than the store writes")
        try:
            return cls.model_validate_json(document)
        except ValidationError as error:
            raise StoreError(one_line(error)) from error


def _text(fields: Any) -> bytes:
    text = json.dumps(fields, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def _require_few_values(document: bytes) -> None:
    num_values = sum(document.count(mark) for mark in (b",", b"[", b"{"))
    if num_values > MAX_DOCUMENT_VALUES:
        raise StoreError(
            f"document: has up to {num_values} values, expected at most {MAX_DOCUMENT_VALUES}"
        )


def read_document(path: Path) -> bytes:
    """Return the content of a document in a file.

    Raises:
        StoreError: The file is missing, not a regular file, or larger than `MAX_DOCUMENT_BYTES`.
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


@dataclass(frozen=True)
class Document:
    """A document as it is stored."""

    content: bytes
    version: str
    """Differs after every change of the content."""


class Expected(Enum):
    """What a write expects to find at its path, if not a certain version."""

    NOTHING = "nothing"
    ANYTHING = "anything"


class Documents(Protocol):
    """The documents of a store. Their paths are relative to its root, with ``/``."""

    def read(self, path: str) -> Document | None:
        """Return a document, or None if there is none.

        Raises:
            StoreError: It is larger than `MAX_DOCUMENT_BYTES`, or not a regular file.
        """

    def read_all(self, paths: Iterable[str]) -> Iterator[Callable[[], Document | None]]:
        """Yield for each path a function that does what `read` does; several may be read ahead."""

    def write(self, path: str, content: bytes, *, expected: str | Expected) -> bool:
        """Replace a document as a whole, if it still is what the caller expects.

        What is written with `Expected.ANYTHING` may be lost in a crash of the machine.

        Args:
            path: The document.
            content: Its new content.
            expected: Its present version.

        Returns:
            Whether it was as expected, and has been replaced.
        """

    def remove(self, path: str) -> None:
        """Remove a document, if it is there."""

    def names(self, directory: str) -> list[str]:
        """Return the names of the documents in a directory, without their suffix ``.json``."""
