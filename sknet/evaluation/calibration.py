"""Temperature scaling (Guo et al. 2017, arXiv 1706.04599) of a network's probabilities.

The temperature is fitted on one half of a split, all errors are measured on the other one. This
module needs no MindSpore.
"""

import hashlib
import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from sknet.evaluation.predictions import Floats, Ints, calibration_bins
from sknet.records import CalibrationBin
from sknet.records.calibration import Calibration, ThresholdCounts

MAX_TEMPERATURE = 20.0
"""Largest temperature, and largest inverse of one, that is tried."""

ITERATIONS = 30
"""Halvings of the interval of temperatures, which leave it 6e-9 wide on a logarithmic scale."""

MAX_THRESHOLDS = 1000

_VALUES_AT_A_TIME = 1 << 22
_SMALLEST = float(np.finfo(np.float32).smallest_subnormal)
"""Stands for probabilities that float32 rounds to 0."""

Gather = Callable[[Floats], Floats]
"""Returns the rows of all ranks in the order of the samples."""


def calibrate(
    probabilities: Floats,
    labels: Ints,
    numbers: npt.NDArray[np.int64],
    num_samples: int,
    gather: Gather,
    *,
    split: str,
    resolution: int,
) -> Calibration | None:
    """Fit a temperature on a half of a split, and measure on the other one. All ranks call this.

    Any number of ranks gives the same result.

    Args:
        probabilities: (N, classes): those of this rank's samples.
        labels: (N,): their labels.
        numbers: (N,): their numbers in the split.
        num_samples: Number of samples of the split.
        gather: Gathers rows of all ranks.
        split: Name of the split.
        resolution: Side of the square input, in pixels.

    Returns:
        None if a half would be empty.
    """
    if num_samples < 2:
        return None
    is_fitted = fitted_half(num_samples)

    def slope(inverse: float) -> float:
        own = np.zeros((len(labels), 1), np.float32)
        chosen = is_fitted[numbers]
        own[chosen, 0] = _slopes(probabilities[chosen], labels[chosen], inverse)
        return math.fsum(gather(own)[:, 0].tolist())

    inverse = _root(slope)
    rows = np.stack(
        [
            labels == probabilities.argmax(axis=1) if len(labels) else labels,
            scaled_top(probabilities, 1.0),
            scaled_top(probabilities, inverse or 1.0),
        ],
        axis=1,
    ).astype(np.float32)
    correct, before, after = gather(rows).T
    right = correct.astype(bool)
    held_out = ~is_fitted
    bins_before = calibration_bins(before[held_out], right[held_out])
    bins_after = calibration_bins(after[held_out], right[held_out])
    return Calibration(
        split=split,
        resolution=resolution,
        temperature=1 / (inverse or 1.0),
        is_fitted=inverse is not None,
        num_fitted=int(is_fitted.sum()),
        num_held_out=int(held_out.sum()),
        error_before=expected_error(bins_before),
        error_after=expected_error(bins_after),
        bins_before=bins_before,
        bins_after=bins_after,
        curve=_curve(after, right, is_fitted),
    )


def fitted_half(num_samples: int) -> npt.NDArray[np.bool_]:
    """Return for each sample whether the temperature is fitted on it, which its number decides.

    The numbers are shuffled by their SHA-256, since shards may be sorted by class.
    """
    numbers = range(num_samples)
    order = sorted(numbers, key=lambda number: hashlib.sha256(str(number).encode()).digest())
    result = np.zeros(num_samples, bool)
    result[order[: num_samples // 2]] = True
    return result


def scaled_top(probabilities: Floats, inverse_temperature: float) -> Floats:
    """Return the probability (N,) of the most probable class with a temperature.

    Args:
        probabilities: (N, classes), without temperature.
        inverse_temperature: One divided by the temperature.
    """
    result = np.zeros(len(probabilities), np.float32)
    for rows in _blocks(probabilities):
        scaled = _logits(probabilities[rows]) * inverse_temperature
        peak = scaled.max(axis=1, keepdims=True)
        result[rows] = 1 / np.exp(scaled - peak).sum(axis=1)
    return result


def expected_error(bins: Sequence[CalibrationBin]) -> float:
    """Return the expected calibration error: the mean distance of accuracy and confidence."""
    distance = math.fsum(abs(part.correct - part.confidence_sum) for part in bins)
    return min(1.0, distance / sum(part.seen for part in bins))


def _slopes(probabilities: Floats, labels: Ints, inverse: float) -> npt.NDArray[np.float64]:
    """Return the derivative (N,) of each sample's loss by the inverse temperature."""
    result = np.zeros(len(labels))
    for rows in _blocks(probabilities):
        logits = _logits(probabilities[rows])
        scaled = logits * inverse
        powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        mean = (powers * logits).sum(axis=1) / powers.sum(axis=1)
        own = np.take_along_axis(logits, labels[rows, None].astype(np.int64), axis=1)[:, 0]
        result[rows] = mean - own
    return result


def _root(slope: Callable[[float], float]) -> float | None:
    """Return the inverse temperature at which the rising slope is 0; None if it never is."""
    low, high = -math.log(MAX_TEMPERATURE), math.log(MAX_TEMPERATURE)
    # Where all is predicted right, the slope rises to 0, which rounding reaches.
    if slope(math.exp(low)) > 0 or slope(math.exp(high)) <= 0:
        return None
    for _ in range(ITERATIONS):
        middle = (low + high) / 2
        if slope(math.exp(middle)) < 0:
            low = middle
        else:
            high = middle
    return math.exp((low + high) / 2)


def _curve(
    probability: Floats, correct: npt.NDArray[np.bool_], is_fitted: npt.NDArray[np.bool_]
) -> tuple[ThresholdCounts, ...]:
    """Count, for thresholds at equal distances in the order of all probabilities."""
    thresholds = np.unique(probability)
    step = -(-len(thresholds) // MAX_THRESHOLDS)
    return tuple(
        ThresholdCounts(
            probability=float(threshold),
            fitted=_counts(probability, correct, is_fitted, threshold),
            held_out=_counts(probability, correct, ~is_fitted, threshold),
        )
        for threshold in thresholds[::step]
    )


def _counts(
    probability: Floats,
    correct: npt.NDArray[np.bool_],
    half: npt.NDArray[np.bool_],
    threshold: np.float32,
) -> tuple[int, int]:
    accepted = half & (probability >= threshold)
    return int(accepted.sum()), int((accepted & ~correct).sum())


def _logits(probabilities: Floats) -> npt.NDArray[np.float64]:
    """Return logits (N, classes) that give these probabilities, up to a number for each sample."""
    exact: npt.NDArray[np.float64] = probabilities.astype(np.float64)
    np.log(np.maximum(exact, _SMALLEST, out=exact), out=exact)
    return exact


def _blocks(probabilities: Floats) -> list[slice]:
    """Return parts of the rows for which the memory of all steps is small."""
    size = max(1, _VALUES_AT_A_TIME // probabilities.shape[1])
    return [slice(first, first + size) for first in range(0, len(probabilities), size)]
