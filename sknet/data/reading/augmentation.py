"""MindSpore's C++ operations that turn encoded images into pixels for training.

Their random numbers come from the seed that is set where a pipeline is made. Operations that draw
from other streams of the whole process, so that a resumed run can't repeat them, are not used:
random erasing, mixup and CutMix are our own, and so is normalisation, which is faster
(`batch_operations`).
"""

from collections.abc import Sequence

from mindspore.dataset import vision

from sknet.recipe import Recipe
from sknet.recipe.types import MAX_MAGNITUDE, parse_auto_augment

Operations = Sequence[object]
"""Operations of MindSpore, which has no type information."""

INTERPOLATION = {
    "nearest": vision.Inter.NEAREST,
    "bilinear": vision.Inter.BILINEAR,
    "bicubic": vision.Inter.BICUBIC,
}

_TRIVIAL_AUGMENT_BINS = 31  # as in the paper (Müller and Hutter 2021)


def train_operations(recipe: Recipe) -> Operations:
    """Return the operations from an encoded image to pixels (3, R, R) in uint8, for training.

    They crop at random, flip, and then apply automatic augmentation or else colour jitter.
    """
    operations: list[object] = [
        vision.RandomCropDecodeResize(
            recipe.image_resize,
            recipe.scale,
            recipe.ratio,
            interpolation=INTERPOLATION[recipe.interpolation],
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


def _auto_augment(recipe: Recipe, text: str) -> object:
    """Return the operation of a policy of automatic augmentation.

    MindCV scales RandAugment's magnitudes by m / 10. Of eleven bins, m is therefore the bin:
    rotation by ±3m degrees, shear by ±0.03m, translation by ±0.0453m of the side, brightness,
    colour, contrast and sharpness by 1 ± 0.09m, posterising to 8 - 0.4m bits, solarising above
    255 - 25.5m. Unlike in MindCV, magnitudes have no noise, every chosen operation is applied (in
    MindCV with probability 0.5), the identity takes the place of the inversion, and strength
    always grows with m (in MindCV with `inc1` only).
    """
    wanted = parse_auto_augment(text)
    # As in MindCV, pixels that a rotation or a shift leaves empty get the mean colour.
    red, green, blue = (min(255, max(0, round(mean))) for mean in recipe.mean)
    shared = {
        "interpolation": INTERPOLATION[recipe.interpolation],
        "fill_value": (red, green, blue),
    }
    if wanted.policy == "autoaug":
        return vision.AutoAugment(vision.AutoAugmentPolicy.IMAGENET, **shared)
    if wanted.policy == "trivialaugwide":
        return vision.TrivialAugmentWide(_TRIVIAL_AUGMENT_BINS, **shared)
    bins = MAX_MAGNITUDE + 1
    return vision.RandAugment(wanted.num_operations, wanted.magnitude, bins, **shared)
