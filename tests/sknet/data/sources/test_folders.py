"""Folders of classes, with a split or without: which files are samples, and what is refused."""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from sknet.data.sources import Sample, open_source
from sknet.data.sources.trees import Skipped
from tests.refusals import refusal
from tests.sknet.conversions import stage


def test_classes_are_the_sorted_folders_of_train(folders: Path) -> None:
    assert open_source(str(folders)).classes == ("cat", "dog", "emu")


def test_samples_are_sorted_and_labelled_by_their_folder(folders: Path) -> None:
    samples = [Sample(*row) for row in stage(folders).index.itertuples(index=False)]
    assert Counter((s.split, s.label) for s in samples) == {
        (split, label): count for split, count in (("train", 5), ("val", 2)) for label in range(3)
    }
    keys = [sample.key for sample in samples]
    assert keys == sorted(keys)
    assert keys[:2] == ["train/cat/000.png", "train/cat/001.jpg"]
    assert all(s.key.split("/")[1] == ("cat", "dog", "emu")[s.label] for s in samples)


def test_hidden_files_and_other_suffixes_are_ignored_and_listed(images_copy: Path) -> None:
    before = stage(images_copy)
    (images_copy / "train/cat/.hidden.png").write_bytes(b"x")
    (images_copy / "train/cat/notes.txt").write_text("x")
    (images_copy / "train/.cache").mkdir()
    (images_copy / "train/.cache/000.png").write_bytes(b"x")
    after = stage(images_copy)
    assert after.dataset == before.dataset
    assert after.ignored == (
        Skipped("train/cat/.hidden.png", "hidden", quarantined=False),
        Skipped("train/cat/notes.txt", "no image", quarantined=False),
    )


def test_images_in_folders_within_a_class_are_samples(images_copy: Path) -> None:
    (images_copy / "train/cat/more").mkdir()
    shutil.copy(images_copy / "train/cat/000.png", images_copy / "train/cat/more/UPPER.PNG")
    assert "train/cat/more/UPPER.PNG" in set(stage(images_copy).index["key"])


def test_missing_directory_is_refused(tmp_path: Path) -> None:
    message = refusal(lambda: stage(tmp_path / "none"))
    assert "none does not exist or is not a directory" in message


def test_directory_of_no_known_form_is_refused_with_the_forms(tmp_path: Path) -> None:
    message = refusal(lambda: stage(tmp_path))
    assert "has none of the known forms: expected train/ and val/" in message


def test_directory_without_val_is_refused(images_copy: Path) -> None:
    shutil.rmtree(images_copy / "val")
    assert "has no folder 'val'" in refusal(lambda: stage(images_copy))


def test_train_without_classes_is_refused(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
    assert "has no class folders" in refusal(lambda: stage(tmp_path))


@pytest.mark.parametrize("split", ["train", "val"])
def test_class_without_images_is_named(images_copy: Path, split: str) -> None:
    folder = images_copy / split / "dog"
    for image in folder.iterdir():
        image.unlink()
    message = refusal(lambda: stage(images_copy))
    assert message.startswith(f"class 'dog' has no images in {folder}")


def test_class_missing_from_val_is_named(images_copy: Path) -> None:
    shutil.rmtree(images_copy / "val/emu")
    assert "class 'emu' has no images" in refusal(lambda: stage(images_copy))


def test_class_of_val_that_train_does_not_have_is_named(images_copy: Path) -> None:
    (images_copy / "val/fox").mkdir()
    assert "has the class 'fox', which" in refusal(lambda: stage(images_copy))
