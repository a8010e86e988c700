"""Storing large images smaller, for speed in training; the same bytes from the same Pillow."""

import io
from importlib.metadata import version

from PIL import Image

from sknet.records import Reencoding

DEFAULT_QUALITY = 92


def reencoding_by(shorter_side: int, quality: int) -> Reencoding:
    """The settings, with the version of Pillow that carries them out here."""
    return Reencoding(shorter_side=shorter_side, quality=quality, pillow=version("pillow"))


def reencode(content: bytes, settings: Reencoding) -> bytes:
    """A sound image as it is to be stored: RGB JPEG with 4:2:0 chroma if its shorter side exceeds
    the limit, resized to it (bicubic with antialiasing, aspect kept); else the bytes unchanged.
    """
    with Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "BMP")) as image:
        shorter = min(image.size)
        if shorter <= settings.shorter_side:
            return content
        size = tuple(round(side * settings.shorter_side / shorter) for side in image.size)
        resized = image.convert("RGB").resize((size[0], size[1]), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    resized.save(buffer, "JPEG", quality=settings.quality, subsampling="4:2:0")
    return buffer.getvalue()
