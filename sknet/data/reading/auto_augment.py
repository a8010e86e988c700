"""Automatic augmentation: AutoAugment, RandAugment and TrivialAugment.

Each policy chooses changes of an image by a sample's random numbers. The changes and their
strengths are those of torchvision and MindSpore. MindSpore's own RandAugment and TrivialAugment
aren't used: they blank translated images, choose auto contrast and the positive sign twice as often
as the papers say, and swap channels of the colour that fills what a rotation leaves empty.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from sknet.data.images import Image8
from sknet.data.reading.colours import (
    auto_contrast,
    brightness,
    contrast,
    equalize,
    invert,
    posterize,
    saturation,
    sharpness,
    solarize,
)
from sknet.recipe.types import MAX_MAGNITUDE, parse_auto_augment

NUM_BINS = MAX_MAGNITUDE + 1
"""Strengths of RandAugment, from which MindCV's magnitude m takes the m-th."""

_PAPER_BINS = 10
"""Strengths of AutoAugment (Cubuk et al. 2018)."""

_TRIVIAL_BINS = 31
"""Strengths of TrivialAugment (Müller and Hutter 2021)."""

_TRANSLATION = 150 / 331
"""Largest translation, as a fraction of the side: 150 pixels of images of 331 in the papers."""

Matrix = list[list[float]]
"""An affine map of an image's pixels (x, y), in two rows of three numbers."""


def _rotation(degrees: float, side: int) -> Matrix:
    """Return a rotation about the centre of a square image."""
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    centre = (side - 1) / 2
    return [
        [cosine, sine, centre * (1 - cosine - sine)],
        [-sine, cosine, centre * (1 - cosine + sine)],
    ]


_MOVES: Mapping[str, Callable[[float, int], Matrix]] = {
    "ShearX": lambda slope, _: [[1, slope, 0], [0, 1, 0]],
    "ShearY": lambda slope, _: [[1, 0, 0], [slope, 1, 0]],
    "TranslateX": lambda pixels, _: [[1, 0, int(pixels)], [0, 1, 0]],
    "TranslateY": lambda pixels, _: [[1, 0, 0], [0, 1, int(pixels)]],
    "Rotate": _rotation,
}
"""Changes that move pixels: the map, given the strength and the side of a square image."""

_ENHANCEMENTS: Mapping[str, Callable[[Image8, float], Image8]] = {
    "Brightness": brightness,
    "Color": saturation,
    "Contrast": contrast,
    "Sharpness": sharpness,
}
"""Changes by a factor, of which 1 changes nothing."""

_REDUCTIONS: Mapping[str, Callable[[Image8, float], Image8]] = {
    "Posterize": posterize,
    "Solarize": solarize,
}

_WITHOUT_STRENGTH: Mapping[str, Callable[[Image8], Image8]] = {
    "Identity": lambda image: image,
    "AutoContrast": auto_contrast,
    "Equalize": equalize,
    "Invert": invert,
}

CHOSEN = (*_MOVES, *_ENHANCEMENTS, *_REDUCTIONS, "Identity", "AutoContrast", "Equalize")
"""What RandAugment and TrivialAugment choose from."""

# AutoAugment's policy for ImageNet (Cubuk et al. 2018, table 9, as torchvision and MindSpore have
# it): in each pair, a change, its probability and its bin.
_PAIRS = """
Posterize 0.4 8, Rotate 0.6 9
Solarize 0.6 5, AutoContrast 0.6 0
Equalize 0.8 0, Equalize 0.6 0
Posterize 0.6 7, Posterize 0.6 6
Equalize 0.4 0, Solarize 0.2 4
Equalize 0.4 0, Rotate 0.8 8
Solarize 0.6 3, Equalize 0.6 0
Posterize 0.8 5, Equalize 1.0 0
Rotate 0.2 3, Solarize 0.6 8
Equalize 0.6 0, Posterize 0.4 6
Rotate 0.8 8, Color 0.4 0
Rotate 0.4 9, Equalize 0.6 0
Equalize 0.0 0, Equalize 0.8 0
Invert 0.6 0, Equalize 1.0 0
Color 0.6 4, Contrast 1.0 8
Rotate 0.8 8, Color 1.0 2
Color 0.8 8, Solarize 0.8 7
Sharpness 0.4 7, Invert 0.6 0
ShearX 0.6 5, Equalize 1.0 0
Color 0.4 0, Equalize 0.6 0
Equalize 0.4 0, Solarize 0.2 4
Solarize 0.6 5, AutoContrast 0.6 0
Invert 0.6 0, Equalize 1.0 0
Color 0.6 4, Contrast 1.0 8
Equalize 0.8 0, Equalize 0.6 0
"""


@dataclass(frozen=True)
class _Step:
    """A change of AutoAugment's policy."""

    change: str
    probability: float
    bin: int

    @classmethod
    def of(cls, text: str) -> "_Step":
        """Return the change that a line of `_PAIRS` describes."""
        change, probability, number = text.split()
        return cls(change, float(probability), int(number))


_POLICY = [
    tuple(_Step.of(text) for text in line.split(",")) for line in _PAIRS.strip().splitlines()
]


def strength(change: str, number: int, num_bins: int, side: int) -> float:
    """Return the strength of a bin, as the papers, torchvision and MindSpore have it.

    Args:
        change: Name of the change.
        number: The bin, from 0.
        num_bins: Number of bins; TrivialAugment's reach farther than the others.
        side: The image's side in pixels.

    Returns:
        Shear as a slope, translation in pixels, rotation in degrees, a distance from the factor 1,
        bits for posterising, a threshold for solarising, 0 for what has no strength.
    """
    wide, part = num_bins == _TRIVIAL_BINS, number / (num_bins - 1)
    match change:
        case "ShearX" | "ShearY":
            return (0.99 if wide else 0.3) * part
        case "TranslateX" | "TranslateY":
            return (32 if wide else _TRANSLATION * side) * part
        case "Rotate":
            return (135 if wide else 30) * part
        case "Brightness" | "Color" | "Contrast" | "Sharpness":
            return (0.99 if wide else 0.9) * part
        case "Posterize":
            return 8 - round((6 if wide else 4) * part)
        case "Solarize":
            return 255 * (1 - part)
    return 0.0


class Policy:
    """A policy of automatic augmentation, as a function of a sample's random numbers."""

    def __init__(self, text: str, *, interpolation: int, fill: tuple[int, int, int]) -> None:
        """Make a policy.

        Args:
            text: `autoaug`, `trivialaugwide` or `randaug-mM-nN`, as recipes have it.
            interpolation: OpenCV's filter for what is moved.
            fill: The colour of pixels that are left empty.
        """
        wanted = parse_auto_augment(text)
        self._interpolation, self._fill = interpolation, fill
        self._magnitude, self._num_operations = wanted.magnitude, wanted.num_operations
        self._apply, self.num_draws = {
            "autoaug": (self._autoaugment, 5),
            "randaug": (self._randaugment, 2 * wanted.num_operations),
            "trivialaugwide": (self._trivialaugment, 3),
        }[wanted.policy]

    def __call__(self, image: Image8, numbers: Sequence[float]) -> Image8:
        """Return the changed image.

        Args:
            image: The image (R, R, 3).
            numbers: `num_draws` random numbers from [0, 1).
        """
        return self._apply(image, numbers)

    def _autoaugment(self, image: Image8, numbers: Sequence[float]) -> Image8:
        """Apply one of the pairs; each change of it with its own probability."""
        pair = _POLICY[int(numbers[0] * len(_POLICY))]
        for number, step in enumerate(pair):
            chance, sign = numbers[1 + 2 * number : 3 + 2 * number]
            if chance < step.probability:
                image = self._changed(image, step.change, step.bin, _PAPER_BINS, sign)
        return image

    def _randaugment(self, image: Image8, numbers: Sequence[float]) -> Image8:
        """Apply as many changes as wanted, all of the same bin; one may be chosen again."""
        for choice, sign in zip(numbers[::2], numbers[1::2], strict=True):
            change = CHOSEN[int(choice * len(CHOSEN))]
            image = self._changed(image, change, self._magnitude, NUM_BINS, sign)
        return image

    def _trivialaugment(self, image: Image8, numbers: Sequence[float]) -> Image8:
        """Apply one change of a random bin."""
        choice, bin_number, sign = numbers
        change = CHOSEN[int(choice * len(CHOSEN))]
        return self._changed(image, change, int(bin_number * _TRIVIAL_BINS), _TRIVIAL_BINS, sign)

    def _changed(
        self, image: Image8, change: str, number: int, num_bins: int, sign: float
    ) -> Image8:
        amount = strength(change, number, num_bins, image.shape[0])
        # What has a direction has either with probability 1/2.
        signed = -amount if sign < 0.5 else amount
        if change in _MOVES:
            return self._moved(image, _MOVES[change](signed, image.shape[0]))
        if change in _ENHANCEMENTS:
            return _ENHANCEMENTS[change](image, 1 + signed)
        if change in _REDUCTIONS:
            return _REDUCTIONS[change](image, amount)
        return _WITHOUT_STRENGTH[change](image)

    def _moved(self, image: Image8, matrix: Matrix) -> Image8:
        moved = cv2.warpAffine(
            image,
            np.array(matrix, np.float64),
            image.shape[:2],
            flags=self._interpolation,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=self._fill,
        )
        return np.asarray(moved, np.uint8)
