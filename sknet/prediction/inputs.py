"""The images to predict: files, directories and patterns that a user names, and their pixels.

This module needs no MindSpore until an image is decoded.
"""

import os
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from infra.base.files import is_directory
from sknet.data.images import decode, raise_if_out_of_memory, undecodable
from sknet.data.sources.kinds import HEAD_BYTES, skipped_by_content, skipped_by_name
from sknet.data.sources.trees import LocalTree, Skipped, lasting_fault
from sknet.errors import UserError
from sknet.prediction.results import Unreadable

Pixels = npt.NDArray[np.uint8]

ImageInput = str | Path | Pixels | Image.Image
"""A path, pixels (height, width) or (height, width, 3) in uint8, or a Pillow image."""

_URL = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)
"""Start of a URL; Path makes one slash of two."""

_pillow = threading.Lock()
"""An image that is predicted twice must not be loaded by two threads at once."""

MAX_FILE_BYTES = 1 << 30
"""Largest file that is read, as an image of 4 GB would only fill the memory."""


@dataclass(frozen=True)
class Found:
    """The files to predict, and those that can't be."""

    files: tuple[str, ...]
    unreadable: tuple[Unreadable, ...]
    """Files in directories that should be images and aren't, or can't be opened."""


def find_files(names: Sequence[str]) -> Found:
    """Return the files that a user names, each once.

    Of a directory, all images in it and below it are taken, as conversion takes them: sorted by
    name, without hidden files and what isn't an image.

    Args:
        names: Files, directories and patterns such as `photos/**/*.jpg`. A name that exists is
            taken as it is, also if it has signs of a pattern.

    Raises:
        UserError: A name stands for nothing.
        SourceReadError: The disk failed.
    """
    files: dict[str, None] = {}
    unreadable: dict[str, str] = {}
    for name in names:
        for path in _expanded(name):
            if is_directory(path):
                number = len(files) + len(unreadable)
                for found in _images_below(path):
                    if isinstance(found, Unreadable):
                        unreadable[found.file] = found.reason
                    else:
                        files[found] = None
                if len(files) + len(unreadable) == number and path == name:
                    other = "other images than those named before it" if number else "images"
                    raise UserError(f"directory {name} has no {other}")
            else:
                files[path] = None
    rest = tuple(Unreadable(*each) for each in unreadable.items() if each[0] not in files)
    return Found(tuple(files), rest)


def _expanded(name: str) -> list[str]:
    if os.path.lexists(name):
        return [name]
    if _URL.match(name):
        raise UserError(f"{name} is a URL: download it, and name the file on this machine")
    if not has_magic(name):
        raise UserError(
            f"{name or repr(name)} does not exist: expected an image, a directory or a pattern"
        )
    matches = sorted(glob(name, recursive=True))  # noqa: PTH207 (the pattern may be absolute)
    # A pattern such as ** matches directories, too, whose files it matches by themselves.
    paths = [path for path in matches if not is_directory(path)] or matches
    if not paths:
        raise UserError(f"no file matches {name}: expected an image, a directory or a pattern")
    return paths


def _images_below(directory: str) -> Iterator[str | Unreadable]:
    tree = LocalTree(Path(directory))
    for file in tree.files(""):
        if isinstance(file, Skipped):
            if file.quarantined:
                yield Unreadable(os.path.join(directory, file.name), file.reason)  # noqa: PTH118 (see below)
            continue
        if skipped_by_name(file.path):
            continue
        path = os.path.join(directory, file.path)  # noqa: PTH118 (Path would drop a leading ./)
        try:
            skipped = skipped_by_content(file.path, tree.read(file.path, size=HEAD_BYTES))
        except OSError as error:
            yield Unreadable(path, f"can't be read: {lasting_fault(error, path)}")
            continue
        if skipped is None:
            yield path
        elif skipped.quarantined:
            yield Unreadable(path, skipped.reason)


def read_pixels(file: str) -> Pixels | Unreadable:
    """Return the pixels (height, width, 3) of an image file as RGB, or why it can't be read.

    The decoder is that of training and evaluation; what it refuses, conversion refuses, too.

    Raises:
        MemoryError: Memory for the decoder was refused.
        SourceReadError: The disk failed.
    """
    path = Path(file)
    try:
        if is_directory(path):
            return Unreadable(file, "it is a directory, expected the path of a file")
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            return Unreadable(file, f"larger than {MAX_FILE_BYTES} bytes")
        content = LocalTree(path.parent).read(path.name)
    except OSError as error:
        return Unreadable(file, f"can't be read: {_reason(error, file)}")
    except ValueError as error:  # the name holds a null byte
        return Unreadable(file, f"can't be read: {error}")
    if skipped := skipped_by_content(path.name, content[:HEAD_BYTES]):
        return Unreadable(file, skipped.reason)
    if reason := undecodable(content):
        return Unreadable(file, reason)
    return decode(content)


def _reason(error: OSError, file: str) -> str:
    if isinstance(error, FileNotFoundError) and _URL.match(file):
        return "it is a URL, expected the path of a file on this machine"
    return lasting_fault(error, file)


def several(images: ImageInput | Iterable[ImageInput]) -> Iterable[ImageInput]:
    """Return one image as the only one of its kind, an array of images as its rows."""
    if isinstance(images, np.ndarray):
        return list(images) if images.ndim == 4 else [images]
    if isinstance(images, (str, bytes, Path, Image.Image)) or not isinstance(images, Iterable):
        return [images]  # `pixels_of` refuses what is no image
    return images


def pixels_of(image: ImageInput, place: int) -> tuple[str, Pixels | Unreadable]:
    """Return an image's name and pixels, or why there are none.

    Args:
        image: The image.
        place: Position of the image, by which it is named if it isn't a file.

    Raises:
        UserError: It is an array of another form, or something else than an image.
        MemoryError: Memory for the decoder was refused.
        SourceReadError: The disk failed.
    """
    if isinstance(image, (str, Path)):
        return str(image), read_pixels(str(image))
    name = f"#{place}"
    if isinstance(image, Image.Image):
        found = _pixels_of_pillow(image, name)
        if isinstance(found, Unreadable):
            return name, found
        image = found
    if not isinstance(image, np.ndarray):
        raise UserError(
            f"image {name} is of type {type(image).__name__}: expected a path, an array or a "
            "Pillow image"
        )
    grey = image.ndim == 2
    if image.dtype != np.uint8 or not image.size or not (grey or image.shape[2:] == (3,)):
        raise UserError(
            f"image {name} is an array of {image.dtype} with shape {image.shape}: expected uint8 "
            "with shape (height, width) or (height, width, 3), as RGB"
        )
    return name, _as_rgb(image) if grey else image


def _as_rgb(grey: Pixels) -> Pixels:
    """Return grey pixels (height, width) as RGB."""
    return np.repeat(grey[:, :, None], 3, axis=2)


def _pixels_of_pillow(image: Image.Image, name: str) -> Pixels | Unreadable:
    """Return the pixels of a Pillow image, which decodes its file at first use.

    Raises:
        UserError: Its values have 32 bits, and only its maker knows what they mean.
        MemoryError: Memory for the decoder was refused.
    """
    if image.mode in ("I", "F"):
        raise UserError(
            f"image {name} is a Pillow image of mode {image.mode}: expected one of 8 or 16 bits "
            "a channel, such as RGB or L"
        )
    try:
        with _pillow:
            if image.mode.startswith("I;16"):  # as the decoder of files does
                return _as_rgb((np.asarray(image) >> 8).astype(np.uint8))
            # Of a palette with transparency, Pillow warns unless it is converted to RGBA.
            plain = image.convert("RGBA") if image.mode == "P" else image
            return np.asarray(plain.convert("RGB"))
    except Exception as error:  # noqa: BLE001 (Pillow's decoders raise many kinds for bad bytes)
        raise_if_out_of_memory(error, image.width * image.height)
        return Unreadable(name, " ".join(f"{type(error).__name__}: {error}".split()))
