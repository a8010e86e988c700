"""The data set that staging lists, and the shards that conversion makes of it."""

from typing import Annotated

from pydantic import Field

from infra.base.records import Record, Sha256
from sknet.records.fields import FileName, NonNegativeInt, PositiveInt


class QuarantinedSample(Record):
    """A file that was left out of the data set, and why."""

    split: str
    """Empty if the file was left out before its split was known."""
    key: str
    """The sample's name in the source; unprintable characters are escaped with backslashes."""
    reason: str


class Dataset(Record):
    """The content of a source, whatever its location."""

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
