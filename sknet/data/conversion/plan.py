"""Which samples go into which shard, and what makes two conversions the same."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from sknet.data.order import order_slice
from sknet.data.shards import SCHEMA, SHARDS_FORMAT
from sknet.data.sources import SPLITS
from sknet.data.staging import Staged
from sknet.records import Dataset, Reencoding

if TYPE_CHECKING:
    import pandas as pd

# Samples are spread by this fixed permutation, so that a few shards hold all classes.
SPREAD_SEED = 0
AUTO_SHARD_BYTES = 1 << 28


@dataclass(frozen=True)
class ShardPlan:
    """One shard to write: its name says its place among those of the split."""

    split: str
    name: str
    rows: "pd.DataFrame"
    """Its part of the index, in its order."""


def shard_counts(staged: Staged, num_shards: int | None) -> dict[str, int]:
    """How many shards each split gets: never more than samples."""
    counts = {}
    for split in SPLITS:
        sizes = staged.index["size"][staged.index["split"] == split]
        by_bytes = -(-int(sizes.sum()) // AUTO_SHARD_BYTES)
        counts[split] = min(by_bytes if num_shards is None else num_shards, len(sizes))
    return counts


def shard_names(counts: dict[str, int]) -> list[str]:
    """In the order of the splits and of their samples."""
    return [
        f"{split}-{number:05}-of-{count:05}.mindrecord"
        for split, count in counts.items()
        for number in range(count)
    ]


def plan_shards(staged: Staged, counts: dict[str, int]) -> Iterator[ShardPlan]:
    """The shards one by one, equal in length within a split but for one sample."""
    for split, count in counts.items():
        places = np.flatnonzero((staged.index["split"] == split).to_numpy())
        bounds = [len(places) * number // count for number in range(count + 1)] if count else []
        names = shard_names({split: count})
        for name, (start, stop) in zip(names, pairwise(bounds), strict=True):
            spread = order_slice(len(places), SPREAD_SEED, 0, start, stop)
            yield ShardPlan(split, name, staged.index.iloc[places[spread]])


def plan_digest(dataset: Dataset, counts: dict[str, int], reencoding: Reencoding | None) -> str:
    """Over the rows (the data set's digest covers each) and all settings that shape the bytes."""
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
