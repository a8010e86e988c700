"""Where samples come from: folders of classes, or the digits that ship in scikit-learn."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from PIL import Image

from sknet.errors import UserError

SPLITS = ("train", "val")
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp"})
DIGITS_TRAIN = 1437  # of 1,797; the last 360 are held out, written by other people


@dataclass(frozen=True)
class Sample:
    """One image of a source, not yet read."""

    split: str
    key: str
    """Unique within the source, the same on every machine."""
    label: int


class Source(Protocol):
    """Something that lists its samples in a fixed order and reads each as an encoded image."""

    kind: str
    classes: tuple[str, ...]

    def samples(self) -> Iterator[Sample]:
        """All samples, split by split, in an order that depends on the content only."""

    def read(self, key: str) -> bytes:
        """The encoded image."""


class ClassFolders:
    """`train/<class>/*` and `val/<class>/*`; the sorted names of the folders are the classes."""

    kind = "class-folders"

    def __init__(self, root: Path) -> None:
        self._root = root
        if not root.is_dir():
            raise UserError(f"data directory {root} does not exist: expected train/ and val/ in it")
        for split in SPLITS:
            if not (root / split).is_dir():
                raise UserError(
                    f"data directory {root} has no folder {split!r}: expected "
                    "train/<class>/<images> and val/<class>/<images>"
                )
        self.classes = _folder_names(root / "train")
        if not self.classes:
            raise UserError(f"{root / 'train'} has no class folders: expected one per class")
        for split in SPLITS[1:]:
            if unknown := sorted(set(_folder_names(root / split)) - set(self.classes)):
                raise UserError(
                    f"{root / split} has the class {unknown[0]!r}, which {root / 'train'} has not"
                )

    def samples(self) -> Iterator[Sample]:
        """Sorted by split, class and path. Raises UserError for a class without images."""
        for split in SPLITS:
            for label, name in enumerate(self.classes):
                folder = self._root / split / name
                keys = sorted(
                    path.relative_to(self._root).as_posix()
                    for path in (folder.rglob("*") if folder.is_dir() else ())
                    if path.suffix.lower() in IMAGE_SUFFIXES
                    and not path.name.startswith(".")
                    and path.is_file()
                )
                if not keys:
                    raise UserError(
                        f"class {name!r} has no images in {folder}: expected at least one file "
                        f"ending in {', '.join(sorted(IMAGE_SUFFIXES))}"
                    )
                for key in keys:
                    if not key.isprintable():
                        raise UserError(
                            f"{key!r} in {self._root} is not a printable UTF-8 name: rename it"
                        )
                    yield Sample(split, key, label)

    def read(self, key: str) -> bytes:
        """The file's bytes."""
        return (self._root / key).read_bytes()


class Digits:
    """1,797 real handwritten digits of 8x8 pixels (UCI ML repository, shipped by scikit-learn)."""

    kind = "digits"
    classes = tuple("0123456789")

    @cached_property
    def _digits(self) -> "tuple[list[bytes], list[int]]":
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise UserError(
                "the data source 'digits' needs scikit-learn: pip install 'sknet[demo]'"
            ) from None
        digits = load_digits()
        # Pixels are 0 … 16.
        pixels = (digits.images * (255 / 16)).round().astype("uint8")
        return [_png(image) for image in pixels], [int(label) for label in digits.target]

    def samples(self) -> Iterator[Sample]:
        """In the order of the data set."""
        for index, label in enumerate(self._digits[1]):
            split = "train" if index < DIGITS_TRAIN else "val"
            yield Sample(split, f"{split}/{label}/{index:04}.png", label)

    def read(self, key: str) -> bytes:
        """As an 8x8 grey PNG."""
        return self._digits[0][int(Path(key).stem)]


def open_source(source: str) -> Source:
    """A source by the name or path that users give. Raises UserError if it has not the form."""
    return Digits() if source == "digits" else ClassFolders(Path(source))


def _folder_names(folder: Path) -> tuple[str, ...]:
    names = (path.name for path in folder.iterdir() if path.is_dir())
    return tuple(sorted(name for name in names if not name.startswith(".")))


def _png(pixels: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")  # type: ignore[arg-type]  # an array, as numpy gives it
    return buffer.getvalue()
