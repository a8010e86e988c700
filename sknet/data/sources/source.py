"""What every form of source offers, and what several of them share."""

import hashlib
import io
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import PIL.Image

from infra.base.shortages import memory_refused
from sknet.data.copies.fingerprint import fingerprint
from sknet.data.images import FORMATS
from sknet.data.sources.kinds import HEAD_BYTES, has_image_suffix, skipped_by_content
from sknet.data.sources.trees import FileTree, Skipped, SourceFile, lasting_fault
from sknet.errors import UserError

SPLITS = ("train", "val")
"""The splits that every data set has, and all that training and validation read."""

TEST = "test"
"""The sealed split, which a data set may have: it is converted, and only evaluated in the end."""

ALL_SPLITS = (*SPLITS, TEST)

MAX_WAITING = 4
"""Images of an archive that are held in memory while they are hashed and decoded."""

MAX_IMAGE_BYTES = 1 << 28
"""Largest image that is accepted. The largest photograph of ImageNet has 15 MB."""


@dataclass(frozen=True, slots=True)
class ScannedImage:
    """An encoded image as a scan of its file found it: a whole file, or a part of an archive."""

    name: str
    """Name within the file; empty if the image is the whole file."""
    offset: int
    """Where the image begins in the file, in bytes; its index in a file of raw pixels."""
    size: int
    """Size of the encoded image, in bytes."""
    sha256: str
    """SHA-256 of the encoded image."""
    fingerprint: bytes = b""
    """What the image looks like; empty if it can't be told from others by that."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """The sample that an image of the source is."""

    split: str
    key: str
    """Name that is unique within the source, and the same on every machine."""
    label: int


@dataclass(frozen=True, slots=True)
class Sample:
    """An image of the data set, and where to read it. Its fields are the columns of the index."""

    split: str
    key: str
    """Name that is unique within the source, and the same on every machine."""
    label: int
    size: int
    """Size of the encoded image, in bytes."""
    sha256: str
    """SHA-256 of the encoded image."""
    file: str
    """Path of the source's file that holds the image."""
    offset: int
    """Where the image begins in the file, in bytes; its index in a file of raw pixels."""
    fingerprint: bytes = b""
    """What the image looks like. Staging finds copies by it; the index doesn't hold it."""


@dataclass(frozen=True)
class SplitRule:
    """How staging draws splits from the training images of a source that lacks them."""

    fractions: dict[str, float] = field(default_factory=dict)
    """Fraction of each class's images for each split to draw, above 0, below 1 in total."""
    seed: int = 0
    group_tree: FileTree | None = None
    """The tree of the source, if it has a group file."""


class GivenSplits:
    """What sources inherit whose images are in splits already."""

    splits: tuple[str, ...] = SPLITS
    split_rule: SplitRule = SplitRule()
    notes: Sequence[str] = ()


class Source(Protocol):
    """A form in which people have their images.

    `files` lists the source, `scan` reads a file once, and `assign` tells which sample an image
    is. Only `scan` takes time. Its result depends on the file alone, so that it can be cached.
    """

    kind: str
    location: str
    """Where the source is, for messages and as a key of caches."""
    splits: tuple[str, ...]
    """The splits that the source itself has."""
    split_rule: SplitRule
    """The other splits, which staging draws."""
    notes: Sequence[str]
    """What the last listing took folders for, as lines for the user."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes by label."""

    @property
    def titles(self) -> tuple[str, ...]:
        """Readable names of the classes by label."""

    def files(self) -> Iterator[SourceFile | Skipped]:
        """Yield every file that may hold samples.

        Raises:
            UserError: The source doesn't have the form that it should have.
        """

    def scan(self, file: SourceFile) -> Iterator[ScannedImage | Skipped]:
        """Read a file and yield the images in it.

        Raises:
            OSError: The file can't be read.
            UserError: The file is a damaged archive.
        """

    def assign(self, file: str, name: str) -> Assignment | Skipped:
        """Return which sample the image `name` of `file` is."""

    def read(self, sample: Sample) -> bytes:
        """Return the encoded image of a sample.

        Raises:
            OSError: The file can't be read.
        """


def unfit_size(size: int) -> str | None:
    """Return why an image of this many bytes is refused; None if the size is fine."""
    if size == 0:
        return "empty"
    if size > MAX_IMAGE_BYTES:
        return f"{size} bytes, more than {MAX_IMAGE_BYTES}"
    return None


def scan_image(tree: FileTree, file: SourceFile) -> Iterator[ScannedImage | Skipped]:
    """Yield the one image of a file, or why it is none."""
    if not has_image_suffix(file.path):
        head = tree.read(file.path, size=HEAD_BYTES)
        if skipped := skipped_by_content(file.path, head):
            yield skipped
            return
    if reason := unfit_size(file.size):
        yield Skipped(file.path, reason)
        return
    content = tree.read(file.path, size=MAX_IMAGE_BYTES)
    yield scanned(ReadImage(file.path, content))


@dataclass(frozen=True, slots=True)
class ReadImage:
    """An encoded image that was read, and from where."""

    path: str
    """Where it is, for messages."""
    content: bytes
    name: str = ""
    """Name within the file; empty if the image is the whole file."""
    offset: int = 0
    """Where the image begins in the file, in bytes."""


_being_decoded: dict[int, ReadImage] = {}
"""The images that the threads of this process decode now: a small one may be refused memory because
a large one takes it."""


def _num_pixels(image: ReadImage) -> int:
    with (
        suppress(OSError, MemoryError, PIL.Image.DecompressionBombError),
        PIL.Image.open(io.BytesIO(image.content), formats=FORMATS) as opened,
    ):
        return math.prod(opened.size)
    return 0


def scanned(image: ReadImage) -> ScannedImage:
    """Return what is kept of an image.

    Raises:
        MemoryRefusedError: The decoder was refused memory.
    """
    sha256 = hashlib.sha256(image.content).hexdigest()
    _being_decoded[id(image)] = image
    try:
        looks = fingerprint(image.content)
    except MemoryError as error:
        largest = max(list(_being_decoded.values()), key=_num_pixels)
        what = f"decoding {largest.path}, the largest of the images being read"
        raise memory_refused(error, what) or error from None
    finally:
        del _being_decoded[id(image)]
    return ScannedImage(image.name, image.offset, len(image.content), sha256, looks)


def scanned_together(images: Iterable[ReadImage | Skipped]) -> Iterator[ScannedImage | Skipped]:
    """Yield what is kept of the images of one file, in their order, and what was skipped.

    The images are hashed and decoded in threads while the next ones are read.
    """
    with ThreadPoolExecutor(MAX_WAITING) as pool:
        waiting: deque[Future[ScannedImage] | Skipped] = deque()
        for image in images:
            waiting.append(image if isinstance(image, Skipped) else pool.submit(scanned, image))
            if len(waiting) > MAX_WAITING:
                yield _result(waiting.popleft())
        while waiting:
            yield _result(waiting.popleft())


def _result(entry: Future[ScannedImage] | Skipped) -> ScannedImage | Skipped:
    return entry if isinstance(entry, Skipped) else entry.result()


def required_file(tree: FileTree, name: str) -> SourceFile:
    """Return a file that the source can't do without.

    Raises:
        UserError: The file is missing or no regular file.
    """
    file = tree.file(name)
    if not isinstance(file, SourceFile):
        reason = file.reason if file else "it is gone"
        raise UserError(f"{tree.location}/{name} can't be read: {reason}")
    return file


def read_table(tree: FileTree, name: str, limit: int) -> bytes:
    """Return the content of a file of at most `limit` bytes that describes the images.

    Raises:
        UserError: The file can't be read, or is larger.
        SourceReadError: The disk or the network failed.
    """
    try:
        content = tree.read(name, size=limit + 1)
    except OSError as error:
        where = f"{tree.location}/{name}"
        raise UserError(f"{where} can't be read: {lasting_fault(error, where)}") from None
    if len(content) > limit:
        raise UserError(f"{tree.location}/{name} is larger than {limit} bytes")
    return content


def grey_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Encode grey pixels (height, width) without loss."""
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
