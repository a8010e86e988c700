"""The sealed split: staged and converted like the others, and never read by a training."""

import shutil
from pathlib import Path

import pytest

from sknet.data.conversion.plan import shard_counts, shard_names
from sknet.data.data_directory import shards_at
from sknet.data.shards import ShardSet, read_shards
from sknet.data.sources import ALL_SPLITS
from sknet.data.staging import Staged, read_staged
from tests.refusals import refusal
from tests.sknet.conversions import contents, convert, stage


@pytest.fixture
def with_test(images_copy: Path) -> Path:
    """The images of `folders`, with those of `val` as a test split too."""
    shutil.copytree(images_copy / "val", images_copy / "test")
    return images_copy


def keys_of(staged: Staged, split: str) -> list[str]:
    index = staged.index
    return list(index["key"][index["split"] == split])


def test_folder_test_is_a_split_of_its_own(with_test: Path, folders: Path) -> None:
    staged, without = stage(with_test), stage(folders)
    assert staged.dataset.splits == {"train": 15, "val": 6, "test": 6}
    assert keys_of(staged, "test") == [
        key.replace("val/", "test/") for key in keys_of(without, "val")
    ]
    for split in ("train", "val"):
        assert keys_of(staged, split) == keys_of(without, split)


def test_data_set_without_a_test_split_names_none(folders: Path) -> None:
    assert stage(folders).dataset.splits == {"train": 15, "val": 6}


def test_images_without_labels_are_no_test_split_and_are_listed(images_copy: Path) -> None:
    before = stage(images_copy)
    (images_copy / "test").mkdir()
    shutil.copy(images_copy / "val/cat/000.png", images_copy / "test/1.png")
    after = stage(images_copy)
    assert after.dataset == before.dataset
    assert [entry.name for entry in after.ignored] == ["test/1.png"]


def test_class_that_the_test_split_lacks_is_named(with_test: Path) -> None:
    shutil.rmtree(with_test / "test/dog")
    message = refusal(lambda: stage(with_test))
    assert message.startswith(f"class 'dog' has no images in {with_test / 'test/dog'}")


def test_class_of_test_that_train_does_not_have_is_named(with_test: Path) -> None:
    (with_test / "test/cat").rename(with_test / "test/cats")
    assert f"{with_test}/test has the class 'cats', which" in refusal(lambda: stage(with_test))


def test_training_reads_no_shard_of_the_test_split(
    with_test: Path, converted: ShardSet, tmp_path: Path
) -> None:
    shards = convert(with_test, tmp_path / "out")
    assert [file.name for file in shards.files_of("test")] == [
        "test-00000-of-00002.mindrecord",
        "test-00001-of-00002.mindrecord",
    ]
    assert shards.num_samples("test") == 6
    # The shards of the other two splits are those that they would be alone.
    both, alone = contents(tmp_path / "out"), contents(converted.directory)
    assert {name: both[name] for name in alone if name != "shards.json"} == {
        name: content for name, content in alone.items() if name != "shards.json"
    }
    for file in shards.files_of("test"):
        (tmp_path / "out" / file.name).unlink()
    read = shards_at(str(tmp_path / "out"), tmp_path, rank=0, num_workers=1)
    assert read.num_samples("train") == 15
    assert "is missing: convert the data again" in refusal(
        lambda: read_shards(tmp_path / "out", ALL_SPLITS)
    )


def test_records_that_are_read_back_plan_the_same_shards(with_test: Path, tmp_path: Path) -> None:
    staged = stage(with_test)
    (tmp_path / "staged").mkdir()
    staged.write(tmp_path / "staged")
    names = shard_names(shard_counts(read_staged(tmp_path / "staged"), 1))
    assert names == [f"{split}-00000-of-00001.mindrecord" for split in ("train", "val", "test")]
    assert names == shard_names(shard_counts(staged, 1))
