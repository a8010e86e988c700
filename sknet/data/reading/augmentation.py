"""The C++ operations that make bytes (3, R, R) of encoded images, for training and for evaluation.

Not among them: normalisation, which MindSpore's is slow at (`normalisation`); random erasing, mixup
and CutMix. MindSpore's draw from streams of the whole process at run time, so that a resumed run
could not repeat them; ours are in `erasing` and `mixing`.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from mindspore.dataset import vision

from sknet.recipe import Recipe
from sknet.recipe.types import MAX_MAGNITUDE, parse_auto_augment

Operations = Sequence[object]

_INTERPOLATION = {
    "nearest": vision.Inter.NEAREST,
    "bilinear": vision.Inter.BILINEAR,
    "bicubic": vision.Inter.BICUBIC,
}

# The number of the paper.
_TRIVIAL_AUGMENT_BINS = 31


def train_operations(recipe: Recipe) -> Operations:
    """Random crop, flips, automatic augmentation or else colour jitter."""
    operations: list[object] = [
        vision.RandomCropDecodeResize(
            recipe.image_resize,
            recipe.scale,
            recipe.ratio,
            interpolation=_INTERPOLATION[recipe.interpolation],
        )
    ]
    if recipe.hflip:
        operations.append(vision.RandomHorizontalFlip(recipe.hflip))
    if recipe.vflip:
        operations.append(vision.RandomVerticalFlip(recipe.vflip))
    if recipe.auto_augment:
        operations.append(_auto_augment(recipe, recipe.auto_augment))
    elif recipe.color_jitter:
        operations.append(vision.RandomColorAdjust(*recipe.color_jitter))
    return [*operations, vision.HWC2CHW()]


def eval_operations(recipe: Recipe, resolution: int, scale: float = 1.0) -> Operations:
    """The centre of a decoded image whose shorter side is resized to floor(resolution / crop_pct).

    With a `scale`, what is in the centre is so many times as large.
    """
    shorter = math.floor(resolution * scale / recipe.crop_pct)
    return [
        vision.Resize(shorter, _INTERPOLATION[recipe.interpolation]),
        vision.CenterCrop(resolution),
        vision.HWC2CHW(),
    ]


def _auto_augment(recipe: Recipe, text: str) -> object:
    wanted = parse_auto_augment(text)
    # As MindCV does, what a rotation or a shift uncovers is the mean colour.
    red, green, blue = (min(255, max(0, round(mean))) for mean in recipe.mean)
    shared = {
        "interpolation": _INTERPOLATION[recipe.interpolation],
        "fill_value": (red, green, blue),
    }
    if wanted.policy == "autoaug":
        return vision.AutoAugment(vision.AutoAugmentPolicy.IMAGENET, **shared)
    if wanted.policy == "trivialaugwide":
        return vision.TrivialAugmentWide(_TRIVIAL_AUGMENT_BINS, **shared)
    bins = MAX_MAGNITUDE + 1
    return vision.RandAugment(wanted.num_operations, wanted.magnitude, bins, **shared)


def normalise(
    images: npt.NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]
) -> npt.NDArray[np.float32]:
    """(x - mean) / std of images (N, C, H, W), in float32; one mean and std for each channel."""
    channels = (-1, 1, 1)
    means = np.reshape(np.array(mean, np.float32), channels)
    stds = np.reshape(np.array(std, np.float32), channels)
    result = np.empty(images.shape, np.float32)
    # One image at a time, so that the second pass finds what the first one wrote in the cache.
    for image, normalised in zip(images, result, strict=True):
        np.subtract(image, means, out=normalised)
        np.divide(normalised, stds, out=normalised)
    return result
