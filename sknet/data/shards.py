"""Shards as files: each is one MindRecord file and its index, written, read and verified here.

MindRecord has no checksums, silently drops invalid rows, and refuses data that exceeds its header
and page sizes only at the end. So the sizes follow from the data of a split, the rows of a written
shard are counted, a sample of them is read back through the reader that training uses, and both
files are hashed.
"""

import itertools
import random
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from infra.base.files import file_sha256, set_access, status_of_new_file
from infra.base.on_demand import Demands, is_on_demand
from sknet.data.balanced_order import SamplesByClass
from sknet.data.order import Indices
from sknet.data.reading.threads import read_pipeline
from sknet.data.sources import SPLITS
from sknet.data.verification import damaged
from sknet.errors import UserError
from sknet.records import ShardFile, Shards
from sknet.records.data import SHARDS_FILE

SHARDS_FORMAT = 2
"""Version of the format. Raise it with every change to the bytes that the same data and settings
give."""

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
    demands: Demands | None = field(default=None, compare=False, repr=False)
    """What this process needs of the directory, if its files come on demand."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes by label."""
        return self.record.dataset.classes

    def num_samples(self, split: str) -> int:
        """Return the number of samples of a split."""
        return self.record.num_samples(split)

    def paths(self, split: str) -> list[str]:
        """Return the paths of a split's shard files, in the order of their samples."""
        return [str(self.directory / file.name) for file in self.record.files_of(split)]

    @contextmanager
    def available(self, split: str) -> Iterator[list[str]]:
        """Yield the paths of a split's shard files, when they are there. They stay meanwhile.

        Every reader gets its files here.

        Raises:
            SupplyError: The files come on demand, and don't come.
        """
        with self._holding(_names(self.record.files_of(split))):
            yield self.paths(split)

    def keep(self, split: str) -> None:
        """Say that a split will be read again and again, so that its files shall come and stay."""
        if self.demands:
            self.demands.keep(_names(self.record.files_of(split)))

    def announce(self, split: str, numbers: Sequence[int], steps: tuple[int, int]) -> None:
        """Say which files of a split will be read after those that are read next, in this order.

        Args:
            split: The split.
            numbers: The files.
            steps: The first step of the run for which files are read next, and the one after the
                last.
        """
        if self.demands:
            files = self.record.files_of(split)
            self.demands.announce(_names(files[number] for number in numbers), steps)

    def is_awaited(self) -> bool:
        """Tell whether a process of this host waits for files that are being fetched."""
        return self.demands is not None and self.demands.is_awaited()

    def wait_for_all(self, step: int, on_wait: Callable[[], None]) -> None:
        """Wait until all processes of this host have the files of a step of the run.

        Args:
            step: The step.
            on_wait: Called every now and then while files are missing.
        """
        if self.demands:
            self.demands.wait_for_all(step, on_wait)

    def of_samples(self, split: str, samples: Indices) -> tuple["ShardSet", Indices]:
        """Return a set of only the files in which some samples of a split are, and their numbers.

        Its files are in the order of all of the split; it has none of other splits.

        Args:
            split: The split.
            samples: Numbers of samples of the split, (N,).
        """
        files = self.record.files_of(split)
        sizes = np.array([file.num_samples for file in files], np.int64)
        ends = np.cumsum(sizes)
        owners = np.searchsorted(ends, samples, side="right")
        kept, places = np.unique(owners, return_inverse=True)
        firsts = np.cumsum(sizes[kept]) - sizes[kept]
        numbers: Indices = samples - (ends - sizes)[owners] + firsts[places]
        record = self.record.model_copy(update={"files": tuple(files[each] for each in kept)})
        return ShardSet(record, self.directory, self.demands), numbers

    @cached_property
    def by_class(self) -> SamplesByClass:
        """The training samples by class, from the indexes of the shards.

        Raises:
            UserError: A label is not one of the classes.
        """
        num_classes = len(self.classes)
        indexes = [file.index_name for file in self.record.files_of("train")]
        with self._holding(indexes):
            labels = np.concatenate([read_labels(Path(path)) for path in self.paths("train")])
        if not 0 <= labels.min() <= labels.max() < num_classes:
            raise UserError(
                f"the shards in {self.directory} have labels of {labels.min()} to {labels.max()} "
                f"for {num_classes} classes: convert the data again"
            )
        return SamplesByClass.of(labels, num_classes)

    def _holding(self, names: Sequence[str]) -> AbstractContextManager[None]:
        """Wait for files of the directory, and keep them there in this context."""
        return self.demands.holding(names) if self.demands else nullcontext()


def _names(shards: Iterable[ShardFile]) -> list[str]:
    """Return the names of the files of shards, in their order."""
    return [name for shard in shards for name, *_ in shard.files]


def read_shards(directory: Path, splits: Sequence[str] = SPLITS) -> ShardSet:
    """Return the shards in a directory, after their files were verified by SHA-256.

    Nothing is opened before: a damaged index would crash MindSpore, and damaged data would be read
    without an error. Each host verifies a file once, until the file changes. Files that come on
    demand were verified by whoever supplies them.

    Args:
        directory: The directory, with shards.json.
        splits: The splits whose files are verified.

    Raises:
        UserError: A file is missing or damaged, or shards.json is not valid.
    """
    shards = Shards.read(directory / SHARDS_FILE)
    if is_on_demand(directory):
        return ShardSet(shards, directory, Demands(directory, "shards"))
    files = [
        (directory / name, sha256)
        for shard in shards.files
        if shard.split in splits
        for name, _, sha256 in shard.files
    ]
    for path, _ in files:
        if not path.is_file():
            raise UserError(f"shard {path} is missing: convert the data again")
    for path in damaged(files):
        raise UserError(f"shard {path} is damaged (SHA-256 differs): convert it again")
    return ShardSet(shards, directory)


def is_undamaged(shard: ShardFile, directory: Path) -> bool:
    """Tell whether both files of a shard have the recorded sizes and SHA-256."""
    for name, size, sha256 in shard.files:
        path = directory / name
        if not path.is_file() or path.stat().st_size != size or file_sha256(path) != sha256:
            return False
    return True


@dataclass(frozen=True)
class MindRecordSizes:
    """The two sizes of a MindRecord file, in bytes. Both shape the file's bytes.

    MindDataset refuses to read files together of which one of the sizes differs.
    """

    header_bytes: int
    page_bytes: int


def mindrecord_sizes(
    *, num_images: int, image_bytes: int, largest_image: int, key_bytes: int
) -> MindRecordSizes:
    """Return the smallest sizes that a shard needs.

    A page holds the largest image, and the header about 200 bytes for each page. A shard of more
    than 256 GiB needs larger pages, so that the header stays within its limit.

    Args:
        num_images: Number of images.
        image_bytes: Size of all encoded images together, in bytes.
        largest_image: Size of the largest one, in bytes.
        key_bytes: Size of all keys together, in bytes.

    Raises:
        UserError: An image exceeds MindRecord's largest page.
    """
    if largest_image >= MAX_PAGE_BYTES:
        raise UserError(
            f"a sample of {largest_image} bytes exceeds MindRecord's limit: make it smaller"
        )
    page = max(MIN_PAGE_BYTES, _power_of_two(largest_image + 1024))
    # Up to half of a page may stay empty, because no image is stored across two pages.
    blob_bytes, row_bytes = 2 * image_bytes, key_bytes + 64 * num_images
    while (header := _header_bytes(blob_bytes, row_bytes, page)) > MAX_HEADER_BYTES:
        page *= 2
    return MindRecordSizes(max(MIN_HEADER_BYTES, header), page)


def common_sizes(sizes: Sequence[MindRecordSizes]) -> MindRecordSizes:
    """Return the sizes for shards that are read together, given those that each one needs."""
    return MindRecordSizes(
        header_bytes=max(each.header_bytes for each in sizes),
        page_bytes=max(each.page_bytes for each in sizes),
    )


def _header_bytes(blob_bytes: int, row_bytes: int, page: int) -> int:
    num_pages = blob_bytes // page + 1 + row_bytes // page + 1
    return _power_of_two(256 * (num_pages + 16))


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


@dataclass(frozen=True)
class Row:
    """A sample as a shard stores it."""

    image: bytes
    """The encoded image."""
    label: int
    key: str


def write_shard(path: Path, split: str, rows: Iterable[Row], sizes: MindRecordSizes) -> ShardFile:
    """Write one shard, and check it by counting its rows and reading a sample of them back.

    Raises:
        RuntimeError: MindRecord failed, or the shard doesn't hold what was written.
    """
    from mindspore.mindrecord import FileWriter

    writer = FileWriter(str(path), shard_num=1)
    writer.set_header_size(sizes.header_bytes)
    writer.set_page_size(sizes.page_bytes)
    writer.add_schema(SCHEMA, "sknet image classification")
    sample = RowSample(path.name)
    num_written = 0
    rows = iter(rows)
    while block := list(itertools.islice(rows, ROWS_PER_WRITE)):
        writer.write_raw_data(
            [{"image": row.image, "label": row.label, "key": row.key} for row in block]
        )
        for row in block:
            sample.offer(num_written, row)
            num_written += 1
    writer.commit()
    if (counted := count_rows(path)) != num_written:
        raise RuntimeError(f"{path.name} holds {counted} rows, {num_written} were written")
    sample.compare(path)
    index = path.with_name(f"{path.name}.db")
    access = status_of_new_file(path.parent)
    for file in (path, index):  # MindSpore makes files that only their owner may read
        set_access(file, access)
    return ShardFile(
        split=split,
        name=path.name,
        num_samples=num_written,
        size=path.stat().st_size,
        sha256=file_sha256(path),
        index_size=index.stat().st_size,
        index_sha256=file_sha256(index),
    )


class RowSample:
    """A random sample of a shard's rows, which always holds the first and the last one."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)
        self._first: tuple[int, Row] | None = None
        self._last: tuple[int, Row] | None = None
        self._between: list[tuple[int, Row]] = []

    def offer(self, number: int, row: Row) -> None:
        """Take the next row, in the order of the shard, into account.

        All rows between the first and the last have the same chance (reservoir sampling).
        """
        if self._first is None:
            self._first = number, row
            return
        candidate, self._last = self._last, (number, row)
        if candidate is None:
            return
        if len(self._between) < ROWS_READ_BACK - 2:
            self._between.append(candidate)
        elif (slot := self._random.randrange(candidate[0])) < len(self._between):
            self._between[slot] = candidate

    def rows(self) -> dict[int, Row]:
        """Return the sampled rows by their number in the shard."""
        kept = [self._first, *self._between, self._last]
        return dict(sorted(numbered for numbered in kept if numbered is not None))

    def compare(self, path: Path) -> None:
        """Read the sampled rows back from the shard.

        Raises:
            RuntimeError: A row differs from the one that was written.
        """
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
    """Return rows of one shard by their numbers, read as training reads them."""
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


def read_labels(path: Path) -> npt.NDArray[np.int32]:
    """Return the labels of one shard, in the order of its rows.

    The shard's index has them in a column, so that a million takes a second and no image is read.
    """
    index = path.with_name(f"{path.name}.db").absolute()
    with closing(sqlite3.connect(f"{index.as_uri()}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT label_0 FROM INDEXES ORDER BY ROW_ID")
        return np.fromiter((label for (label,) in rows), np.int32)


def count_rows(path: Path) -> int:
    """Return the number of rows of one shard, as MindRecord counts them."""
    from mindspore.mindrecord import FileReader

    reader = FileReader([str(path)])
    try:
        return int(reader.len())
    finally:
        reader.close()
