"""What of an evaluation is about classes: average precision, the interval of macro-F1, confusion.

This module needs no MindSpore.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sknet.csv_text import rows_as_csv
from sknet.records import ClassResult, Evaluation
from sknet.significance import Interval, mover

CLASSES_FILE = "classes.csv"
CONFUSION_FILE = "confusion.csv"

MAX_MATRIX_CLASSES = 1000
"""Most classes whose confusion matrix is written as a table: that of ImageNet takes 2 MB."""

RESAMPLINGS = 1000
"""Resamplings of a bootstrap, as usual for an interval of 95 %."""

_VALUES_AT_A_TIME = 1 << 22

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def average_precision(scores: Floats, positive: npt.NDArray[np.bool_]) -> float | None:
    """Return the average precision of one class: the mean precision at its samples.

    The area under the curve of precision over recall, as the sum of its steps without
    interpolation. Samples with equal scores count as one step, so that their order is of no effect.

    Args:
        scores: (N,): the probability of the class for each sample.
        positive: (N,): whether the sample is of the class.

    Returns:
        None if no sample is of the class.
    """
    num_positive = int(positive.sum())
    if not num_positive:
        return None
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    ends = np.append(np.flatnonzero(falling[1:] != falling[:-1]), len(falling) - 1)
    found = np.cumsum(positive[order])[ends]
    precision = found / (ends + 1)
    gained = np.diff(found, prepend=0)
    return min(1.0, float((precision * gained).sum() / num_positive))


def average_precisions(
    block_of: Callable[[int, int], Floats], labels: npt.NDArray[np.int32], num_classes: int
) -> tuple[float | None, ...]:
    """Return the average precision of each class.

    Args:
        block_of: Called with the first class and the class after the last one of a block, for all
            blocks in order; returns the probabilities (N, classes of the block).
        labels: (N,).
        num_classes: Number of classes.
    """
    block = max(1, _VALUES_AT_A_TIME // max(1, len(labels)))
    found: list[float | None] = []
    for first in range(0, num_classes, block):
        end = min(first + block, num_classes)
        scores = block_of(first, end)
        found += [
            average_precision(scores[:, label - first], labels == label)
            for label in range(first, end)
        ]
    return tuple(found)


@dataclass(frozen=True)
class Confusion:
    """How often each class is predicted for each class; pairs that never occur are left out."""

    labels: Ints
    """(M,): the true class of each pair."""
    predicted: Ints
    """(M,): the predicted class of each pair."""
    counts: Ints
    """(M,): number of samples of each pair, at least 1."""

    @classmethod
    def of(cls, labels: npt.NDArray[np.int32], predicted: npt.NDArray[np.int32]) -> "Confusion":
        """Count pairs of (N,) labels and (N,) predictions; they are sorted by both."""
        pairs, counts = np.unique(np.stack([labels, predicted]), axis=1, return_counts=True)
        return cls(
            labels=pairs[0].astype(np.int64), predicted=pairs[1].astype(np.int64), counts=counts
        )

    def matrix(self, classes: Sequence[int]) -> Ints:
        """Return the counts (C, C) of some classes: rows are labels, columns are predictions."""
        position = {label: place for place, label in enumerate(classes)}
        result = np.zeros((len(classes), len(classes)), np.int64)
        for label, predicted, count in zip(
            self.labels.tolist(), self.predicted.tolist(), self.counts.tolist(), strict=True
        ):
            if label in position and predicted in position:
                result[position[label], position[predicted]] = count
        return result

    def most_confused(self, count: int) -> list[int]:
        """Return the classes with the most wrong predictions, of them or as them, in their order.

        All classes that occur, if there are at most `count`.
        """
        wrong = self.labels != self.predicted
        errors = np.zeros(1 + int(max(self.labels.max(), self.predicted.max())), np.int64)
        np.add.at(errors, self.labels[wrong], self.counts[wrong])
        np.add.at(errors, self.predicted[wrong], self.counts[wrong])
        occurring = np.union1d(self.labels, self.predicted)
        chosen = occurring[np.argsort(-errors[occurring], kind="stable")][:count]
        return sorted(chosen.tolist())


def macro_f1_interval(confusion: Confusion, results: Iterable[ClassResult]) -> tuple[float, float]:
    """Return a 95 % interval of macro-F1: at each end the wider one of two.

    A bootstrap over the samples knows how the classes depend on each other, but it has no width if
    no prediction is wrong. MOVER over the intervals of each class's F1 has one, but it takes the
    classes for independent.

    Args:
        confusion: The counts. The seed is fixed: equal counts give equal intervals.
        results: The results of all classes.
    """
    by_class = mover([each.f1 for each in results if each.f1])
    resampled = _resampled_macro_f1(confusion)
    low, high = np.percentile(resampled, [2.5, 97.5]).tolist()
    return min(low, by_class.low), max(high, by_class.high)


def _resampled_macro_f1(confusion: Confusion) -> npt.NDArray[np.float64]:
    """Return macro-F1 of as many sets of samples, drawn with replacement."""
    generator = np.random.default_rng(0)
    num_samples, num_classes = (
        int(confusion.counts.sum()),
        1 + int(max(confusion.labels.max(), confusion.predicted.max())),
    )
    is_correct = confusion.labels == confusion.predicted
    at_a_time = max(1, _VALUES_AT_A_TIME // max(len(confusion.counts), num_classes))
    found = []
    for first in range(0, RESAMPLINGS, at_a_time):
        drawn = generator.multinomial(
            num_samples,
            confusion.counts / num_samples,
            size=min(at_a_time, RESAMPLINGS - first),
        )
        correct = _summed(drawn[:, is_correct], confusion.labels[is_correct], num_classes)
        either = _summed(drawn, confusion.labels, num_classes)
        either += _summed(drawn, confusion.predicted, num_classes)
        occurs = either > 0
        scores = 2 * correct / np.where(occurs, either, 1)
        found.append(scores.sum(axis=1) / occurs.sum(axis=1))
    return np.concatenate(found)


def _summed(drawn: Ints, classes: Ints, num_classes: int) -> npt.NDArray[np.float64]:
    """Return the sums (R, classes) of the columns of `drawn`, (R, M), that are of each class."""
    places = np.arange(len(drawn))[:, None] * num_classes + classes
    sums = np.bincount(places.ravel(), drawn.ravel(), minlength=len(drawn) * num_classes)
    return sums.astype(np.float64).reshape(len(drawn), num_classes)


def write_class_tables(
    directory: Path, evaluation: Evaluation, confusion: Confusion, names: Sequence[str]
) -> None:
    """Write the results of each class, and the confusion matrix unless it is too large, as CSV.

    Args:
        directory: Where to write.
        evaluation: The counts.
        confusion: The same predictions, by pairs.
        names: Readable names of the classes, by label.
    """
    rows: list[list[object]] = [
        [
            *("label", "class", "seen", "predicted", "correct"),
            *_columns("recall"),
            *_columns("precision"),
            *_columns("f1"),
            "average precision",
        ]
    ]
    rows += [
        [
            *(each.label, names[each.label], each.seen, each.predicted, each.correct),
            *_cells(each.recall),
            *_cells(each.precision),
            *_cells(each.f1),
            each.average_precision,
        ]
        for each in evaluation.classes
    ]
    _write(directory / CLASSES_FILE, rows)
    if len(names) <= MAX_MATRIX_CLASSES:
        matrix = confusion.matrix(range(len(names))).tolist()
        rows = [["label", *names]]
        rows += [[name, *counts] for name, counts in zip(names, matrix, strict=True)]
        _write(directory / CONFUSION_FILE, rows)


def _columns(name: str) -> tuple[str, str, str]:
    return name, f"{name} 95 % from", f"{name} 95 % to"


def _cells(interval: Interval | None) -> tuple[float | None, ...]:
    return (None, None, None) if interval is None else tuple(interval)


def _write(path: Path, rows: Iterable[Iterable[object]]) -> None:
    path.write_text(rows_as_csv(rows), "utf-8", newline="")
