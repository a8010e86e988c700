"""Predictions: what a network says of each sample; everything else is counted from them."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

TOP = 5
"""Classes that are kept of each sample, if there are so many."""

Floats = npt.NDArray[np.float32]
Whole = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Predictions:
    """Of N samples, in their order; one row of float32 numbers holds all of a sample exactly."""

    labels: Whole
    """(N,)."""
    top: Whole
    """(N, up to 5): classes by falling logit, the lower index first among equals."""
    probability: Floats
    """(N,): of the first of `top`."""
    loss: Floats
    """(N,): cross entropy without label smoothing."""

    @classmethod
    def of_logits(cls, logits: Floats, labels: Whole) -> Self:
        """`logits` is (N, classes). The loss of a sample with logits that aren't finite is NaN."""
        exact = logits.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            top = np.argsort(-logits, axis=1, kind="stable")[:, :TOP]
            peak = exact.max(axis=1, keepdims=True)
            total = np.exp(exact - peak).sum(axis=1)
            own = np.take_along_axis(exact, labels[:, None].astype(np.int64), axis=1)
            loss = ((peak - own)[:, 0] + np.log(total)).astype(np.float32)
            loss[~np.isfinite(logits).all(axis=1)] = np.nan
            probability = (1 / total).astype(np.float32)
        return cls(labels.astype(np.int32), top.astype(np.int32), probability, loss)

    @classmethod
    def none(cls, num_classes: int) -> Self:
        """Of no sample."""
        return cls.of_rows(np.zeros((0, min(TOP, num_classes) + 3), np.float32))

    @classmethod
    def of_rows(cls, rows: Floats) -> Self:
        """What `rows` gave."""
        whole = rows[:, :-2].astype(np.int32)
        return cls(whole[:, 0], whole[:, 1:], rows[:, -2], rows[:, -1])

    @property
    def rows(self) -> Floats:
        """(N, label and top and probability and loss): whole numbers to 2^24 are exact."""
        columns = (self.labels, *self.top.T, self.probability, self.loss)
        rows: Floats = np.stack(columns, axis=1).astype(np.float32)
        return rows

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """(N,): whether the first class is the label."""
        correct: npt.NDArray[np.bool_] = self.top[:, 0] == self.labels
        return correct

    def __len__(self) -> int:
        return len(self.labels)


def interleaved(gathered: Floats, num_samples: int) -> Floats:
    """The rows (num_samples, columns) in the samples' order, of those of all ranks.

    Of `gathered` (ranks, most rows of a rank, columns), the row i of rank r is of the sample
    i * ranks + r; ranks with fewer samples are filled up.
    """
    return gathered.transpose(1, 0, 2).reshape(-1, gathered.shape[2])[:num_samples]
