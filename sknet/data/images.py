"""Encoded images: whether they decode in full, and their pixels.

Training, evaluation, re-encoding and thumbnails all see the pixels of MindSpore's decoder.
simplejpeg and OpenCV give the same pixels to the bit; they take less time and let other threads run
meanwhile. Pillow, which names what is wrong with an image, is asked first whether it decodes.
"""

import io
import re
import struct
import warnings
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

Image8 = npt.NDArray[np.uint8]
"""A decoded image (height, width, 3), as RGB."""

FORMATS = ("JPEG", "PNG", "BMP")
"""Formats of images that are accepted, as Pillow names them."""

# JPEG markers (ITU-T T.81, table B.1).
_SOI, _EOI, _SOS, _SOF0, _APP14 = 0xD8, 0xD9, 0xDA, 0xC0, 0xEE
# Tables and restart interval. With SOF0 and SOS, they decide whether a decoder starts.
_DECISIVE_SEGMENTS = frozenset({_SOF0, _SOS, _APP14, 0xC4, 0xDB, 0xDD})
_SKIPPED_SEGMENTS = frozenset({*range(0xE0, 0xF0), 0xFE}) - {_APP14}
_OUT_OF_MEMORY = re.compile(
    "insufficient memory|out of memory|memory not enough|failed to allocate|bad.alloc",
    re.IGNORECASE,
)
_COLOURS_OF_JPEG = ("Gray", "YCbCr", "RGB")  # of others, the pixels are a level from MindSpore's
_PNG, _BMP = b"\x89PNG\r\n\x1a\n", b"BM"
_BYTES_PER_PIXEL = 16
"""No decoder takes more: Pillow's pixels have 4 bytes, the coefficients of a progressive JPEG up to
8, MindSpore's pixels 3."""

# A marker that ends entropy-coded data: no stuffed 0xFF and no restart marker.
_END_OF_DATA = re.compile(rb"\xff[^\x00\xd0-\xd7]")


def undecodable(content: bytes) -> str | None:
    """Return why an image doesn't decode in full; None if it does.

    For JPEGs the result equals that of a full decoding by Pillow (the tests compare them on
    mutilated files). Baseline JPEGs, of which most data sets consist, take a fortieth of its time.
    Other images are decoded by Pillow, and by MindSpore too if they are PNG or BMP.

    Raises:
        MemoryError: Memory for the decoder was refused, which says nothing about the image.
    """
    if is_decodable_baseline_jpeg(content):
        return None
    if reason := _refused_by_pillow(content):
        return reason
    # MindSpore decodes all JPEGs that Pillow decodes; its PNG and BMP decoders are stricter.
    return None if content[:2] == bytes((0xFF, _SOI)) else refused_by_mindspore(content)


def _refused_by_pillow(content: bytes) -> str | None:
    num_pixels = 0
    try:
        with warnings.catch_warnings():
            # Pillow warns of a decompression bomb, and raises for a large one; both are refused.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                num_pixels = image.width * image.height
                image.load()
    except UnidentifiedImageError:
        # Pillow's own message holds an address, which differs from run to run.
        return "UnidentifiedImageError: not a JPEG, PNG or BMP image"
    except Exception as error:  # noqa: BLE001 (Pillow's decoders raise many kinds for bad bytes)
        raise_if_out_of_memory(error, num_pixels)
        return " ".join(f"{type(error).__name__}: {error}".split())
    return None


def refused_by_mindspore(content: bytes) -> str | None:
    """Return why MindSpore refuses an image; None if it doesn't.

    Call it only for images that Pillow decodes: some damaged JPEGs end the process in MindSpore.

    Raises:
        MemoryError: Memory for the decoder was refused, which says nothing about the image.
    """
    try:
        _decode_by_mindspore(content)
    except RuntimeError as error:
        return f"MindSpore: {reason_of_mindspore(error)}"
    return None


def reason_of_mindspore(error: RuntimeError) -> str:
    """Return the one line of a MindSpore data operation's error that says what is wrong."""
    lines = [line for line in str(error).splitlines() if line.startswith("[ERROR]")]
    return lines[0].removeprefix("[ERROR]").strip() if lines else "it gives no reason"


def decode(content: bytes) -> Image8:
    """Return the pixels of an image that is not `undecodable`.

    Raises:
        MemoryError: Memory for the decoder was refused.
        RuntimeError: MindSpore refuses the image.
    """
    quickly = decode_quickly(content)
    return _decode_by_mindspore(content) if quickly is None else quickly


def _decode_by_mindspore(content: bytes) -> Image8:
    from mindspore.dataset import vision

    try:
        pixels: npt.NDArray[np.uint8] = vision.Decode()(np.frombuffer(content, np.uint8))
    except RuntimeError as error:
        raise_if_out_of_memory(error, 0)
        raise
    return pixels


def decode_quickly(content: bytes) -> Image8 | None:
    """Return the pixels that MindSpore's decoder gives; None if it must be asked itself.

    It must be for images that are damaged or odd, such as JPEGs of four channels. Damaged ones may
    end the process in MindSpore: `undecodable` finds them.

    Raises:
        MemoryError: Memory for the pixels of a JPEG was refused.
    """
    import cv2
    import simplejpeg

    if content[:2] == bytes((0xFF, _SOI)):
        try:
            _, _, colours, *_ = simplejpeg.decode_jpeg_header(content)
            if colours in _COLOURS_OF_JPEG:
                return np.asarray(simplejpeg.decode_jpeg(content, "RGB", strict=True), np.uint8)
        except (ValueError, KeyError):  # KeyError: it has no name for the sampling
            pass
        return None
    if not content.startswith((_PNG, _BMP)):
        return None
    try:
        as_stored = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), as_stored)
        return None if pixels is None else np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
    except cv2.error:
        return None


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether an error of a decoder, or of another data operation, says so."""
    return isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)) is not None


def raise_if_out_of_memory(error: Exception, num_pixels: int) -> None:
    """Raise MemoryError if a decoder may have failed for want of memory.

    libjpeg reports that as it does damaged data. So it is tried whether the memory that an image
    of this many pixels needs at most could be had; nothing of it is touched.
    """
    refused = is_out_of_memory(error)
    try:
        np.empty(num_pixels * _BYTES_PER_PIXEL, np.uint8)
    except MemoryError:
        refused = True
    if refused:
        raise MemoryError("the image's decoder was refused memory") from None


def is_decodable_baseline_jpeg(content: bytes) -> bool:
    """Tell whether this is surely a grey or three-channel baseline JPEG that decodes.

    libjpeg refuses a baseline file because of its header, or because its data ends without a
    marker; other errors in the data only give wrong pixels and a warning. So libjpeg judges each
    different header once, without the image's data, and the data is only searched for its end.

    Returns:
        False if the image may not decode, or is of another kind.
    """
    if content[:2] != bytes((0xFF, _SOI)):
        return False
    header = [content[:2]]
    position = 2
    while True:
        if content[position : position + 1] != b"\xff" or position + 4 > len(content):
            return False
        marker = content[position + 1]
        end = position + 2 + int.from_bytes(content[position + 2 : position + 4], "big")
        if end > len(content):
            return False
        if marker == _SOF0:
            if end - position < 10:
                return False
            height, width = struct.unpack_from(">HH", content, position + 5)
            limit = Image.MAX_IMAGE_PIXELS
            if not 0 < height * width <= (limit or height * width):
                return False
            # The size doesn't matter for the rest of the header: judge all as one block of 8x8.
            segment = content[position : position + 5] + b"\0\x08\0\x08"
            header.append(segment + content[position + 9 : end])
        elif marker in _DECISIVE_SEGMENTS:
            header.append(content[position:end])
        elif marker not in _SKIPPED_SEGMENTS:
            return False
        position = end
        if marker == _SOS:
            break
    found = _END_OF_DATA.search(content, position)
    return (
        found is not None
        and content[found.start() + 1] == _EOI
        # Pillow's decoder refuses an image without any data.
        and found.start() > position
        and _starts_a_decoder(b"".join(header))
    )


@lru_cache(maxsize=4096)
def _starts_a_decoder(header: bytes) -> bool:
    if header.count(b"\xff\xc0") != 1:
        return False
    try:
        with Image.open(io.BytesIO(header + b"\0\xff\xd9"), formats=("JPEG",)) as image:
            image.load()
            return image.mode in ("L", "RGB")
    except Exception:  # noqa: BLE001 (whatever it is, the full decoding will report it)
        return False
