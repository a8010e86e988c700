"""Which samples go into which shard, and which conversions write the same bytes."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from sknet.data.order import order_slice
from sknet.data.shards import (
    SCHEMA,
    SHARDS_FORMAT,
    MindRecordSizes,
    common_sizes,
    mindrecord_sizes,
)
from sknet.data.sources import ALL_SPLITS
from sknet.data.staging import Staged
from sknet.records import Dataset, Reencoding

if TYPE_CHECKING:
    import pandas as pd

SPREAD_SEED = 0
"""Seed of the fixed permutation that spreads samples over shards, so that a few shards hold all
classes."""

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


def shard_counts(staged: Staged, num_shards: int | None) -> dict[str, int]:
    """Return the number of shards of each split, which never exceeds its number of samples.

    Args:
        staged: The data set.
        num_shards: Shards of each split. None: one for every AUTO_SHARD_BYTES of its images.
    """
    counts = {}
    for split in ALL_SPLITS:
        if split not in staged.dataset.splits:
            continue
        sizes = staged.index["size"][staged.index["split"] == split]
        by_bytes = -(-int(sizes.sum()) // AUTO_SHARD_BYTES)
        counts[split] = min(by_bytes if num_shards is None else num_shards, len(sizes))
    return counts


def shard_names(counts: dict[str, int]) -> list[str]:
    """Return the file names of all shards, by split and number."""
    return [
        f"{split}-{number:05}-of-{count:05}.mindrecord"
        for split, count in counts.items()
        for number in range(count)
    ]


def plan_shards(staged: Staged, counts: dict[str, int]) -> Iterator[ShardPlan]:
    """Yield the shards in the order of `shard_names`; sizes in a split differ by one at most.

    Raises:
        UserError: An image exceeds MindRecord's largest page.
    """
    image_sizes = staged.index["size"].to_numpy()
    key_bytes = staged.index["key"].str.len().to_numpy() * 4  # UTF-8 takes four a character
    for split, count in counts.items():
        if not count:
            continue
        positions = np.flatnonzero((staged.index["split"] == split).to_numpy())
        bounds = list(pairwise(len(positions) * number // count for number in range(count + 1)))
        spread = positions[order_slice(len(positions), SPREAD_SEED, 0, 0, len(positions))]
        shards = [spread[start:stop] for start, stop in bounds]
        sizes = common_sizes(
            [
                mindrecord_sizes(image_sizes[rows].tolist(), int(key_bytes[rows].sum()))
                for rows in shards
            ]
        )
        for name, rows in zip(shard_names({split: count}), shards, strict=True):
            yield ShardPlan(split, name, staged.index.iloc[rows], sizes)


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
