"""Predictions → Evaluation: whole numbers counted on the host, sums that round once."""

import math

import numpy as np
import numpy.typing as npt

from sknet.evaluation.predictions import Predictions
from sknet.records import CalibrationBin, ConfusedPair, Evaluation

NUM_PAIRS = 50
"""Confused pairs that are kept."""
NUM_BINS = 15
"""Of the calibration, as usual since Guo et al. 2017 (arXiv 1706.04599)."""


def evaluation_of(
    predictions: Predictions,
    *,
    split: str,
    resolution: int,
    num_classes: int,
    in_detail: bool = False,
) -> Evaluation:
    """All counts; confused pairs and calibration `in_detail` only."""
    labels, correct = predictions.labels, predictions.correct
    within_top = (predictions.top == labels[:, None]).any(axis=1)
    return Evaluation(
        split=split,
        resolution=resolution,
        seen=len(labels),
        correct_top1=int(correct.sum()),
        correct_top5=int(within_top.sum()),
        loss_sum=math.fsum(predictions.loss.tolist()),
        class_seen=tuple(np.bincount(labels, minlength=num_classes).tolist()),
        class_correct=tuple(np.bincount(labels[correct], minlength=num_classes).tolist()),
        confused=confused_pairs(predictions)[:NUM_PAIRS] if in_detail else (),
        calibration=calibration(predictions) if in_detail else (),
    )


def confused_pairs(predictions: Predictions) -> tuple[ConfusedPair, ...]:
    """All of them: most frequent first, then by label, then by prediction."""
    wrong = ~predictions.correct
    pairs = np.stack([predictions.labels[wrong], predictions.top[wrong, 0]], axis=1)
    found, counts = np.unique(pairs, axis=0, return_counts=True)
    return tuple(
        ConfusedPair(label=int(label), predicted=int(predicted), count=int(count))
        for (label, predicted), count in sorted(
            zip(found, counts, strict=True), key=lambda pair: (-pair[1], *pair[0])
        )
    )


def calibration(predictions: Predictions) -> tuple[CalibrationBin, ...]:
    """A probability on the border of two parts belongs to the upper one, 1 to the last."""
    probability = predictions.probability.astype(np.float64)
    place = np.minimum((probability * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    return tuple(
        _bin(probability[place == number], predictions.correct[place == number])
        for number in range(NUM_BINS)
    )


def _bin(probability: npt.NDArray[np.float64], correct: npt.NDArray[np.bool_]) -> CalibrationBin:
    return CalibrationBin(
        seen=len(correct),
        correct=int(correct.sum()),
        confidence_sum=math.fsum(probability.tolist()),
    )
