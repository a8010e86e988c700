"""Records as JSON documents: strict on the way in, one text on the way out, sealed if stored."""

import json
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from infra.artifacts.errors import StoreError, one_line
from infra.artifacts.fields import Sha256, sha256_of_json

MAX_VALUES = 500_000
"""Limit of a stored document, some 120,000 files: a parser takes far more memory than a text."""


class Record(BaseModel):
    """A frozen record; unknown fields and values of another type are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def encode(self) -> bytes:
        """Return the record as a stable, readable JSON document."""
        return _text(self.model_dump(mode="json"))


class SealedRecord(Record):
    """A record that carries its own checksum, so that no bit of its document changes unseen."""

    checksum: Sha256 = ""
    """sha256 over the canonical JSON of all other fields; computed where it isn't given."""

    @model_validator(mode="after")
    def _seal(self) -> Self:
        if "checksum" not in self.model_fields_set:
            checksum = sha256_of_json(self.model_dump(mode="json", exclude={"checksum"}))
            object.__setattr__(self, "checksum", checksum)  # the record is frozen
        return self

    @classmethod
    def decode(cls, document: bytes) -> Self:
        """Return the record of a stored document.

        Raises:
            StoreError: it is not valid, not byte for byte as `encode` writes, or not what its
                checksum says.
        """
        _require_few_values(document)
        try:
            fields = json.loads(document.decode())
            as_written = _text(fields)
        except (ValueError, RecursionError) as error:
            raise StoreError(f"document: Invalid JSON: {' '.join(str(error).split())}") from error
        if not isinstance(fields, dict):
            raise StoreError("document: is no JSON object")
        # By hand, as pydantic would list each of a million.
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
        # A checksum over values doesn't see 1e-05 that became 1E-05.
        if as_written != document:
            raise StoreError("document: is written otherwise than the store writes")
        try:
            return cls.model_validate_json(document)
        except ValidationError as error:
            raise StoreError(one_line(error)) from error


def _text(document: Any) -> bytes:
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def _require_few_values(document: bytes) -> None:
    num_values = sum(document.count(mark) for mark in (b",", b"[", b"{"))
    if num_values > MAX_VALUES:
        raise StoreError(f"document: has up to {num_values} values, expected at most {MAX_VALUES}")
