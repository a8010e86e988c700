"""Record: frozen, typed, JSON in and out."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from sknet.errors import UserError

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
NonNegativeInt = Annotated[int, Field(ge=0)]

# A record of ImageNet-21K with its classes stays far below this.
MAX_RECORD_BYTES = 1 << 26


class Record(BaseModel):
    """Frozen, typed, and refusing what it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @property
    def digest(self) -> str:
        """SHA-256 of the content."""
        content = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def write(self, path: Path) -> None:
        """Write as JSON with sorted keys: equal records give equal bytes."""
        content = json.dumps(self.model_dump(mode="json"), sort_keys=True, indent=1)
        path.write_text(content + "\n", "utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises UserError in one line if the file is missing or is no such record."""
        try:
            if path.stat().st_size > MAX_RECORD_BYTES:
                raise UserError(f"{path} is larger than {MAX_RECORD_BYTES} bytes")
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise UserError(f"{path} can't be read: {error.strerror}") from None
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(str(part) for part in fault["loc"])
            raise UserError(
                f"{path} is no valid {cls.__name__}: {where}: {fault['msg']}".replace("\n", " ")
            ) from None
