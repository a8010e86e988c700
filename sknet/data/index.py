"""The index of a staged data set, read in blocks: it may have more rows than memory holds."""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from sknet.errors import UserError
from sknet.records import Dataset
from sknet.records.data import DATASET_FILE, INDEX_FILE

if TYPE_CHECKING:
    import pyarrow as pa

INDEX_COLUMNS = ["split", "key", "label", "size", "sha256", "file", "offset"]
"""Columns of the index: the fields of Sample."""

ROWS_PER_BLOCK = 1 << 17
"""Rows of an index that are held at a time: some 30 MB."""

READ_BYTES = 1 << 16
"""Bytes of a column that are read at a time."""

_ROWS_AS_OBJECTS = 1 << 12


class SampleIndex(Protocol):
    """The samples of a data set, by split and key, however they are stored."""

    @property
    def dataset(self) -> Dataset:
        """The record of the data set."""

    def blocks(self, columns: Sequence[str] = INDEX_COLUMNS) -> Iterator["pa.Table"]:
        """Yield all rows in their order, at most ROWS_PER_BLOCK at a time.

        Raises:
            UserError: They can't be read.
        """


@dataclass(frozen=True)
class StoredIndex:
    """An index in a file, of which no more than a block is in memory."""

    dataset: Dataset
    path: Path

    def blocks(self, columns: Sequence[str] = INDEX_COLUMNS) -> Iterator["pa.Table"]:
        """Read the file, block by block; see `SampleIndex`."""
        import pyarrow as pa
        from pyarrow import parquet

        try:
            # Streamed: otherwise the file's groups of a million rows are held whole.
            with parquet.ParquetFile(self.path, buffer_size=READ_BYTES, pre_buffer=False) as file:
                for batch in file.iter_batches(
                    ROWS_PER_BLOCK, columns=list(columns), use_threads=False
                ):
                    yield pa.Table.from_batches([batch]).select(list(columns))
        except (OSError, ValueError, KeyError) as error:
            raise unreadable(self.path, error) from None


def open_staged(directory: Path) -> StoredIndex:
    """Return the index that `Staged.write` wrote, after all of it was compared with its digest.

    Raises:
        UserError: A file can't be read, or the index and the record don't belong together.
    """
    index = StoredIndex(Dataset.read(directory / DATASET_FILE), directory / INDEX_FILE)
    rows = (row for block in index.blocks() for row in rows_of(block))
    if rows_digest(rows) != index.dataset.index_sha256:
        raise foreign(index.path)
    return index


def has_key(block: "pa.Table", keys: Collection[str]) -> "npt.NDArray[np.bool_]":
    """Tell of each row of a block whether its key is one of these."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = block["key"]
    found: npt.NDArray[np.bool_] = pc.is_in(column, pa.array(keys, column.type)).to_numpy()
    return found


def rows_of(block: "pa.Table") -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a block as Python's objects, of which only some exist at a time."""
    for start in range(0, len(block), _ROWS_AS_OBJECTS):
        part = block.slice(start, _ROWS_AS_OBJECTS)
        yield from zip(*(column.to_pylist() for column in part.columns), strict=True)


def rows_digest(rows: Iterable[tuple[object, ...]]) -> str:
    """Return a SHA-256 over rows."""
    hasher = hashlib.sha256()
    for row in rows:
        hasher.update("\0".join(map(str, row)).encode() + b"\n")
    return hasher.hexdigest()


def unreadable(path: Path, error: Exception) -> UserError:
    """Return the error of an index that can't be read."""
    return UserError(f"{path} can't be read: {' '.join(str(error).split())}")


def foreign(path: Path) -> UserError:
    """Return the error of an index that its record doesn't describe."""
    return UserError(f"{path} does not belong to its dataset.json")
