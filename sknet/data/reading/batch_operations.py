"""Operations on batches of pixels in NumPy: normalisation, random erasing, mixup and CutMix.

Random erasing (Zhong et al. 2017) is a function of the sample's position in the epoch. mixup (Zhang
et al. 2017) and CutMix (Yun et al. 2019) mix each sample with its neighbour in the order of the
epoch, as MindCV's recipes ask for with `mixup`, `cutmix` and `cutmix_prob`: one mixing ratio for a
step, drawn from Beta(alpha, alpha). (MindCV mixes a rank's batch with its own reverse.) They are a
function of (seed, epoch, step), so that any number of ranks gets the same images.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sknet.data.order import generator
from sknet.recipe import Recipe

Pixels = npt.NDArray[np.uint8]
"""Images (N, C, H, W) as decoded."""
Images = npt.NDArray[np.float32]
"""Images (N, C, H, W), normalised."""
Labels = npt.NDArray[np.int32]
"""Labels (N,)."""
Targets = npt.NDArray[np.float32]
"""Fractions of the classes (N, classes); each row sums to 1. Smoothing is left to the loss, which
smooths both mixed classes alike."""

_ERASING_STREAM = int.from_bytes(b"erasing")
_MIXING_STREAM = int.from_bytes(b"mixing")
_CUTMIX_PROBABILITY = 0.5  # of CutMix rather than mixup, where a recipe has both


def normalise(images: Pixels, mean: Sequence[float], std: Sequence[float]) -> Images:
    """Return (x - mean) / std in float32.

    Args:
        images: Images (N, C, H, W).
        mean: Mean of each channel.
        std: Standard deviation of each channel.
    """
    channels = (-1, 1, 1)
    means = np.reshape(np.array(mean, np.float32), channels)
    stds = np.reshape(np.array(std, np.float32), channels)
    result = np.empty(images.shape, np.float32)
    # One image at a time, so that the second pass finds in the cache what the first one wrote.
    for image, normalised in zip(images, result, strict=True):
        np.subtract(image, means, out=normalised)
        np.divide(normalised, stds, out=normalised)
    return result


def erase(images: Images, recipe: Recipe, epoch: int, positions: npt.NDArray[np.int64]) -> Images:
    """Return the images with random rectangles erased.

    Args:
        images: Images (N, C, H, W).
        recipe: The recipe, whose `re_*` keys say how likely and how large rectangles are.
        epoch: The epoch.
        positions: Positions (N,) of the images in the order of the epoch.
    """
    if not recipe.re_prob:
        return images
    result = images.copy()
    for image, position in zip(result, positions.tolist(), strict=True):
        _erase_one(image, recipe, generator(_ERASING_STREAM, recipe.seed, epoch, position))
    return result


def _erase_one(
    image: npt.NDArray[np.float32], recipe: Recipe, numbers: np.random.Generator
) -> None:
    if numbers.random() >= recipe.re_prob:
        return
    channels, height, width = image.shape
    for _ in range(recipe.re_max_attempts):
        area = numbers.uniform(*recipe.re_scale) * height * width
        ratio = numbers.uniform(*recipe.re_ratio)
        erased_width = round(math.sqrt(area * ratio))
        erased_height = round(erased_width / ratio)
        if erased_height >= height or erased_width >= width:
            continue
        top = numbers.integers(0, height - erased_height, endpoint=True)
        left = numbers.integers(0, width - erased_width, endpoint=True)
        shape = (channels, erased_height, erased_width)
        if recipe.re_value == "random":
            value = numbers.standard_normal(shape, dtype=np.float32)
        else:
            value = np.reshape(np.array(recipe.re_value, np.float32), (-1, 1, 1))
        image[:, top : top + erased_height, left : left + erased_width] = value
        return


def mix(
    images: Images,
    labels: Labels,
    num_classes: int,
    recipe: Recipe,
    *,
    epoch: int,
    step: int,
) -> tuple[Images, Targets]:
    """Return images mixed with their neighbours, and their fractions of classes.

    Neighbours are the first and the second, the third and the fourth, and so on.

    Args:
        images: Images (N, C, H, W); N is even.
        labels: Labels (N,).
        num_classes: Number of classes.
        recipe: The recipe.
        epoch: The epoch.
        step: The step, counted from the start of the epoch.
    """
    numbers = generator(_MIXING_STREAM, recipe.seed, epoch, step)
    own = 1.0
    if numbers.random() < recipe.cutmix_prob:
        cuts = not recipe.mixup or (recipe.cutmix > 0 and numbers.random() < _CUTMIX_PROBABILITY)
        alpha = recipe.cutmix if cuts else recipe.mixup
        own = float(numbers.beta(alpha, alpha))
        if cuts:
            box = draw_box(images.shape[2], images.shape[3], own, numbers)
            images, own = cut_and_paste(images, box)
        else:
            images = blend(images, own)
    return images, soft_targets(labels, num_classes, own)


@dataclass(frozen=True)
class Box:
    """Rows [top, bottom) and columns [left, right) of an image."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def area(self) -> int:
        """Number of pixels."""
        return (self.bottom - self.top) * (self.right - self.left)


def draw_box(height: int, width: int, own: float, numbers: np.random.Generator) -> Box:
    """Return a box of 1 - `own` of an image's area around a random centre, clipped to the image."""
    side = math.sqrt(1 - own)
    half_height, half_width = int(height * side) // 2, int(width * side) // 2
    y, x = int(numbers.integers(height)), int(numbers.integers(width))
    return Box(
        max(y - half_height, 0),
        min(y + half_height, height),
        max(x - half_width, 0),
        min(x + half_width, width),
    )


def cut_and_paste(images: Images, box: Box) -> tuple[Images, float]:
    """Return the images with the box taken from their neighbours.

    Returns:
        The images, and the fraction of the pixels that each has of its own.
    """
    inside = np.s_[:, :, box.top : box.bottom, box.left : box.right]
    mixed = images.copy()
    mixed[inside] = images[inside][_neighbours(len(images))]
    return mixed, 1 - box.area / (images.shape[2] * images.shape[3])


def blend(images: Images, own: float) -> Images:
    """Return `own` times each image plus 1 - `own` times its neighbour."""
    mixed = images * np.float32(own)
    others = images * np.float32(1 - own)
    mixed += others[_neighbours(len(images))]
    return mixed


def soft_targets(labels: Labels, num_classes: int, own: float) -> Targets:
    """Return `own` for each label's class plus 1 - `own` for that of its neighbour."""
    targets = np.zeros((len(labels), num_classes), np.float32)
    rows = np.arange(len(labels))
    targets[rows, labels] = own
    targets[rows, labels[_neighbours(len(labels))]] += np.float32(1 - own)
    return targets


def _neighbours(count: int) -> npt.NDArray[np.intp]:
    """Return the row of each row's neighbour: 1, 0, 3, 2, …"""
    return np.arange(count) ^ 1
