"""What is found out about a checkpoint: its soundness, its counts, what it looks at."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from infra.base.records import Record
from sknet.recipe import Recipe
from sknet.records.base import FileName, NonNegativeInt
from sknet.statistics import wilson_interval

Positive = Annotated[int, Field(ge=1)]


class ConfusedPair(Record):
    """A class that was taken for another one."""

    label: NonNegativeInt
    predicted: NonNegativeInt
    count: Positive


class CalibrationBin(Record):
    """Predictions whose probability lies in one part of 0 … 1."""

    seen: NonNegativeInt
    correct: NonNegativeInt
    confidence_sum: float
    """Of the probabilities of the predicted classes."""


class Evaluation(Record):
    """Counts over a split; shares are derived, never averaged."""

    format_version: Literal[2] = 2
    split: str
    resolution: Positive
    """Side of the square input, in pixels."""
    seen: Positive
    correct_top1: NonNegativeInt
    correct_top5: NonNegativeInt
    loss_sum: float
    """Sum over the samples seen."""
    class_seen: tuple[NonNegativeInt, ...]
    class_correct: tuple[NonNegativeInt, ...]
    confused: tuple[ConfusedPair, ...] = ()
    """The most frequent ones, most first; none in evaluations while training."""
    calibration: tuple[CalibrationBin, ...] = ()
    """Equal parts of 0 … 1, from below; none in evaluations while training."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.correct_top1 <= self.correct_top5 <= self.seen:
            raise ValueError(
                f"correct_top1 {self.correct_top1}, correct_top5 {self.correct_top5} and "
                f"seen {self.seen}: expected them in rising order"
            )
        if len(self.class_seen) != len(self.class_correct) or any(
            correct > seen
            for correct, seen in zip(self.class_correct, self.class_seen, strict=True)
        ):
            raise ValueError("class_correct and class_seen don't go together")
        return self

    @property
    def accuracy_top1(self) -> float:
        """As a share."""
        return self.correct_top1 / self.seen

    @property
    def accuracy_top5(self) -> float:
        """As a share; of fewer than five classes all count."""
        return self.correct_top5 / self.seen

    @property
    def loss(self) -> float:
        """Mean cross entropy without label smoothing."""
        return self.loss_sum / self.seen

    @property
    def interval_top1(self) -> tuple[float, float]:
        """Wilson's 95 % interval of accuracy@1, as shares."""
        return wilson_interval(self.correct_top1, self.seen)

    @property
    def interval_top5(self) -> tuple[float, float]:
        """Wilson's 95 % interval of accuracy@5, as shares."""
        return wilson_interval(self.correct_top5, self.seen)

    @property
    def calibration_error(self) -> float | None:
        """The expected calibration error: mean distance of accuracy and confidence in the bins."""
        if not self.calibration:
            return None
        return sum(abs(part.correct - part.confidence_sum) for part in self.calibration) / self.seen


class Check(Record):
    """One condition, and what was found."""

    name: str
    passed: bool
    detail: str
    """In one line: what was found, and what was expected if it did not pass."""


class CheckpointChecks(Record):
    """`checks.json`: whether a checkpoint is what it should be, before it is evaluated."""

    format_version: Literal[1] = 1
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether all of them did."""
        return all(check.passed for check in self.checks)


class UnitAttention(Record):
    """Of one SK unit."""

    unit: str
    """The paper's name, as `SK_2_1`."""
    differences: tuple[float, ...]
    """For each scale: mean share of the largest kernel's path minus that of the smallest one's."""


class Attention(Record):
    """`attention.json`: what the units attend to as the object grows (the paper's section 4.4)."""

    format_version: Literal[1] = 1
    split: str
    num_images: Positive
    scales: tuple[float, ...]
    """Of the central crop's object: at 1.5 the crop is two thirds as wide, enlarged again."""
    units: tuple[UnitAttention, ...]
    """In the network's order; none if the network's units have one path."""


class Example(Record):
    """A sample of a confused pair, with a thumbnail."""

    file: FileName
    key: str
    label: NonNegativeInt
    predicted: NonNegativeInt
    probability: float
    """Of the predicted class."""


class Examples(Record):
    """`examples.json`: the surest wrong predictions of the most confused pairs."""

    format_version: Literal[1] = 1
    examples: tuple[Example, ...]


CHECKS_FILE = "checks.json"

ATTENTION_FILE = "attention.json"

EXAMPLES_FILE = "examples.json"


def evaluation_file(recipe: Recipe, resolution: int) -> str:
    """Name of the counts at a resolution."""
    return f"evaluation{_suffix(recipe, resolution)}.json"


def predictions_file(recipe: Recipe, resolution: int) -> str:
    """Name of the predictions at a resolution."""
    return f"predictions{_suffix(recipe, resolution)}.parquet"


def _suffix(recipe: Recipe, resolution: int) -> str:
    return "" if resolution == recipe.image_resize else f"-{resolution}"
