"""What folders are taken for: splits, classes, other things, or a layout that is refused."""

import shutil
import unicodedata
from pathlib import Path

import pytest

from sknet.data.sources import open_source
from tests.refusals import refusal
from tests.sknet.conversions import stage


def notes(root: Path) -> list[str]:
    source = open_source(str(root))
    list(source.files())
    return list(source.notes)


@pytest.mark.parametrize(
    ("train", "val"),
    [("Train", "Val"), ("training", "validation"), ("TRN", "dev"), ("train", "valid")],
)
def test_splits_are_known_by_their_usual_names(
    folders: Path, images_copy: Path, train: str, val: str
) -> None:
    (images_copy / "train").rename(images_copy / train)
    (images_copy / "val").rename(images_copy / val)
    named, plain = stage(images_copy), stage(folders)
    assert named.dataset.samples_digest == plain.dataset.samples_digest
    assert notes(images_copy) == [
        f"split train: {train}/",
        f"split val: {val}/",
        "3 classes: cat, dog, emu",
    ]


@pytest.mark.parametrize("name", ["test", "Testing"])
def test_test_is_the_sealed_split(images_copy: Path, name: str) -> None:
    shutil.copytree(images_copy / "val", images_copy / name)
    assert stage(images_copy).dataset.splits == {"train": 15, "val": 6, "test": 6}


def test_two_folders_of_one_split_are_refused(images_copy: Path) -> None:
    shutil.copytree(images_copy / "val", images_copy / "valid")
    assert refusal(lambda: stage(images_copy)) == (
        f"data directory {images_copy} has the folders 'val' and 'valid', both for the split "
        "'val': keep one of them"
    )


def test_class_folders_one_level_too_deep_are_refused_with_the_level(images_copy: Path) -> None:
    for split in ("train", "val"):
        (images_copy / split).rename(images_copy / "moved")
        (images_copy / split).mkdir()
        (images_copy / "moved").rename(images_copy / split / "images")
    assert refusal(lambda: stage(images_copy)) == (
        f"{images_copy}/train has one class folder, 'images': move what is in it (cat, dog, emu) "
        f"up into {images_copy}/train"
    )


@pytest.mark.parametrize("inner", ["", "train"])
def test_whole_data_set_one_level_too_deep_is_refused_with_its_folder(
    images_copy: Path, tmp_path: Path, inner: str
) -> None:
    outer = tmp_path / "outer"
    shutil.copytree(images_copy / inner, outer / "dataset")
    message = refusal(lambda: stage(outer))
    assert message.startswith(f"data directory {outer} has one folder, 'dataset', with the folders")
    assert message.endswith(f"give {outer}/dataset as the source")


def test_splits_below_classes_are_refused(images_copy: Path, tmp_path: Path) -> None:
    root = tmp_path / "by-class"
    for split in ("train", "val"):
        for folder in (images_copy / split).iterdir():
            shutil.copytree(folder, root / folder.name / split)
    assert refusal(lambda: stage(root)) == (
        f"{root}/cat has the folders train, val: expected splits above classes, as in "
        f"train/<class>/<images>; or give {root}/cat as the source"
    )


def test_splits_within_a_split_are_refused(images_copy: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    for split in ("train", "val"):
        shutil.copytree(images_copy, root / split)
    message = refusal(lambda: stage(root))
    assert message.startswith(f"{root}/train has the folders train, val: expected a folder for")


@pytest.mark.parametrize("names", [("training_set", "test_set"), ("Train2017", "Val2017")])
def test_names_that_look_like_splits_are_refused(images_copy: Path, names: tuple[str, str]) -> None:
    for before, after in zip(("train", "val"), names, strict=True):
        (images_copy / before).rename(images_copy / after)
    message = refusal(lambda: stage(images_copy))
    assert f"has the folders {', '.join(sorted(names))}, which look like splits" in message


def test_classes_may_have_words_of_splits_in_their_names(folders: Path, tmp_path: Path) -> None:
    for name in ("train station", "test tube"):
        shutil.copytree(folders / "train/cat", tmp_path / name)
    assert open_source(str(tmp_path)).classes == ("test tube", "train station")


@pytest.mark.parametrize("form", ["train", "none"])
def test_fewer_than_two_classes_are_refused(images_copy: Path, form: str) -> None:
    for split in ("train", "val"):
        for name in ("dog", "emu"):
            shutil.rmtree(images_copy / split / name)
    root = images_copy if form == "train" else images_copy / "train"
    message = refusal(lambda: stage(root))
    assert ("one class folder, 'cat'" if form == "train" else "none of the known forms") in message


@pytest.mark.parametrize("name", ["@eaDir", "__MACOSX", "$RECYCLE.BIN", "#recycle", "lost+found"])
def test_what_file_servers_and_systems_leave_is_not_read(images_copy: Path, name: str) -> None:
    before = stage(images_copy)
    for folder in ("train", "train/cat", "train/cat/more"):
        shutil.copytree(images_copy / "val/dog", images_copy / folder / name)
    after = stage(images_copy)
    assert after.dataset == before.dataset
    assert notes(images_copy)[-1] == f"not read: train/{name}"
    assert {entry.reason for entry in after.ignored} == {"made by a file server or a system"}


def test_name_of_a_class_is_one_in_all_forms_of_unicode(images_copy: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "émeu") for form in ("NFC", "NFD"))
    (images_copy / "train/emu").rename(images_copy / "train" / composed)
    (images_copy / "val/emu").rename(images_copy / "val" / decomposed)
    dataset = stage(images_copy).dataset
    assert dataset.classes == ("cat", "dog", composed)
    (images_copy / "train" / decomposed).mkdir()
    assert "differ in spaces or in their form of Unicode" in refusal(lambda: stage(images_copy))


def test_class_whose_name_is_not_printable_is_refused(images_copy: Path) -> None:
    (images_copy / "train/new\nline").mkdir()
    assert refusal(lambda: stage(images_copy)) == (
        f"{images_copy}/train has the folder 'new\\nline', whose name is not printable UTF-8: "
        "rename it"
    )


def test_parts_of_a_data_set_are_no_classes(images_copy: Path) -> None:
    for split in ("train", "val"):
        shutil.rmtree(images_copy / split / "emu")
        (images_copy / split / "cat").rename(images_copy / split / "images")
        (images_copy / split / "dog").rename(images_copy / split / "Masks")
    assert refusal(lambda: stage(images_copy)) == (
        f"{images_copy}/train has the folders Masks, images, which are parts of a data set and no "
        "classes: expected a folder for each class"
    )


def test_classes_that_differ_in_case_are_noted(images_copy: Path) -> None:
    for split in ("train", "val"):
        (images_copy / split / "dog").rename(images_copy / split / "Cat")
    assert notes(images_copy)[2:] == ["3 classes: Cat, cat, emu", "differ in case alone: Cat, cat"]


def test_class_of_another_spelling_is_named_with_the_likely_one(images_copy: Path) -> None:
    (images_copy / "val/emu").rename(images_copy / "val/Emu")
    assert refusal(lambda: stage(images_copy)) == (
        f"{images_copy}/val has the class 'Emu', which {images_copy}/train doesn't have; is it "
        "'emu'?"
    )


def test_image_is_one_whatever_its_name(images_copy: Path) -> None:
    names = ["a.jfif", "b.jpe", "c", "d.JPG_large", "e.jpg~"]
    for name in names:
        shutil.copy(images_copy / "train/cat/001.jpg", images_copy / "train/cat" / name)
    keys = set(stage(images_copy).index["key"])
    assert {f"train/cat/{name}" for name in names} <= keys


@pytest.mark.parametrize("place", ["", "train", "val"])
def test_image_in_no_class_is_named(images_copy: Path, place: str) -> None:
    shutil.copy(images_copy / "train/cat/001.jpg", images_copy / place / "loose.jpg")
    (images_copy / place / "labels.csv").write_text("a,b")
    staged = stage(images_copy)
    (quarantined,) = staged.dataset.quarantined
    assert quarantined.key == str(Path(place) / "loose.jpg")
    assert (quarantined.split, quarantined.reason) == (place, "in no folder of a class")
    assert [entry.name for entry in staged.ignored] == [str(Path(place) / "labels.csv")]


def test_class_without_images_is_refused_before_anything_is_read(images_copy: Path) -> None:
    shutil.rmtree(images_copy / "val/dog")
    (images_copy / "val/dog").mkdir()
    (images_copy / "val/dog/000.txt").write_text("0 0.5 0.5 1 1")
    assert refusal(lambda: list(open_source(str(images_copy)).files())) == (
        f"class 'dog' has no images in {images_copy}/val/dog: expected at least one JPEG, PNG or "
        "BMP image"
    )


def test_folders_within_a_class_and_beside_the_splits_are_noted(images_copy: Path) -> None:
    (images_copy / "raw").mkdir()
    for number in range(2):
        (images_copy / f"train/cat/{number}").mkdir()
    for number, image in enumerate(sorted((images_copy / "train/cat").glob("*.*"))):
        image.rename(images_copy / f"train/cat/{number % 2}" / image.name)
    assert notes(images_copy)[2:] == [
        "3 classes: cat, dog, emu",
        "each of one class, with its folders: train/cat (0, 1)",
        "not read: raw",
    ]


def test_paths_of_the_group_file_are_those_of_the_folders(images_copy: Path) -> None:
    shutil.rmtree(images_copy / "val")
    train = (images_copy / "train").rename(images_copy / "Training")
    paths = [path.relative_to(images_copy) for path in sorted(train.glob("*/*"))]
    lines = [f"{path},{path.parent.name}{number % 2}" for number, path in enumerate(paths)]
    (images_copy / "groups.csv").write_text("\n".join(["path,group", *lines]))
    splits = stage(f"{images_copy}?val=0.4").dataset.splits
    assert splits["val"] > 0
