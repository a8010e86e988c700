"""Random erasing (Zhong et al. 2017), a function of (seed, epoch, position) and of nothing else.

What MindCV's recipes ask for under `re_*`: on normalised images, with the area and then the aspect
ratio drawn evenly. An image is erased alike whatever the world size, as its position in the epoch's
order is.
"""

import math

import numpy as np
import numpy.typing as npt

from sknet.data.order import generator
from sknet.recipe import Recipe

_STREAM = int.from_bytes(b"erasing")


def erase(
    images: npt.NDArray[np.float32], recipe: Recipe, epoch: int, positions: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """The images (N, C, H, W) with rectangles erased; `positions` (N,) are those in the epoch."""
    if not recipe.re_prob:
        return images
    result = images.copy()
    for image, position in zip(result, positions.tolist(), strict=True):
        _erase_one(image, recipe, generator(_STREAM, recipe.seed, epoch, position))
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
