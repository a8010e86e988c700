"""ImageNet as Kaggle unpacks it: ILSVRC/Data/CLS-LOC, and two tables beside ILSVRC/."""

import csv
import itertools
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import PurePosixPath

from sknet.data.sources.kinds import skipped_by_name
from sknet.data.sources.source import (
    Assignment,
    GivenSplits,
    Sample,
    ScannedImage,
    read_table,
    scan_image,
)
from sknet.data.sources.trees import FileTree, Skipped, SourceFile
from sknet.errors import UserError

IMAGES = "ILSVRC/Data/CLS-LOC"
SYNSETS = "LOC_synset_mapping.txt"
SOLUTION = "LOC_val_solution.csv"
MAX_TABLE_BYTES = 1 << 26
SYNSET_LINE = re.compile(r"(n\d{8}) (.+)")


class KaggleImagenet(GivenSplits):
    """train/<synset>/*.JPEG and val/*.JPEG, whose classes LOC_val_solution.csv lists."""

    kind = "kaggle-imagenet"

    def __init__(self, tree: FileTree) -> None:
        self._tree = tree
        self.location = tree.location
        for name in (SYNSETS, SOLUTION):
            if name not in tree.children("").files:
                raise UserError(f"data directory {tree.location} has no {name} beside ILSVRC/")

    @property
    def classes(self) -> tuple[str, ...]:
        """WordNet IDs by label, sorted."""
        return tuple(self._synsets)

    @property
    def titles(self) -> tuple[str, ...]:
        """Words of the synsets by label."""
        return tuple(self._synsets.values())

    def files(self) -> Iterator[SourceFile | Skipped]:
        """Yield the training images, then the validation images."""
        for file in itertools.chain(
            self._tree.files(f"{IMAGES}/train"), self._tree.files(f"{IMAGES}/val")
        ):
            yield file if isinstance(file, Skipped) else skipped_by_name(file.path) or file

    def scan(self, file: SourceFile) -> Iterator[ScannedImage | Skipped]:
        """Yield the one image that the file is."""
        return scan_image(self._tree, file)

    def assign(self, file: str, name: str) -> Assignment | Skipped:
        """Return which sample a file is, with the key that unpacked archives give it.

        A key is train/<synset>/<image> or val/<synset>/<image>.
        """
        split, *folders, base = PurePosixPath(file).relative_to(IMAGES).parts
        if split == "train":
            synset = folders[0] if folders else ""
        else:
            synset = self._val_classes.get(PurePosixPath(base).stem, "")
            if not synset:
                return Skipped(file, f"{SOLUTION} has no line for it")
        if synset not in self._labels:
            return Skipped(file, f"class {synset!r} is not in {SYNSETS}")
        return Assignment(split, f"{split}/{synset}/{base}", self._labels[synset])

    def read(self, sample: Sample) -> bytes:
        """Return the content of the sample's file."""
        return self._tree.read(sample.file, size=sample.size)

    @cached_property
    def _labels(self) -> dict[str, int]:
        return {synset: label for label, synset in enumerate(self.classes)}

    @cached_property
    def _synsets(self) -> dict[str, str]:
        """Words by WordNet ID, sorted by ID."""
        found = {}
        for number, line in enumerate(self._text(SYNSETS).splitlines(), 1):
            match = SYNSET_LINE.fullmatch(line)
            if not match:
                raise UserError(
                    f"{self.location}/{SYNSETS} line {number} is {line[:80]!r}: expected "
                    "a WordNet ID and its words, like 'n01440764 tench, Tinca tinca'"
                )
            found[match[1]] = match[2]
        return dict(sorted(found.items()))

    @cached_property
    def _val_classes(self) -> dict[str, str]:
        """WordNet ID by the image's name without suffix."""
        rows = csv.reader(self._text(SOLUTION).splitlines())
        found = {}
        try:
            if next(rows, None) != ["ImageId", "PredictionString"]:
                raise csv.Error("expected the columns ImageId, PredictionString")
            for row in rows:
                name, boxes = row
                found[name] = boxes.split(" ", 1)[0]
        except (csv.Error, ValueError) as error:
            raise UserError(f"{self.location}/{SOLUTION} line {rows.line_num}: {error}") from None
        return found

    def _text(self, name: str) -> str:
        try:
            return read_table(self._tree, name, MAX_TABLE_BYTES).decode("utf-8")
        except UnicodeDecodeError:
            raise UserError(f"{self.location}/{name} is not UTF-8") from None
