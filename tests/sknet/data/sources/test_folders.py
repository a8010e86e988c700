"""What a source holds, and the record and index that staging makes of it."""

import shutil
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from sknet.data.sources import Sample, open_source
from sknet.data.staging import Staged, read_staged, stage_source
from tests.refusals import refusal


@pytest.fixture
def copy(folders: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folders, tmp_path / "copy"))


def stage_refusal(root: Path) -> str:
    return refusal(lambda: stage_source(open_source(str(root))))


def test_digits_are_1437_for_training_and_360_held_out_in_10_classes() -> None:
    staged = stage_source(open_source("digits"))
    assert staged.dataset.splits == {"train": 1437, "val": 360}
    assert staged.dataset.classes == tuple("0123456789")
    assert staged.index["key"].is_unique
    assert set(staged.index["label"]) == set(range(10))
    assert staged.index["split"].tolist() == ["train"] * 1437 + ["val"] * 360
    # In the order of the data set.
    assert staged.index["offset"].tolist() == list(range(1797))


def test_classes_are_the_sorted_folders_of_train(folders: Path) -> None:
    assert open_source(str(folders)).classes == ("cat", "dog", "emu")


def staged_at(root: Path) -> Staged:
    return stage_source(open_source(str(root)))


def test_samples_are_sorted_and_labelled_by_their_folder(folders: Path) -> None:
    samples = [Sample(*row) for row in staged_at(folders).index.itertuples(index=False)]
    assert Counter((s.split, s.label) for s in samples) == {
        (split, label): count for split, count in (("train", 5), ("val", 2)) for label in range(3)
    }
    keys = [sample.key for sample in samples]
    assert keys == sorted(keys)
    assert keys[:2] == ["train/cat/000.png", "train/cat/001.jpg"]
    assert all(s.key.split("/")[1] == ("cat", "dog", "emu")[s.label] for s in samples)


def test_hidden_files_and_other_suffixes_are_no_samples_and_are_told(copy: Path) -> None:
    before = staged_at(copy)
    (copy / "train/cat/.hidden.png").write_bytes(b"x")
    (copy / "train/cat/notes.txt").write_text("x")
    (copy / "train/.cache").mkdir()
    (copy / "train/.cache/000.png").write_bytes(b"x")
    after = staged_at(copy)
    assert after.dataset == before.dataset
    assert after.ignored == ("train/cat/.hidden.png", "train/cat/notes.txt")


def test_images_in_folders_within_a_class_count(copy: Path) -> None:
    (copy / "train/cat/more").mkdir()
    shutil.copy(copy / "train/cat/000.png", copy / "train/cat/more/UPPER.PNG")
    assert "train/cat/more/UPPER.PNG" in set(staged_at(copy).index["key"])


def test_missing_directory_is_refused(tmp_path: Path) -> None:
    assert "none does not exist or is no directory" in stage_refusal(tmp_path / "none")


def test_directory_of_no_known_form_is_refused_with_the_forms(tmp_path: Path) -> None:
    assert "has no form known here: expected train/ and val/" in stage_refusal(tmp_path)


def test_directory_without_val_is_refused(copy: Path) -> None:
    shutil.rmtree(copy / "val")
    assert "has no folder 'val'" in stage_refusal(copy)


def test_train_without_classes_is_refused(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
    assert "has no class folders" in stage_refusal(tmp_path)


@pytest.mark.parametrize("split", ["train", "val"])
def test_class_without_images_is_named(copy: Path, split: str) -> None:
    for image in (copy / split / "dog").iterdir():
        image.unlink()
    message = stage_refusal(copy)
    assert message.startswith(f"class 'dog' has no images in {copy / split / 'dog'}")


def test_class_missing_from_val_is_named(copy: Path) -> None:
    shutil.rmtree(copy / "val/emu")
    assert "class 'emu' has no images" in stage_refusal(copy)


def test_class_of_val_that_train_has_not_is_named(copy: Path) -> None:
    (copy / "val/fox").mkdir()
    assert "has the class 'fox', which" in stage_refusal(copy)


def test_digest_says_the_content_and_not_the_place(folders: Path, copy: Path) -> None:
    one, other = stage_source(open_source(str(folders))), stage_source(open_source(str(copy)))
    assert one.dataset == other.dataset
    pd.testing.assert_frame_equal(one.index, other.index)


def test_digest_changes_with_one_byte(folders: Path, copy: Path) -> None:
    image = copy / "val/emu/001.jpg"
    content = bytearray(image.read_bytes())
    content[len(content) // 2] ^= 1
    image.write_bytes(content)
    before, after = stage_source(open_source(str(folders))), stage_source(open_source(str(copy)))
    assert before.dataset.samples_digest != after.dataset.samples_digest


def test_digest_changes_with_a_name(folders: Path, copy: Path) -> None:
    (copy / "val/emu/001.jpg").rename(copy / "val/emu/002.jpg")
    before, after = stage_source(open_source(str(folders))), stage_source(open_source(str(copy)))
    assert before.dataset.samples_digest != after.dataset.samples_digest


def test_what_is_written_is_read_back(folders: Path, tmp_path: Path) -> None:
    staged = stage_source(open_source(str(folders)))
    staged.write(tmp_path)
    read = read_staged(tmp_path)
    assert read.dataset == staged.dataset
    pd.testing.assert_frame_equal(read.index, staged.index)


def test_an_index_that_was_written_in_pieces_is_read_in_one(folders: Path, tmp_path: Path) -> None:
    staged = stage_source(open_source(str(folders)))
    staged.write(tmp_path)
    staged.index.to_parquet(tmp_path / "samples.parquet", index=False, row_group_size=2)
    index = read_staged(tmp_path).index
    pd.testing.assert_frame_equal(index, staged.index)
    for column in ("split", "key", "sha256"):
        assert index[column].array._pa_array.num_chunks == 1


@pytest.mark.parametrize("column", ["split", "key", "label", "size", "sha256"])
def test_tampered_index_is_refused(folders: Path, tmp_path: Path, column: str) -> None:
    staged = stage_source(open_source(str(folders)))
    staged.write(tmp_path)
    index = staged.index.copy()
    index.loc[3, column] = index.loc[3, column] * 2 + type(index.loc[3, column])(1)
    index.to_parquet(tmp_path / "samples.parquet", index=False)
    message = refusal(lambda: read_staged(tmp_path))
    assert "does not belong to its dataset.json" in message


def test_damaged_or_missing_index_is_refused(folders: Path, tmp_path: Path) -> None:
    stage_source(open_source(str(folders))).write(tmp_path)
    (tmp_path / "samples.parquet").write_bytes(b"PAR1 and no more")
    assert "can't be read" in refusal(lambda: read_staged(tmp_path))
    (tmp_path / "samples.parquet").unlink()
    assert "can't be read" in refusal(lambda: read_staged(tmp_path))


def test_record_with_an_unknown_field_is_refused(folders: Path, tmp_path: Path) -> None:
    stage_source(open_source(str(folders))).write(tmp_path)
    path = tmp_path / "dataset.json"
    path.write_text(path.read_text().replace("{", '{"extra": 1,', 1))
    assert "is no valid Dataset: extra" in refusal(lambda: read_staged(tmp_path))
