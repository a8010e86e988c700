"""What every source offers, and the words for it."""

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

import numpy as np
import numpy.typing as npt
import PIL.Image

from sknet.data.sources.trees import FileTree, Skipped, SourceFile, lasting_fault
from sknet.errors import UserError

SPLITS = ("train", "val")

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp"})

# The largest photograph of ImageNet has 15 MB.
MAX_IMAGE_BYTES = 1 << 28


@dataclass(frozen=True, slots=True)
class Image:
    """An encoded image that was read once: a whole file, or a part of an archive."""

    name: str
    """Within its file; empty if it is the whole file."""
    offset: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Sample:
    """An image with its place in the data set."""

    split: str
    key: str
    """Unique within the source, the same on every machine."""
    label: int
    size: int
    """Of the encoded image, in bytes."""
    sha256: str
    """Of the encoded image."""
    file: str
    """The source's file that holds it."""
    offset: int
    """Where in the file it begins; the index of the image for files of raw pixels."""


@dataclass(frozen=True, slots=True)
class Place:
    """What an image is a sample of."""

    split: str
    key: str
    label: int


class Source(Protocol):
    """A form in which people have their images.

    `files` lists, `scan` reads a file once, and `place` says what an image in it is: only `scan`
    costs, and what it finds is a fact about the file alone, so it can be remembered.
    """

    kind: str
    location: str
    """For messages, and the name of the source in caches."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Position is the label."""

    @property
    def titles(self) -> tuple[str, ...]:
        """Readable names of the classes."""

    def files(self) -> Iterator[SourceFile | Skipped]:
        """Everything that may hold samples. Raises UserError where the form is wrong."""

    def scan(self, file: SourceFile) -> Iterator[Image | Skipped]:
        """Read a file and tell the images in it.

        Raises OSError, and UserError if a whole archive is damaged.
        """

    def place(self, file: str, name: str) -> Place | Skipped:
        """Where the image `name` of `file` belongs."""

    def read(self, sample: Sample) -> bytes:
        """The encoded image. Raises OSError."""


def is_hidden(path: str) -> bool:
    """Whether a file or a folder above it has a name that begins with a dot."""
    return any(part.startswith(".") for part in path.split("/"))


def has_image_suffix(path: str) -> bool:
    """Whether the name ends as that of a JPEG, PNG or BMP image, in any case."""
    return PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES


def named_as_image(path: str) -> Skipped | None:
    """Why a name is that of no image, or None."""
    if is_hidden(path):
        return Skipped(path, "hidden", quarantined=False)
    if not has_image_suffix(path):
        return Skipped(path, "no image by its name", quarantined=False)
    return None


def scan_image(tree: FileTree, file: SourceFile) -> Iterator[Image | Skipped]:
    """The one image that a file is."""
    if fault := unfit_size(file.size):
        yield Skipped(file.path, fault)
        return
    content = tree.read(file.path, size=MAX_IMAGE_BYTES)
    yield Image("", 0, len(content), hashlib.sha256(content).hexdigest())


def unfit_size(size: int) -> str | None:
    """Why an image can't have this many bytes, or None."""
    if size == 0:
        return "empty"
    if size > MAX_IMAGE_BYTES:
        return f"{size} bytes, more than {MAX_IMAGE_BYTES}"
    return None


def read_whole(tree: FileTree, name: str, limit: int) -> bytes:
    """A small file beside the images. Raises UserError if it can't be read or exceeds `limit`."""
    try:
        content = tree.read(name, size=limit + 1)
    except OSError as error:
        where = f"{tree.location}/{name}"
        raise UserError(f"{where} can't be read: {lasting_fault(error, where)}") from None
    if len(content) > limit:
        raise UserError(f"{tree.location}/{name} is larger than {limit} bytes")
    return content


def needed_file(tree: FileTree, name: str) -> SourceFile:
    """A file without which the source is none. Raises UserError if it is no plain file."""
    file = tree.file(name)
    if not isinstance(file, SourceFile):
        reason = file.reason if file else "it is gone"
        raise UserError(f"{tree.location}/{name} can't be read: {reason}")
    return file


def grey_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """A lossless image of grey pixels (height, width)."""
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
