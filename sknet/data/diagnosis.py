"""Which sample it was: MindSpore says that some image doesn't decode, but not which one."""

from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import mindspore.dataset as ds
import numpy as np

from sknet.data.images import refused_by_mindspore, undecodable
from sknet.data.order import Indices
from sknet.data.reading.threads import read_pipeline
from sknet.errors import SampleError
from sknet.records import Shards


def sample_keys(shards: Shards, directory: Path, split: str, indices: Indices) -> list[str]:
    """The keys by which the source knows the samples, in the order of the indices."""
    return [str(key) for (key,) in _rows(shards, directory, split, indices, ["key"])]


def sample_images(shards: Shards, directory: Path, split: str, indices: Indices) -> list[bytes]:
    """The samples' encoded images, in the order of the indices."""
    if not len(indices):
        return []
    rows = _rows(shards, directory, split, indices, ["image"])
    return [image.tobytes() for (image,) in rows]


def find_undecodable(
    shards: Shards, directory: Path, split: str, indices: Indices
) -> SampleError | None:
    """The error for the first of the samples that doesn't decode, or None if all of them do."""
    files = shards.files_of(split)
    ends = np.cumsum([file.num_samples for file in files])
    with closing(_rows(shards, directory, split, indices, ["image", "label", "key"])) as rows:
        for index, (image, label, key) in zip(indices, rows, strict=True):
            if reason := undecodable(image.tobytes()) or refused_by_mindspore(image.tobytes()):
                file = files[int(np.searchsorted(ends, index, side="right"))]
                return SampleError(
                    f"{key} (class {shards.dataset.classes[int(label)]!r}) in shard "
                    f"{directory / file.name} doesn't decode: {reason}; convert the data again"
                )
    return None


def _rows(
    shards: Shards, directory: Path, split: str, indices: Indices, columns: list[str]
) -> Generator[tuple[Any, ...], None, None]:
    """As stored, by one reader and with no read-ahead to speak of: most of them aren't needed."""
    return read_pipeline(
        lambda: ds.MindDataset(
            [str(directory / file.name) for file in shards.files_of(split)],
            columns_list=columns,
            sampler=ds.SubsetSampler(indices.tolist()),
            num_parallel_workers=1,
        ).create_tuple_iterator(num_epochs=1, output_numpy=True)
    )
