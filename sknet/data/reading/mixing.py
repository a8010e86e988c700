"""mixup (Zhang et al. 2017) and CutMix (Yun et al. 2019) of a batch with its reversed self.

What MindCV's recipes ask for under `mixup`, `cutmix` and `cutmix_prob`: one share for a batch,
drawn from Beta(alpha, alpha). A function of (seed, epoch, step, rank) and of nothing else. Labels
become shares of classes; smoothing is left to the loss, where it applies to both classes alike.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sknet.data.order import generator
from sknet.recipe import Recipe

_ERASING_STREAM = int.from_bytes(b"erasing")


def erase(
    images: npt.NDArray[np.float32], recipe: Recipe, epoch: int, positions: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """The images (N, C, H, W) with rectangles erased; `positions` (N,) are those in the epoch."""
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


Images = npt.NDArray[np.float32]

Targets = npt.NDArray[np.float32]

_MIXING_STREAM = int.from_bytes(b"mixing")

# With mixup and CutMix both on.
_CUTMIX_SHARE = 0.5


@dataclass(frozen=True)
class Box:
    """Rows [top, bottom) and columns [left, right) of an image."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def area(self) -> int:
        """In pixels."""
        return (self.bottom - self.top) * (self.right - self.left)


def mixes(recipe: Recipe) -> bool:
    """Whether training labels are shares of classes."""
    return recipe.mixup > 0 or recipe.cutmix > 0


def mix(
    images: Images,
    labels: npt.NDArray[np.int32],
    num_classes: int,
    recipe: Recipe,
    *,
    epoch: int,
    step: int,
    rank: int,
) -> tuple[Images, Targets]:
    """Images (N, C, H, W) and labels (N,) as mixed images and shares of classes (N, classes).

    `step` counts from the start of the epoch.
    """
    numbers = generator(_MIXING_STREAM, recipe.seed, epoch, step, rank)
    own = 1.0
    if numbers.random() < recipe.cutmix_prob:
        cuts = not recipe.mixup or (recipe.cutmix > 0 and numbers.random() < _CUTMIX_SHARE)
        alpha = recipe.cutmix if cuts else recipe.mixup
        own = float(numbers.beta(alpha, alpha))
        if cuts:
            box = draw_box(images.shape[2], images.shape[3], own, numbers)
            images, own = cut_and_paste(images, box)
        else:
            images = blend(images, own)
    return images, soft_targets(labels, num_classes, own)


def draw_box(height: int, width: int, own: float, numbers: np.random.Generator) -> Box:
    """A box with 1 - `own` of the area around an evenly drawn centre, clipped to the image."""
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
    """The images with the box taken from the reversed batch, and the share that is their own."""
    inside = np.s_[:, :, box.top : box.bottom, box.left : box.right]
    mixed = images.copy()
    mixed[inside] = images[::-1][inside]
    return mixed, 1 - box.area / (images.shape[2] * images.shape[3])


def blend(images: Images, own: float) -> Images:
    """`own` of each image plus the rest of its counterpart in the reversed batch."""
    mixed = images * np.float32(own)
    mixed += images[::-1] * np.float32(1 - own)
    return mixed


def soft_targets(labels: npt.NDArray[np.int32], num_classes: int, own: float) -> Targets:
    """`own` of the label's class and the rest of its counterpart's, each row summing to 1."""
    targets = np.zeros((len(labels), num_classes), np.float32)
    rows = np.arange(len(labels))
    targets[rows, labels] = own
    targets[rows, labels[::-1]] += np.float32(1 - own)
    return targets
