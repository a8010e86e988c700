"""Folders of classes: `train/<class>/*` and `val/<class>/*`, or `<class>/*` to be split here."""

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from sknet.data.sources.source import (
    IMAGE_SUFFIXES,
    SPLITS,
    TEST,
    Assignment,
    Sample,
    ScannedImage,
    scan_image,
    skipped_by_name,
)
from sknet.data.sources.trees import FileTree, Skipped, SourceFile
from sknet.errors import UserError


class _Folders:
    """What both forms share: the sorted names of folders are the classes."""

    classes: tuple[str, ...]

    def __init__(self, tree: FileTree) -> None:
        self._tree = tree
        self.location = tree.location

    @property
    def titles(self) -> tuple[str, ...]:
        """Names of the folders by label."""
        return self.classes

    def scan(self, file: SourceFile) -> Iterator[ScannedImage | Skipped]:
        """Yield the one image that the file is."""
        return scan_image(self._tree, file)

    def read(self, sample: Sample) -> bytes:
        """Return the content of the sample's file."""
        return self._tree.read(sample.file, size=sample.size)

    def _images(self, folder: str) -> list[SourceFile | Skipped]:
        """Return the files below the folder of a class.

        Raises:
            UserError: None of them is an image by its name.
        """
        found: list[SourceFile | Skipped] = []
        for file in self._tree.files(folder):
            if isinstance(file, Skipped):
                found.append(file)
            else:
                found.append(skipped_by_name(file.path) or file)
        if not any(isinstance(file, SourceFile) or file.quarantined for file in found):
            raise UserError(
                f"class {folder.split('/')[-1]!r} has no images in {self.location}/{folder}: "
                f"expected at least one file ending in {', '.join(sorted(IMAGE_SUFFIXES))}"
            )
        return found


class ClassFolders(_Folders):
    """`train/<class>/*`, `val/<class>/*` and, if it is there, `test/<class>/*`.

    The folders of `train` are the classes. A `test` folder without folders of classes holds images
    without labels, as competitions publish them: it is no split.
    """

    kind = "class-folders"

    def __init__(self, tree: FileTree) -> None:
        super().__init__(tree)
        folders = tree.children("").folders
        for split in SPLITS:
            if split not in folders:
                raise UserError(
                    f"data directory {tree.location} has no folder {split!r}: expected "
                    "train/<class>/<images> and val/<class>/<images>"
                )
        self.classes = _class_names(tree, "train")
        if not self.classes:
            raise UserError(f"{tree.location}/train has no class folders: expected one per class")
        self._splits = (*SPLITS, TEST) if _class_names(tree, TEST) else SPLITS
        for split in self._splits[1:]:
            if unknown := sorted(set(_class_names(tree, split)) - set(self.classes)):
                raise UserError(
                    f"{tree.location}/{split} has the class {unknown[0]!r}, which "
                    f"{tree.location}/train doesn't have"
                )
        self._labels = {name: label for label, name in enumerate(self.classes)}

    def files(self) -> Iterator[SourceFile | Skipped]:
        """Yield the images, sorted by split, class and path.

        Raises:
            UserError: A class has no images in one of the splits.
        """
        for split, name in itertools.product(self._splits, self.classes):
            yield from self._images(f"{split}/{name}")
        if TEST not in self._splits:
            for file in self._tree.files(TEST):
                path = file.path if isinstance(file, SourceFile) else file.name
                yield Skipped(path, "of test, which has no class folders", quarantined=False)

    def assign(self, file: str, name: str) -> Assignment:
        """Return the sample that a file is: its first folder is the split, its second the class."""
        split, folder, _ = file.split("/", 2)
        return Assignment(split, file, self._labels[folder])


@dataclass(frozen=True)
class SplitRule:
    """How to split the images of each class where the source has no split."""

    val_fraction: float = 0.1
    """Fraction of each class's images that is held out for validation."""
    seed: int = 0


class UnsplitFolders(_Folders):
    """`<class>/*`: a fraction of each class is held out, chosen by a seeded hash of the names.

    When images are added or removed, all but a few others keep their split.
    """

    kind = "class-folders-split-here"

    def __init__(self, tree: FileTree, rule: SplitRule) -> None:
        super().__init__(tree)
        self._rule = rule
        self.classes = _class_names(tree, "")
        if len(self.classes) < 2:
            raise UserError(
                f"data directory {tree.location} has none of the known forms: expected train/ and "
                "val/ with a folder for each class, folders of classes alone, the ILSVRC2012 "
                "archives, or ImageNet as Kaggle unpacks it"
            )
        self._labels = {name: label for label, name in enumerate(self.classes)}
        self._held_out: frozenset[str] = frozenset()

    def files(self) -> Iterator[SourceFile | Skipped]:
        """Yield the images, sorted by class and path.

        Raises:
            UserError: A class has fewer than two images.
        """
        found = {name: self._images(name) for name in self.classes}
        held_out: set[str] = set()
        for name, files in found.items():
            paths = [file.path for file in files if isinstance(file, SourceFile)]
            if len(paths) < len(SPLITS):
                raise UserError(
                    f"class {name!r} has {len(paths)} image in {self.location}/{name}: expected "
                    "at least one for training and one to hold out"
                )
            count = min(max(1, round(len(paths) * self._rule.val_fraction)), len(paths) - 1)
            held_out.update(sorted(paths, key=self._rank)[:count])
        self._held_out = frozenset(held_out)
        yield from itertools.chain.from_iterable(found.values())

    def assign(self, file: str, name: str) -> Assignment:
        """Return the sample that a file is. Works only after `files`, which makes the split."""
        split = "val" if file in self._held_out else "train"
        return Assignment(split, file, self._labels[file.split("/", 1)[0]])

    def _rank(self, path: str) -> bytes:
        name = path.encode("utf-8", "surrogateescape")
        return hashlib.sha256(b"%d/" % self._rule.seed + name).digest()


def _class_names(tree: FileTree, folder: str) -> tuple[str, ...]:
    return tuple(name for name in tree.children(folder).folders if not name.startswith("."))
