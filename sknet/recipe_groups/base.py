"""What all groups of choices have in common."""

from pydantic import BaseModel, ConfigDict


class Choices(BaseModel):
    """Frozen, typed, and refusing what it does not know."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )
