"""Data and augmentation."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sknet.recipe_groups.base import Choices
from sknet.recipe.types import (
    AutoAugmentText,
    Channels,
    ColorJitter,
    Count,
    EraseValue,
    NonNegative,
    Range,
    Share,
)


class DataChoices(Choices):
    """How images become the network's input, in training and in evaluation."""

    image_resize: Annotated[Count, Field(ge=32)] = 224
    """Side of the square input, in pixels."""
    scale: tuple[Share, Share] = (0.08, 1.0)
    """Range of the random crop's area, as a share of the image's."""
    ratio: Range = (0.75, 1.333)
    """Range of the random crop's width divided by its height."""
    hflip: Share = 0.5
    """Probability of a flip that swaps left and right."""
    vflip: Share = 0.0
    """Probability of a flip that swaps top and bottom."""
    color_jitter: ColorJitter | None = (0.4, 0.4, 0.4, 0.0)
    """Brightness, contrast and saturation are multiplied by factors in 1 ± this: one number for the
    three, or one for each; a fourth one shifts the hue. Not with auto_augment, which replaces it.
    MindCV's default; null for none."""
    auto_augment: AutoAugmentText | None = None
    """`randaug-m9-n2`, `autoaug` or `trivialaugwide`: see sknet.auto_augment."""
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    """Resampling in training and evaluation."""
    re_prob: Share = 0.0
    """Probability of erasing a rectangle of an image."""
    re_scale: tuple[Share, Share] = (0.02, 0.33)
    """Range of the rectangle's area, as a share of the image's."""
    re_ratio: Range = (0.3, 3.3)
    """Range of the rectangle's width divided by its height."""
    re_value: EraseValue = (0.0, 0.0, 0.0)
    """What the rectangle is filled with, after normalisation: a number, one for each channel, or
    `random` for values of a standard normal distribution."""
    re_max_attempts: Count = 10
    """Rectangles that are tried; if none fits within the image, it stays as it is."""
    mixup: NonNegative = 0.0
    """Alpha of the beta distribution of mixup's shares; 0 for no mixup."""
    cutmix: NonNegative = 0.0
    """Alpha of the beta distribution of CutMix's shares; 0 for no CutMix. With mixup on too, each
    batch draws one of the two, at even odds."""
    cutmix_prob: Share = 1.0
    """Probability that a batch is mixed, be it by mixup or by CutMix."""
    crop_pct: Annotated[Share, Field(gt=0)] = 0.875
    """Evaluation resizes the shorter side to image_resize / crop_pct, rounded down as MindCV does,
    then crops the centre."""
    val_resolutions: tuple[Annotated[Count, Field(ge=32)], ...] = ()
    """Sides at which `sknet.validate` evaluates beside image_resize, which it always does; at each
    with the same crop_pct. Training evaluates at image_resize only."""
    mean: Channels = (123.675, 116.28, 103.53)
    """Per RGB channel, of values in 0 … 255 (ImageNet's)."""
    std: Channels = (58.395, 57.12, 57.375)
    """Per RGB channel, of values in 0 … 255 (ImageNet's)."""
    num_parallel_workers: Count = 2
    """Decoding threads of each rank. They draw the augmentations, so the number is a choice of the
    run and not of the machine."""

    @model_validator(mode="after")
    def _consistent_data(self) -> Self:
        for key in ("scale", "ratio", "re_scale", "re_ratio"):
            low, high = getattr(self, key)
            if not 0 < low <= high:
                raise ValueError(f"{key} is [{low}, {high}], expected 0 < low <= high")
        if min(self.std) <= 0:
            raise ValueError(f"std is {list(self.std)}, expected values above 0")
        if len({*self.val_resolutions}) < len(self.val_resolutions):
            raise ValueError(
                f"val_resolutions is {list(self.val_resolutions)}, expected different sides"
            )
        return self

    @property
    def resolutions(self) -> tuple[int, ...]:
        """At which `sknet.validate` evaluates: image_resize first."""
        others = (side for side in self.val_resolutions if side != self.image_resize)
        return (self.image_resize, *others)
