"""The data set that staging lists, and the shards that conversion makes of it."""

from collections.abc import Sized
from typing import Annotated, Self

from pydantic import Field, model_validator

from infra.base.records import Record, Sha256
from sknet.records.fields import FileName, NonNegativeInt, PositiveInt

SHARDS_FILE = "shards.json"
"""Name of the `Shards` record in a directory of shards."""

DATASET_FILE = "dataset.json"
"""Name of the `Dataset` record in a staged data set."""

INDEX_FILE = "samples.parquet"
"""Name of the index of a staged data set: split, name, label, size and SHA-256 of each image."""


def _is_empty(value: Sized) -> bool:
    """Tell whether a field is left out of the JSON."""
    return not value


class QuarantinedSample(Record):
    """A file that was left out of the data set, and why."""

    split: str
    """Empty if the file was left out before its split was known."""
    key: str
    """The sample's name in the source; unprintable characters are escaped with backslashes."""
    reason: str


class CopyGroup(Record):
    """Samples that show the same image, sorted by split, then by key."""

    keys: Annotated[tuple[str, ...], Field(min_length=2)]
    splits: tuple[str, ...]
    """Split of each sample, in the order of `keys`."""
    labels: tuple[NonNegativeInt, ...]
    """Label of each sample, in the order of `keys`."""
    exact: bool
    """Whether all have the same bytes; otherwise some are resized, re-encoded, or the like."""

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if not len(self.keys) == len(self.splits) == len(self.labels):
            raise ValueError("expected as many splits and labels as keys")
        return self

    @property
    def leaks(self) -> bool:
        """Whether the samples are in several splits."""
        return len(set(self.splits)) > 1

    @property
    def contradicts(self) -> bool:
        """Whether the samples have several labels."""
        return len(set(self.labels)) > 1


class Dataset(Record):
    """The content of a source, whatever its location.

    Fields that came later are left out of the JSON while they are empty, so that a data set without
    copies keeps its digest, and all that was made of it its key.
    """

    source: str
    """Kind of source, such as `class-folders`."""
    classes: tuple[str, ...]
    """Names of the classes; a class's position is its label."""
    titles: tuple[str, ...]
    """Readable names of the classes, by label; equal to `classes` if the source has no others."""
    splits: dict[str, NonNegativeInt]
    """Number of samples of each split."""
    samples_digest: Sha256
    """SHA-256 over split, key, label, size and SHA-256 of every sample, in order."""
    index_sha256: Sha256
    """SHA-256 of the index file, which says where in the source each sample is."""
    quarantined: tuple[QuarantinedSample, ...]
    """Samples that were left out when the source was read."""
    copies: Annotated[tuple[CopyGroup, ...], Field(exclude_if=_is_empty)] = ()
    """Groups of copies among the samples. Empty, too, if they were never looked for."""
    dropped: Annotated[tuple[QuarantinedSample, ...], Field(exclude_if=_is_empty)] = ()
    """Samples that `--on-leak drop` left out, as a copy of each is in another split."""

    def leaked(self, split: str) -> frozenset[str]:
        """Return the keys of the samples of a split of which a copy is in another split."""
        return frozenset(
            key
            for group in self.copies
            if group.leaks
            for key, of_split in zip(group.keys, group.splits, strict=True)
            if of_split == split
        )


class ShardFile(Record):
    """A MindRecord file and its index."""

    split: str
    name: FileName
    num_samples: NonNegativeInt
    size: NonNegativeInt
    """Size of the data file, in bytes."""
    sha256: Sha256
    index_size: NonNegativeInt
    """Size of the index, in bytes."""
    index_sha256: Sha256

    @property
    def index_name(self) -> str:
        """Name of MindRecord's SQLite index. It contains the data file's name, so neither file may
        be renamed."""
        return f"{self.name}.db"

    @property
    def files(self) -> tuple[tuple[str, int, str], tuple[str, int, str]]:
        """Name, size in bytes and SHA-256 of the data file, then those of the index."""
        return (
            (self.name, self.size, self.sha256),
            (self.index_name, self.index_size, self.index_sha256),
        )


class Reencoding(Record):
    """How images with too long a shorter side are shrunk; other images keep their bytes."""

    shorter_side: PositiveInt
    """The limit, and the shorter side of the smaller image, in pixels."""
    quality: Annotated[int, Field(ge=1, le=100)]
    """JPEG quality on libjpeg's scale."""
    pillow: str
    """Version of Pillow; other versions may write other bytes."""


class Shards(Record):
    """A data set as MindRecord files."""

    dataset: Dataset
    files: tuple[ShardFile, ...]
    quarantined: tuple[QuarantinedSample, ...]
    """Samples that were left out because they can't be decoded; the data set lists its own."""
    reencoding: Reencoding | None = None
    """None: images are stored as they are in the source."""
    plan: Sha256 | None = None
    """SHA-256 over everything that determines the files' bytes, by which a conversion recognises
    its own earlier results."""

    def num_samples(self, split: str) -> int:
        """Return the number of readable samples of a split."""
        return sum(file.num_samples for file in self.files_of(split))

    def files_of(self, split: str) -> tuple[ShardFile, ...]:
        """Return the files of a split, in the order in which their samples are numbered."""
        return tuple(file for file in self.files if file.split == split)
