"""What a prediction says, and the files that hold many of them.

This module needs no MindSpore, and imports pandas only where a table is written.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sknet.csv_text import as_csv
from sknet.data.sources.trees import printable

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ClassProbability:
    """A class, and the probability that the network gives it."""

    label: int
    """Index of the class in the network's output."""
    name: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """What the network says of one image."""

    file: str
    """The image's path; of an array or a Pillow image, its position as `#0`, `#1`, … Where a
    prediction is written, what is not printable in it is escaped."""
    top: tuple[ClassProbability, ...]
    """The most probable classes; of equal ones the lower class comes first."""
    calibrated: float | None = None
    """Probability of the first class after temperature scaling; None without a calibration."""
    is_unsure: bool | None = None
    """Whether it is too improbable for the chosen error rate; None if no rate was chosen."""

    @property
    def name(self) -> str:
        """Name of the most probable class."""
        return self.top[0].name

    @property
    def label(self) -> int:
        """Index of the most probable class."""
        return self.top[0].label

    @property
    def probability(self) -> float:
        """Probability of the most probable class, as the network gives it."""
        return self.top[0].probability

    def fields(self) -> dict[str, Any]:
        """Return the prediction as an object of a JSON document."""
        result: dict[str, Any] = {
            "file": printable(self.file),
            "class": self.name,
            "probability": self.probability,
        }
        if self.calibrated is not None:
            result["calibrated"] = self.calibrated
        if self.is_unsure is not None:
            result["unsure"] = self.is_unsure
        result["top"] = [{"class": each.name, "probability": each.probability} for each in self.top]
        return result

    def describe(self) -> str:
        """Return the prediction as one line."""
        first, *others = (f"{each.name} {each.probability:.1%}" for each in self.top)
        if self.calibrated is not None:
            first += f", calibrated {self.calibrated:.1%}"
        if self.is_unsure:
            first = f"unsure, perhaps {first}"
        rest = f" ({', '.join(others)})" if others else ""
        return f"{printable(self.file)}: {first}{rest}"


@dataclass(frozen=True)
class Unreadable:
    """A file that can't be predicted."""

    file: str
    reason: str

    def fields(self) -> dict[str, str]:
        """Return it as an object of a JSON document."""
        return {"file": printable(self.file), "reason": self.reason}

    def describe(self) -> str:
        """Return it as one line."""
        return f"{printable(self.file)}: {self.reason}"


def document(
    predictions: Iterable[Prediction],
    unreadable: Iterable[Unreadable],
    source: str,
    error_rate: dict[str, Any] | None = None,
) -> str:
    """Return all results as a JSON document.

    Args:
        predictions: The predictions.
        unreadable: The files without one.
        source: The network's checkpoint or file.
        error_rate: What is known of the chosen error rate, if one was chosen.
    """
    content: dict[str, Any] = {
        "checkpoint": source,
        "predictions": [each.fields() for each in predictions],
        "unreadable": [each.fields() for each in unreadable],
    }
    if error_rate is not None:
        content["error_rate"] = error_rate
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def table(predictions: Sequence[Prediction]) -> "pd.DataFrame":
    """Return predictions as a frame with one row for each.

    Its columns are `file`, `class`, `probability`, then `calibrated` and `unsure` if they are
    known, then `class 2`, `probability 2` and so on.
    """
    import pandas as pd

    rows = []
    for each in predictions:
        row = each.fields()
        for place, further in enumerate(row.pop("top")[1:], start=2):
            row |= {f"{name} {place}": value for name, value in further.items()}
        rows.append(row)
    frame = pd.DataFrame(rows, columns=None if rows else ["file", "class", "probability"])
    texts = [name for name in frame if name == "file" or str(name).startswith("class")]
    return frame.astype(dict.fromkeys(texts, "string"))


def table_file(predictions: Sequence[Prediction], kind: Literal["csv", "parquet"]) -> bytes:
    """Return predictions as CSV, in which no text is a formula of a spreadsheet, or as Parquet."""
    frame = table(predictions)
    if kind == "csv":
        return as_csv(frame).encode()
    content: bytes = frame.to_parquet(index=False)
    return content
