"""The types of fields that several records share."""

from typing import Annotated

from pydantic import Field, StringConstraints

FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
NonNegativeInt = Annotated[int, Field(ge=0)]
