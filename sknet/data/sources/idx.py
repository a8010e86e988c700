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

from sknet.data.sources.source import Image, Place, Sample, grey_png, needed_file
from sknet.data.sources.trees import FileTree, Skipped, SourceFile
from sknet.errors import UserError

Pixels = npt.NDArray[np.uint8]

PREFIXES = {"train": "train", "val": "t10k"}
UNSIGNED_BYTE = 0x08  # the element type in an IDX header
MAX_UNPACKED_BYTES = 1 << 31
TITLES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


class FashionMnist:
    """The four files of Fashion-MNIST in one directory."""

    kind = "fashion-mnist"
    titles = TITLES
    classes = tuple(title.lower().replace("/", "-").replace(" ", "-") for title in TITLES)

    def __init__(self, tree: FileTree) -> None:
        self._tree = tree
        self.location = tree.location
        present = tree.children("").files
        self._images, self._label_files = (
            {split: self._name(present, f"{prefix}-{part}") for split, prefix in PREFIXES.items()}
            for part in ("images-idx3-ubyte", "labels-idx1-ubyte")
        )

    def _name(self, present: tuple[str, ...], stem: str) -> str:
        for name in (stem, f"{stem}.gz"):
            if name in present:
                return name
        raise UserError(f"data directory {self.location} has no {stem} or {stem}.gz")

    def files(self) -> Iterator[SourceFile | Skipped]:
        """The two files of images."""
        for name in self._images.values():
            yield needed_file(self._tree, name)

    def scan(self, file: SourceFile) -> Iterator[Image | Skipped]:
        """See Source; an image is told as the PNG that `read` makes of it."""
        for index, pixels in enumerate(self._pixels[self._split(file.path)]):
            content = grey_png(pixels)
            digest = hashlib.sha256(content).hexdigest()
            yield Image(f"{index:05}", index, len(content), digest)

    def place(self, file: str, name: str) -> Place:
        """See Source."""
        split = self._split(file)
        return Place(split, f"{split}/{name}.png", int(self._labels[split][int(name)]))

    def read(self, sample: Sample) -> bytes:
        """As a 28x28 grey PNG."""
        return grey_png(self._pixels[sample.split][sample.offset])

    def _split(self, file: str) -> str:
        return next(split for split, name in self._images.items() if name == file)

    @cached_property
    def _pixels(self) -> dict[str, Pixels]:
        return {split: self._array(name, 3) for split, name in self._images.items()}

    @cached_property
    def _labels(self) -> dict[str, Pixels]:
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

    def _array(self, name: str, axes: int) -> Pixels:
        where = f"{self.location}/{name}"
        try:
            with self._tree.open(name) as file:
                opened = gzip.GzipFile(fileobj=file) if name.endswith(".gz") else file
                header = opened.read(4 + 4 * axes)
                if len(header) < 4 + 4 * axes or header[:4] != bytes((0, 0, UNSIGNED_BYTE, axes)):
                    raise UserError(f"{where} is no IDX file of bytes with {axes} axes")
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
