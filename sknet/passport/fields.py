"""What only people know of a model and its data: licences, authors, intended use.

They write it into a YAML file; the model card and the data's metadata quote it.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, ValidationError

from infra.base.records import Record
from sknet.errors import UserError, shortened
from sknet.recipe.files import parse_mapping, read_text

Text = Annotated[str, StringConstraints(max_length=20_000)]
Link = Annotated[str, StringConstraints(pattern=r"^https?://[^\s<>\"]+$", max_length=2_000)]
Licence = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+_-]*$", max_length=100)
]
Date = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}$")]


class DataFields(Record):
    """What people say of the data set. Fields that they leave out are None."""

    name: Text | None = None
    description: Text | None = None
    license: Licence | None = None
    """Identifier of SPDX, such as CC-BY-4.0."""
    license_link: Link | None = None
    url: Link | None = None
    """Where the images can be had."""
    creator: Text | None = None
    """Person or organisation that collected the images."""
    published: Date | None = None
    """Day of its publication, YYYY-MM-DD."""
    version: Text | None = None
    """Version of the data set, such as 1.0.0."""
    citation: Text | None = None
    collection: Text | None = None
    """How the images were collected and labelled."""
    personal_information: Text | None = None
    """Whether images show people or anything else that is protected, and on what ground."""


class CardFields(Record):
    """What people say of the model. Fields that they leave out are None."""

    name: Text | None = None
    description: Text | None = None
    license: Licence | None = None
    """Identifier of SPDX, such as Apache-2.0, for the weights."""
    license_link: Link | None = None
    authors: Text | None = None
    contact: Text | None = None
    intended_use: Text | None = None
    out_of_scope: Text | None = None
    """Uses for which the model is not made."""
    limitations: Text | None = None
    """Limits that the figures don't show."""
    citation: Text | None = None
    data: DataFields = Field(default=DataFields())

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the fields without which nobody knows whether they may use the model."""
        wanted = {
            "license": self.license,
            "intended_use": self.intended_use,
            "data.license": self.data.license,
        }
        return tuple(name for name, value in wanted.items() if value is None)


CARD_TEMPLATE = """\
# What only you know of the model. All fields are optional. The texts below are examples: replace
# them, and remove the fields that you don't fill.
# Identifiers of licences: https://spdx.org/licenses
name: My classifier
description: What the model does.
license: Apache-2.0
license_link: https://www.apache.org/licenses/LICENSE-2.0
authors: Names
contact: mail@example.org
intended_use: What the model is made for.
out_of_scope: What it must not be used for.
limitations: Limits that the figures don't show.
citation: How the model is cited.
data:
  name: My photographs
  description: What the images show.
  license: CC-BY-4.0
  license_link: https://creativecommons.org/licenses/by/4.0/
  url: https://example.org/photographs
  creator: Who took them
  published: "2026-01-31"
  version: 1.0.0
  citation: How the images are cited.
  collection: How they were collected and labelled.
  personal_information: None.
"""


def read_card(path: Path) -> CardFields:
    """Return the fields in a YAML file.

    Raises:
        UserError: The file can't be read, is no YAML, or has a field that there isn't or that has
            another form.
    """
    if not path.is_file():
        raise UserError(f"card {path} is no file: expected YAML, as docs/passport.md shows it")
    try:
        return CardFields.model_validate(parse_mapping(read_text(path), where=f"card {path}"))
    except ValidationError as error:
        fault = error.errors()[0]
        name = ".".join(map(str, fault["loc"]))
        if fault["type"] == "extra_forbidden":
            known = DataFields if name.startswith("data.") else CardFields
            raise UserError(
                f"card {path} has a field {name!r} that there isn't: expected "
                f"{', '.join(known.model_fields)}"
            ) from None
        raise UserError(
            f"card {path}: {name} is {shortened(fault['input'])}: {fault['msg']}"
        ) from None
