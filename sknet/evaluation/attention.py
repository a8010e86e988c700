"""Measure how attention follows the size of the object, as in the paper's section 4.4."""

import math
from collections.abc import Sequence
from contextlib import closing

import numpy as np
from mindspore import Tensor

from sknet.data.reading.pipeline import eval_batches
from sknet.data.reading.threads import read_ahead
from sknet.data.shards import ShardSet
from sknet.models import attention_probe
from sknet.models.sknet import SKNet
from sknet.recipe import Recipe
from sknet.records import Attention, UnitAttention
from sknet.records.evaluation import SPLIT

MAX_IMAGES = 256
"""Number of images to look at: the first ones of the split."""

SCALES = (1.0, 1.5)
"""Two of the paper's scales, which enlarge the central object 1.0 to 2.0 times by a central crop
and a resize."""


def measure_attention(
    network: SKNet,
    recipe: Recipe,
    shards: ShardSet,
    *,
    split: str = SPLIT,
    batch_size: int,
    scales: Sequence[float] = SCALES,
) -> Attention:
    """Return the attention weight of the largest kernel minus that of the smallest one.

    The weights of each unit are averaged over images and channels, at each scale.
    """
    num_images = min(MAX_IMAGES, shards.num_samples(split))
    indices = np.arange(num_images)
    batches = eval_batches(
        recipe, shards, split, indices, batch_size, [recipe.image_resize], scales
    )
    probe = attention_probe(network)
    sums: dict[str, list[list[float]]] = {}
    with closing(read_ahead(batches, 1)) as ahead:
        for at_scales, labels in ahead:
            for number, images in enumerate(at_scales):
                for unit, weights in probe(Tensor(images)).items():
                    differences = sums.setdefault(unit, [[] for _ in scales])
                    # The probe returns means, so a batch counts as many times as it has images.
                    differences[number].append(float(weights[-1] - weights[0]) * len(labels))
    return Attention(
        split=split,
        num_images=num_images,
        scales=tuple(scales),
        units=tuple(
            UnitAttention(
                unit=unit,
                differences=tuple(math.fsum(parts) / num_images for parts in differences),
            )
            for unit, differences in sums.items()
        ),
    )
