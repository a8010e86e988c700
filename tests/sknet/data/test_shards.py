"""A shard is read back as it was written, whatever its samples' sizes; damage is named."""

import dataclasses
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from mindspore.mindrecord import FileWriter

import sknet.data.shards
from sknet.data.reading.pipeline import train_batches
from sknet.data.shards import (
    MindRecordSizes,
    Row,
    RowSample,
    ShardSet,
    mindrecord_sizes,
    read_rows,
    read_shards,
    write_shard,
)
from sknet.recipe import Recipe, load_recipe
from tests.refusals import refusal


def some_rows(*sizes: int) -> list[Row]:
    chance = random.Random(5)
    return [
        Row(chance.randbytes(size), number % 3, f"train/class/{number:06}.jpg")
        for number, size in enumerate(sizes)
    ]


def written(path: Path, rows: list[Row]) -> list[Row]:
    sizes = [len(row.image) for row in rows]
    layout = mindrecord_sizes(sizes, sum(len(row.key) for row in rows))
    assert write_shard(path, "train", rows, layout).num_samples == len(rows)
    return read_rows(path, range(len(rows)))


@pytest.fixture
def shards_copy(converted: ShardSet, tmp_path: Path) -> Path:
    return Path(shutil.copytree(converted.directory, tmp_path / "copy"))


@pytest.fixture
def recipe(recipe_file: Path) -> Recipe:
    return load_recipe(str(recipe_file), ["num_parallel_workers=2"])


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param([1, 20, 300] * 40, id="small"),
        pytest.param([700_000] * 5, id="pages left half empty"),
        pytest.param([100, 3 << 20, 100], id="larger than MindRecord's page"),
        pytest.param([600_000] * 200, id="more pages than MindRecord's smallest header lists"),
    ],
)
def test_rows_are_read_back_as_they_were_written(tmp_path: Path, sizes: list[int]) -> None:
    rows = some_rows(*sizes)
    assert written(tmp_path / "one.mindrecord", rows) == rows


def test_shard_without_samples_is_one(tmp_path: Path) -> None:
    assert mindrecord_sizes([], 0) == MindRecordSizes(1 << 14, 1 << 20)
    assert (
        write_shard(tmp_path / "no.mindrecord", "val", [], mindrecord_sizes([], 0)).num_samples == 0
    )


def test_pages_grow_where_a_header_could_not_hold_them() -> None:
    sizes = [100_000] * 1000
    assert mindrecord_sizes(sizes, 0).page_bytes == 1 << 20
    # ImageNet-21K in four shards.
    layout = mindrecord_sizes([100_000] * 3_500_000, 60 * 3_500_000)
    assert layout == MindRecordSizes(1 << 27, 1 << 21)


def test_sample_beyond_mindrecord_is_refused() -> None:
    message = refusal(lambda: mindrecord_sizes([1 << 28], 0))
    assert message == "a sample of 268435456 bytes exceeds MindRecord's limit: make it smaller"


def test_rows_that_mindrecord_drops_are_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = some_rows(10, 10, 10)
    # MindRecord drops a row whose label is no number, with a warning in its log.
    rows[1] = dataclasses.replace(rows[1], label="1")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match=r"^one\.mindrecord holds 2 rows, 3 were written$"):
        write_shard(tmp_path / "one.mindrecord", "train", rows, mindrecord_sizes([10] * 3, 90))


@pytest.mark.parametrize("place", [0, 49])
@pytest.mark.parametrize("change", [{"image": b"other"}, {"label": 2}, {"key": "train/else.jpg"}])
def test_row_that_is_not_read_back_as_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int, change: dict[str, object]
) -> None:
    rows = some_rows(*[10] * 50)
    write = FileWriter.write_raw_data

    def tampering(writer: FileWriter, block: list[dict[str, object]]) -> None:
        write(writer, [*block[:place], block[place] | change, *block[place + 1 :]])

    monkeypatch.setattr(FileWriter, "write_raw_data", tampering)
    with pytest.raises(RuntimeError) as caught:
        written(tmp_path / "one.mindrecord", rows)
    key = rows[place].key
    said = f"one.mindrecord: row {place} ({key}) is not read back as it was written"
    assert str(caught.value) == said


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


def test_sound_shards_are_read(converted: ShardSet) -> None:
    assert read_shards(converted.directory) == converted


@pytest.mark.parametrize("suffix", ["", ".db"])
@pytest.mark.parametrize("place", [0, 0.5, -1])
def test_flipped_byte_is_named(shards_copy: Path, suffix: str, place: float) -> None:
    damaged = shards_copy / f"val-00001-of-00002.mindrecord{suffix}"
    content = bytearray(damaged.read_bytes())
    content[int(place * len(content)) if place > 0 else int(place)] ^= 1
    damaged.write_bytes(content)
    message = refusal(lambda: read_shards(shards_copy))
    assert message == f"shard {damaged} is damaged (SHA-256 differs): convert it again"


def test_split_that_is_not_asked_for_is_not_read(shards_copy: Path) -> None:
    (shards_copy / "val-00001-of-00002.mindrecord").unlink()
    read_shards(shards_copy, ["train"])
    assert "is missing: convert the data again" in refusal(lambda: read_shards(shards_copy))


def test_directory_without_a_record_is_refused(tmp_path: Path) -> None:
    assert refusal(lambda: read_shards(tmp_path)).startswith(f"{tmp_path / 'shards.json'}")


def test_a_segment_gives_the_samples_asked_for_in_their_order(
    converted: ShardSet, recipe: Recipe
) -> None:
    shards, out = converted.record, converted.directory
    labels = [
        row.label
        for file in shards.files_of("train")
        for row in read_rows(out / file.name, range(file.num_samples))
    ]
    indices = np.array([14, 0, 7, 3, 9, 2])
    batches = list(train_batches(recipe, converted, indices, 4, seed=1))
    assert [images.shape for images, _ in batches] == [(4, 3, 32, 32), (2, 3, 32, 32)]
    read = np.concatenate([part for _, part in batches]).tolist()
    assert read == [labels[index] for index in indices]


def test_augmentation_depends_on_the_seed_and_not_on_what_was_read_before(
    converted: ShardSet, recipe: Recipe
) -> None:
    def pixels(seed: int) -> bytes:
        batches = train_batches(recipe, converted, np.arange(12), 4, seed=seed)
        return b"".join(images.tobytes() for images, _ in batches)

    first, other, again = pixels(1), pixels(2), pixels(1)
    assert first == again
    assert first != other
