"""Records: frozen, typed JSON documents that are validated when they are read."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from infra.base.outcomes import UserError

MAX_RECORD_BYTES = 64 * 2**20
"""Largest file that `Record.read` accepts. The records of ImageNet-21K are far smaller."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 in lower-case hex."""


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
    """Return the SHA-256 of a value's canonical JSON, in lower-case hex."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


class Record(BaseModel):
    """A frozen record. Unknown fields, NaN and infinities are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @property
    def content_digest(self) -> str:
        """SHA-256 of the record's content, in lower-case hex."""
        content = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def encode(self) -> bytes:
        """Return the record as a readable JSON document. Equal records give equal bytes."""
        fields = self.model_dump(mode="json")
        return json.dumps(fields, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"

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
            UserError: The file is missing, too large, or holds no such record.
        """
        try:
            with path.open("rb") as file:
                document = file.read(MAX_RECORD_BYTES + 1)
            if len(document) > MAX_RECORD_BYTES:
                raise UserError(f"{path} is larger than {MAX_RECORD_BYTES} bytes")
            return cls.model_validate_json(document)
        except OSError as error:
            raise UserError(f"{path} can't be read: {error.strerror}") from None
        except ValidationError as error:
            finding = error.errors()[0]
            field = ".".join(str(part) for part in finding["loc"])
            raise UserError(
                f"{path} is no valid {cls.__name__}: {field}: {finding['msg']}".replace("\n", " ")
            ) from None
