"""Shards as files: single-shard MindRecord, written, counted back, sampled and verified.

MindRecord has no checksums, drops invalid rows silently and refuses what exceeds its header and
page sizes only at the end; so these follow from the data, every row is counted back, a sample is
read back through the reader that training uses, and both files of a shard are hashed.
"""

import itertools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.base.files import file_sha256
from sknet.data.reading.threads import read_pipeline
from sknet.data.sources import SPLITS
from sknet.data.verification import damaged
from sknet.errors import UserError
from sknet.records import ShardFile, Shards

SHARDS_FORMAT = 2
"""To be raised with every change to the bytes that the same data and settings give."""
SCHEMA = {"image": {"type": "bytes"}, "label": {"type": "int32"}, "key": {"type": "string"}}
MIN_HEADER_BYTES = 1 << 14
MAX_HEADER_BYTES = 1 << 27
MIN_PAGE_BYTES = 1 << 20  # MindRecord's default of 32 MiB makes a 50 MB file of a 17 MB payload
MAX_PAGE_BYTES = 1 << 28
ROWS_PER_WRITE = 64
ROWS_READ_BACK = 16


@dataclass(frozen=True)
class ShardSet:
    """The shards of a data set: their record, and the directory where their files are."""

    record: Shards
    directory: Path

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, by index."""
        return self.record.dataset.classes

    def num_samples(self, split: str) -> int:
        """Return the number of samples of a split."""
        return self.record.num_samples(split)

    def paths(self, split: str) -> list[str]:
        """Return the paths of a split's shard files, in the order of their samples."""
        return [str(self.directory / file.name) for file in self.record.files_of(split)]


@dataclass(frozen=True)
class Row:
    """A sample as it is stored."""

    image: bytes
    label: int
    key: str


@dataclass(frozen=True)
class Layout:
    """MindRecord's two sizes; both shape the bytes."""

    header_bytes: int
    page_bytes: int


def layout_for(sizes: Sequence[int], key_bytes: int) -> Layout:
    """The smallest that holds samples of these sizes, with keys of `key_bytes` in all.

    A page holds the largest sample, and the header about 200 bytes for each page: a shard of more
    than 256 GiB needs larger pages. Raises UserError for a sample beyond MindRecord's limit.
    """
    largest = max(sizes, default=0)
    if largest >= MAX_PAGE_BYTES:
        raise UserError(f"a sample of {largest} bytes exceeds MindRecord's limit: make it smaller")
    page = max(MIN_PAGE_BYTES, _power_of_two(largest + 1024))
    # A page may be left half empty, since no sample lies across two.
    blob_bytes, row_bytes = 2 * sum(sizes), key_bytes + 64 * len(sizes)
    while (header := _header_bytes(blob_bytes, row_bytes, page)) > MAX_HEADER_BYTES:
        page *= 2
    return Layout(max(MIN_HEADER_BYTES, header), page)


def _header_bytes(blob_bytes: int, row_bytes: int, page: int) -> int:
    num_pages = blob_bytes // page + 1 + row_bytes // page + 1
    return _power_of_two(256 * (num_pages + 16))


def write_shard(path: Path, split: str, rows: Iterable[Row], layout: Layout) -> ShardFile:
    """Write one shard, count its rows back, and compare a sample of them with what was written."""
    from mindspore.mindrecord import FileWriter

    writer = FileWriter(str(path), shard_num=1)
    writer.set_header_size(layout.header_bytes)
    writer.set_page_size(layout.page_bytes)
    writer.add_schema(SCHEMA, "sknet image classification")
    sample = RowSample(path.name)
    written = 0
    rows = iter(rows)
    while block := list(itertools.islice(rows, ROWS_PER_WRITE)):
        writer.write_raw_data(
            [{"image": row.image, "label": row.label, "key": row.key} for row in block]
        )
        for row in block:
            sample.offer(written, row)
            written += 1
    writer.commit()
    if (counted := count_rows(path)) != written:
        raise RuntimeError(f"{path.name} holds {counted} rows, {written} were written")
    sample.compare(path)
    index = path.with_name(f"{path.name}.db")
    return ShardFile(
        split=split,
        name=path.name,
        num_samples=written,
        size=path.stat().st_size,
        sha256=file_sha256(path),
        index_size=index.stat().st_size,
        index_sha256=file_sha256(index),
    )


class RowSample:
    """A seeded sample of the rows of a shard, the first and the last always among them."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)
        self._first: tuple[int, Row] | None = None
        self._last: tuple[int, Row] | None = None
        self._between: list[tuple[int, Row]] = []

    def offer(self, number: int, row: Row) -> None:
        """The rows in their order; every one between first and last is as likely to be kept."""
        if self._first is None:
            self._first = number, row
            return
        passed, self._last = self._last, (number, row)
        if passed is None:
            return
        if len(self._between) < ROWS_READ_BACK - 2:
            self._between.append(passed)
        elif (place := self._random.randrange(passed[0])) < len(self._between):
            self._between[place] = passed

    def rows(self) -> dict[int, Row]:
        """By their number in the shard."""
        kept = [self._first, *self._between, self._last]
        return dict(sorted(numbered for numbered in kept if numbered is not None))

    def compare(self, path: Path) -> None:
        """Raises RuntimeError naming the shard and the row if one is read back otherwise."""
        expected = self.rows()
        if not expected:
            return
        read = read_rows(path, list(expected))
        for (number, row), found in itertools.zip_longest(expected.items(), read):
            if row != found:
                raise RuntimeError(
                    f"{path.name}: row {number} ({row.key}) is not read back as it was written"
                )


def read_rows(path: Path, numbers: Sequence[int]) -> list[Row]:
    """Rows of one shard by their numbers, read as training reads them."""
    from mindspore.dataset import MindDataset, SubsetSampler

    rows = read_pipeline(
        lambda: MindDataset(
            [str(path)],
            columns_list=["image", "label", "key"],
            sampler=SubsetSampler(list(numbers)),
            num_parallel_workers=1,
        ).create_tuple_iterator(num_epochs=1, output_numpy=True)
    )
    return [Row(image.tobytes(), int(label), str(key)) for image, label, key in rows]


def count_rows(path: Path) -> int:
    """Rows of one shard, as MindRecord counts them."""
    from mindspore.mindrecord import FileReader

    reader = FileReader([str(path)])
    try:
        return int(reader.len())
    finally:
        reader.close()


def read_shards(directory: Path, splits: Sequence[str] = SPLITS) -> ShardSet:
    """Return the shards in a directory, their files verified by SHA-256 once a host.

    A damaged index would crash MindSpore and damaged data would be read without a word, so
    nothing is opened before this. Raises UserError naming the first file that doesn't fit.
    """
    shards = Shards.read(directory / "shards.json")
    files = [
        (directory / name, sha256)
        for file in shards.files
        if file.split in splits
        for name, sha256 in ((file.name, file.sha256), (file.index_name, file.index_sha256))
    ]
    for path, _ in files:
        if not path.is_file():
            raise UserError(f"shard {path} is missing: convert the data again")
    for path in damaged(files):
        raise UserError(f"shard {path} is damaged (SHA-256 differs): convert it again")
    return ShardSet(shards, directory)


def is_sound(file: ShardFile, directory: Path) -> bool:
    """Whether both files of a shard lie there as recorded, by size and SHA-256."""
    for name, size, sha256 in (
        (file.name, file.size, file.sha256),
        (file.index_name, file.index_size, file.index_sha256),
    ):
        path = directory / name
        if not path.is_file() or path.stat().st_size != size or file_sha256(path) != sha256:
            return False
    return True


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()
