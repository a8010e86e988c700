"""ImageNet as Kaggle unpacks it: ILSVRC/Data/CLS-LOC with two tables beside ILSVRC/."""

import csv
import itertools
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import PurePosixPath

from sknet.data.sources.source import Image, Place, Sample, named_as_image, read_whole, scan_image
from sknet.data.sources.trees import FileTree, Skipped, SourceFile
from sknet.errors import UserError

IMAGES = "ILSVRC/Data/CLS-LOC"
SYNSETS = "LOC_synset_mapping.txt"
SOLUTION = "LOC_val_solution.csv"
MAX_TABLE_BYTES = 1 << 26
SYNSET_LINE = re.compile(r"(n\d{8}) (.+)")


class KaggleImagenet:
    """train/<synset>/*.JPEG and val/*.JPEG, whose classes stand in LOC_val_solution.csv."""

    kind = "kaggle-imagenet"

    def __init__(self, tree: FileTree) -> None:
        self._tree = tree
        self.location = tree.location
        for name in (SYNSETS, SOLUTION):
            if name not in tree.children("").files:
                raise UserError(f"data directory {tree.location} has no {name} beside ILSVRC/")

    @cached_property
    def _synsets(self) -> dict[str, str]:
        """Words by WordNet ID, sorted."""
        found = {}
        for number, line in enumerate(self._table(SYNSETS).splitlines(), 1):
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
        """WordNet ID by image name, without suffix."""
        rows = csv.reader(self._table(SOLUTION).splitlines())
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

    @property
    def classes(self) -> tuple[str, ...]:
        """WordNet IDs, sorted."""
        return tuple(self._synsets)

    @property
    def titles(self) -> tuple[str, ...]:
        """The synsets' words."""
        return tuple(self._synsets.values())

    def files(self) -> Iterator[SourceFile | Skipped]:
        """See Source."""
        for file in itertools.chain(
            self._tree.files(f"{IMAGES}/train"), self._tree.files(f"{IMAGES}/val")
        ):
            yield file if isinstance(file, Skipped) else named_as_image(file.path) or file

    def scan(self, file: SourceFile) -> Iterator[Image | Skipped]:
        """See Source."""
        return scan_image(self._tree, file)

    @cached_property
    def _labels(self) -> dict[str, int]:
        return {synset: label for label, synset in enumerate(self.classes)}

    def place(self, file: str, name: str) -> Place | Skipped:
        """See Source; keys are those of the usual folders, train/<synset> and val/<synset>."""
        split, *folders, base = PurePosixPath(file).relative_to(IMAGES).parts
        if split == "train":
            synset = folders[0] if folders else ""
        else:
            synset = self._val_classes.get(PurePosixPath(base).stem, "")
            if not synset:
                return Skipped(file, f"{SOLUTION} has no line for it")
        if synset not in self._labels:
            return Skipped(file, f"class {synset!r} is not in {SYNSETS}")
        return Place(split, f"{split}/{synset}/{base}", self._labels[synset])

    def read(self, sample: Sample) -> bytes:
        """See Source."""
        return self._tree.read(sample.file, size=sample.size)

    def _table(self, name: str) -> str:
        try:
            return read_whole(self._tree, name, MAX_TABLE_BYTES).decode("utf-8")
        except UnicodeDecodeError:
            raise UserError(f"{self.location}/{name} is not UTF-8") from None
