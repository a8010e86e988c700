"""What staging and conversion hand on: the data set and its shards."""

from typing import Annotated

from pydantic import Field

from infra.base.records import Record, Sha256
from sknet.records.base import FileName, NonNegativeInt


class QuarantinedSample(Record):
    """Something that should have been a sample and was left out, and why."""

    split: str
    """Empty if it was found before its split was known."""
    key: str
    """As the source names it; what is not printable is written with backslashes."""
    reason: str


class Dataset(Record):
    """A source as it was found: what it holds, not where it lies."""

    source: str
    """Kind of source, as `class-folders`."""
    classes: tuple[str, ...]
    """Position is the label."""
    titles: tuple[str, ...]
    """Readable names by label; those of the classes where the source has no others."""
    splits: dict[str, NonNegativeInt]
    """Samples of each split."""
    samples_digest: Sha256
    """Over split, key, label, size and SHA-256 of every sample, in order."""
    index_sha256: Sha256
    """Of the file index that says where in the source each sample lies."""
    quarantined: tuple[QuarantinedSample, ...]
    """Left out when the source was read."""


class ShardFile(Record):
    """One MindRecord file and its index."""

    split: str
    name: FileName
    num_samples: NonNegativeInt
    size: NonNegativeInt
    sha256: Sha256
    index_size: NonNegativeInt
    index_sha256: Sha256

    @property
    def index_name(self) -> str:
        """MindRecord's SQLite index; it embeds the data file's name, so neither is ever renamed."""
        return f"{self.name}.db"


class Reencoding(Record):
    """Images whose shorter side exceeds a limit are stored smaller; others keep their bytes."""

    shorter_side: Annotated[int, Field(ge=1)]
    """Pixels."""
    quality: Annotated[int, Field(ge=1, le=100)]
    """Of the JPEG, on libjpeg's scale."""
    pillow: str
    """Version: others may compute other bytes."""


class Shards(Record):
    """A data set as MindRecord files."""

    dataset: Dataset
    files: tuple[ShardFile, ...]
    quarantined: tuple[QuarantinedSample, ...]
    """Left out because they don't decode; the data set lists its own."""
    reencoding: Reencoding | None = None
    """None: the bytes of the source."""
    plan: Sha256 | None = None
    """Over all that shapes the files' bytes, so that a conversion can tell them for its own."""

    def num_samples(self, split: str) -> int:
        """Samples of the split that can be read."""
        return sum(file.num_samples for file in self.files_of(split))

    def files_of(self, split: str) -> tuple[ShardFile, ...]:
        """In the order in which their samples are numbered."""
        return tuple(file for file in self.files if file.split == split)
