"""The results of an evaluation: checks of the checkpoint, counts, attention and examples."""

from typing import Literal, Self

from pydantic import model_validator

from infra.base.records import Record
from sknet.recipe import Recipe
from sknet.records.fields import FileName, NonNegativeInt, PositiveInt
from sknet.significance import wilson_interval

CHECKS_FILE = "checks.json"
ATTENTION_FILE = "attention.json"
EXAMPLES_FILE = "examples.json"


def evaluation_file(recipe: Recipe, resolution: int) -> str:
    """Return the name of the file with the counts at a resolution."""
    return f"evaluation{_suffix(recipe, resolution)}.json"


def predictions_file(recipe: Recipe, resolution: int) -> str:
    """Return the name of the file with the predictions at a resolution."""
    return f"predictions{_suffix(recipe, resolution)}.parquet"


def _suffix(recipe: Recipe, resolution: int) -> str:
    return "" if resolution == recipe.image_resize else f"-{resolution}"


class Check(Record):
    """A condition, and what was found."""

    name: str
    passed: bool
    detail: str
    """What was found, and what was expected if the check failed; in one line."""


class CheckpointChecks(Record):
    """`checks.json`: the checks of a checkpoint before its evaluation."""

    format_version: Literal[1] = 1
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether all checks passed."""
        return all(check.passed for check in self.checks)


class ConfusedPair(Record):
    """A class for which another one was predicted."""

    label: NonNegativeInt
    predicted: NonNegativeInt
    count: PositiveInt


class CalibrationBin(Record):
    """The predictions whose probability is in one of the equal parts of 0 … 1."""

    seen: NonNegativeInt
    correct: NonNegativeInt
    confidence_sum: float
    """Sum of the probabilities of the predicted classes."""


class Evaluation(Record):
    """`evaluation.json`: counts over a split. Fractions are computed from them, never averaged."""

    format_version: Literal[2] = 2
    split: str
    resolution: PositiveInt
    """Side of the square input, in pixels."""
    seen: PositiveInt
    """Number of samples."""
    correct_top1: NonNegativeInt
    correct_top5: NonNegativeInt
    loss_sum: float
    """Sum over all samples of the cross entropy without label smoothing."""
    class_seen: tuple[NonNegativeInt, ...]
    """Number of samples of each class."""
    class_correct: tuple[NonNegativeInt, ...]
    """Number of correct samples of each class."""
    confused: tuple[ConfusedPair, ...] = ()
    """The most frequent pairs, in falling order; none in evaluations while training."""
    calibration: tuple[CalibrationBin, ...] = ()
    """Equal parts of 0 … 1, in order; none in evaluations while training."""

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
        """Fraction of the samples whose most probable class is the label."""
        return self.correct_top1 / self.seen

    @property
    def accuracy_top5(self) -> float:
        """Fraction of the samples whose label is among the five most probable classes."""
        return self.correct_top5 / self.seen

    @property
    def loss(self) -> float:
        """Mean cross entropy without label smoothing."""
        return self.loss_sum / self.seen

    @property
    def interval_top1(self) -> tuple[float, float]:
        """Wilson's 95 % interval of accuracy@1."""
        return wilson_interval(self.correct_top1, self.seen)

    @property
    def calibration_error(self) -> float | None:
        """Expected calibration error: the mean distance of accuracy and confidence in the parts.

        None without calibration.
        """
        if not self.calibration:
            return None
        return sum(abs(part.correct - part.confidence_sum) for part in self.calibration) / self.seen


class UnitAttention(Record):
    """Attention of one SK unit."""

    unit: str
    """The unit's name in the paper, such as `SK_2_1`."""
    differences: tuple[float, ...]
    """For each scale, the mean attention weight of the largest kernel minus that of the smallest
    one."""


class Attention(Record):
    """`attention.json`: how attention follows the size of the object (the paper's section 4.4)."""

    format_version: Literal[1] = 1
    split: str
    num_images: PositiveInt
    scales: tuple[float, ...]
    """Factors by which the object is enlarged; at 1.5, two thirds of the central crop's width are
    enlarged to its whole width."""
    units: tuple[UnitAttention, ...]
    """In the network's order; empty if its units have only one kernel."""


class Example(Record):
    """A wrongly predicted sample, with a thumbnail."""

    file: FileName
    """The thumbnail."""
    key: str
    label: NonNegativeInt
    predicted: NonNegativeInt
    probability: float
    """Probability of the predicted class."""


class Examples(Record):
    """`examples.json`: the most confident wrong predictions of the most confused pairs."""

    format_version: Literal[1] = 1
    examples: tuple[Example, ...]
