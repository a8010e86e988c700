"""What an evaluation does to an image before the network sees it, in terms that others can follow.

The operations themselves are in `sknet.data.reading.preprocessing`.
"""

import math
from collections.abc import Mapping
from typing import Any, Self

from infra.base.records import Record
from sknet.recipe import FILE_DEFAULTS, Recipe
from sknet.recipe.choices import EvalPreprocessing, Interpolation
from sknet.records.fields import PositiveInt

MAX_ASPECT = 16
"""Largest ratio of an image's sides at which all of it is resized for an evaluation."""

PREPROCESSING_KEYS = (
    "image_resize",
    "crop_pct",
    "interpolation",
    "eval_preprocessing",
    "mean",
    "std",
)
"""Choices of a recipe that decide what the network sees of a validation image."""

SOURCE_CHOICES: Mapping[str, Mapping[str, str]] = {
    "sknet": FILE_DEFAULTS,
    "timm": {"interpolation": "bicubic", "eval_preprocessing": "pillow"},
    "mindcv": {"eval_preprocessing": "mindcv"},
}
"""Source of weights → the choices with which its networks are evaluated if no recipe names others.
Those of timm are in models/sknet.py of timm 1.0. Ours are the defaults of recipe files."""

Three = tuple[float, float, float]

_RESIZING = {
    "pillow": {
        name: f"image.resize((w, h), Image.Resampling.{name.upper()}) of Pillow, which averages "
        "over all pixels when it shrinks an image (antialiasing)"
        for name in ("nearest", "bilinear", "bicubic")
    },
    # Compared with OpenCV 4.11: equal, but for a level of 255 in some pixels of INTER_CUBIC.
    "mindcv": {
        "nearest": "cv2.resize(image, (w, h), interpolation=cv2.INTER_NEAREST) of OpenCV",
        "bilinear": "cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR) of OpenCV, which "
        "doesn't antialias; Pillow's image.transform((w, h), Image.Transform.AFFINE, "
        "(image.width / w, 0, 0, 0, image.height / h, 0), Image.Resampling.BILINEAR) differs by at "
        "most 1 of 255",
        "bicubic": "cv2.resize(image, (w, h), interpolation=cv2.INTER_CUBIC) of OpenCV, which "
        "doesn't antialias; Pillow has no equal",
    },
}
_CENTRE = {
    "pillow": "left = round((w - {crop}) / 2) and top = round((h - {crop}) / 2), where halves are "
    "rounded to the even number, as in Python",
    "mindcv": "left = (w - {crop}) // 2 and top = (h - {crop}) // 2",
}


def other_preprocessing(recipe: Recipe, trained: Recipe) -> str | None:
    """Return what to tell of a recipe with other preprocessing than a training; None if nothing."""
    differing = _differing(recipe, {key: getattr(trained, key) for key in PREPROCESSING_KEYS})
    return f"other preprocessing than in training: {differing}" if differing else None


def other_than_source(recipe: Recipe, source: str) -> str | None:
    """Return what to tell of a recipe with other preprocessing than its weights' source has.

    Args:
        recipe: The recipe.
        source: Whose names the weights have, as `sknet.models.weights.source_of` says.
    """
    if source == "sknet":
        return None  # a training of ours may have had any choices
    differing = _differing(recipe, SOURCE_CHOICES[source])
    return f"other preprocessing than {source}'s networks have: {differing}" if differing else None


def _differing(recipe: Recipe, expected: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} is {getattr(recipe, key)} instead of {value}"
        for key, value in expected.items()
        if getattr(recipe, key) != value
    )


class Preprocessing(Record):
    """The steps from an encoded image to the network's input (3, crop, crop) in float32."""

    eval_preprocessing: EvalPreprocessing = "mindcv"
    """Whose resizing and rounding; records from before there was a choice are MindCV's."""
    max_aspect: PositiveInt = MAX_ASPECT
    """Of a strip whose longer side is more than this many times the shorter one, only the middle is
    resized."""
    resize: PositiveInt
    """Size to which the shorter side is resized, in pixels."""
    interpolation: Interpolation
    """Filter of the resizing."""
    crop: PositiveInt
    """Side of the square that is cut out of the centre, in pixels."""
    mean: Three
    """Subtracted from the values 0 … 255 of red, green and blue."""
    std: Three
    """Divides the differences of red, green and blue."""

    @classmethod
    def of(cls, recipe: Recipe, resolution: int, scale: float = 1.0) -> Self:
        """Return the preprocessing of a recipe's evaluation.

        Args:
            recipe: The recipe.
            resolution: Side of the network's input, in pixels.
            scale: Factor by which the image is enlarged before the crop.
        """
        return cls(
            eval_preprocessing=recipe.eval_preprocessing,
            resize=resized_side(resolution, recipe.crop_pct, scale),
            interpolation=recipe.interpolation,
            crop=resolution,
            mean=recipe.mean,
            std=recipe.std,
        )

    def in_words(self) -> tuple[str, ...]:
        """Return the steps in words and formulas, one after the other."""
        resizing = _RESIZING[self.eval_preprocessing][self.interpolation]
        return (
            "Decode as RGB: Image.open(file).convert('RGB'). Alpha is dropped, EXIF orientation "
            "ignored, and of 16-bit greys the upper eight bits are taken.",
            f"Of an image whose longer side is more than {self.max_aspect} times the shorter one, "
            f"cut (longer - {self.max_aspect} * shorter) // 2 pixels off both ends.",
            f"Resize the shorter side to {self.resize} pixels and the longer one to "
            f"{self.resize} * longer // shorter, by {resizing}.",
            f"Crop {self.crop} x {self.crop} pixels at "
            f"{_CENTRE[self.eval_preprocessing].format(crop=self.crop)}.",
            f"In float32, subtract the mean {list(self.mean)} and divide by {list(self.std)}, for "
            "red, green and blue in 0 … 255.",
            "Transpose (height, width, channel) to (channel, height, width), and stack the images "
            "of a batch.",
        )


def resized_side(crop: int, crop_pct: float, scale: float = 1.0) -> int:
    """Return the size in pixels to which an evaluation resizes the shorter side, rounded down.

    Args:
        crop: Side of the crop, in pixels.
        crop_pct: The crop's side as a fraction of the shorter side.
        scale: Factor by which the image is enlarged before the crop.
    """
    return math.floor(crop * scale / crop_pct)
