"""Fashion-MNIST: 28x28 grey images as raw pixels in IDX files, plain or gzipped."""

import gzip
import hashlib
import io
import math
import struct
import zlib
from collections.abc import Iterator
from functools import cached_property

import numpy as np
import numpy.typing as npt

from sknet.data.sources.source import (
    Assignment,
    GivenSplits,
    Sample,
    ScannedImage,
    grey_png,
    required_file,
)
from sknet.data.sources.trees import FileTree, Skipped, SourceFile
from sknet.errors import UserError

Bytes = npt.NDArray[np.uint8]

PREFIXES = {"train": "train", "val": "t10k"}
"""How the names of a split's files begin."""
UNSIGNED_BYTE = 0x08
"""Element type in the header of an IDX file."""
MAX_UNPACKED_BYTES = 1 << 28
"""Most bytes of a file; a few kilobytes may unpack to as many. Fashion-MNIST has 47 MB."""
TITLES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


class FashionMnist(GivenSplits):
    """The four files of Fashion-MNIST in one directory."""

    kind = "fashion-mnist"
    titles = TITLES
    classes = tuple(title.lower().replace("/", "-").replace(" ", "-") for title in TITLES)

    def __init__(self, tree: FileTree) -> None:
        self._tree = tree
        self.location = tree.location
        present = tree.children("").files
        self._image_files, self._label_files = (
            {split: self._name(present, f"{prefix}-{part}") for split, prefix in PREFIXES.items()}
            for part in ("images-idx3-ubyte", "labels-idx1-ubyte")
        )

    def _name(self, present: tuple[str, ...], stem: str) -> str:
        for name in (stem, f"{stem}.gz"):
            if name in present:
                return name
        raise UserError(f"data directory {self.location} has no {stem} or {stem}.gz")

    def files(self) -> Iterator[SourceFile | Skipped]:
        """Yield the two files of images."""
        for name in self._image_files.values():
            yield required_file(self._tree, name)

    def scan(self, file: SourceFile) -> Iterator[ScannedImage | Skipped]:
        """Yield the images of a file, each with the size and hash of the PNG that `read` makes."""
        for index, pixels in enumerate(self._pixels[self._split(file.path)]):
            content = grey_png(pixels)
            digest = hashlib.sha256(content).hexdigest()
            yield ScannedImage(f"{index:05}", index, len(content), digest)

    def assign(self, file: str, name: str) -> Assignment:
        """Return which sample an image is; its name is its number in the file."""
        split = self._split(file)
        return Assignment(split, f"{split}/{name}.png", int(self._labels[split][int(name)]))

    def read(self, sample: Sample) -> bytes:
        """Return the image as a 28x28 grey PNG."""
        return grey_png(self._pixels[self._split(sample.file)][sample.offset])

    def _split(self, file: str) -> str:
        return next(split for split, name in self._image_files.items() if name == file)

    @cached_property
    def _pixels(self) -> dict[str, Bytes]:
        """Images (N, 28, 28) of each split."""
        return {split: self._array(name, 3) for split, name in self._image_files.items()}

    @cached_property
    def _labels(self) -> dict[str, Bytes]:
        """Labels (N,) of each split."""
        labels = {split: self._array(name, 1) for split, name in self._label_files.items()}
        for split, values in labels.items():
            where = f"{self.location}/{self._label_files[split]}"
            if len(values) != len(self._pixels[split]):
                raise UserError(
                    f"{where} has {len(values)} labels for {len(self._pixels[split])} images"
                )
            if (largest := int(values.max(initial=0))) >= len(self.classes):
                raise UserError(
                    f"{where} has the label {largest}, expected 0 to {len(self.classes) - 1}"
                )
        return labels

    def _array(self, name: str, axes: int) -> Bytes:
        """Read an IDX file.

        Raises:
            UserError: The file can't be read, or is not an IDX file of bytes with this many axes.
        """
        where = f"{self.location}/{name}"
        try:
            with self._tree.open(name) as file:
                opened = gzip.GzipFile(fileobj=file) if name.endswith(".gz") else file
                header = opened.read(4 + 4 * axes)
                if len(header) < 4 + 4 * axes or header[:4] != bytes((0, 0, UNSIGNED_BYTE, axes)):
                    raise UserError(f"{where} is not an IDX file of bytes with {axes} axes")
                shape = struct.unpack(f">{axes}I", header[4:])
                size = math.prod(shape)
                if size > MAX_UNPACKED_BYTES:
                    raise UserError(f"{where} claims {size} bytes, more than {MAX_UNPACKED_BYTES}")
                content = io.BytesIO(opened.read(size + 1)).getvalue()
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{where} can't be read: {' '.join(str(error).split())}") from None
        if len(content) != size:
            raise UserError(f"{where} doesn't have the {size} bytes that its header claims")
        return np.frombuffer(content, np.uint8).reshape(shape)
