"""Predictions: what a network says of each sample; everything else is counted from them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from sknet.errors import UserError

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


SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("top5", pa.list_(pa.field("class", pa.int32(), nullable=False)), nullable=False),
        pa.field("probability", pa.float32(), nullable=False),
    ]
)

# A hundred times what ImageNet's 50,000 validation images take.
MAX_BYTES = 1 << 28


@dataclass(frozen=True)
class KeptPredictions:
    """Predictions read back; the samples in the shards' order."""

    keys: tuple[str, ...]
    labels: Whole
    """(N,)."""
    top: Whole
    """(N, up to 5): classes by falling logit."""
    probability: Floats
    """(N,): of the first of `top`."""

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """(N,): whether the first class is the label."""
        correct: npt.NDArray[np.bool_] = self.top[:, 0] == self.labels
        return correct


def write_predictions(path: Path, keys: Sequence[str], predictions: Predictions) -> None:
    """One row for each sample; equal predictions give equal bytes."""
    ends = np.arange(len(keys) + 1, dtype=np.int32) * predictions.top.shape[1]
    top = pa.ListArray.from_arrays(
        pa.array(ends), pa.array(predictions.top.reshape(-1)), type=SCHEMA.field("top5").type
    )
    columns = [
        pa.array(keys, pa.string()),
        pa.array(predictions.labels),
        top,
        pa.array(predictions.probability),
    ]
    table = pa.Table.from_arrays(columns, schema=SCHEMA)
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)


def read_predictions(path: Path) -> KeptPredictions:
    """What `write_predictions` wrote. Raises UserError in one line for anything else."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path} is larger than {MAX_BYTES} bytes")
        # As bytes: a file that changes while it is mapped would end the process.
        with pq.ParquetFile(
            pa.BufferReader(path.read_bytes()), page_checksum_verification=True
        ) as file:
            found = file.schema_arrow
            if not found.equals(SCHEMA):
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


def _checked(table: pa.Table, path: Path) -> KeptPredictions:
    table = table.combine_chunks()
    num_rows = table.num_rows
    lengths = {int(n) for n in table["top5"].combine_chunks().value_lengths().to_numpy()}
    if num_rows == 0 or len(lengths) != 1 or not 1 <= min(lengths) <= TOP:
        raise UserError(
            f"{path} holds no predictions: {num_rows} rows of {sorted(lengths)[:9]} classes each, "
            f"expected 1 to {TOP} in all"
        )
    (width,) = lengths
    flat = table["top5"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    kept = KeptPredictions(
        keys=tuple(table["key"].to_pylist()),
        labels=table["label"].to_numpy(),
        top=flat.reshape(num_rows, width),
        probability=table["probability"].to_numpy(),
    )
    if min(kept.labels.min(), kept.top.min()) < 0:
        raise UserError(f"{path} holds no predictions: a class is below 0")
    if not ((kept.probability >= 0) & (kept.probability <= 1)).all():
        raise UserError(f"{path} holds no predictions: a probability is not within 0 and 1")
    return kept
