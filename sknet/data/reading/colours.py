"""Changes of an image's colours in OpenCV: those of colour jitter and of automatic augmentation.

All take and return an image (height, width, 3) of red, green and blue in uint8. Names and numbers
are those of Pillow's `ImageEnhance` and `ImageOps`, of which MindSpore's operations are copies.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from sknet.data.images import Image8

NUM_JITTER_DRAWS = 8
"""Random numbers that jitter takes: a strength for each of four changes, then a place for each."""

_LEVELS = np.arange(256, dtype=np.float64)
_LARGEST_HUE = 255  # MindSpore turns hues by a fraction of this
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32)  # Pillow's SMOOTH
_SMOOTH_SUM = 13


def _looked_up(image: Image8, table: npt.NDArray[np.float64]) -> Image8:
    """Return the image with each value replaced by the rounded one of a table (256,)."""
    rounded = np.clip(np.rint(table), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image, rounded), np.uint8)


def _blended(image: Image8, other: Image8, factor: float) -> Image8:
    """Return `factor` times an image plus 1 - `factor` times another one, rounded.

    Products come from tables, and each sum is rounded once, so that all processors give the same
    bits. OpenCV's addWeighted doesn't: some processors multiply and add in one step.
    """
    own = cv2.LUT(image, (_LEVELS * factor).astype(np.float32))
    rest = cv2.LUT(other, (_LEVELS * (1 - factor)).astype(np.float32))
    return np.asarray(cv2.add(own, rest, dtype=cv2.CV_8U), np.uint8)


def brightness(image: Image8, factor: float) -> Image8:
    """Return the image blended with black: 0 is black, 1 the image, above 1 is brighter."""
    return _looked_up(image, _LEVELS * factor)


def contrast(image: Image8, factor: float) -> Image8:
    """Return the image blended with the mean of its grey."""
    mean = round(cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0])
    return _looked_up(image, _LEVELS * factor + mean * (1 - factor))


def saturation(image: Image8, factor: float) -> Image8:
    """Return the image blended with its grey."""
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return _blended(image, np.asarray(grey, np.uint8), factor)


def hue(image: Image8, turn: float) -> Image8:
    """Return the image with all hues turned, by a fraction of the circle.

    OpenCV's conversion to hues may differ by one level between kinds of processors.
    """
    turned = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    shift = np.uint8(int(turn * _LARGEST_HUE) % 256)
    turned[..., 0] = turned[..., 0] + shift  # uint8 goes round the circle
    return np.asarray(cv2.cvtColor(turned, cv2.COLOR_HSV2RGB_FULL), np.uint8)


def sharpness(image: Image8, factor: float) -> Image8:
    """Return the image blended with a smoothed one; its outermost pixels stay."""
    smoothed = image.copy()
    sums = cv2.filter2D(image, cv2.CV_16S, _SMOOTH)[1:-1, 1:-1]
    smoothed[1:-1, 1:-1] = (sums + _SMOOTH_SUM // 2) // _SMOOTH_SUM
    return _blended(image, smoothed, factor)


def posterize(image: Image8, bits: float) -> Image8:
    """Return the image with the highest bits of each value alone."""
    return np.asarray(image & np.uint8(256 - (1 << (8 - int(bits)))), np.uint8)


def solarize(image: Image8, threshold: float) -> Image8:
    """Return the image with all values inverted that are not below a threshold."""
    return _looked_up(image, np.where(threshold > _LEVELS, _LEVELS, 255 - _LEVELS))


def invert(image: Image8) -> Image8:
    """Return the negative of the image."""
    return np.asarray(cv2.bitwise_not(image), np.uint8)


def auto_contrast(image: Image8) -> Image8:
    """Return the image with each channel stretched to 0 … 255."""
    return _by_channel(image, _stretching)


def equalize(image: Image8) -> Image8:
    """Return the image with values of each channel replaced so that all are equally frequent."""
    return _by_channel(image, _equalizing)


def _by_channel(
    image: Image8, table_of: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.uint8]]
) -> Image8:
    """Return the image with each channel's values replaced by a table made of its histogram."""
    channels = [
        cv2.LUT(channel, table_of(np.bincount(channel.reshape(-1), minlength=256)))
        for channel in cv2.split(image)
    ]
    return np.asarray(cv2.merge(channels), np.uint8)


def _stretching(histogram: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Return `ImageOps.autocontrast`'s table."""
    present = np.flatnonzero(histogram)
    low, high = int(present[0]), int(present[-1])
    if high == low:
        return _LEVELS.astype(np.uint8)
    scale = 255.0 / (high - low)
    return np.clip(_LEVELS * scale - low * scale, 0, 255).astype(np.uint8)


def _equalizing(histogram: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Return `ImageOps.equalize`'s table."""
    present = histogram[histogram > 0]
    step = int(present.sum() - present[-1]) // 255
    if len(present) <= 1 or not step:
        return _LEVELS.astype(np.uint8)
    before = np.concatenate([[0], np.cumsum(histogram)[:-1]])
    return np.clip((step // 2 + before) // step, 0, 255).astype(np.uint8)


def jitter(
    image: Image8, ranges: tuple[float, float, float, float], numbers: Sequence[float]
) -> Image8:
    """Return the image with random brightness, contrast, saturation and hue, in random order.

    Args:
        image: The image.
        ranges: Brightness, contrast and saturation are multiplied by 1 ± this, at least 0; the hue
            is turned by ± the last one, a fraction of the circle.
        numbers: `NUM_JITTER_DRAWS` random numbers from [0, 1).
    """
    changes = (brightness, contrast, saturation, hue)
    for index in sorted(range(4), key=lambda each: numbers[4 + each]):
        change, reach = changes[index], ranges[index]
        low, high = (-reach, reach) if change is hue else (max(0.0, 1 - reach), 1 + reach)
        if reach:
            image = change(image, low + (high - low) * numbers[index])
    return image
