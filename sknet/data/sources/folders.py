"""Folders of classes: `train/<class>/*` and `val/<class>/*`, or `<class>/*` without a split.

What a folder is follows from its name and its place. What was taken for what is noted, and what
looks like another layout is refused with the way to mend it.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeGuard

from sknet.data.sources.kinds import (
    HEAD_BYTES,
    PARTS,
    class_name,
    has_image_suffix,
    is_hidden,
    skipped_by_content,
    skipped_by_name,
    split_by_words,
    split_of,
)
from sknet.data.sources.source import (
    ALL_SPLITS,
    TEST,
    Assignment,
    GivenSplits,
    Sample,
    ScannedImage,
    scan_image,
)
from sknet.data.sources.split_rule import GROUP_FILE
from sknet.data.sources.trees import FileTree, Skipped, SourceFile
from sknet.errors import UserError

MAX_NAMES = 10
"""Most names that a line lists."""


class _Folders(GivenSplits):
    """What both forms share: folders of classes in one place or several."""

    classes: tuple[str, ...]

    def __init__(self, tree: FileTree) -> None:
        self._tree = tree
        self.location = tree.location
        self._divided: list[str] = []
        """Classes whose images are all in folders within the class's folder."""

    @property
    def titles(self) -> tuple[str, ...]:
        """Names of the classes by label."""
        return self.classes

    def scan(self, file: SourceFile) -> Iterator[ScannedImage | Skipped]:
        """Yield the one image that the file is."""
        return scan_image(self._tree, file)

    def read(self, sample: Sample) -> bytes:
        """Return the content of the sample's file."""
        return self._tree.read(sample.file, size=sample.size)

    def _where(self, folder: str) -> str:
        return f"{self.location}/{folder}" if folder else self.location

    def _class_folders(self, parent: str) -> dict[str, str]:
        """Return the folders of classes in a folder by the names of the classes, sorted.

        Raises:
            UserError: A name is not printable, or two differ in their form of Unicode or in spaces
                at the ends.
        """
        found: dict[str, str] = {}
        seen: dict[str, str] = {}
        for folder in self._tree.children(parent).folders:
            if skipped_by_name(folder):
                continue
            name = class_name(folder)
            if not name.isprintable():
                raise UserError(
                    f"{self._where(parent)} has the folder {folder!a}, whose name is not printable "
                    "UTF-8: rename it"
                )
            first = seen.setdefault(name.strip(), folder)
            if first != folder:
                raise UserError(
                    f"{self._where(parent)} has the folders {first!a} and {folder!a}, which differ "
                    "in spaces or in their form of Unicode alone: move the images of one into the "
                    "other"
                )
            found[name] = folder
        return dict(sorted(found.items()))

    def _refuse_one_class(self, parent: str, folders: Sequence[str]) -> None:
        """Check that there are folders of at least two classes.

        Raises:
            UserError: There are fewer.
        """
        where = self._where(parent)
        if not folders:
            raise UserError(
                f"{where} has no class folders: expected a folder for each class; if it is a class "
                f"itself, move the folders of all classes into {self.location}/train"
            )
        if len(folders) == 1:
            below = list(self._class_folders(f"{parent}/{folders[0]}").values())
            cure = "expected at least two classes"
            if below:
                cure = f"move what is in it ({_listed(below)}) up into {where}"
            raise UserError(f"{where} has one class folder, {folders[0]!r}: {cure}")

    def _refuse_parts(self, parent: str) -> None:
        """Check that the folders aren't the parts of a data set, such as images and masks.

        Raises:
            UserError: All of them have such names.
        """
        if _are_parts(self.classes):
            raise UserError(
                f"{self._where(parent)} has the folders {_listed(self.classes)}, which are parts "
                "of a data set and no classes: expected a folder for each class"
            )

    def _images(self, folder: str) -> list[SourceFile | Skipped]:
        """Return the files below the folder of a class.

        Raises:
            UserError: None of them may be an image, or they are in folders of splits.
        """
        found: list[SourceFile | Skipped] = []
        for file in self._tree.files(folder):
            path = _path(file)
            skipped = skipped_by_name(path.removeprefix(f"{folder}/"))
            found.append(replace(skipped, name=path) if skipped else file)
        self._refuse_splits_below(folder, found)
        if not any(self._may_be_image(file) for file in found):
            raise UserError(
                f"class {folder.split('/')[-1]!r} has no images in {self.location}/{folder}: "
                "expected at least one JPEG, PNG or BMP image"
            )
        return found

    def _may_be_image(self, file: SourceFile | Skipped) -> bool:
        """Tell whether a file is an image as far as is known before all is read."""
        if isinstance(file, Skipped):
            return file.quarantined
        if has_image_suffix(file.path):
            return True
        try:
            head = self._tree.read(file.path, size=HEAD_BYTES)
        except OSError:
            return True  # the scan will find out what is wrong
        return skipped_by_content(file.path, head) is None

    def _refuse_splits_below(self, folder: str, files: Sequence[SourceFile | Skipped]) -> None:
        """Check that a class isn't divided into splits or parts; remember what it is divided into.

        Raises:
            UserError: It is.
        """
        inside = [file.path.removeprefix(f"{folder}/") for file in files if _is_file(file)]
        images = [path for path in inside if has_image_suffix(path)] or inside
        folders = sorted({path.split("/")[0] for path in images if "/" in path})
        where = f"{self.location}/{folder}"
        if _are_splits(folders):
            raise UserError(
                f"{where} has the folders {_listed(folders)}: expected splits above classes, as in "
                f"train/<class>/<images>; or give {where} as the source"
            )
        if len(folders) > 1 and _are_parts(folders):
            raise UserError(
                f"{where} has the folders {_listed(folders)}, which are parts of a data set: "
                "expected the photographs of the class alone; move the other folders away"
            )
        if folders and all("/" in path for path in images):
            self._divided.append(f"{folder} ({_listed(folders)})")

    def _loose(self, folder: str) -> Iterator[SourceFile | Skipped]:
        """Yield the files that are in a folder of class folders itself."""
        for name in self._tree.children(folder).files:
            path = f"{folder}/{name}" if folder else name
            if path == GROUP_FILE:
                continue
            if skipped := skipped_by_name(name):
                yield replace(skipped, name=path)
            elif file := self._tree.file(path):
                yield file

    def _note(self, lines: Sequence[str], parents: Sequence[str], used: Iterable[str]) -> None:
        """Note what folders are.

        Args:
            lines: What to note first.
            parents: Folders of folders that are classes or splits.
            used: The folders in them that are.
        """
        paths = (
            f"{parent}/{folder}".lstrip("/")
            for parent in parents
            for folder in self._tree.children(parent).folders
        )
        unused = sorted({path for path in paths if not is_hidden(path)} - set(used))
        forms = Counter(name.casefold() for name in self.classes)
        alike = [name for name in self.classes if forms[name.casefold()] > 1]
        divided = f"each of one class, with its folders: {_listed(self._divided)}"
        self.notes = [
            *lines,
            f"{len(self.classes)} classes: {_listed(self.classes)}",
            *([f"differ in case alone: {_listed(alike)}"] if alike else []),
            *([divided] if self._divided else []),
            *([f"not read: {_listed(unused)}"] if unused else []),
        ]


class ClassFolders(_Folders):
    """`train/<class>/*`, `val/<class>/*` and, if it is there, `test/<class>/*`.

    Splits may have any of their usual names. The folders of `train` are the classes. A `test`
    folder without folders of classes holds images without labels, as competitions publish them: it
    is no split.
    """

    kind = "class-folders"

    def __init__(self, tree: FileTree) -> None:
        super().__init__(tree)
        self._split_folders = self._find_splits()
        self._class_folders_of: dict[str, dict[str, str]] = {}
        """Folders by class, for each split."""
        for split, folder in self._split_folders.items():
            folders = self._class_folders(folder)
            if folders or split != TEST:
                self._class_folders_of[split] = folders
        self.splits = tuple(self._class_folders_of)
        self.classes = tuple(self._class_folders_of["train"])
        train = self._split_folders["train"]
        self._refuse_one_class(train, list(self._class_folders_of["train"].values()))
        self._refuse_nested_splits(train)
        self._refuse_parts(train)
        for split in self.splits[1:]:
            self._refuse_unknown_classes(split)
        self._labels = {name: label for label, name in enumerate(self.classes)}

    def files(self) -> Iterator[SourceFile | Skipped]:
        """Yield the images, sorted by split, class and path, and then what is in no class.

        Raises:
            UserError: A class has no images in one of the splits.
        """
        self._divided = []
        used = set(self._split_folders.values())
        for split, name in itertools.product(self.splits, self.classes):
            folder = f"{self._split_folders[split]}/{self._class_folders_of[split].get(name, name)}"
            used.add(folder)
            yield from self._images(folder)
        parents = ["", *(self._split_folders[split] for split in self.splits)]
        for parent in parents:
            yield from self._loose(parent)
        if TEST in self._split_folders and TEST not in self.splits:
            for file in self._tree.files(self._split_folders[TEST]):
                yield Skipped(_path(file), "of test, which has no class folders", quarantined=False)
        lines = [f"split {split}: {self._split_folders[split]}/" for split in self.splits]
        self._note(lines, parents, used)

    def assign(self, file: str, name: str) -> Assignment | Skipped:
        """Return the sample that a file is: its first folder is the split, its second the class."""
        folder, *inner = file.split("/")
        split = split_of(folder)
        if split is None or len(inner) < 2:
            return Skipped(file, "in no folder of a class")
        of_class = class_name(inner[0])
        key = "/".join((split, of_class, *inner[1:]))
        return Assignment(split, key, self._labels[of_class])

    def _find_splits(self) -> dict[str, str]:
        """Return the folders of the splits, in the order of ALL_SPLITS.

        Raises:
            UserError: There is none for training, or there are two for one split.
        """
        found: dict[str, str] = {}
        for folder in self._tree.children("").folders:
            split = split_of(folder)
            if split in found:
                raise UserError(
                    f"data directory {self.location} has the folders {found[split]!r} and "
                    f"{folder!r}, both for the split {split!r}: keep one of them"
                )
            if split:
                found[split] = folder
        if "train" not in found:
            raise UserError(
                f"data directory {self.location} has no folder 'train', but one of a split, "
                f"{next(iter(found.values()))!r}: expected train/<class>/<images> and "
                "val/<class>/<images>; if it is a class, move the folders of all classes into "
                f"{self.location}/train and give {self.location}?val=0.1"
            )
        return {split: found[split] for split in ALL_SPLITS if split in found}

    def _refuse_nested_splits(self, folder: str) -> None:
        if all(map(split_of, self.classes)):
            where = self._where(folder)
            raise UserError(
                f"{where} has the folders {_listed(self.classes)}: expected a folder for each "
                f"class; if these are splits, give {where} as the source"
            )

    def _refuse_unknown_classes(self, split: str) -> None:
        known = set(self.classes)
        for name in self._class_folders_of[split]:
            if name not in known:
                alike = [each for each in self.classes if each.casefold() == name.casefold()]
                where = f"{self.location}/{self._split_folders[split]}"
                train = f"{self.location}/{self._split_folders['train']}"
                hint = f"; is it {alike[0]!r}?" if alike else ""
                if split == TEST and not alike:
                    hint = (
                        f"; if its images have no labels, move them directly into {where}, "
                        f"otherwise name the folder as in {train}"
                    )
                raise UserError(f"{where} has the class {name!r}, which {train} doesn't have{hint}")


class UnsplitFolders(_Folders):
    """`<class>/*`: all images are for training until staging draws other splits."""

    kind = "class-folders-split-here"
    splits: tuple[str, ...] = ("train",)

    def __init__(self, tree: FileTree) -> None:
        super().__init__(tree)
        self._folders = self._class_folders("")
        self._refuse_other_layouts()
        self.classes = tuple(self._folders)
        self._refuse_parts("")
        self._labels = {name: label for label, name in enumerate(self.classes)}

    def files(self) -> Iterator[SourceFile | Skipped]:
        """Yield the images, sorted by class and path, and then what is in no class.

        Raises:
            UserError: A class has fewer images than there will be splits.
        """
        self._divided = []
        splits = (*self.splits, *self.split_rule.fractions)
        for name, folder in self._folders.items():
            found = self._images(folder)
            num_images = sum(map(_is_file, found))
            if num_images < len(splits):
                raise UserError(
                    f"class {name!r} has {num_images} images in {self.location}/{folder}: expected "
                    f"at least one for each of {', '.join(splits)}"
                )
            yield from found
        yield from self._loose("")
        self._note([], [""], self._folders.values())

    def assign(self, file: str, name: str) -> Assignment | Skipped:
        """Return the sample that a file is."""
        folder, *inner = file.split("/")
        if not inner:
            return Skipped(file, "in no folder of a class")
        of_class = class_name(folder)
        return Assignment("train", "/".join((of_class, *inner)), self._labels[of_class])

    def _refuse_other_layouts(self) -> None:
        """Check that the folders may be classes.

        Raises:
            UserError: There are fewer than two, or they look like splits.
        """
        alike = [folder for folder in self._folders.values() if split_by_words(folder)]
        with_classes = [folder for folder in alike if self._class_folders(folder)]
        if _are_splits(alike) or len(set(map(split_by_words, with_classes))) > 1:
            raise UserError(
                f"data directory {self.location} has the folders {_listed(sorted(alike))}, which "
                "look like splits: expected train/<class>/<images>, val/<class>/<images> and, if "
                "there is a third split, test/<class>/<images>"
            )
        if len(self._folders) > 1 and (shared := self._shared_folders()):
            above = _listed(list(self._folders.values()))
            below = _listed(shared)
            raise UserError(
                f"data directory {self.location} has the folders {above}, each with the folders "
                f"{below} in it: if {below} are the classes, rename the folders above them to "
                "train, val and test, or merge them; otherwise move the images up into the "
                "folders of their classes"
            )
        if len(self._folders) == 1:
            (folder,) = self._folders.values()
            if inner := self._class_folders(folder):
                raise UserError(
                    f"data directory {self.location} has one folder, {folder!r}, with the folders "
                    f"{_listed(list(inner.values()))} in it: give {self.location}/{folder} as the "
                    "source"
                )
        if len(self._folders) < 2:
            raise UserError(
                f"data directory {self.location} has none of the known forms: expected train/ and "
                "val/ with a folder for each class, folders of classes alone, the ILSVRC2012 "
                "archives, or ImageNet as Kaggle unpacks it"
            )

    def _shared_folders(self) -> list[str]:
        """Return the names of the folders that all folders hold, if these hold nothing else.

        Fewer than two, splits and parts of a data set don't count.
        """
        shared: list[str] = []
        for folder in self._folders.values():  # ends at the first that differs: S3 is slow
            inner = list(self._class_folders(folder))
            has_images = any(map(has_image_suffix, self._tree.children(folder).files))
            if len(inner) < 2 or has_images or inner != (shared or inner):
                return []
            shared = inner
        return [] if _are_splits(shared) or _are_parts(shared) else shared


def _are_splits(folders: Iterable[str]) -> bool:
    """Tell whether two names or more stand for different splits."""
    return len({split_by_words(folder, alone=True) for folder in folders} - {None}) > 1


def _are_parts(folders: Iterable[str]) -> bool:
    """Tell whether all names are those of the parts of a data set, such as images and masks."""
    return {folder.lower() for folder in folders} <= PARTS


def _is_file(file: SourceFile | Skipped) -> TypeGuard[SourceFile]:
    return isinstance(file, SourceFile)


def _path(file: SourceFile | Skipped) -> str:
    return file.path if isinstance(file, SourceFile) else file.name


def _listed(names: Sequence[str]) -> str:
    """Return names for a message, at most MAX_NAMES of them."""
    more = len(names) - MAX_NAMES
    shown = [name if name.isprintable() else ascii(name) for name in names[:MAX_NAMES]]
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
