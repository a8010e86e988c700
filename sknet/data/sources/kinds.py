"""What files and folders of a source are, by their names and by the first bytes of files.

A file is an image if its content is one, whatever its name. The name decides only for files that
can't be images: hidden ones, and what file servers and systems leave in folders.
"""

import io
import re
import unicodedata
import warnings
from pathlib import PurePosixPath

import PIL.Image

from sknet.data.sources.trees import Skipped

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp"})
"""Files of these names are judged when they are decoded in full."""

_OTHER_SUFFIXES = frozenset(
    {
        *(".jfif", ".jpe", ".jif", ".jp2", ".j2k", ".jxl", ".apng", ".gif", ".webp", ".avif"),
        *(".tif", ".tiff", ".heic", ".heif", ".dib", ".ico", ".ppm", ".pgm", ".pbm", ".pnm"),
        *(".svg", ".psd", ".tga", ".dng", ".cr2", ".nef", ".arw", ".dcm"),
    }
)
"""Files of these names should be images, although their content may be of a form that isn't
read."""

_HOUSEKEEPING = frozenset(
    {
        # Synology, QNAP, NetApp: thumbnails, deleted files, earlier states.
        *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "~snapshot"),
        # macOS and Windows.
        *("__macosx", "icon\r", "network trash folder", "temporary items"),
        *("$recycle.bin", "system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini"),
        # Linux, Python, web servers, photo software.
        *("lost+found", "__pycache__", "_vti_cnf"),
        *("thumb", "thumbs", "thumbnail", "thumbnails", "_thumbnails", "_thumbs"),
    }
)
"""Names, in lower case, of folders and files that nobody made to be part of a data set."""

SPLIT_NAMES = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""Usual names of the folders of a split, in lower case."""
_SPLIT_OF = {name: split for split, names in SPLIT_NAMES.items() for name in names}

_OTHER_SPLIT_WORDS = {"holdout": "val", "heldout": "val", "eval": "val", "evaluation": "val"}
_FILLER = re.compile("(data|datasets?|sets?|images?|imgs?|splits?|folders?)$")
"""Words that stand beside, or at the end of, the word for a split in a folder's name."""

PARTS = frozenset(
    {
        *("image", "images", "img", "imgs", "jpegimages", "pictures", "photos", "data"),
        *("mask", "masks", "label", "labels", "annotation", "annotations", "bboxes"),
    }
)
"""Names, in lower case, of folders that hold a part of a data set."""

HEAD_BYTES = 4096
"""Bytes from the beginning of a file by which its kind is recognised."""

_SIGNATURES = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"GIF8", "GIF"),
    (8, b"WEBP", "WebP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "BigTIFF"),
    (0, b"MM\0+", "BigTIFF"),
    (0, b"\0\0\x01\0", "ICO"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    *((4, b"ftyp" + brand, "HEIF") for brand in (b"heic", b"heix", b"hevc", b"mif1", b"msf1")),
)
"""Where in a file what stands that says its format. Pillow is asked about all others."""

_NO_IMAGES = frozenset({"BUFR", "GRIB", "HDF5", "MPEG"})
"""What Pillow recognises, although it is a table or a film."""

_BMP_HEADER_SIZES = frozenset({12, 40, 52, 56, 64, 108, 124})


def is_hidden(path: str) -> bool:
    """Tell whether the name of a file, or of a folder above it, begins with a dot."""
    return any(part.startswith(".") for part in path.split("/"))


def is_housekeeping(path: str) -> bool:
    """Tell whether a file, or a folder above it, is of a file server or an operating system."""
    return any(part.lower() in _HOUSEKEEPING for part in path.split("/"))


def has_image_suffix(path: str) -> bool:
    """Tell whether a name ends as that of a JPEG, PNG or BMP image, in upper or lower case."""
    return PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES


def skipped_by_name(path: str) -> Skipped | None:
    """Return why a file of this name is no image; None if its content decides."""
    if is_housekeeping(path):
        return Skipped(path, "made by a file server or a system", quarantined=False)
    if is_hidden(path):
        return Skipped(path, "hidden", quarantined=False)
    return None


def skipped_by_content(path: str, head: bytes) -> Skipped | None:
    """Return why a file is no image that can be read; None if it may be one.

    Args:
        path: The file.
        head: Its first HEAD_BYTES bytes.
    """
    kind = image_format(head)
    if has_image_suffix(path) or kind in ("JPEG", "PNG", "BMP"):
        return None
    if kind:
        return Skipped(path, f"an image of the format {kind}: convert it to JPEG, PNG or BMP")
    if PurePosixPath(path).suffix.lower() in _OTHER_SUFFIXES:
        return Skipped(path, "no JPEG, PNG or BMP image")
    return Skipped(path, "no image", quarantined=False)


def image_format(head: bytes) -> str | None:
    """Return the format of an image by its first bytes; None if it is none that is known here."""
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES:
        return "BMP"
    for at, mark, kind in _SIGNATURES:
        if head[at : at + len(mark)] == mark:
            return kind
    return _format_by_pillow(head)


def _format_by_pillow(head: bytes) -> str | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Nothing is decoded: the formats that Pillow decodes to open them have signatures.
            with PIL.Image.open(io.BytesIO(head)) as image:
                return None if image.format in _NO_IMAGES else image.format
    except Exception:  # noqa: BLE001 (Pillow's plugins raise many kinds for bad bytes)
        return None


def split_of(folder: str) -> str | None:
    """Return the split that a folder's name stands for; None if it is no usual name of one."""
    return _SPLIT_OF.get(folder.lower())


def split_by_words(folder: str, *, alone: bool = False) -> str | None:
    """Return the split of which a name has a word, as train2017, TrainingSet and valset have.

    Args:
        folder: The name.
        alone: Whether all other words must be such as `set` or `data`, or single letters. That
            of `train station` isn't.
    """
    words = [word.lower() for word in re.findall("[A-Z]?[a-z]+|[A-Z]+", folder)]
    splits = {
        word: _OTHER_SPLIT_WORDS.get(word) or split_of(_FILLER.sub("", word)) for word in words
    }
    if alone and any(
        split is None and len(word) > 1 and not _FILLER.fullmatch(word)
        for word, split in splits.items()
    ):
        return None
    return next((split for split in splits.values() if split), None)


def class_name(folder: str) -> str:
    """Return the class that a folder is, whatever form of Unicode the file system wrote it in."""
    return unicodedata.normalize("NFC", folder)
