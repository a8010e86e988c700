"""The proof for the order by blocks runs in small form, on shards sorted as its page says."""

import re
from pathlib import Path

import numpy as np
import pytest

from sknet.data.order import epoch_order
from sknet.data.shards import read_labels
from tests.bench.bench_shuffle import (
    BATCH,
    DATA,
    NUM_CLASSES,
    class_variance,
    correlation,
    repeated_company,
    write_shards,
)
from tests.bench.garments import write_garments
from tests.bench.test_bench_model import run
from tests.sknet.conversions import contents, convert


@pytest.mark.slow
def test_the_rows_of_both_tables_are_printed() -> None:
    printed = run(
        "tests.bench.bench_shuffle", *("--model", "tiny", "--seeds", "2", "--epochs", "2")
    )
    rows = re.findall(r"^\| (?:classes spread|sorted by class) \| (\w+) \| ", printed, re.MULTILINE)
    assert rows == ["full", "blocks", "full", "blocks"]
    assert "| from beginning to end | 1.00 |" in printed


def test_shards_hold_one_class_after_the_other(tmp_path: Path) -> None:
    shards = write_shards(tmp_path, DATA["digits"], is_sorted=True)
    labels = np.concatenate([read_labels(Path(path)) for path in shards.paths("train")])
    assert len(labels) == 1437
    assert np.array_equal(labels, np.sort(labels))


def test_garments_are_read_as_fashion_mnist_and_are_always_the_same(tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_garments(tmp_path / name, train=200, val=50)
    assert contents(tmp_path / "one") == contents(tmp_path / "other")
    record = convert(f"fashion-mnist:{tmp_path / 'one'}", tmp_path / "shards")
    assert [record.num_samples(split) for split in ("train", "val")] == [200, 50]
    labels = [read_labels(tmp_path / "shards" / file.name) for file in record.files_of("train")]
    assert np.bincount(np.concatenate(labels)).tolist() == [20] * 10


def test_a_full_shuffle_has_the_figures_of_chance() -> None:
    total = 250 * BATCH
    first, second = (epoch_order(total, 3, epoch) for epoch in (0, 1))
    assert abs(correlation(first)) < 0.02
    labels = np.arange(total) * NUM_CLASSES // total
    assert class_variance(labels[first]) == pytest.approx(1, abs=0.05)
    assert repeated_company(first, second, total) == pytest.approx(1, abs=0.05)


def test_reading_in_order_has_the_figures_of_no_shuffle() -> None:
    order = np.arange(250 * BATCH)
    assert correlation(order) == pytest.approx(1)
    assert repeated_company(order, order, len(order)) == pytest.approx(250, rel=0.01)
