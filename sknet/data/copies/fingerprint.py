"""What an image looks like, in 85 bytes by which copies of it are recognised.

A copy that is resized or encoded anew has nearly the same low frequencies. They are kept in two
forms: as a perceptual hash, by which candidates are found, and as rounded coefficients, by which
candidates are compared.
"""

import hashlib
import io
import warnings
from contextlib import nullcontext
from threading import Lock

import imagehash
import numpy as np
import numpy.typing as npt
import PIL.Image

from sknet.data.images import FORMATS, raise_if_out_of_memory

SIDE = 32
"""Side of the reduced image in pixels, which is what imagehash.phash takes its bits from."""

NUM_COEFFICIENTS = 63
"""The 8x8 lowest frequencies, without the mean."""

FINGERPRINT = np.dtype(
    [
        ("hash", "<u8"),  # imagehash.phash
        ("mirrored", "<u8"),  # the same of the image as a mirror shows it
        ("brightness", "<u2"),  # mean of the grey levels, in 1/256
        ("colour", "u1", 3),  # means of red, green and blue
        ("contrast", "u1"),  # standard deviation of the grey levels; 0 of images below SIDE
        ("coefficients", "i1", NUM_COEFFICIENTS),
    ]
)

LEAST_SIDE = 16
"""Images with a shorter side, in pixels, have no fingerprint."""

LEAST_CONTRAST = 2.0
"""Standard deviation of the grey levels (0 to 255) below which an image shows nothing."""

SOFTNESS = 0.5
"""A coefficient c, in grey levels, is kept as c / sqrt(c^2 + SOFTNESS^2): nearly its sign if it is
far larger than the noise of an encoder, nearly 0 if it is smaller."""

LARGE_IMAGE = 1 << 24
"""Images of more pixels are decoded one at a time, unless the decoder shrinks them."""

MIRROR = np.where(np.arange(1, NUM_COEFFICIENTS + 1) % 2, -1, 1).astype(np.int8)
"""Factors by which mirroring an image multiplies its coefficients: odd columns change their sign.
"""

_one_large_image = Lock()
_one_filter = Lock()


def _cosines() -> npt.NDArray[np.float64]:
    """Return the 8 lowest functions (8, SIDE) of the orthonormal discrete cosine transform."""
    frequencies, places = np.arange(8)[:, None], np.arange(SIDE)
    cosines: npt.NDArray[np.float64] = np.cos(
        np.pi * frequencies * (places + 0.5) / SIDE
    ) * np.sqrt(2 / SIDE)
    cosines[0] /= np.sqrt(2)
    return cosines


_COSINES = _cosines()


def fingerprint(content: bytes) -> bytes:
    """Return what an encoded image looks like, as the bytes of one FINGERPRINT.

    Returns:
        Nothing if the image can't be told from others by its looks: it is smaller than LEAST_SIDE,
        shows next to nothing, or doesn't decode, for which the conversion has the reason.

    Raises:
        MemoryError: The decoder was refused memory.
    """
    num_pixels = 0
    try:
        with open_image(content) as image:
            num_pixels, shorter = image.width * image.height, min(image.size)
            reduced = _reduced(image) if shorter >= LEAST_SIDE else None
    except Exception as error:  # noqa: BLE001 (Pillow's decoders raise many kinds for bad bytes)
        raise_if_out_of_memory(error, num_pixels)
        return b""
    if reduced is None:
        return b""
    grey = np.asarray(reduced.convert("L"), np.float64)
    contrast = float(grey.std())
    if contrast < LEAST_CONTRAST:
        return b""
    lowest = (_COSINES @ grey @ _COSINES.T).ravel()[1:] / SIDE
    soft = lowest / np.sqrt(lowest**2 + SOFTNESS**2)
    found = np.zeros((), FINGERPRINT)
    found["hash"] = _hash(grey)
    found["mirrored"] = _hash(grey[:, ::-1])
    found["brightness"] = round(float(grey.mean()) * 256)
    found["colour"] = np.asarray(reduced.resize((1, 1), PIL.Image.Resampling.BOX))[0, 0]
    found["contrast"] = round(contrast) if shorter >= SIDE else 0
    found["coefficients"] = np.rint(soft * 127)
    return found.tobytes()


def open_image(content: bytes) -> PIL.Image.Image:
    """Open an image without decoding it; one that claims very many pixels is an error."""
    # Filters of warnings are those of the process, so one thread at a time may change them.
    with _one_filter, warnings.catch_warnings():
        warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
        return PIL.Image.open(io.BytesIO(content), formats=FORMATS)


def _reduced(image: PIL.Image.Image) -> PIL.Image.Image:
    """Return SIDE x SIDE pixels of red, green and blue."""
    width, height = image.size
    # libjpeg leaves frequencies out that would not be seen, which saves half of the time.
    image.draft("RGB", (SIDE, SIDE))
    scale = max(1, round(width / image.width))
    is_large = image.width * image.height > LARGE_IMAGE
    with _one_large_image if is_large else nullcontext():
        return eight_bits(image).resize(
            (SIDE, SIDE),
            PIL.Image.Resampling.LANCZOS,
            # The last block of a shrunken JPEG may reach beyond the image.
            box=(0, 0, width / scale, height / scale),
        )


def eight_bits(image: PIL.Image.Image) -> PIL.Image.Image:
    """Return an image as RGB; of 16-bit grey, the upper eight bits, as training reads it."""
    if image.mode.startswith("I"):
        grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return PIL.Image.fromarray(grey).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _faint_pattern() -> npt.NDArray[np.float64]:
    """Return grey levels (SIDE, SIDE) of all 64 lowest frequencies, of fixed signs.

    A hash takes a bit from the sign of each frequency. Where an image shows nothing but an
    encoder's noise, as in a clear sky, the bits would be noise; with the pattern over it, they are
    the pattern's.
    """
    bits = np.unpackbits(np.frombuffer(hashlib.sha256(b"faint pattern").digest()[:8], np.uint8))
    frequencies = np.where(bits, SOFTNESS, -SOFTNESS).reshape(8, 8) * SIDE
    frequencies[0, 0] = 0
    pattern: npt.NDArray[np.float64] = _COSINES.T @ frequencies @ _COSINES
    return pattern


_KEPT_CONTRAST = 0.9
"""What is left of an image's contrast, so that little of the pattern is cut at 0 and 255."""

_PATTERN = _faint_pattern() + 128 * (1 - _KEPT_CONTRAST)


def _hash(grey: npt.NDArray[np.float64]) -> np.uint64:
    marked = (grey * _KEPT_CONTRAST + _PATTERN).round().clip(0, 255).astype(np.uint8)
    bits = imagehash.phash(PIL.Image.fromarray(marked)).hash
    hashed: np.uint64 = np.packbits(bits).view("<u8")[0]
    return hashed
