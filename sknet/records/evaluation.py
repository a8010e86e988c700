"""The results of an evaluation: checks of the checkpoint, counts, attention and examples."""

import math
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from infra.base.records import Record
from sknet.recipe import Recipe
from sknet.records.fields import FileName, NonNegativeInt, PositiveInt, is_empty
from sknet.significance import Interval, f1, mover, wilson, wilson_interval

CHECKS_FILE = "checks.json"
EVALUATION_FILE = "evaluation.json"
"""The counts at the recipe's own resolution."""
ATTENTION_FILE = "attention.json"
EXAMPLES_FILE = "examples.json"
PREDICTIONS_FILE = "predictions.parquet"
"""The predictions at the recipe's own resolution."""

SPLIT: Literal["val"] = "val"
"""The split by which networks are judged."""

TOP = 5
"""Number of classes that are stored of each sample, or all classes if there are fewer."""


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


class LeakedCounts(Record):
    """Counts over the samples of a split of which a copy is in another split."""

    seen: PositiveInt
    correct_top1: NonNegativeInt


class ClassResult(NamedTuple):
    """What became of one class. A fraction is None if it has no samples to be a fraction of."""

    label: int
    seen: int
    """Number of samples of the class."""
    correct: int
    """Number of these that are predicted as the class."""
    predicted: int | None
    """Number of samples that are predicted as the class; None if it isn't recorded."""
    average_precision: float | None
    """Area under the curve of precision over recall, as a sum of steps."""

    @property
    def recall(self) -> Interval | None:
        """Fraction of the class's samples that are predicted as it, with Wilson's interval."""
        return wilson(self.correct, self.seen) if self.seen else None

    @property
    def precision(self) -> Interval | None:
        """Fraction of the samples predicted as the class that are of it, with Wilson's interval."""
        return wilson(self.correct, self.predicted) if self.predicted else None

    @property
    def f1(self) -> Interval | None:
        """Harmonic mean of precision and recall, with its interval."""
        if self.predicted is None or not self.seen + self.predicted:
            return None
        return f1(self.correct, self.seen + self.predicted - 2 * self.correct)


class Evaluation(Record):
    """`evaluation.json`: counts over a split. Fractions are computed from them, never averaged.

    Fields that came later are left out of the JSON while they are empty. Evaluations while training
    have none of them, so the bytes of checkpoints stay what they were.
    """

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
    class_predicted: Annotated[tuple[NonNegativeInt, ...], Field(exclude_if=is_empty)] = ()
    """Number of samples that are predicted as each class."""
    class_average_precision: Annotated[
        tuple[Annotated[float, Field(ge=0, le=1)] | None, ...], Field(exclude_if=is_empty)
    ] = ()
    """Average precision of each class; None for a class without samples. Empty, too, if there are
    too many probabilities to keep them all."""
    macro_f1_interval: Annotated[tuple[float, float] | None, Field(exclude_if=is_empty)] = None
    """95 % interval of `macro_f1`, which needs a bootstrap over the samples."""
    leaked: Annotated[LeakedCounts | None, Field(exclude_if=is_empty)] = None
    """The part of the counts that copies may have improved; None if no copies were found."""

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
        if self.class_predicted and (
            len(self.class_predicted) != len(self.class_correct)
            or any(
                correct > predicted
                for correct, predicted in zip(self.class_correct, self.class_predicted, strict=True)
            )
        ):
            raise ValueError("class_predicted and class_correct don't go together")
        if len(self.class_average_precision) not in (0, len(self.class_seen)):
            raise ValueError("class_average_precision and class_seen don't go together")
        leaked = self.leaked
        if leaked and not (
            leaked.seen <= self.seen
            and leaked.correct_top1 <= self.correct_top1
            and leaked.seen - leaked.correct_top1 <= self.seen - self.correct_top1
        ):
            raise ValueError("leaked is no part of the counts")
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
    def is_top5_telling(self) -> bool:
        """Whether accuracy@5 says anything: of up to five classes, the label is always in them."""
        return len(self.class_seen) > TOP or not self.class_seen

    @property
    def without_leaked(self) -> tuple[int, int] | None:
        """Number of correct samples and of samples that have no copy in another split.

        None if no sample has one, or if all have.
        """
        if self.leaked is None or self.leaked.seen == self.seen:
            return None
        return self.correct_top1 - self.leaked.correct_top1, self.seen - self.leaked.seen

    @property
    def classes(self) -> tuple[ClassResult, ...]:
        """The result of each class, by label."""
        num = len(self.class_seen)
        columns = (
            self.class_seen,
            self.class_correct,
            self.class_predicted or (None,) * num,
            self.class_average_precision or (None,) * num,
        )
        return tuple(
            ClassResult(label, *values) for label, values in enumerate(zip(*columns, strict=True))
        )

    @property
    def balanced_accuracy(self) -> Interval | None:
        """Mean recall of the classes that have samples, with MOVER's interval.

        None if the samples aren't counted by class.
        """
        recalls = [each.recall for each in self.classes if each.recall]
        return mover(recalls) if recalls else None

    @property
    def macro_f1(self) -> Interval | None:
        """Mean F1 of the classes that have samples or are predicted, with `macro_f1_interval`.

        None if predictions aren't counted by class.
        """
        known = [each.f1.value for each in self.classes if each.f1]
        if not known or self.macro_f1_interval is None:
            return None
        return Interval(math.fsum(known) / len(known), *self.macro_f1_interval)

    @property
    def means(self) -> dict[str, Interval | None]:
        """The means over classes by their names in tables; None if the counts don't give one."""
        return {
            "balanced accuracy": self.balanced_accuracy,
            "macro-F1": self.macro_f1,
            "mean average precision": self.mean_average_precision,
        }

    @property
    def mean_average_precision(self) -> Interval | None:
        """Mean average precision of the classes that have samples.

        Its interval takes each class's average precision for a fraction of the class's samples, as
        Boyd, Eng and Page recommend (ECML PKDD 2013), and is MOVER's. None if it isn't known.
        """
        known = [
            wilson(each.average_precision * each.seen, each.seen)
            for each in self.classes
            if each.average_precision is not None and each.seen
        ]
        return mover(known) if known else None

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
