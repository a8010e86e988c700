"""Records as JSON documents: strict on the way in, one text on the way out, sealed if stored."""

import json
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from infra.artifacts.errors import StoreError, one_line
from infra.artifacts.fields import Sha256, sha256_of_json


class Record(BaseModel):
    """A frozen record; unknown fields and values of another type are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def encode(self) -> bytes:
        """Return the record as a stable, readable JSON document."""
        document = self.model_dump(mode="json")
        text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        return text.encode() + b"\n"


class SealedRecord(Record):
    """A record that carries its own checksum, so that no bit of its document changes unseen."""

    checksum: Sha256 = ""
    """sha256 over the canonical JSON of all other fields; computed where it isn't given."""

    @model_validator(mode="after")
    def _agrees_with_its_checksum(self) -> Self:
        checksum = sha256_of_json(self.model_dump(mode="json", exclude={"checksum"}))
        if "checksum" not in self.model_fields_set:
            object.__setattr__(self, "checksum", checksum)  # the record is frozen
        elif self.checksum != checksum:
            raise ValueError(f"checksum is {self.checksum}, but the other fields give {checksum}")
        return self

    @classmethod
    def decode(cls, document: bytes) -> Self:
        """Return the record of a stored document.

        Raises:
            StoreError: it is not valid, or not byte for byte what `encode` gives.
        """
        try:
            record = cls.model_validate_json(document)
        except ValidationError as error:
            raise StoreError(one_line(error)) from error
        # A checksum over values doesn't see a Z that became z, or 1e-05 that became 1E-05.
        if record.encode() != document:
            raise StoreError("document: has no checksum, or is written otherwise than the store's")
        return record
