"""The rows of an index are dealt to shards as if all of them were in memory at once."""

from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sknet.data.conversion.dealing
import sknet.data.index
import sknet.data.staging
from sknet.data.conversion.dealing import SPREAD_SEED
from sknet.data.conversion.plan import plan_shards, shard_counts, shard_names, shards_of
from sknet.data.index import INDEX_COLUMNS, SampleIndex, StoredIndex, open_staged
from sknet.data.order import epoch_order, order_positions, order_slice
from sknet.data.shards import MindRecordSizes, common_sizes
from sknet.data.staging import Staged, read_staged
from sknet.records import Dataset
from tests.refusals import refusal
from tests.sknet.conversions import sizes_for, stage

Planned = list[tuple[str, str, MindRecordSizes, dict[str, list[object]]]]


def planned_at_once(index: pd.DataFrame, counts: dict[str, int]) -> Planned:
    """Return the shards of an index that is in memory: what defines which bytes they have."""
    found: Planned = []
    for split, count in counts.items():
        if not count:
            continue
        rows = index[index["split"] == split]
        spread = rows.iloc[epoch_order(len(rows), SPREAD_SEED, 0)]
        bounds = [len(rows) * number // count for number in range(count + 1)]
        shards = [spread.iloc[start:stop] for start, stop in pairwise(bounds)]
        sizes = common_sizes(
            [
                sizes_for(shard["size"].tolist(), sum(4 * len(key) for key in shard["key"]))
                for shard in shards
            ]
        )
        names = shard_names({split: count})
        found += [
            (split, name, sizes, shard.to_dict("list"))
            for name, shard in zip(names, shards, strict=True)
        ]
    return found


def dataset_of(index: pd.DataFrame) -> Dataset:
    present = set(index["split"])
    return Dataset(
        source="generated",
        classes=("one", "two"),
        titles=("one", "two"),
        splits={
            split: int((index["split"] == split).sum())
            for split in ("train", "val", "test")
            if split != "test" or split in present
        },
        samples_digest="0" * 64,
        index_sha256="0" * 64,
        quarantined=(),
    )


@st.composite
def indexes(draw: st.DrawFn) -> pd.DataFrame:
    """An index of some splits, also empty ones, with keys of any length and alphabet."""
    rows = []
    for split in ("test", "train", "val"):
        for number in range(draw(st.integers(0, 40))):
            key = f"{split}/{draw(st.text('aä中', max_size=3))}{number:04}"
            size = draw(st.sampled_from([1, 70, 300_000, 3 << 20]))
            rows.append((split, key, number % 2, size, f"{number:064x}", key, 0))
    return pd.DataFrame(rows, columns=INDEX_COLUMNS).astype({"label": int, "size": int})


@pytest.mark.slow
@given(
    index=indexes(),
    num_shards=st.none() | st.integers(1, 9),
    rows_per_block=st.integers(1, 50),
    rows_per_piece=st.integers(1, 50),
    is_stored=st.booleans(),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_shards_are_those_of_a_plan_made_at_once(
    index: pd.DataFrame,
    num_shards: int | None,
    rows_per_block: int,
    rows_per_piece: int,
    is_stored: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sknet.data.index, "ROWS_PER_BLOCK", rows_per_block)
    monkeypatch.setattr(sknet.data.staging, "ROWS_PER_BLOCK", rows_per_block)
    monkeypatch.setattr(sknet.data.conversion.dealing, "ROWS_PER_PIECE", rows_per_piece)
    staged = Staged(dataset_of(index), index)
    with TemporaryDirectory() as folder:
        (scratch := Path(folder) / "scratch").mkdir()
        source: SampleIndex = staged
        if is_stored:
            staged.write(Path(folder))
            source = StoredIndex(staged.dataset, Path(folder) / "samples.parquet")
        counts = shard_counts(source, num_shards)
        assert counts == {
            split: min(
                -(-int(index["size"][index["split"] == split].sum()) // (256 << 20))
                if num_shards is None
                else num_shards,
                int((index["split"] == split).sum()),
            )
            for split in staged.dataset.splits
        }
        expected = planned_at_once(index, counts)
        found = [
            (shard.split, shard.name, shard.sizes, shard.rows.to_dict("list"))
            for shard in plan_shards(source, counts, scratch)
        ]
        assert found == expected
        assert list(scratch.iterdir()) == []
        some = [key for number, key in enumerate(index["key"]) if number % 3 == 0]
        assert shards_of(source, counts, some) == [
            (name, key) for _, name, _, rows in expected for key in rows["key"] if key in some
        ]


@given(st.integers(1, 5000), st.integers(0, 2**63 - 1), st.integers(0, 100))
def test_positions_are_the_inverse_of_an_order(num_samples: int, seed: int, epoch: int) -> None:
    order = epoch_order(num_samples, seed, epoch)
    positions = order_positions(num_samples, seed, epoch, order)
    np.testing.assert_array_equal(positions, np.arange(num_samples))


def test_positions_in_a_huge_order_are_computed_alone() -> None:
    samples = np.array([0, 123_456_789, 10**9 - 1])
    positions = order_positions(10**9, 42, 3, samples)
    for sample, position in zip(samples.tolist(), positions.tolist(), strict=True):
        assert order_slice(10**9, 42, 3, position, position + 1).tolist() == [sample]


def test_an_index_that_was_stored_is_read_as_it_was_written(folders: Path, tmp_path: Path) -> None:
    staged = stage(folders)
    staged.write(tmp_path)
    index = open_staged(tmp_path)
    assert index.dataset == staged.dataset
    blocks = [block.to_pandas() for block in index.blocks()]
    pd.testing.assert_frame_equal(pd.concat(blocks), read_staged(tmp_path).index)
    assert [block.column_names for block in index.blocks(["size", "key"])] == [["size", "key"]]


def test_an_index_that_does_not_belong_to_its_record_is_refused(
    folders: Path, tmp_path: Path
) -> None:
    staged = stage(folders)
    staged.write(tmp_path)
    staged.index.assign(offset=1).to_parquet(tmp_path / "samples.parquet", index=False)
    message = refusal(lambda: open_staged(tmp_path))
    assert message == f"{tmp_path / 'samples.parquet'} does not belong to its dataset.json"
    for damaged in (b"no parquet", None):
        (tmp_path / "samples.parquet").unlink()
        if damaged:
            (tmp_path / "samples.parquet").write_bytes(damaged)
        assert "samples.parquet can't be read" in refusal(lambda: open_staged(tmp_path))
    staged.index.drop(columns="offset").to_parquet(tmp_path / "samples.parquet", index=False)
    assert "samples.parquet can't be read" in refusal(lambda: open_staged(tmp_path))
