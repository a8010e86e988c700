"""Types and properties of fields that several records share."""

from collections.abc import Sized
from typing import Annotated

from pydantic import Field, StringConstraints

NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveInt = Annotated[int, Field(ge=1)]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""A name without a directory, which can't lead out of one."""


def is_empty(value: object) -> bool:
    """Tell whether a field that came later is left out of a record's JSON."""
    return value is None or (isinstance(value, Sized) and not value)
