"""Whether an encoded image decodes in full, found out without decoding it where that is sound."""

import io
import re
import struct
import warnings
from functools import lru_cache

import numpy as np
from PIL import Image, UnidentifiedImageError

_SOI, _EOI, _SOS, _SOF0, _APP14 = 0xD8, 0xD9, 0xDA, 0xC0, 0xEE
# Tables and restart interval, which decide together with SOF0 and SOS whether a decoder starts.
_KEPT_SEGMENTS = frozenset({_SOF0, _SOS, _APP14, 0xC4, 0xDB, 0xDD})
_SKIPPED_SEGMENTS = frozenset({*range(0xE0, 0xF0), 0xFE}) - {_APP14}
# A marker that ends entropy-coded data: not a stuffed 0xFF and no restart marker.
_END_OF_DATA = re.compile(rb"\xff[^\x00\xd0-\xd7]")


def undecodable(content: bytes) -> str | None:
    """Why an image doesn't decode in full, or None if it does.

    For JPEGs equal to a full decode by Pillow (the tests compare them on mutilated files), at a
    fortieth of its time for baseline ones, which is what data sets are made of. Others have to
    decode in Pillow and in MindSpore.
    """
    if is_sound_baseline_jpeg(content):
        return None
    try:
        with warnings.catch_warnings():
            # A decompression bomb warns before it raises; both are refused.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "BMP")) as image:
                image.load()
                kind = image.format
    except UnidentifiedImageError:
        # Pillow's own message holds an address, which differs from run to run.
        return "UnidentifiedImageError: not a JPEG, PNG or BMP image"
    except Exception as error:  # noqa: BLE001 (Pillow's decoders raise many kinds for bad bytes)
        return " ".join(f"{type(error).__name__}: {error}".split())
    # Of JPEGs MindSpore takes all that Pillow takes; its PNG and BMP readers are stricter.
    return None if kind == "JPEG" else refused_by_mindspore(content)


def refused_by_mindspore(content: bytes) -> str | None:
    """Why the decoder that training uses refuses an image that Pillow decodes, or None.

    Not to be asked before Pillow: some damaged JPEGs end the process there.
    """
    from mindspore.dataset import vision

    try:
        vision.Decode()(np.frombuffer(content, np.uint8))
    except RuntimeError as error:
        lines = [line for line in str(error).splitlines() if line.startswith("[ERROR]")]
        reason = lines[0].removeprefix("[ERROR]").strip() if lines else "it gives no reason"
        return f"MindSpore: {reason}"
    return None


def is_sound_baseline_jpeg(content: bytes) -> bool:
    """Whether this is a grey or three-channel baseline JPEG that surely decodes; False: unknown.

    libjpeg refuses a baseline file for its header, or for data that ends without a marker; wrong
    entropy-coded data it decodes to wrong pixels with a warning. So it judges each different header
    once, without the image's data, and the data is only searched for its end.
    """
    if content[:2] != b"\xff\xd8":
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
            # The size is no matter of the header's soundness: one of a single block for all.
            segment = content[position : position + 5] + b"\0\x08\0\x08"
            header.append(segment + content[position + 9 : end])
        elif marker in _KEPT_SEGMENTS:
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
        # Pillow's decoder wants more than nothing.
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
    except Exception:  # noqa: BLE001 (whatever it is, the full decode will tell)
        return False
