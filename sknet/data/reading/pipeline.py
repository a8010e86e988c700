"""Pipelines over shards: exactly the requested samples, in the requested order.

Those of training are yielded as they are stored, those of evaluations as the network sees them.
"""

import io
import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from itertools import pairwise
from typing import Any

import mindspore.dataset as ds
import numpy as np
from mindspore.dataset import transforms, vision
from PIL import Image

from infra.base.shortages import memory_refused
from sknet.data.images import (
    FORMATS,
    is_out_of_memory,
    reason_of_mindspore,
    refused_by_mindspore,
    undecodable,
)
from sknet.data.order import Indices
from sknet.data.reading.batch_operations import Images, Labels, Pixels, normalise
from sknet.data.reading.preprocessing import Operations, eval_operations
from sknet.data.reading.threads import read_pipeline, usable_threads
from sknet.data.shards import ShardSet
from sknet.errors import SampleError
from sknet.recipe import Recipe
from sknet.records.preprocessing import Preprocessing

MAX_BATCHES_AHEAD = 32
"""MindSpore's operations are at most this many batches ahead of the one that is yielded: 16, its
default, after the batches are made, and as many samples or batches before."""

_ROWS_AT_ONCE = 32  # a row alone would cost 0.2 ms of calls between threads

MEMORY_OPTIONS = ["batch_size", "num_parallel_workers"]
"""What the user can lower so that reading needs less memory."""

EvalBatch = tuple[tuple[Images, ...], Labels]
"""Normalised images (N, 3, R, R) for each resolution and scale, and labels (N,)."""


def eval_batches(
    recipe: Recipe,
    shards: ShardSet,
    split: str,
    indices: Indices,
    batch_size: int,
    resolutions: Sequence[int],
    scales: Sequence[float] = (1.0,),
) -> Iterator[EvalBatch]:
    """Yield batches of centre crops, at several resolutions and scales of the same images.

    Each image is read and decoded once.

    Args:
        recipe: The recipe.
        shards: The shards.
        split: The split to read.
        indices: The samples to read, in this order.
        batch_size: Number of samples of a batch; the last batch may be smaller.
        resolutions: Sides of the crops, in pixels.
        scales: Factors by which images are enlarged before the crop; all at each resolution.

    Raises:
        SampleError: A sample doesn't decode.
    """
    return preprocessed_batches(
        [Preprocessing.of(recipe, side, scale) for side in resolutions for scale in scales],
        shards,
        split,
        indices,
        batch_size,
        num_workers=recipe.num_parallel_workers,
    )


def preprocessed_batches(
    preprocessings: Sequence[Preprocessing],
    shards: ShardSet,
    split: str,
    indices: Indices,
    batch_size: int,
    *,
    num_workers: int,
) -> Iterator[EvalBatch]:
    """Yield batches of the same images after each of several preprocessings.

    Each image is read and decoded once.

    Args:
        preprocessings: What happens to the images, all different.
        shards: The shards.
        split: The split to read.
        indices: The samples to read, in this order.
        batch_size: Number of samples of a batch; the last batch may be smaller.
        num_workers: Decoding threads.

    Raises:
        SampleError: A sample doesn't decode.
    """
    batches = _batches(
        shards,
        split,
        indices,
        batch_size,
        first=[vision.Decode()],
        columns={
            f"image-{number}": eval_operations(each) for number, each in enumerate(preprocessings)
        },
        # MindSpore refuses more workers than processors, and fewer give the same pixels.
        num_workers=usable_threads(num_workers),
    )
    return (
        (
            tuple(
                normalise(pixels, each.mean, each.std)
                for pixels, each in zip(images, preprocessings, strict=True)
            ),
            labels,
        )
        for images, labels in batches
    )


def encoded_samples(
    shards: ShardSet, split: str, indices: Indices, num_workers: int
) -> Generator[tuple[bytes, int], None, None]:
    """Yield samples as they are stored: the encoded image and the label.

    Args:
        shards: The shards.
        split: The split to read.
        indices: The samples to read, in this order.
        num_workers: Threads that read, if the machine has as many processors.

    Raises:
        MemoryRefusedError: Memory was refused.
    """
    columns, num_workers = ["image", "label"], usable_threads(num_workers)
    num_read = 0
    try:
        rows = _stored(shards, split, indices, columns, num_workers, at_once=_ROWS_AT_ONCE)
        with closing(rows):
            for image, label in rows:
                yield image.tobytes(), int(label)
                num_read += 1
    except RuntimeError as error:
        # Nothing is decoded here, so no other error is a sample's.
        if not is_out_of_memory(error):
            raise
        ahead = indices[num_read : num_read + _ROWS_AT_ONCE]
        raise explained(error, shards, split, ahead) from error


def sample_keys(shards: ShardSet, split: str, indices: Indices) -> list[str]:
    """Return the keys that samples have in the source, in the order of the indices."""
    # MindSpore refuses to read samples more often than there are samples.
    once, places = np.unique(indices, return_inverse=True)
    keys = [str(key) for (key,) in _stored(shards, split, once, ["key"])]
    return [keys[place] for place in places]


def sample_images(shards: ShardSet, split: str, indices: Indices) -> list[bytes]:
    """Return the encoded images of samples, in the order of the indices."""
    if not len(indices):
        return []
    rows = _stored(shards, split, indices, ["image"])
    return [image.tobytes() for (image,) in rows]


def _batches(
    shards: ShardSet,
    split: str,
    indices: Indices,
    batch_size: int,
    *,
    first: Operations = (),
    columns: Mapping[str, Operations],
    num_workers: int,
) -> Iterator[tuple[tuple[Pixels, ...], Labels]]:
    """Yield batches with one column for each of `columns`, all after the `first` operations."""
    names = list(columns)

    def make(paths: list[str]) -> object:
        data = ds.MindDataset(
            paths,
            columns_list=["image", "label"],
            sampler=ds.SubsetSampler(indices.tolist()),
            num_parallel_workers=num_workers,
        )
        if len(names) == 1:
            data = data.map([*first, *columns[names[0]]], "image", names, num_workers)
        else:
            data = data.map([*first, transforms.Duplicate()], "image", names[:2], num_workers)
            for one, other in pairwise(names[1:]):
                data = data.map(transforms.Duplicate(), one, [one, other], num_workers)
            for name, operations in columns.items():
                data = data.map(operations, name, num_parallel_workers=num_workers)
        data = data.project([*names, "label"]).batch(batch_size, num_parallel_workers=num_workers)
        return data.create_tuple_iterator(num_epochs=1, output_numpy=True)

    rows = _rows(shards, split, make)
    return (
        (tuple(images), labels.reshape(-1))
        for *images, labels in _explain_errors(rows, shards, split, indices, batch_size)
    )


def _explain_errors(
    rows: Iterator[tuple[Any, ...]],
    shards: ShardSet,
    split: str,
    indices: Indices,
    batch_size: int,
) -> Generator[tuple[Any, ...], None, None]:
    """Yield the rows; replace MindSpore's error by one that names the sample.

    Raises:
        SampleError: A sample doesn't decode.
        MemoryRefusedError: Memory was refused; the message names the largest sample of those that
            were being read.
    """
    num_read = 0
    try:
        for row in rows:
            yield row
            num_read += batch_size
    except RuntimeError as error:
        # MindSpore reads ahead, so the sample may be one of a later batch.
        if is_out_of_memory(error):
            indices = indices[: num_read + MAX_BATCHES_AHEAD * batch_size]
        if (cause := explained(error, shards, split, indices[num_read:])) is error:
            raise
        raise cause from error


def explained(error: Exception, shards: ShardSet, split: str, indices: Indices) -> Exception:
    """Return an error that names the sample at which reading failed; else the error itself.

    Args:
        error: The error of a decoder or of MindSpore's reader.
        shards: The shards.
        split: The split that was read.
        indices: The samples that were being read, of which one may be the cause.

    Returns:
        A SampleError for the first sample that doesn't decode, a MemoryRefusedError that names the
        largest sample if memory was refused, or else the error.
    """
    shards, indices = shards.of_samples(split, np.unique(indices))
    if is_out_of_memory(error):
        reason = reason_of_mindspore(error) if isinstance(error, RuntimeError) else str(error)
        largest = _largest(shards, split, indices)
        return memory_refused(MemoryError(reason), largest, MEMORY_OPTIONS) or error
    return _first_undecodable(shards, split, indices) or error


def _largest(shards: ShardSet, split: str, indices: Indices) -> str:
    """Return the largest of some samples and its size, for a message."""
    largest, size = "", (0, 0)
    with closing(_stored(shards, split, indices, ["image", "key"])) as rows:
        for content, key in rows:
            # A damaged sample isn't looked for here.
            with (
                suppress(OSError),
                Image.open(io.BytesIO(content.tobytes()), formats=FORMATS) as image,
            ):
                if math.prod(image.size) > math.prod(size):
                    largest, size = str(key), image.size
    return f"sample {largest} of {size[0]} x {size[1]} pixels, the largest of those being read"


def _first_undecodable(shards: ShardSet, split: str, indices: Indices) -> SampleError | None:
    """Return the error for the first sample that doesn't decode; None if all of them do."""
    files = shards.record.files_of(split)
    ends = np.cumsum([file.num_samples for file in files])
    with closing(_stored(shards, split, indices, ["image", "label", "key"])) as rows:
        for index, (image, label, key) in zip(indices, rows, strict=True):
            if reason := undecodable(image.tobytes()) or refused_by_mindspore(image.tobytes()):
                file = files[int(np.searchsorted(ends, index, side="right"))]
                return SampleError(
                    f"{key} (class {shards.classes[int(label)]!r}) in shard "
                    f"{shards.directory / file.name} doesn't decode: {reason}; "
                    "convert the data again"
                )
    return None


def _stored(
    shards: ShardSet,
    split: str,
    indices: Indices,
    columns: list[str],
    num_workers: int = 1,
    *,
    at_once: int = 1,
) -> Generator[tuple[Any, ...], None, None]:
    """Yield samples as they are stored; most callers need only a few."""

    def make(paths: list[str]) -> object:
        return ds.MindDataset(
            paths,
            columns_list=columns,
            sampler=ds.SubsetSampler(indices.tolist()),
            num_parallel_workers=num_workers,
        ).create_tuple_iterator(num_epochs=1, output_numpy=True)

    return _rows(shards, split, make, at_once)


def _rows(
    shards: ShardSet, split: str, make: Callable[[list[str]], object], at_once: int = 1
) -> Generator[tuple[Any, ...], None, None]:
    """Yield the rows of a pipeline over the files of a split, which are held until its end.

    Args:
        shards: The shards.
        split: The split.
        make: Makes the pipeline from the files' paths; returns MindSpore's iterator over its rows.
        at_once: Rows that are read in one call.
    """
    with (
        shards.available(split) as paths,
        closing(read_pipeline(partial(make, paths), at_once)) as rows,
    ):
        yield from rows
