"""Deals the rows of an index to shards, in bounded memory however many there are.

Each row has a *place*: its number among the rows of all shards, in their order. It follows from
the row's position in its split, so that the index can be dealt block by block. The rows are
appended to *pieces*: files that each hold the rows of some shards. A piece is sorted when it is
read.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from infra.base.shortages import disk_full
from sknet.data.index import INDEX_COLUMNS, SampleIndex
from sknet.data.order import Indices, order_positions
from sknet.records import Dataset

if TYPE_CHECKING:
    import pyarrow as pa

SPREAD_SEED = 0
"""Seed of the fixed permutation that spreads samples over shards, so that a few shards hold all
classes."""

ROWS_PER_PIECE = 1 << 17
"""Rows of a piece, unless a shard has more: some 30 MB in memory."""

_BYTES_PER_ROW = 250
_PLACE = "place"


@dataclass(frozen=True)
class Layout:
    """Which places the rows of each shard have."""

    num_rows: Mapping[str, int]
    """Split → the number of its rows."""
    counts: Mapping[str, int]
    """Split → the number of its shards. Rows of other splits have no place."""

    @classmethod
    def of(cls, dataset: Dataset, counts: Mapping[str, int]) -> "Layout":
        """Return the layout of a data set in so many shards of each split."""
        return cls(dataset.splits, {split: count for split, count in counts.items() if count})

    @cached_property
    def bounds(self) -> Indices:
        """The first place of each shard, and the end of the last one, (N + 1,)."""
        firsts, first = [], 0
        for split, count in self.counts.items():
            size = self.num_rows[split]
            firsts += [first + size * number // count for number in range(count)]
            first += size
        return np.array([*firsts, first], np.int64)

    def dealt(
        self, index: SampleIndex, columns: Sequence[str] = INDEX_COLUMNS
    ) -> Iterator[tuple["pa.Table", Indices]]:
        """Yield the blocks of an index, without rows of other splits, and the places of their rows.

        Args:
            index: The index of the data set.
            columns: Columns that are wanted, among them `split`.
        """
        seen: Counter[str] = Counter()
        for block in index.blocks(columns):
            splits = block["split"].to_numpy()
            places = np.full(len(block), -1, np.int64)
            first = 0
            for split in self.counts:
                size = self.num_rows[split]
                (rows,) = np.nonzero(splits == split)
                positions = np.arange(seen[split], seen[split] + len(rows))
                places[rows] = first + order_positions(size, SPREAD_SEED, 0, positions)
                seen[split] += len(rows)
                first += size
            (placed,) = np.nonzero(places >= 0)
            yield (block if len(placed) == len(block) else block.take(placed)), places[placed]

    def shards_at(self, places: Indices) -> Indices:
        """Return the numbers of the shards, counted over all splits, to which places belong."""
        return np.searchsorted(self.bounds, places, side="right") - 1


@dataclass(frozen=True)
class ShardContents:
    """What determines the sizes of each shard's file, (N,) over all shards."""

    num_images: Indices
    image_bytes: Indices
    largest_image: Indices
    key_bytes: Indices
    """Upper bound of the size of all keys."""


class Pieces:
    """The rows of an index in a directory, dealt to pieces of at most ROWS_PER_PIECE rows."""

    def __init__(self, layout: Layout, directory: Path) -> None:
        """Use a directory that is empty."""
        self._layout, self._directory = layout, directory
        self._groups = _grouped(layout.bounds)

    def deal(self, index: SampleIndex) -> ShardContents:
        """Write the pieces, and return what was counted meanwhile.

        Raises:
            DiskFullError: The disk is full.
            UserError: The index can't be read.
        """
        try:
            return self._deal(index)
        except OSError as error:
            needed = int(self._layout.bounds[-1]) * _BYTES_PER_ROW
            shortage = disk_full(error, "the index in pieces", needed, self._directory)
            if shortage is None:
                raise
            raise shortage from None

    def _deal(self, index: SampleIndex) -> ShardContents:
        import pyarrow as pa
        import pyarrow.compute as pc

        layout = self._layout
        starts = layout.bounds[[first for first, _ in self._groups]]
        num_shards = len(layout.bounds) - 1
        image_bytes, largest, key_bytes = (np.zeros(num_shards, np.int64) for _ in range(3))
        for block, places in layout.dealt(index):
            shards = layout.shards_at(places)
            sizes = block["size"].to_numpy()
            np.add.at(image_bytes, shards, sizes)
            np.maximum.at(largest, shards, sizes)
            # UTF-8 takes four bytes a character at most.
            np.add.at(key_bytes, shards, 4 * pc.utf8_length(block["key"]).to_numpy())
            order = np.argsort(places)
            ordered = block.append_column(_PLACE, pa.array(places)).take(order).combine_chunks()
            cuts = [*np.searchsorted(places[order], starts), len(places)]
            for number in np.flatnonzero(np.diff(cuts)):
                part = ordered.slice(cuts[number], cuts[number + 1] - cuts[number])
                self._append(int(number), part)
        return ShardContents(np.diff(layout.bounds), image_bytes, largest, key_bytes)

    def shards(self) -> Iterator["pa.Table"]:
        """Yield the rows of each shard, in the shard's order. Pieces that were read are removed."""
        import pyarrow as pa

        for number, (first, last) in enumerate(self._groups):
            path = self._path(number)
            with pa.ipc.open_stream(path) as stream:
                piece = stream.read_all().combine_chunks()
            path.unlink()
            order = np.argsort(piece[_PLACE].to_numpy())
            piece = piece.drop_columns(_PLACE)
            bounds = self._layout.bounds[first : last + 1] - self._layout.bounds[first]
            for start, stop in pairwise(bounds.tolist()):
                yield piece.take(order[start:stop])

    def _append(self, number: int, rows: "pa.Table") -> None:
        with self._path(number).open("ab") as file:
            if not file.tell():
                file.write(rows.schema.serialize())
            for batch in rows.to_batches():
                file.write(batch.serialize())

    def _path(self, number: int) -> Path:
        return self._directory / f"{number}.arrow"


def _grouped(bounds: Indices) -> list[tuple[int, int]]:
    """Return the shards, from number to number, of which each piece has the rows."""
    groups, first = [], 0
    for number in range(1, len(bounds)):
        if number == len(bounds) - 1 or bounds[number + 1] - bounds[first] > ROWS_PER_PIECE:
            groups.append((first, number))
            first = number
    return groups
