"""Predictions of single samples: computed from logits, counted, stored, and paired with others.

This module needs no MindSpore. It imports pyarrow only where files are read or written, as machines
that register deployments import it too.
"""

import math
import os
from collections import Counter
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from sknet.errors import UserError
from sknet.evaluation.classes import Confusion, macro_f1_interval
from sknet.records import CalibrationBin, ConfusedPair, Evaluation, LeakedCounts
from sknet.records.calibration import Calibration
from sknet.records.evaluation import TOP
from sknet.significance import PairedCounts

if TYPE_CHECKING:
    import pyarrow as pa

NUM_PAIRS = 50
"""Largest number of confused pairs in an evaluation."""

NUM_BINS = 15
"""Number of parts of the calibration, as usual since Guo et al. 2017 (arXiv 1706.04599)."""

MAX_BYTES = 1 << 28
"""Largest file that is read: a hundred times that of ImageNet's 50,000 validation images."""

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

Forward = Callable[[Floats], Floats]
"""What a network computes: from normalised images (N, 3, R, R) to logits (N, classes)."""

BATCH_SIZE = 16
"""Images of a forward pass of a rank. The largest activation of skresnet18 at 320 pixels takes
100 MB."""


@dataclass(frozen=True, kw_only=True)
class TopClasses:
    """The most probable classes of N samples."""

    labels: Ints
    """(N,): the true classes."""
    top: Ints
    """(N, up to 5): classes by falling logit; of equal logits the lower class comes first."""
    probability: Floats
    """(N,): probability of the first class of `top`."""

    @property
    def predicted(self) -> Ints:
        """(N,): the most probable class."""
        return self.top[:, 0]

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """(N,): whether the most probable class is the label."""
        return np.equal(self.predicted, self.labels)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True)
class Predictions(TopClasses):
    """What a network predicts for N samples, in their order.

    One row of float32 numbers holds all values of a sample exactly, so that ranks can exchange
    them in one array.
    """

    loss: Floats
    """(N,): cross entropy without label smoothing."""
    average_precision: tuple[float | None, ...] = ()
    """That of each class, if it was computed: it depends on more than `rows` have."""
    calibration: Calibration | None = None
    """That of the network's probabilities, if it was computed; it needs all of them."""

    @classmethod
    def of_logits(cls, logits: Floats, labels: Ints) -> Self:
        """Return the predictions of a network.

        Args:
            logits: (N, classes). If a sample has logits that are not finite, its loss is NaN.
            labels: (N,).
        """
        exact = logits.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            top = np.argsort(-logits, axis=1, kind="stable")[:, :TOP]
            peak = exact.max(axis=1, keepdims=True)
            total = np.exp(exact - peak).sum(axis=1)
            own = np.take_along_axis(exact, labels[:, None].astype(np.int64), axis=1)
            loss = ((peak - own)[:, 0] + np.log(total)).astype(np.float32)
            loss[~np.isfinite(logits).all(axis=1)] = np.nan
            probability = (1 / total).astype(np.float32)
        return cls(
            labels=labels.astype(np.int32),
            top=top.astype(np.int32),
            probability=probability,
            loss=loss,
        )

    @classmethod
    def none(cls, num_classes: int) -> Self:
        """Return the predictions of no samples."""
        return cls.of_rows(np.zeros((0, min(TOP, num_classes) + 3), np.float32))

    @classmethod
    def of_rows(cls, rows: Floats) -> Self:
        """Return the predictions that have these `rows`."""
        classes = rows[:, :-2].astype(np.int32)
        return cls(
            labels=classes[:, 0], top=classes[:, 1:], probability=rows[:, -2], loss=rows[:, -1]
        )

    @property
    def rows(self) -> Floats:
        """(N, columns): label, top classes, probability, loss. Classes to 2^24 are exact."""
        columns = (self.labels, *self.top.T, self.probability, self.loss)
        rows: Floats = np.stack(columns, axis=1).astype(np.float32)
        return rows


def in_batch(forward: Forward, images: Floats, size: int) -> Floats:
    """Return the logits (N, classes) of at most `size` images, which zeros complete to a batch.

    Args:
        forward: The network, which is given `size` images.
        images: (N, 3, R, R).
        size: Number of images of the batch.
    """
    missing = size - len(images)
    padded = np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0))) if missing else images
    return forward(padded)[: len(images)]


def probabilities(logits: Floats) -> Floats:
    """Return the probability (N, classes) of every class, of finite logits of the same shape."""
    exact = logits.astype(np.float64)
    powers = np.exp(exact - exact.max(axis=1, keepdims=True))
    result: Floats = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return result


def interleaved(gathered: Floats, num_samples: int) -> Floats:
    """Return the rows of all ranks in the order of the samples.

    Args:
        gathered: (ranks, rows of a rank, columns). Row i of rank r is of sample i * ranks + r;
            ranks with fewer samples are padded.
        num_samples: Number of rows to return.
    """
    return gathered.transpose(1, 0, 2).reshape(-1, gathered.shape[2])[:num_samples]


def evaluation_of(
    predictions: Predictions,
    *,
    split: str,
    resolution: int,
    num_classes: int,
) -> Evaluation:
    """Count predictions, as evaluations while training do.

    Args:
        predictions: The predictions of every sample of the split.
        split: Name of the split.
        resolution: Side of the square input, in pixels.
        num_classes: Number of classes of the data set.
    """
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
    )


def detailed(
    predictions: Predictions,
    keys: Sequence[str],
    leaked: Set[str],
    *,
    split: str,
    resolution: int,
    num_classes: int,
) -> Evaluation:
    """Count predictions in all ways, as evaluations of finished trainings do.

    Args:
        predictions: The predictions of every sample of the split.
        keys: The samples' keys, in the same order.
        leaked: Keys of samples of which a copy is in another split.
        split: Name of the split.
        resolution: Side of the square input, in pixels.
        num_classes: Number of classes of the data set.
    """
    counts = evaluation_of(predictions, split=split, resolution=resolution, num_classes=num_classes)
    more = {
        "confused": confused_pairs(predictions)[:NUM_PAIRS],
        "calibration": calibration_bins(predictions.probability, predictions.correct),
        "class_predicted": tuple(
            np.bincount(predictions.predicted, minlength=num_classes).tolist()
        ),
        "class_average_precision": predictions.average_precision,
        "leaked": _leaked_counts(predictions, keys, leaked),
    }
    counted = Evaluation.model_validate({**counts.model_dump(), **more})
    confusion = Confusion.of(predictions.labels, predictions.predicted)
    interval = macro_f1_interval(confusion, counted.classes)
    return counted.model_copy(update={"macro_f1_interval": interval})


def _leaked_counts(
    predictions: Predictions, keys: Sequence[str], leaked: Set[str]
) -> LeakedCounts | None:
    chosen = np.array([key in leaked for key in keys], bool)
    if not chosen.any():
        return None
    correct = int(predictions.correct[chosen].sum())
    return LeakedCounts(seen=int(chosen.sum()), correct_top1=correct)


def confused_pairs(predictions: Predictions) -> tuple[ConfusedPair, ...]:
    """Return all confused pairs: most frequent first, then by label, then by prediction."""
    wrong = ~predictions.correct
    pairs = np.stack([predictions.labels[wrong], predictions.predicted[wrong]], axis=1)
    found, counts = np.unique(pairs, axis=0, return_counts=True)
    return tuple(
        ConfusedPair(label=int(label), predicted=int(predicted), count=int(count))
        for (label, predicted), count in sorted(
            zip(found, counts, strict=True), key=lambda pair: (-pair[1], *pair[0])
        )
    )


def calibration_bins(
    probability: Floats, correct: npt.NDArray[np.bool_]
) -> tuple[CalibrationBin, ...]:
    """Count (N,) predictions in 15 equal parts of 0 … 1 by the probability of their class."""
    # A probability on the border of two parts belongs to the upper one; 1 belongs to the last.
    exact = probability.astype(np.float64)
    part = np.minimum((exact * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    return tuple(_bin(exact[part == number], correct[part == number]) for number in range(NUM_BINS))


def _bin(probability: npt.NDArray[np.float64], correct: npt.NDArray[np.bool_]) -> CalibrationBin:
    return CalibrationBin(
        seen=len(correct),
        correct=int(correct.sum()),
        confidence_sum=math.fsum(probability.tolist()),
    )


@dataclass(frozen=True, kw_only=True)
class StoredPredictions(TopClasses):
    """Predictions that were read from a file, in the order of the shards."""

    keys: tuple[str, ...]
    """The samples' names, all different."""


@cache
def schema() -> "pa.Schema":
    """Return the columns of a file of predictions."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("key", pa.string(), nullable=False),
            pa.field("label", pa.int32(), nullable=False),
            pa.field(
                "top5", pa.list_(pa.field("class", pa.int32(), nullable=False)), nullable=False
            ),
            pa.field("probability", pa.float32(), nullable=False),
        ]
    )


def write_predictions(path: Path, keys: Sequence[str], predictions: Predictions) -> None:
    """Write one row for each sample to a Parquet file; equal predictions give equal bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    ends = np.arange(len(keys) + 1, dtype=np.int32) * predictions.top.shape[1]
    top = pa.ListArray.from_arrays(
        pa.array(ends), pa.array(predictions.top.reshape(-1)), type=schema().field("top5").type
    )
    columns = [
        pa.array(keys, pa.string()),
        pa.array(predictions.labels),
        top,
        pa.array(predictions.probability),
    ]
    table = pa.Table.from_arrays(columns, schema=schema())
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)


def read_predictions(path: Path) -> StoredPredictions:
    """Return the predictions in a file of `write_predictions`.

    Raises:
        UserError: The file can't be read, is damaged, or holds something else; in one line.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path} is larger than {MAX_BYTES} bytes")
        # Read into memory: if the file changed while it was mapped, the process would be killed.
        with pq.ParquetFile(
            pa.BufferReader(path.read_bytes()), page_checksum_verification=True
        ) as file:
            found = file.schema_arrow
            if not found.equals(schema()):
                columns = ", ".join(f"{field.name} {field.type}" for field in found)
                raise UserError(f"{path} holds no predictions: its columns are {columns[:200]!a}")
            groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
            if sum(group.total_byte_size for group in groups) > MAX_BYTES:
                raise UserError(f"{path} unpacks to more than {MAX_BYTES} bytes")
            table = file.read(use_threads=False)
        table.validate(full=True)
        return _checked(table, path)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else "no Parquet file"
        raise UserError(f"{path} can't be read: {reason}") from None
    except (pa.ArrowException, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is no valid Parquet file: {reason!a}") from None


def _checked(table: "pa.Table", path: Path) -> StoredPredictions:
    table = table.combine_chunks()
    num_rows = table.num_rows
    top = table["top5"].combine_chunks()
    lengths = {int(length) for length in top.value_lengths().to_numpy()}
    if num_rows == 0 or len(lengths) != 1 or not 1 <= min(lengths) <= TOP:
        raise UserError(
            f"{path} holds no predictions: {num_rows} rows of {sorted(lengths)[:9]} classes each, "
            f"expected 1 to {TOP} in all"
        )
    stored = StoredPredictions(
        keys=tuple(table["key"].to_pylist()),
        labels=table["label"].to_numpy(),
        top=top.flatten().to_numpy(zero_copy_only=False).reshape(num_rows, -1),
        probability=table["probability"].to_numpy(),
    )
    if min(stored.labels.min(), stored.top.min()) < 0:
        raise UserError(f"{path} holds no predictions: a class is below 0")
    if not ((stored.probability >= 0) & (stored.probability <= 1)).all():
        raise UserError(f"{path} holds no predictions: a probability is not within 0 and 1")
    key, count = Counter(stored.keys).most_common(1)[0]
    if count > 1:
        raise UserError(f"{path} has sample {key!a} more than once")
    return stored


@dataclass(frozen=True)
class PairedPredictions:
    """What two evaluations predict for the same N samples, in the order of the first one."""

    keys: tuple[str, ...]
    labels: Ints
    """(N,)."""
    first: Ints
    """(N,): the class that the first evaluation predicts."""
    second: Ints
    """(N,): the class that the second evaluation predicts."""

    @property
    def counts(self) -> PairedCounts:
        """How many samples both, one or none of them predict correctly."""
        return PairedCounts(*map(sum, zip(*self.counts_by_class.values(), strict=True)))

    @property
    def counts_by_class(self) -> dict[int, PairedCounts]:
        """The same counts over the samples of each class that has any, by label."""
        first, second = self.first == self.labels, self.second == self.labels
        parts = (first & second, first & ~second, second & ~first, ~first & ~second)
        num_classes = int(self.labels.max()) + 1
        columns = (np.bincount(self.labels[part], minlength=num_classes) for part in parts)
        rows = enumerate(zip(*(column.tolist() for column in columns), strict=True))
        return {label: PairedCounts(*row) for label, row in rows if any(row)}


def pair(first: StoredPredictions, second: StoredPredictions) -> PairedPredictions:
    """Pair the predictions of two evaluations by the samples' keys, whatever their order.

    Raises:
        UserError: They are not of the same samples, or a sample has different labels.
    """
    own, other = {*first.keys}, {*second.keys}
    if only := [*sorted(own - other), *sorted(other - own)]:
        raise UserError(
            f"the evaluations are of different samples: {len(only)} are in one of them only, "
            f"as {only[0]!r}"
        )
    position = {key: index for index, key in enumerate(second.keys)}
    order = np.array([position[key] for key in first.keys], np.int64)
    if (unequal := first.labels != second.labels[order]).any():
        key = first.keys[int(unequal.argmax())]
        raise UserError(f"the evaluations give sample {key!r} different labels")
    return PairedPredictions(first.keys, first.labels, first.predicted, second.predicted[order])
