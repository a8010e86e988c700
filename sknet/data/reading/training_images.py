"""What training makes of an encoded image: a random crop, flips, and changes of its colours.

It is a function of the image and of the sample's random numbers, which follow from (seed, epoch,
position). OpenCV does the work: it lets other threads run meanwhile, and resizes as MindSpore does,
to the bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from sknet.data.images import Image8, decode, decode_quickly, undecodable
from sknet.data.reading.auto_augment import Policy
from sknet.data.reading.colours import NUM_JITTER_DRAWS, jitter
from sknet.data.reading.crop_box import NUM_DRAWS, crop_box
from sknet.data.reading.draws import Draws, draws
from sknet.recipe import Recipe

# Each thread that reads works on an image of its own; threads of OpenCV's would compete with them.
cv2.setNumThreads(1)

_INTERPOLATION = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
}


@dataclass(frozen=True)
class SampleDraws:
    """The random numbers of consecutive samples, one row each."""

    crop: Draws
    """(N, 24): those of the crop, then those of the flips from left to right and upside down."""
    colours: Draws
    """(N, count): those of colour jitter, or of automatic augmentation."""


class TrainingImages:
    """Makes the pixels that training sees. Any number of threads may use it at the same time."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._side = recipe.image_resize
        self._interpolation = _INTERPOLATION[recipe.interpolation]
        self._policy: Policy | None = None
        self._num_colour_draws = NUM_JITTER_DRAWS if recipe.color_jitter else 0
        if recipe.auto_augment:
            # As in MindCV, pixels that a rotation or a shift leaves empty get the mean colour.
            red, green, blue = (min(255, max(0, round(mean))) for mean in recipe.mean)
            self._policy = Policy(
                recipe.auto_augment, interpolation=self._interpolation, fill=(red, green, blue)
            )
            self._num_colour_draws = self._policy.num_draws

    def draws(self, epoch: int, start: int, stop: int) -> SampleDraws:
        """Return the random numbers of the samples at positions [start, stop) of an epoch."""
        seed = self._recipe.seed
        return SampleDraws(
            crop=draws("crop", seed, epoch, start, stop, NUM_DRAWS + 2),
            colours=draws("colours", seed, epoch, start, stop, self._num_colour_draws),
        )

    def pixels(self, content: bytes, numbers: SampleDraws, row: int) -> Image8:
        """Return the pixels (R, R, 3) of an encoded image.

        Args:
            content: The encoded image.
            numbers: Random numbers of several samples.
            row: The sample's row of them.

        Raises:
            ValueError: The image doesn't decode.
            RuntimeError: MindSpore refuses it.
            MemoryError: Memory was refused.
        """
        recipe = self._recipe
        *crop_numbers, sideways, upside_down = numbers.crop[row].tolist()
        image = self._cropped(_decoded(content), crop_numbers)
        if sideways < recipe.hflip:
            image = np.asarray(cv2.flip(image, 1), np.uint8)
        if upside_down < recipe.vflip:
            image = np.asarray(cv2.flip(image, 0), np.uint8)
        colour_numbers = numbers.colours[row].tolist()
        if self._policy:
            return self._policy(image, colour_numbers)
        if recipe.color_jitter:
            return jitter(image, recipe.color_jitter, colour_numbers)
        return image

    def _cropped(self, image: Image8, numbers: Sequence[float]) -> Image8:
        """Return a random crop of an image, resized to (R, R, 3)."""
        height, width, _ = image.shape
        box = crop_box(height, width, self._recipe.scale, self._recipe.ratio, numbers)
        crop = image[box.top : box.top + box.height, box.left : box.left + box.width]
        size = (self._side, self._side)
        if self._recipe.antialias:
            resampling = Image.Resampling[self._recipe.interpolation.upper()]
            return np.asarray(Image.fromarray(crop).resize(size, resampling))
        return np.asarray(cv2.resize(crop, size, interpolation=self._interpolation), np.uint8)


def _decoded(content: bytes) -> Image8:
    """Return the pixels of an image, which may be damaged: some damaged ones end MindSpore."""
    if (pixels := decode_quickly(content)) is not None:
        return pixels
    if reason := undecodable(content):
        raise ValueError(reason)
    return decode(content)


class Normalisation:
    """Normalises pixels of uint8 by looking them up, which gives `normalise`'s bits faster."""

    def __init__(self, recipe: Recipe) -> None:
        values = np.arange(256, dtype=np.float32)
        self._tables = [
            ((values - np.float32(mean)) / np.float32(std)).reshape(1, 256)
            for mean, std in zip(recipe.mean, recipe.std, strict=True)
        ]

    def __call__(self, pixels: Image8, out: npt.NDArray[np.float32]) -> None:
        """Write (x - mean) / std of pixels (R, R, 3) into `out` (3, R, R)."""
        for channel, table, plane in zip(cv2.split(pixels), self._tables, out, strict=True):
            cv2.LUT(channel, table, dst=plane)
