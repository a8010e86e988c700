"""The random crop of training (Szegedy et al. 2014), as a function of a sample's random numbers."""

import math
from collections.abc import Sequence
from typing import NamedTuple

ATTEMPTS = 10
"""Crops that are tried, as in torchvision, MindSpore and timm; then the centre is taken."""

NUM_DRAWS = 2 * ATTEMPTS + 2
"""Random numbers that a crop takes: an area and a ratio for each attempt, and a place."""


class CropBox(NamedTuple):
    """A rectangle of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


def crop_box(
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    numbers: Sequence[float],
) -> CropBox:
    """Return the random crop of an image.

    Its area is uniform in `scale` of the image's area, its width divided by its height uniform in
    `ratio` on a logarithmic scale. If no attempt fits into the image, the crop is the largest
    centre whose ratio is within the range.

    Args:
        height: The image's height in pixels.
        width: The image's width in pixels.
        scale: Range of the area, as a fraction of the image's.
        ratio: Range of width / height.
        numbers: `NUM_DRAWS` random numbers from [0, 1).
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for attempt in range(ATTEMPTS):
        area = height * width * _between(*scale, numbers[2 * attempt])
        aspect = math.exp(_between(low, high, numbers[2 * attempt + 1]))
        crop_width = round(math.sqrt(area * aspect))
        crop_height = round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            return CropBox(
                top=_whole_below(height - crop_height + 1, numbers[-2]),
                left=_whole_below(width - crop_width + 1, numbers[-1]),
                height=crop_height,
                width=crop_width,
            )
    return _centre(height, width, ratio)


def _centre(height: int, width: int, ratio: tuple[float, float]) -> CropBox:
    """Return the largest centre of an image whose width / height is within the range."""
    crop_height, crop_width = height, width
    if width / height < ratio[0]:
        crop_height = max(1, min(height, round(width / ratio[0])))
    elif width / height > ratio[1]:
        crop_width = max(1, min(width, round(height * ratio[1])))
    return CropBox(
        top=(height - crop_height) // 2,
        left=(width - crop_width) // 2,
        height=crop_height,
        width=crop_width,
    )


def _between(low: float, high: float, number: float) -> float:
    return low + (high - low) * number


def _whole_below(limit: int, number: float) -> int:
    return int(limit * number)
