"""Input pipelines over shards: exactly the samples that are asked for, in their order."""

from collections.abc import Iterator
from pathlib import Path

import mindspore.dataset as ds
import numpy as np
import numpy.typing as npt
from mindspore.dataset import transforms, vision

from sknet.data.order import Indices, derive_seed
from sknet.recipe import Recipe
from sknet.records import Shards

Batch = tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]

_INTERPOLATION = {
    "nearest": vision.Inter.NEAREST,
    "bilinear": vision.Inter.BILINEAR,
    "bicubic": vision.Inter.BICUBIC,
}


def train_batches(
    recipe: Recipe,
    shards: Shards,
    directory: Path,
    indices: Indices,
    batch_size: int,
    *,
    seed: int,
) -> Iterator[Batch]:
    """Augmented batches of one segment: images (batch, 3, R, R), labels (batch,).

    The C++ operations draw from `seed` and from nothing else: a segment gives the same pixels
    whatever was read before it.
    """
    ds.config.set_seed(seed)
    side = recipe.image_resize
    operations = [
        vision.RandomCropDecodeResize(
            side,
            recipe.scale,
            recipe.ratio,
            interpolation=_INTERPOLATION[recipe.interpolation],
        )
    ]
    if recipe.hflip:
        operations.append(vision.RandomHorizontalFlip(recipe.hflip))
    return _batches(recipe, shards, directory, "train", indices, batch_size, operations)


def eval_batches(
    recipe: Recipe, shards: Shards, directory: Path, split: str, indices: Indices, batch_size: int
) -> Iterator[Batch]:
    """Centre crops; the last batch may be shorter. Shapes as in `train_batches`."""
    side = recipe.image_resize
    operations = [
        vision.Decode(),
        vision.Resize(round(side / recipe.crop_pct), _INTERPOLATION[recipe.interpolation]),
        vision.CenterCrop(side),
    ]
    return _batches(recipe, shards, directory, split, indices, batch_size, operations)


def segment_seed(recipe: Recipe, epoch: int, step: int, rank: int) -> int:
    """Seed of the augmentation of the segment that starts at `step` of `epoch`, for a rank."""
    return derive_seed(recipe.seed, epoch, step, rank) & 0x7FFFFFFF


def _batches(
    recipe: Recipe,
    shards: Shards,
    directory: Path,
    split: str,
    indices: Indices,
    batch_size: int,
    operations: list[object],
) -> Iterator[Batch]:
    workers = recipe.num_parallel_workers
    files = [str(directory / file.name) for file in shards.files_of(split)]
    data = ds.MindDataset(
        files,
        columns_list=["image", "label"],
        sampler=ds.SubsetSampler(indices.tolist()),
        num_parallel_workers=workers,
    )
    operations = [
        *operations,
        vision.Normalize(list(recipe.mean), list(recipe.std)),
        vision.HWC2CHW(),
    ]
    data = data.map(operations, input_columns="image", num_parallel_workers=workers)
    data = data.map(
        transforms.TypeCast(np.int32), input_columns="label", num_parallel_workers=workers
    )
    data = data.batch(batch_size, num_parallel_workers=workers)
    return iter(data.create_tuple_iterator(num_epochs=1, output_numpy=True))
