"""Shards: read back as they were written, whatever the sizes of the samples; damage is named."""

import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest
from mindspore.mindrecord import FileWriter

import sknet.data.shards
from sknet.data.reading.pipeline import encoded_samples, sample_keys
from sknet.data.shards import (
    MindRecordSizes,
    Row,
    RowSample,
    ShardSet,
    read_labels,
    read_rows,
    read_shards,
    write_shard,
)
from tests.refusals import refusal
from tests.sknet.conversions import sizes_for


def some_rows(*sizes: int) -> list[Row]:
    chance = random.Random(5)
    return [
        Row(chance.randbytes(size), number % 3, f"train/class/{number:06}.jpg")
        for number, size in enumerate(sizes)
    ]


def written(path: Path, rows: list[Row]) -> list[Row]:
    """Write a shard and return the rows that are read back."""
    sizes = sizes_for([len(row.image) for row in rows], sum(len(row.key) for row in rows))
    assert write_shard(path, "train", rows, sizes).num_samples == len(rows)
    return read_rows(path, range(len(rows)))


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param([1, 20, 300] * 40, id="small"),
        pytest.param([700_000] * 5, id="half-empty pages"),
        pytest.param([100, 3 << 20, 100], id="larger than MindRecord's page"),
        pytest.param([600_000] * 200, id="more pages than MindRecord's smallest header lists"),
    ],
)
def test_rows_are_read_back_as_they_were_written(tmp_path: Path, sizes: list[int]) -> None:
    rows, path = some_rows(*sizes), tmp_path / "one.mindrecord"
    assert written(path, rows) == rows
    assert read_labels(path).tolist() == [row.label for row in rows]


def test_shard_may_have_no_samples(tmp_path: Path) -> None:
    sizes = sizes_for([], 0)
    assert sizes == MindRecordSizes(1 << 14, 1 << 20)
    assert write_shard(tmp_path / "no.mindrecord", "val", [], sizes).num_samples == 0


def test_pages_grow_if_the_largest_header_cannot_list_them() -> None:
    sizes = [100_000] * 1000
    assert sizes_for(sizes, 0).page_bytes == 1 << 20
    # ImageNet-21K in four shards.
    sizes_of_21k = sizes_for([100_000] * 3_500_000, 60 * 3_500_000)
    assert sizes_of_21k == MindRecordSizes(1 << 27, 1 << 21)


def test_sample_beyond_mindrecords_limit_is_refused() -> None:
    message = refusal(lambda: sizes_for([1 << 28], 0))
    assert message == "a sample of 268435456 bytes exceeds MindRecord's limit: make it smaller"


def test_row_that_mindrecord_drops_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = some_rows(10, 10, 10)
    # MindRecord drops a row whose label is no number, with a warning in its log.
    rows[1] = dataclasses.replace(rows[1], label="1")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match=r"^one\.mindrecord holds 2 rows, 3 were written$"):
        write_shard(tmp_path / "one.mindrecord", "train", rows, sizes_for([10] * 3, 90))


@pytest.mark.parametrize("number", [0, 49])
@pytest.mark.parametrize("change", [{"image": b"other"}, {"label": 2}, {"key": "train/else.jpg"}])
def test_row_that_is_not_read_back_as_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, change: dict[str, object]
) -> None:
    rows = some_rows(*[10] * 50)
    write = FileWriter.write_raw_data

    def tampering(writer: FileWriter, block: list[dict[str, object]]) -> None:
        write(writer, [*block[:number], block[number] | change, *block[number + 1 :]])

    monkeypatch.setattr(FileWriter, "write_raw_data", tampering)
    with pytest.raises(RuntimeError) as caught:
        written(tmp_path / "one.mindrecord", rows)
    key = rows[number].key
    expected = f"one.mindrecord: row {number} ({key}) is not read back as it was written"
    assert str(caught.value) == expected


@pytest.mark.parametrize("count", [0, 1, 2, 3, 15, 16, 17, 500])
def test_sample_of_rows_has_the_first_and_the_last(count: int) -> None:
    rows = some_rows(*[1] * count)
    samples = [RowSample("seed"), RowSample("seed"), RowSample("another")]
    for sample in samples:
        for number, row in enumerate(rows):
            sample.offer(number, row)
    first, again, other = (sample.rows() for sample in samples)
    assert len(first) == min(count, sknet.data.shards.ROWS_READ_BACK)
    assert first == again == {number: rows[number] for number in first}
    assert {0, count - 1} <= first.keys() if count else not first
    assert first != other or count <= 17


def test_undamaged_shards_are_read(converted: ShardSet) -> None:
    assert read_shards(converted.directory) == converted


@pytest.mark.parametrize("suffix", ["", ".db"])
@pytest.mark.parametrize("position", ["first", "middle", "last"])
def test_flipped_bit_is_noticed(shards_copy: Path, suffix: str, position: str) -> None:
    damaged = shards_copy / f"val-00001-of-00002.mindrecord{suffix}"
    content = bytearray(damaged.read_bytes())
    content[{"first": 0, "middle": len(content) // 2, "last": -1}[position]] ^= 1
    damaged.write_bytes(content)
    message = refusal(lambda: read_shards(shards_copy))
    assert message == f"shard {damaged} is damaged (SHA-256 differs): convert it again"


def test_only_the_requested_splits_are_verified(shards_copy: Path) -> None:
    (shards_copy / "val-00001-of-00002.mindrecord").unlink()
    read_shards(shards_copy, ["train"])
    assert "is missing: convert the data again" in refusal(lambda: read_shards(shards_copy))


def test_training_samples_are_found_by_class(converted: ShardSet) -> None:
    by_class = converted.by_class
    assert by_class.counts.tolist() == [5, 5, 5]
    keys = sample_keys(converted, "train", by_class.samples)
    assert [key.split("/")[1] for key in keys] == ["cat"] * 5 + ["dog"] * 5 + ["emu"] * 5


def test_labels_that_are_no_classes_are_refused(converted: ShardSet) -> None:
    dataset = converted.record.dataset.model_copy(update={"classes": ("cat", "dog")})
    record = converted.record.model_copy(update={"dataset": dataset})
    message = refusal(lambda: ShardSet(record, converted.directory).by_class)
    assert message.endswith("have labels of 0 to 2 for 2 classes: convert the data again")


def test_directory_without_a_record_is_refused(tmp_path: Path) -> None:
    assert refusal(lambda: read_shards(tmp_path)).startswith(f"{tmp_path / 'shards.json'}")


def test_samples_are_read_in_the_requested_order(converted: ShardSet) -> None:
    rows = [
        row
        for file in converted.record.files_of("train")
        for row in read_rows(converted.directory / file.name, range(file.num_samples))
    ]
    indices = np.array([14, 0, 7, 7, 9, 14])  # an order may repeat samples
    read = list(encoded_samples(converted, "train", indices, 2))
    assert read == [(rows[index].image, rows[index].label) for index in indices]
