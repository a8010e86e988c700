"""Sources and shards that consist of names, without files."""

import hashlib
from collections.abc import Iterator

from sknet.data.sources.source import Assignment, GivenSplits, ScannedImage
from sknet.data.sources.trees import SourceFile
from sknet.records import Dataset, ShardFile, Shards

NUM_CLASSES = 1000
VAL_EVERY = 26  # of ImageNet-1K, one image in 26 is for validation


class Generated(GivenSplits):
    """A source whose files exist by name only; each holds one image with a known digest."""

    kind = "generated"
    location = "generated://"

    def __init__(self, count: int) -> None:
        self._count = count
        num_classes = max(1, min(NUM_CLASSES, count // VAL_EVERY))
        self.classes = self.titles = tuple(f"n{number:08}" for number in range(num_classes))

    def files(self) -> Iterator[SourceFile]:
        """Yield all files."""
        for number in range(self._count):
            split = "train" if number % VAL_EVERY else "val"
            name = self.classes[number // VAL_EVERY % len(self.classes)]
            yield SourceFile(f"{split}/{name}/{name}_{number:09}.JPEG", 110_000, "1-1", 1)

    def scan(self, file: SourceFile) -> Iterator[ScannedImage]:
        """Yield the one image of the file."""
        yield ScannedImage("", 0, 110_000, file_sha256(file.path))

    def assign(self, file: str, name: str) -> Assignment:
        """Return what the folders say about the image."""
        del name
        split, folder, _ = file.split("/")
        return Assignment(split, file, int(folder[1:]))


def shards_of(count: int) -> Shards:
    """Return the record of `count` shards of 2,500 samples."""
    nothing = {"samples_digest": file_sha256(0), "index_sha256": file_sha256(0), "quarantined": ()}
    names = ("one",)
    split = {"train": 2500 * count, "val": 0}
    dataset = Dataset(source="generated", classes=names, titles=names, splits=split, **nothing)
    files = tuple(
        ShardFile(
            split="train",
            name=f"train-{number:05}-of-{count:05}.mindrecord",
            num_samples=2500,
            size=1 << 28,
            sha256=file_sha256(number),
            index_size=1 << 18,
            index_sha256=file_sha256(number),
        )
        for number in range(count)
    )
    return Shards(dataset=dataset, files=files, quarantined=())


def file_sha256(number: object) -> str:
    """Return a digest that nothing else has."""
    return hashlib.sha256(str(number).encode()).hexdigest()
