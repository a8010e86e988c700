"""How far a network's probabilities can be trusted: temperature, error, and thresholds."""

import math
from fractions import Fraction
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from infra.base.records import Record
from sknet.errors import UserError
from sknet.records.evaluation import CalibrationBin
from sknet.records.fields import NonNegativeInt, PositiveInt
from sknet.significance import Interval, wilson

CALIBRATION_FILE = "calibration.json"

Probability = Annotated[float, Field(ge=0, le=1)]


class ThresholdCounts(Record):
    """The predictions whose calibrated probability is at least a threshold."""

    probability: Probability
    """The threshold."""
    fitted: tuple[NonNegativeInt, NonNegativeInt]
    """Number of predictions, and of wrong ones among them, on the half for fitting."""
    held_out: tuple[NonNegativeInt, NonNegativeInt]
    """The same on the other half."""


class Threshold(NamedTuple):
    """The lowest probability at which predictions keep an error rate."""

    probability: float
    accepted: int
    """Number of samples of the held-out half whose probability is at least this high."""
    seen: int
    """Number of samples of the held-out half."""
    error: Interval
    """Fraction of wrong predictions among the accepted ones, with Wilson's 95 % interval."""

    def fields(self) -> dict[str, Any]:
        """Return the threshold as an object of a JSON document."""
        return {**self._asdict(), "error": self.error._asdict()}

    def describe(self) -> str:
        """Return the threshold as one line."""
        return (
            f"unsure below a calibrated probability of {self.probability:.4f}: of {self.seen} "
            f"held-out validation images, {self.accepted} are above it, and {self.error.value:.2%} "
            f"of these are wrong (95 % interval {self.error.low:.2%} to {self.error.high:.2%})"
        )


class Calibration(Record):
    """`calibration.json`: temperature scaling, fitted on one half of a split (Guo et al. 2017).

    The halves are fixed by the samples' numbers. Whatever is reported as error was measured on the
    half on which the temperature was not fitted.
    """

    format_version: Literal[1] = 1
    split: str
    resolution: PositiveInt
    temperature: Annotated[float, Field(gt=0)]
    """Divides the logits; 1 if none could be fitted."""
    is_fitted: bool
    """False if the likelihood has no maximum, as where all samples are predicted right."""
    num_fitted: PositiveInt
    """Number of samples of the half for fitting."""
    num_held_out: PositiveInt
    """Number of samples of the other half."""
    error_before: Probability
    """Expected calibration error on the held-out half without temperature, in 15 equal parts."""
    error_after: Probability
    """The same with temperature."""
    bins_before: tuple[CalibrationBin, ...] = ()
    """The parts of the held-out half without temperature; empty in records that lack them."""
    bins_after: tuple[CalibrationBin, ...] = ()
    """The same with temperature."""
    curve: tuple[ThresholdCounts, ...]
    """By rising threshold."""

    def describe(self) -> str:
        """Return the temperature, and what it changes, in a few words."""
        if not self.is_fitted:
            return "no temperature could be fitted"
        return (
            f"with temperature {self.temperature:.3f}, the calibration error on "
            f"{self.num_held_out} held-out images is {self.error_after:.4f} instead of "
            f"{self.error_before:.4f}"
        )

    def threshold(self, error_rate: float) -> Threshold:
        """Return the lowest threshold above which both halves keep an error rate.

        Args:
            error_rate: Largest fraction of wrong predictions among the accepted ones.

        Raises:
            UserError: There is none.
        """
        lowest = Fraction(1)
        for point in self.curve:
            accepted, wrong = point.held_out
            if not accepted:
                break
            larger = max(_fraction_wrong(point.fitted), _fraction_wrong(point.held_out))
            lowest = min(lowest, larger)
            # 29 of 100 are 0.29, which a product of floats would put above it.
            if float(larger) <= error_rate:
                error = wilson(wrong, accepted)
                return Threshold(point.probability, accepted, self.num_held_out, error)
        raise UserError(
            f"no threshold keeps an error rate of {error_rate} on both halves of the "
            f"{self.num_fitted + self.num_held_out} validation images of the checkpoint's "
            f"evaluation: the lowest that can be kept is {math.ceil(lowest * 10_000) / 10_000:.4f}"
        )


def threshold_of(calibration: Calibration | None, error_rate: float, source: str) -> Threshold:
    """Return the threshold of a network for an error rate.

    Args:
        calibration: That of the network's evaluation, if there is one.
        error_rate: Largest fraction of wrong predictions among those that are not unsure.
        source: Where the network is from, for messages.

    Raises:
        UserError: There is no calibration, or no threshold keeps the rate.
    """
    if not 0 <= error_rate < 1:
        raise UserError(f"the error rate is {error_rate}, expected at least 0 and less than 1")
    if calibration is None:
        raise UserError(
            f"{source} has no calibration, which an error rate needs: predict from the store in "
            "which it was evaluated, after another run of its recipe there"
        )
    return calibration.threshold(error_rate)


def _fraction_wrong(counts: tuple[int, int]) -> Fraction:
    seen, wrong = counts
    return Fraction(wrong, seen) if seen else Fraction(0)
