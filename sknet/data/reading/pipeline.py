"""Input pipelines over shards: exactly the samples that are asked for, in their order."""

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import pairwise
from typing import Any

import mindspore.dataset as ds
import numpy as np
import numpy.typing as npt
from mindspore.dataset import transforms, vision

from sknet.data.images import refused_by_mindspore, undecodable
from sknet.data.order import Indices, derive_seed
from sknet.data.reading.augmentation import Operations, eval_operations, normalise, train_operations
from sknet.data.reading.threads import read_pipeline
from sknet.data.shards import ShardSet
from sknet.errors import SampleError
from sknet.recipe import Recipe


def sample_keys(shards: ShardSet, split: str, indices: Indices) -> list[str]:
    """The keys by which the source knows the samples, in the order of the indices."""
    return [str(key) for (key,) in _rows(shards, split, indices, ["key"])]


def sample_images(shards: ShardSet, split: str, indices: Indices) -> list[bytes]:
    """The samples' encoded images, in the order of the indices."""
    if not len(indices):
        return []
    rows = _rows(shards, split, indices, ["image"])
    return [image.tobytes() for (image,) in rows]


def find_undecodable(shards: ShardSet, split: str, indices: Indices) -> SampleError | None:
    """The error for the first of the samples that doesn't decode, or None if all of them do."""
    files = shards.record.files_of(split)
    ends = np.cumsum([file.num_samples for file in files])
    with closing(_rows(shards, split, indices, ["image", "label", "key"])) as rows:
        for index, (image, label, key) in zip(indices, rows, strict=True):
            if reason := undecodable(image.tobytes()) or refused_by_mindspore(image.tobytes()):
                file = files[int(np.searchsorted(ends, index, side="right"))]
                return SampleError(
                    f"{key} (class {shards.classes[int(label)]!r}) in shard "
                    f"{shards.directory / file.name} doesn't decode: {reason}; "
                    "convert the data again"
                )
    return None


def _rows(
    shards: ShardSet, split: str, indices: Indices, columns: list[str]
) -> Generator[tuple[Any, ...], None, None]:
    """As stored, by one reader and with no read-ahead to speak of: most of them aren't needed."""
    return read_pipeline(
        lambda: ds.MindDataset(
            shards.paths(split),
            columns_list=columns,
            sampler=ds.SubsetSampler(indices.tolist()),
            num_parallel_workers=1,
        ).create_tuple_iterator(num_epochs=1, output_numpy=True)
    )


Images = npt.NDArray[np.float32]

Labels = npt.NDArray[np.int32]

Batch = tuple[Images, Labels]

BatchAt = tuple[tuple[Images, ...], Labels]
"""Images at several resolutions."""


def train_batches(
    recipe: Recipe,
    shards: ShardSet,
    indices: Indices,
    batch_size: int,
    *,
    seed: int,
) -> Iterator[Batch]:
    """Augmented batches of one segment: images (batch, 3, R, R), labels (batch,).

    The C++ operations draw from `seed` and from nothing else: a segment gives the same pixels
    whatever was read before it, or is read at the same time. Raises SampleError for a sample that
    doesn't decode.
    """
    columns = {"image": train_operations(recipe)}
    batches = _batches(recipe, shards, "train", indices, batch_size, columns=columns, seed=seed)
    return ((images, labels) for (images,), labels in batches)


def eval_batches(
    recipe: Recipe, shards: ShardSet, split: str, indices: Indices, batch_size: int
) -> Iterator[Batch]:
    """Centre crops; the last batch may be shorter. Shapes and errors as in `train_batches`."""
    batches = eval_batches_at(recipe, shards, split, indices, batch_size, [recipe.image_resize])
    return ((images, labels) for (images,), labels in batches)


def eval_batches_at(
    recipe: Recipe,
    shards: ShardSet,
    split: str,
    indices: Indices,
    batch_size: int,
    resolutions: Sequence[int],
    scales: Sequence[float] = (1.0,),
) -> Iterator[BatchAt]:
    """As `eval_batches`, with the images at each resolution, and of these at each scale.

    Each image is read and decoded once.
    """
    # MindSpore refuses more than there are; here they draw nothing, so their number is free.
    workers = min(recipe.num_parallel_workers, os.cpu_count() or 1)
    recipe = recipe.model_copy(update={"num_parallel_workers": workers})
    columns = {
        f"image-{resolution}-{scale}": eval_operations(recipe, resolution, scale)
        for resolution in resolutions
        for scale in scales
    }
    return _batches(
        recipe,
        shards,
        split,
        indices,
        batch_size,
        first=[vision.Decode()],
        columns=columns,
        seed=recipe.seed,
    )


def segment_seed(recipe: Recipe, epoch: int, step: int, rank: int) -> int:
    """Seed of the augmentation of the segment that starts at `step` of `epoch`, for a rank."""
    return derive_seed(recipe.seed, epoch, step, rank) & 0x7FFFFFFF


def _batches(
    recipe: Recipe,
    shards: ShardSet,
    split: str,
    indices: Indices,
    batch_size: int,
    *,
    first: Operations = (),
    columns: Mapping[str, Operations],
    seed: int,
) -> Iterator[BatchAt]:
    """The image after the `first` operations becomes one column for each of `columns`."""
    workers = recipe.num_parallel_workers
    names = list(columns)

    def make() -> object:
        ds.config.set_seed(seed)
        data = ds.MindDataset(
            shards.paths(split),
            columns_list=["image", "label"],
            sampler=ds.SubsetSampler(indices.tolist()),
            num_parallel_workers=workers,
        )
        if len(names) == 1:
            data = data.map([*first, *columns[names[0]]], "image", names, workers)
        else:
            data = data.map([*first, transforms.Duplicate()], "image", names[:2], workers)
            for one, other in pairwise(names[1:]):
                data = data.map(transforms.Duplicate(), one, [one, other], workers)
            for name, operations in columns.items():
                data = data.map(operations, name, num_parallel_workers=workers)
        data = data.project([*names, "label"]).batch(batch_size, num_parallel_workers=workers)
        return data.create_tuple_iterator(num_epochs=1, output_numpy=True)

    rows = read_pipeline(make)
    return (
        (tuple(normalise(each, recipe.mean, recipe.std) for each in images), labels.reshape(-1))
        for *images, labels in _explained(rows, shards, split, indices, batch_size)
    )


def _explained(
    rows: Iterator[tuple[Any, ...]],
    shards: ShardSet,
    split: str,
    indices: Indices,
    batch_size: int,
) -> Iterator[tuple[Any, ...]]:
    """The same rows; an error of MindSpore's becomes one that names the sample to blame, if any."""
    num_read = 0
    try:
        for row in rows:
            yield row
            num_read += batch_size
    except RuntimeError as error:
        # The workers were ahead, so it may be a sample of a later batch.
        rest = indices[num_read:]
        if culprit := find_undecodable(shards, split, rest):
            raise culprit from error
        raise
