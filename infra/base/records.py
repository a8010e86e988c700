"""Records: frozen, typed JSON documents that are checked when they are read.

A `Record` is JSON in and out. A `SealedRecord` also carries a checksum of itself, so that a store
notices every changed bit of its documents.
"""

import hashlib
import json
import stat
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator

from infra.base.outcomes import UserError

MAX_RECORD_BYTES = 64 * 2**20
"""Largest record that `Record.read` accepts. Records of ImageNet-21K stay far below it."""

MAX_DOCUMENT_BYTES = 32 * 2**20
"""Largest sealed document, such as a manifest or a ref, that `read_document` accepts."""

MAX_DOCUMENT_VALUES = 500_000
"""Most JSON values in a sealed document, enough for some 120,000 files. A parser takes far more
memory than the text that it parses."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class RecordError(UserError):
    """A document is not the record that it should be."""


def one_line(error: ValidationError) -> str:
    """Return the first three findings of a validation as ``field: what is wrong``."""
    findings = error.errors(include_url=False, include_input=False)
    texts = [f"{'.'.join(map(str, each['loc'])) or 'document'}: {each['msg']}" for each in findings]
    return " ".join("; ".join(texts[:3]).split())


def canonical_json(value: Any) -> bytes:
    """Return the one JSON text of a value: sorted keys, no white space, UTF-8.

    Raises:
        ValueError: The value holds NaN, an infinity or text that is not Unicode.
    """
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def sha256_of_json(value: Any) -> str:
    """Return the SHA-256, in lower-case hex, of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


class Record(BaseModel):
    """A frozen record. Unknown fields, NaN and infinities are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    _ascii: ClassVar[bool] = True
    """Whether other characters are escaped in the document."""

    @property
    def content_digest(self) -> str:
        """SHA-256, in lower-case hex, of the record's content."""
        content = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def encode(self) -> bytes:
        """Return the record as a readable JSON document. Equal records give equal bytes."""
        return _text(self.model_dump(mode="json"), ascii_only=self._ascii)

    def write(self, path: Path) -> None:
        """Write the document to a file.

        Raises:
            OSError: The file can't be written.
        """
        path.write_bytes(self.encode())

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the record in a file.

        Raises:
            UserError: The file is missing, too large or holds no such record; in one line.
        """
        try:
            if path.stat().st_size > MAX_RECORD_BYTES:
                raise UserError(f"{path} is larger than {MAX_RECORD_BYTES} bytes")
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise UserError(f"{path} can't be read: {error.strerror}") from None
        except ValidationError as error:
            finding = error.errors()[0]
            field = ".".join(str(part) for part in finding["loc"])
            raise UserError(
                f"{path} is no valid {cls.__name__}: {field}: {finding['msg']}".replace("\n", " ")
            ) from None


class SealedRecord(Record):
    """A record that carries its own checksum, so that no changed bit goes unnoticed."""

    model_config = ConfigDict(strict=True)

    _ascii: ClassVar[bool] = False

    checksum: Sha256 = ""
    """SHA-256 over the canonical JSON of all other fields. It is computed where it isn't given."""

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
            RecordError: The document is not valid, differs from what `encode` would write, or
                doesn't match its own checksum.
        """
        _require_few_values(document)
        try:
            fields = json.loads(document.decode())
            as_written = _text(fields, ascii_only=False)
        except (ValueError, RecursionError) as error:
            raise RecordError(f"document: Invalid JSON: {' '.join(str(error).split())}") from error
        if not isinstance(fields, dict):
            raise RecordError("document: is no JSON object")
        # Pydantic would list each unknown field, however many there are.
        if unknown := sorted(fields.keys() - cls.model_fields.keys()):
            raise RecordError(
                f"document: {len(unknown)} unknown fields, first {unknown[0][:40]!r}: "
                "written by another version?"
            )
        stored = fields.pop("checksum", None)
        checksum = sha256_of_json(fields)
        if stored != checksum:
            raise RecordError(
                f"document: checksum is {str(stored)[:64]!r}, but the other fields give {checksum}"
            )
        # A checksum over values doesn't notice 1e-05 that became 1E-05.
        if as_written != document:
            raise RecordError("document: is written otherwise than the store writes")
        try:
            return cls.model_validate_json(document)
        except ValidationError as error:
            raise RecordError(one_line(error)) from error


def read_document(path: Path) -> bytes:
    """Return the content of a stored JSON document.

    Raises:
        RecordError: The file is missing, not a regular file, or larger than `MAX_DOCUMENT_BYTES`.
    """
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise RecordError(f"{path.name!r} is not a regular file")
        if status.st_size > MAX_DOCUMENT_BYTES:
            raise RecordError(
                f"{path.name!r} has {status.st_size} bytes, expected at most {MAX_DOCUMENT_BYTES}"
            )
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise RecordError(f"{path.name!r} is missing") from None


def _text(document: Any, *, ascii_only: bool) -> bytes:
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=ascii_only, allow_nan=False)
    return text.encode() + b"\n"


def _require_few_values(document: bytes) -> None:
    num_values = sum(document.count(mark) for mark in (b",", b"[", b"{"))
    if num_values > MAX_DOCUMENT_VALUES:
        raise RecordError(
            f"document: has up to {num_values} values, expected at most {MAX_DOCUMENT_VALUES}"
        )
