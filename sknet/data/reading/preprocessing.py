"""The one place that decides what a network sees of an image in evaluations, and in predictions.

Training's evaluations, `sknet.validate`, `sknet.predict` and the check of an export all take their
operations from here, so that they see the same pixels to the bit.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mindspore.dataset import vision
from PIL import Image

from sknet.data.images import Image8
from sknet.data.reading.batch_operations import Images, normalise
from sknet.records.preprocessing import Preprocessing

Operations = Sequence[object]
"""Operations of MindSpore, which has no type information."""

_INTERPOLATION = {
    "nearest": vision.Inter.NEAREST,
    "bilinear": vision.Inter.BILINEAR,
    "bicubic": vision.Inter.BICUBIC,
}


def eval_operations(preprocessing: Preprocessing) -> Operations:
    """Return the operations from a decoded image to pixels (3, R, R) in uint8, for evaluation.

    They cut strips, resize the shorter side, and crop the centre: see `Preprocessing.in_words`.
    """
    if preprocessing.eval_preprocessing == "pillow":
        return [PillowCrop(preprocessing)]
    return [
        LimitAspect(preprocessing.max_aspect),
        vision.Resize(preprocessing.resize, _INTERPOLATION[preprocessing.interpolation]),
        vision.CenterCrop(preprocessing.crop),
        vision.HWC2CHW(),
    ]


def network_input(image: Image8, preprocessing: Preprocessing) -> Images:
    """Return what the network sees of one decoded image: (3, R, R) in float32."""
    operations: Sequence[Any] = eval_operations(preprocessing)
    pixels: Any = image
    for operation in operations:
        pixels = operation(pixels)
    result: Images = normalise(pixels[None], preprocessing.mean, preprocessing.std)[0]
    return result


class LimitAspect:
    """Cuts a strip to its middle, and leaves any other image as it is.

    An evaluation enlarges a strip of 1 x 40,000 pixels to 256 x 10,240,000 and keeps a square. What
    it keeps comes from the middle, of which more than enough is left.
    """

    def __init__(self, max_aspect: int) -> None:
        self.max_aspect = max_aspect

    def __call__(self, image: Image8) -> Image8:
        """Return the middle of an image (height, width, 3)."""
        height, width, _ = image.shape
        most = self.max_aspect * min(height, width)
        top, left = (max(0, side - most) // 2 for side in (height, width))
        # The same number of pixels goes on both sides, so that the centre stays where it is.
        return image[top : height - top, left : width - left]


class PillowCrop:
    """Resizes by Pillow, whose filters antialias, and crops; sizes are torchvision's and timm's."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.limit_aspect = LimitAspect(preprocessing.max_aspect)
        self.resize = preprocessing.resize
        self.crop = preprocessing.crop
        self.resampling = Image.Resampling[preprocessing.interpolation.upper()]

    def __call__(self, image: Image8) -> Image8:
        """Map a decoded image (height, width, 3) to pixels (3, R, R)."""
        image = self.limit_aspect(image)
        height, width, _ = image.shape
        shorter = min(height, width)
        size = (self.resize * width // shorter, self.resize * height // shorter)
        resized = Image.fromarray(image).resize(size, self.resampling)
        left, top = (round((side - self.crop) / 2) for side in size)
        cropped = resized.crop((left, top, left + self.crop, top + self.crop))
        return np.ascontiguousarray(np.asarray(cropped).transpose(2, 0, 1))
