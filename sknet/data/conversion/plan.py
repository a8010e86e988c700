"""Which samples go into which shard, and which conversions write the same bytes."""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Generator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from sknet.data.conversion.dealing import SPREAD_SEED, Layout, Pieces
from sknet.data.index import SampleIndex, has_key
from sknet.data.shards import (
    SCHEMA,
    SHARDS_FORMAT,
    MindRecordSizes,
    common_sizes,
    mindrecord_sizes,
)
from sknet.data.sources import ALL_SPLITS
from sknet.records import Dataset, Reencoding

if TYPE_CHECKING:
    import pandas as pd

AUTO_SHARD_BYTES = 1 << 28
"""Bytes of images for each shard, where the number of shards is not given."""


@dataclass(frozen=True)
class ShardPlan:
    """One shard to write."""

    split: str
    name: str
    """File name, which holds the shard's number among those of the split."""
    rows: "pd.DataFrame"
    """The shard's rows of the index, in the shard's order."""
    sizes: MindRecordSizes
    """Those of all shards of the split."""

    @property
    def source_bytes(self) -> int:
        """Bytes of the source's images."""
        return int(self.rows["size"].sum())


def shard_counts(index: SampleIndex, num_shards: int | None) -> dict[str, int]:
    """Return the number of shards of each split, which never exceeds its number of samples.

    Args:
        index: The samples.
        num_shards: Shards of each split. None: one for every AUTO_SHARD_BYTES of its images.
    """
    num_rows = index.dataset.splits
    splits = [split for split in ALL_SPLITS if split in num_rows]
    if num_shards is not None:
        return {split: min(num_shards, num_rows[split]) for split in splits}
    num_bytes: Counter[str] = Counter()
    for block in index.blocks(["split", "size"]):
        for found in block.group_by("split").aggregate([("size", "sum")]).to_pylist():
            num_bytes[found["split"]] += found["size_sum"]
    return {
        split: min(-(-num_bytes[split] // AUTO_SHARD_BYTES), num_rows[split]) for split in splits
    }


def shard_names(counts: dict[str, int]) -> list[str]:
    """Return the file names of all shards, by split and number."""
    return [
        f"{split}-{number:05}-of-{count:05}.mindrecord"
        for split, count in counts.items()
        for number in range(count)
    ]


def plan_shards(
    index: SampleIndex, counts: dict[str, int], scratch: Path
) -> Generator[ShardPlan, None, None]:
    """Yield the shards in the order of `shard_names`; sizes in a split differ by one at most.

    Args:
        index: The samples.
        counts: Number of shards of each split.
        scratch: A directory with room for the rows, which are in files there until the generator
            is closed.

    Raises:
        UserError: An image exceeds MindRecord's largest page, or the index can't be read.
    """
    layout = Layout.of(index.dataset, counts)
    with TemporaryDirectory(prefix="index-", dir=scratch) as directory:
        pieces = Pieces(layout, Path(directory))
        contents = pieces.deal(index)
        first, sizes = 0, {}
        for split, count in layout.counts.items():
            sizes[split] = common_sizes(
                [
                    mindrecord_sizes(
                        num_images=int(contents.num_images[number]),
                        image_bytes=int(contents.image_bytes[number]),
                        largest_image=int(contents.largest_image[number]),
                        key_bytes=int(contents.key_bytes[number]),
                    )
                    for number in range(first, first + count)
                ]
            )
            first += count
        all_rows = pieces.shards()
        for split, count in layout.counts.items():
            for name in shard_names({split: count}):
                yield ShardPlan(split, name, next(all_rows).to_pandas(), sizes[split])


def shards_of(
    index: SampleIndex, counts: dict[str, int], keys: Collection[str]
) -> list[tuple[str, str]]:
    """Return the shard of each of some samples: (name, key), in the order of the shards' rows."""
    layout, names = Layout.of(index.dataset, counts), shard_names(counts)
    found: list[tuple[int, str]] = []
    for block, places in layout.dealt(index, ["split", "key"]):
        rows = np.flatnonzero(has_key(block, keys))
        found += zip(places[rows].tolist(), block["key"].take(rows).to_pylist(), strict=True)
    found.sort()
    numbers = layout.shards_at(np.array([place for place, _ in found], np.int64))
    return [(names[number], key) for number, (_, key) in zip(numbers, found, strict=True)]


def plan_digest(dataset: Dataset, counts: dict[str, int], reencoding: Reencoding | None) -> str:
    """Return a SHA-256 over the samples and all settings that shape the bytes of the shards."""
    shaping = {
        "format": SHARDS_FORMAT,
        "samples": dataset.samples_digest,
        "counts": counts,
        "spread_seed": SPREAD_SEED,
        "schema": SCHEMA,
        "mindspore": version("mindspore"),
        "reencoding": reencoding.model_dump() if reencoding else None,
    }
    return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()
