"""The record beside an exported file: all that a user of the file needs to know."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from infra.base.records import Record, Sha256
from sknet.records.fields import NonNegativeInt, PositiveInt
from sknet.records.preprocessing import Preprocessing, resized_side

Format = Literal["ONNX", "MINDIR", "AIR"]
Precision = Literal["float32", "float16"]

INPUT_NAME = "images"
"""Name of the input of an ONNX file."""

OUTPUT_NAME = "logits"
"""Name of the output of an ONNX file."""


def record_of(file: Path) -> Path:
    """Return the path of the record of an exported file."""
    return file.with_name(f"{file.name}.json")


class ExportedModel(Preprocessing):
    """What a user of an exported network needs to know. The file stores each field as JSON text."""

    model: str
    """Name in `sknet.models.list_models()`."""
    num_classes: PositiveInt
    classes: tuple[str, ...] | None
    """Names of the classes in the order of the logits; None if unknown."""
    input_shape: tuple[PositiveInt | None, PositiveInt, PositiveInt, PositiveInt]
    """(N, C, H, W), float32; N is None if the file takes any number of images."""
    layout: Literal["NCHW"] = "NCHW"
    channel_order: Literal["RGB"] = "RGB"
    crop_pct: Annotated[float, Field(gt=0, le=1)]
    """`resize` is H / crop_pct, rounded down."""
    steps: tuple[str, ...] = ()
    """The preprocessing in words; empty in records of earlier versions."""
    precision: Precision = "float32"
    """In which the file computes; inputs and logits are float32."""
    opset: PositiveInt | None = None
    """Version of ONNX's operators that the file needs; None for other formats."""
    checkpoint_sha256: Sha256
    """SHA-256 of the file that held the weights."""
    mindspore: str
    """Version of MindSpore that exported the file."""

    @model_validator(mode="before")
    @classmethod
    def _upgraded(cls, fields: Any) -> Any:
        """Complete a record of format 1, all of which are MindCV's.

        They give a rounded `resize`, where their evaluation rounded down.
        """
        if not isinstance(fields, Mapping) or "crop" in fields:
            return fields
        try:
            side = fields["input_shape"][2]
            resize = resized_side(side, fields["crop_pct"])
        except (LookupError, TypeError, ZeroDivisionError, OverflowError, ValueError):
            return fields  # the checks of the fields say what is wrong
        result = {**fields, "crop": side, "resize": resize, "eval_preprocessing": "mindcv"}
        if "format_version" in fields:
            result["format_version"] = 2
        return result

    @property
    def notes(self) -> dict[str, str]:
        """The fields as the file stores them: JSON texts by name."""
        return {name: json.dumps(value) for name, value in self.model_dump(mode="json").items()}


class DifferingPrediction(Record):
    """An image for which an exported file predicts another class."""

    key: str
    """The image's name in the data set."""
    expected: NonNegativeInt
    """The class that the evaluation, or the network, predicts."""
    found: NonNegativeInt
    """The class that the file predicts."""


class ExportComparison(Record):
    """The predictions of an exported file on a whole split, compared with the expected ones."""

    split: str
    seen: PositiveInt
    """Number of images."""
    expected_from: Literal["evaluation", "network"]
    """Whose predictions are the expected ones: those that an evaluation has kept, or those of the
    network that was exported."""
    differing: tuple[DifferingPrediction, ...]


class ExportedFile(ExportedModel):
    """The record `FILE.json` beside an exported file."""

    format_version: Literal[2] = 2
    format: Format
    sha256: Sha256
    """SHA-256 of the exported file."""
    comparison: ExportComparison | None = None
    """None if there were no images to compare with."""
