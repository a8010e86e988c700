"""Conversion: every sample once, bytes that depend on the data alone, finished shards reused."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mindspore.dataset import MindDataset
from PIL import Image

import sknet.data.conversion.converter
from sknet.data.conversion.conversion import write_shards
from sknet.data.conversion.converter import ConvertedShard, reencoding_to
from sknet.data.conversion.directory import locked
from sknet.data.conversion.plan import ShardPlan, plan_shards, shard_counts
from sknet.data.conversion.progress import ConversionProgress, describe, progress_of
from sknet.data.reading.pipeline import eval_batches
from sknet.data.shards import Row, ShardSet, read_rows, write_shard
from sknet.data.staging import Staged
from sknet.errors import UserError
from sknet.recipe import Recipe
from sknet.records import QuarantinedSample
from tests.refusals import refusal
from tests.sknet.conversions import contents, convert, identities, in_this_process, stage


def stored_rows(shards: ShardSet, split: str) -> list[tuple[str, int, bytes]]:
    """Return (key, label, image) of all samples, in the order of their numbers."""
    return [
        (row.key, row.label, row.image)
        for file in shards.record.files_of(split)
        for row in read_rows(shards.directory / file.name, range(file.num_samples))
    ]


@pytest.fixture(scope="module")
def staged(folders: Path) -> Staged:
    return stage(folders)


@pytest.mark.slow
def test_two_workers_in_another_directory_write_the_same_bytes_and_nothing_else(
    images_copy: Path, tmp_path: Path, converted: ShardSet
) -> None:
    out = tmp_path / "else" / "where"
    out.mkdir(parents=True)
    (out / "train-00000-of-00009.mindrecord").write_bytes(b"of an earlier attempt")
    convert(images_copy, out, num_workers=2)
    assert contents(out) == contents(converted.directory)


def test_every_sample_is_stored_exactly_once_with_its_bytes(
    converted: ShardSet, folders: Path, staged: Staged
) -> None:
    for split in ("train", "val"):
        index = staged.index[staged.index["split"] == split]
        expected = [
            (key, label, (folders / key).read_bytes())
            for key, label in zip(index["key"], index["label"], strict=True)
        ]
        assert sorted(stored_rows(converted, split)) == sorted(expected)
        assert converted.num_samples(split) == len(expected)


def test_samples_are_numbered_as_planned(
    converted: ShardSet, staged: Staged, tmp_path: Path
) -> None:
    plans = plan_shards(staged, shard_counts(staged, 2), tmp_path)
    planned = [key for plan in plans for key in plan.rows["key"]]
    stored = [key for split in ("train", "val") for key, _, _ in stored_rows(converted, split)]
    assert stored == planned


def test_shards_differ_in_length_by_one_at_most(staged: Staged, tmp_path: Path) -> None:
    plans = plan_shards(staged, shard_counts(staged, 4), tmp_path)
    lengths = [len(plan.rows) for plan in plans if plan.split == "train"]
    assert sorted(lengths) == [3, 4, 4, 4]


@pytest.mark.parametrize(
    ("larger", "size"), [(1, 3 << 20), (75, 900_000)], ids=["larger page", "longer list of pages"]
)
def test_shards_of_a_split_are_read_together_whatever_the_sizes_of_their_images(
    staged: Staged, tmp_path: Path, larger: int, size: int
) -> None:
    """MindDataset refuses files of which the page or the header size differs.

    The first shard of two is to hold larger images. The files have the sizes that these need, and
    little content.
    """
    index = pd.concat([staged.index.head(1)] * 150, ignore_index=True)
    index["key"] = [f"{number:03}" for number in range(150)]
    dataset = staged.dataset.model_copy(update={"splits": {"train": 150, "val": 0}})
    first, second = plan_shards(Staged(dataset, index), {"train": 2}, tmp_path)
    needed = index["size"].mask(index["key"].isin(first.rows["key"][:larger]), size)
    staged = Staged(dataset, index.assign(size=needed))
    paths = []
    for shard in plan_shards(staged, {"train": 2}, tmp_path):
        rows = [Row(b"image", 0, key) for key in shard.rows["key"]]
        write_shard(tmp_path / shard.name, "train", rows, shard.sizes)
        paths.append(str(tmp_path / shard.name))
    keys = {*first.rows["key"], *second.rows["key"]}
    read = MindDataset(paths, columns_list=["key"], shuffle=False, num_parallel_workers=1)
    assert {
        str(key) for (key,) in read.create_tuple_iterator(num_epochs=1, output_numpy=True)
    } == keys


def test_there_are_no_more_shards_than_samples(staged: Staged, tmp_path: Path) -> None:
    plans = list(plan_shards(staged, shard_counts(staged, 100), tmp_path))
    assert [len(plan.rows) for plan in plans] == [1] * 21
    assert plans[-1].name == "val-00005-of-00006.mindrecord"


def test_auto_is_a_shard_for_every_256_mib_of_a_split(staged: Staged) -> None:
    assert shard_counts(staged, None) == {"train": 1, "val": 1}
    index = staged.index.assign(size=[100 << 20] * 15 + [64 << 20] * 6)
    assert shard_counts(Staged(staged.dataset, index), None) == {"train": 6, "val": 2}


def test_too_many_undecodable_images_are_refused(images_copy: Path, tmp_path: Path) -> None:
    (images_copy / "train/dog/002.png").write_bytes(b"no image")
    (images_copy / "val/cat/000.png").write_bytes(b"no image")
    message = refusal(lambda: convert(images_copy, tmp_path / "out", max_quarantine=0.09))
    assert message == (
        "2 of 21 samples (9.52%) can't be used, more than 9.00%; the first is train/dog/002.png: "
        "UnidentifiedImageError: not a JPEG, PNG or BMP image; to leave them out, give "
        "--max-quarantine 0.096"
    )
    assert not (tmp_path / "out" / "shards.json").exists()


def test_undecodable_image_is_quarantined_with_its_name_and_reason(
    images_copy: Path, tmp_path: Path, recipe: Recipe
) -> None:
    (images_copy / "val/dog/000.png").write_bytes(b"no image")
    # As many shards as samples, so that one shard is left without any.
    options: dict[str, object] = {"num_shards": 6, "max_quarantine": 0.1}
    shards = convert(images_copy, tmp_path / "one", **options)
    reason = "UnidentifiedImageError: not a JPEG, PNG or BMP image"
    quarantined = QuarantinedSample(split="val", key="val/dog/000.png", reason=reason)
    assert shards.quarantined == (quarantined,)
    assert (shards.num_samples("train"), shards.num_samples("val")) == (15, 5)

    shard_set = ShardSet(shards, tmp_path / "one")
    ((_, labels),) = eval_batches(recipe, shard_set, "val", np.arange(5), 5, [32])
    assert sorted(labels.tolist()) == [0, 0, 1, 2, 2]

    before = identities((tmp_path / "one").glob("*.mindrecord*"))
    assert convert(images_copy, tmp_path / "one", **options) == shards
    assert identities((tmp_path / "one").glob("*.mindrecord*")) == before


def test_class_that_loses_all_its_images_of_a_split_is_refused(
    images_copy: Path, tmp_path: Path
) -> None:
    for number in ("000.png", "001.jpg"):
        (images_copy / "val/dog" / number).write_bytes(b"no image")
        (images_copy / "train/cat" / number).write_bytes(b"no image")
    for _ in ("anew", "from finished shards"):
        message = refusal(lambda: convert(images_copy, tmp_path / "out", max_quarantine=0.5))
        assert message == (
            f"class 'dog' has no usable image for 'val' in {images_copy}; the first that was left "
            "out is val/dog/000.png: UnidentifiedImageError: not a JPEG, PNG or BMP image"
        )
        assert not (tmp_path / "out" / "shards.json").exists()


def test_source_that_changed_since_staging_is_refused(images_copy: Path, tmp_path: Path) -> None:
    staged = stage(images_copy)
    Image.new("RGB", (32, 32)).save(images_copy / "train/cat/000.png")
    (tmp_path / "out").mkdir()

    def write() -> None:
        out = tmp_path / "out"
        write_shards(staged, str(images_copy), out, num_shards=1, parallel_map=in_this_process)

    assert refusal(write).startswith("sample train/cat/000.png changed since it was staged")
    (images_copy / "train/cat/000.png").unlink()
    message = refusal(write)
    assert message == "sample train/cat/000.png can't be read: No such file or directory"


def test_finished_conversion_is_reused(
    shards_copy: Path, folders: Path, converted: ShardSet
) -> None:
    before = identities(shards_copy.glob("*.mindrecord*"))
    seen: list[ConversionProgress] = []
    assert convert(folders, shards_copy, on_progress=seen.append) == converted.record
    assert contents(shards_copy) == contents(converted.directory)
    assert identities(shards_copy.glob("*.mindrecord*")) == before
    assert (seen[-1].images, seen[-1].reused_images) == (21, 21)


@pytest.mark.parametrize("suffix", ["", ".db"])
def test_only_the_damaged_shard_is_written_again(
    shards_copy: Path, folders: Path, converted: ShardSet, suffix: str
) -> None:
    damaged = shards_copy / f"train-00001-of-00002.mindrecord{suffix}"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    others = [path for path in shards_copy.glob("*.mindrecord*") if "train-00001" not in path.name]
    before = identities(others)
    convert(folders, shards_copy)
    assert contents(shards_copy) == contents(converted.directory)
    assert identities(others) == before


@pytest.mark.parametrize(
    "change", [{"num_shards": 1}, {"reencoding": reencoding_to(16, 90)}], ids=["count", "size"]
)
def test_shards_of_another_plan_are_removed(
    shards_copy: Path, folders: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    convert(folders, shards_copy, **change)
    convert(folders, tmp_path / "anew", **change)
    assert contents(shards_copy) == contents(tmp_path / "anew")


def test_failed_conversion_leaves_no_record_of_the_one_before(
    shards_copy: Path, images_copy: Path
) -> None:
    Image.new("RGB", (32, 32)).save(images_copy / "train/cat/000.png")
    staged = stage(images_copy)
    (images_copy / "train/cat/000.png").unlink()
    with pytest.raises(UserError):
        write_shards(
            staged, str(images_copy), shards_copy, num_shards=2, parallel_map=in_this_process
        )
    assert not (shards_copy / "shards.json").exists()


def test_directory_with_another_file_is_left_alone(folders: Path, tmp_path: Path) -> None:
    (tmp_path / "train-00000-of-00001.mindrecord").touch()
    (tmp_path / "thesis.tex").touch()
    assert refusal(lambda: convert(folders, tmp_path)) == (
        f"{tmp_path} holds 'thesis.tex', which no conversion wrote: expected a new or empty "
        "directory, or that of an earlier conversion"
    )
    assert len(list(tmp_path.iterdir())) == 2


def test_two_conversions_into_one_directory_are_refused(folders: Path, tmp_path: Path) -> None:
    with locked(tmp_path):
        message = refusal(lambda: convert(folders, tmp_path))
    assert message == f"another conversion is at work in {tmp_path}"
    convert(folders, tmp_path)


def test_lock_file_of_a_killed_conversion_does_not_matter(
    folders: Path, tmp_path: Path, converted: ShardSet
) -> None:
    (tmp_path / ".conversion.lock").touch()
    convert(folders, tmp_path)
    assert contents(tmp_path) == contents(converted.directory)


def test_host_that_does_not_share_the_directory_is_named(folders: Path, tmp_path: Path) -> None:
    def on_another_host(
        function: Callable[[ShardPlan], ConvertedShard],
        items: Iterable[ShardPlan],
        *,
        on_tick: Callable[[], None],
    ) -> Iterator[ConvertedShard]:
        (tmp_path / ".conversion/plan").write_text("of another attempt")
        yield from map(function, items)

    message = refusal(lambda: convert(folders, tmp_path, parallel_map=on_another_host))
    assert (
        f"does not see the directory {tmp_path}: all hosts that convert must share it, or give"
        in message
    )


def test_progress_counts_images_while_a_shard_is_written(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sknet.data.conversion.progress.REPORT_SECONDS", 0)
    seen: list[ConversionProgress] = []
    accept = sknet.data.conversion.converter.undecodable

    def ticking(
        function: Callable[[ShardPlan], ConvertedShard],
        items: Iterable[ShardPlan],
        *,
        on_tick: Callable[[], None],
    ) -> Iterator[ConvertedShard]:
        def check(content: bytes) -> str | None:
            on_tick()
            return accept(content)

        monkeypatch.setattr("sknet.data.conversion.converter.undecodable", check)
        yield from map(function, items)

    convert(folders, tmp_path, num_shards=1, parallel_map=ticking, on_progress=seen.append)
    images = [progress.images for progress in seen]
    assert images == sorted(images)
    assert set(images) == set(range(22))
    size = sum(path.stat().st_size for path in folders.glob("*/*/*"))
    assert seen[-1] == ConversionProgress(images=21, total_images=21, bytes=size)


def test_progress_reads_as_a_line() -> None:
    now = ConversionProgress(600, 1000, 60_000_000, reused_images=100, reused_bytes=10_000_000)
    assert describe(now, 10.0) == "converted 600/1000 images (60.0%), 50 images/s, 5.0 MB/s"
    shown = "converting, 600/1000 images, 50 images/s, 5.0 MB/s, 60%"
    assert progress_of(now, 10.0, (5.0, 100)).describe() == f"{shown}, 0:04 left"
    for unknown in (None, (9.0, 100), (5.0, 600)):
        assert progress_of(now, 10.0, unknown).describe() == shown, "its rate can't be known yet"
