"""What the SK units attend to as the object grows: the paper's analysis in its section 4.4."""

import math
from collections.abc import Sequence
from contextlib import closing

import numpy as np
from mindspore import Tensor

from sknet.data.reading.pipeline import eval_batches_at
from sknet.data.reading.threads import read_ahead
from sknet.data.shards import ShardSet
from sknet.models import attention_probe
from sknet.models.sknet import SKNet
from sknet.recipe import Recipe
from sknet.records import Attention, UnitAttention

MAX_IMAGES = 256
"""The first ones of the split."""
SCALES = (1.0, 1.5)
"""The paper enlarges the central object from 1.0 to 2.0 times, by central cropping and resizing."""


def attention(
    network: SKNet,
    recipe: Recipe,
    shards: ShardSet,
    *,
    split: str = "val",
    batch_size: int,
    scales: Sequence[float] = SCALES,
) -> Attention:
    """Mean over images and channels of the largest kernel's share minus the smallest one's."""
    num_images = min(MAX_IMAGES, shards.num_samples(split))
    indices = np.arange(num_images)
    batches = eval_batches_at(
        recipe, shards, split, indices, batch_size, [recipe.image_resize], scales
    )
    probe = attention_probe(network)
    sums: dict[str, list[list[float]]] = {}
    with closing(read_ahead(batches, 1)) as ahead:
        for at_scales, labels in ahead:
            for number, images in enumerate(at_scales):
                for unit, shares in probe(Tensor(images)).items():
                    differences = sums.setdefault(unit, [[] for _ in scales])
                    # A batch weighs as much as it has images.
                    differences[number].append(float(shares[-1] - shares[0]) * len(labels))
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
