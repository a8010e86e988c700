"""Folders of classes: `train/<class>/*` and `val/<class>/*`, or `<class>/*` without a split."""

import itertools
from collections.abc import Iterator

from sknet.data.sources.source import (
    IMAGE_SUFFIXES,
    SPLITS,
    TEST,
    Assignment,
    GivenSplits,
    Sample,
    ScannedImage,
    scan_image,
    skipped_by_name,
)
from sknet.data.sources.trees import FileTree, Skipped, SourceFile
from sknet.errors import UserError


class _Folders(GivenSplits):
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
        if "train" not in folders:
            raise UserError(
                f"data directory {tree.location} has no folder 'train': expected "
                "train/<class>/<images> and val/<class>/<images>"
            )
        self.classes = _class_names(tree, "train")
        if not self.classes:
            raise UserError(f"{tree.location}/train has no class folders: expected one per class")
        self.splits = tuple(split for split in SPLITS if split in folders)
        if _class_names(tree, TEST):
            self.splits += (TEST,)
        for split in self.splits[1:]:
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
        for split, name in itertools.product(self.splits, self.classes):
            yield from self._images(f"{split}/{name}")
        if TEST not in self.splits:
            for file in self._tree.files(TEST):
                path = file.path if isinstance(file, SourceFile) else file.name
                yield Skipped(path, "of test, which has no class folders", quarantined=False)

    def assign(self, file: str, name: str) -> Assignment:
        """Return the sample that a file is: its first folder is the split, its second the class."""
        split, folder, _ = file.split("/", 2)
        return Assignment(split, file, self._labels[folder])


class UnsplitFolders(_Folders):
    """`<class>/*`: all images are for training until staging draws other splits."""

    kind = "class-folders-split-here"
    splits: tuple[str, ...] = ("train",)

    def __init__(self, tree: FileTree) -> None:
        super().__init__(tree)
        self.classes = _class_names(tree, "")
        if len(self.classes) < 2:
            raise UserError(
                f"data directory {tree.location} has none of the known forms: expected train/ and "
                "val/ with a folder for each class, folders of classes alone, the ILSVRC2012 "
                "archives, or ImageNet as Kaggle unpacks it"
            )
        self._labels = {name: label for label, name in enumerate(self.classes)}

    def files(self) -> Iterator[SourceFile | Skipped]:
        """Yield the images, sorted by class and path.

        Raises:
            UserError: A class has fewer images than there will be splits.
        """
        splits = (*self.splits, *self.split_rule.fractions)
        for name in self.classes:
            found = self._images(name)
            num_images = sum(isinstance(file, SourceFile) for file in found)
            if num_images < len(splits):
                raise UserError(
                    f"class {name!r} has {num_images} images in {self.location}/{name}: expected "
                    f"at least one for each of {', '.join(splits)}"
                )
            yield from found

    def assign(self, file: str, name: str) -> Assignment:
        """Return the sample that a file is."""
        return Assignment("train", file, self._labels[file.split("/", 1)[0]])


def _class_names(tree: FileTree, folder: str) -> tuple[str, ...]:
    return tuple(name for name in tree.children(folder).folders if not name.startswith("."))
