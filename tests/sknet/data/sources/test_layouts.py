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


def make_images(root: Path, *paths: str) -> None:
    """Make folders with a file in each that counts as an image until it is decoded."""
    for path in paths:
        (root / path).mkdir(parents=True, exist_ok=True)
        (root / path / "0.jpg").write_bytes(b"x")
        (root / path / "1.jpg").write_bytes(b"x")


@pytest.mark.parametrize(
    "names",
    [
        ("train2017", "val2017"),
        ("trainset", "valset"),
        ("TrainImages", "TestImages"),
        ("holdout", "training_data"),
        ("testA", "testB", "trainA", "trainB"),
    ],
)
@pytest.mark.parametrize("inner", ["", "/cat"])
def test_splits_by_another_name_are_no_classes(
    tmp_path: Path, names: tuple[str, ...], inner: str
) -> None:
    make_images(tmp_path, *(f"{name}{inner}" for name in names))
    assert refusal(lambda: open_source(str(tmp_path))) == (
        f"data directory {tmp_path} has the folders {', '.join(sorted(names))}, which look like "
        "splits: expected train/<class>/<images>, val/<class>/<images> and, if there is a third "
        "split, test/<class>/<images>"
    )


def test_folders_that_all_hold_the_same_folders_are_no_classes(tmp_path: Path) -> None:
    make_images(tmp_path, "Fold1/cat", "Fold1/dog", "Fold2/cat", "Fold2/dog")
    assert refusal(lambda: open_source(str(tmp_path))) == (
        f"data directory {tmp_path} has the folders Fold1, Fold2, each with the folders cat, dog "
        "in it: if cat, dog are the classes, rename the folders above them to train, val and test, "
        "or merge them; otherwise move the images up into the folders of their classes"
    )


@pytest.mark.parametrize(
    "paths",
    [
        ("test tube", "train station"),
        ("car", "train_set"),
        ("model train", "model test"),
        ("cat/left", "dog/left"),
        ("cat/left", "cat/right", "dog/left"),
        ("cat", "cat/left", "cat/right", "dog", "dog/left", "dog/right"),
        ("vehicle/train station", "vehicle/test tube", "dog"),
        ("cat/images", "dog/images"),
    ],
)
def test_what_only_resembles_splits_is_classes(tmp_path: Path, paths: tuple[str, ...]) -> None:
    make_images(tmp_path, *paths)
    source = open_source(str(tmp_path))
    assert set(source.classes) == {path.split("/")[0] for path in paths}
    assert len(list(source.files())) == 2 * len(paths)


@pytest.mark.parametrize(
    ("folders_of_cat", "says"),
    [
        (("train2017", "val2017"), "has the folders train2017, val2017: expected splits above"),
        (("holdout", "training"), "has the folders holdout, training: expected splits above"),
        (("Masks", "images"), "has the folders Masks, images, which are parts of a data set: "),
    ],
)
@pytest.mark.parametrize("dog", ["dog", "both"])
def test_splits_and_parts_within_a_class_are_refused(
    tmp_path: Path, folders_of_cat: tuple[str, ...], says: str, dog: str
) -> None:
    below = {"both": [f"dog/{folder}" for folder in folders_of_cat], "dog": ["dog"]}[dog]
    make_images(tmp_path, *below, *(f"cat/{folder}" for folder in folders_of_cat))
    message = refusal(lambda: list(open_source(str(tmp_path)).files()))
    assert message.startswith(f"{tmp_path}/cat {says}")


def test_class_of_test_alone_is_refused_with_the_cure(images_copy: Path) -> None:
    make_images(images_copy, "Test/img")
    test, train = images_copy / "Test", images_copy / "train"
    assert refusal(lambda: open_source(str(images_copy))) == (
        f"{test} has the class 'img', which {train} doesn't have; if its images have no labels, "
        f"move them directly into {test}, otherwise name the folder as in {train}"
    )


@pytest.mark.parametrize("form", ["train", "none"])
def test_fewer_than_two_classes_are_refused(images_copy: Path, form: str) -> None:
    for split in ("train", "val"):
        for name in ("dog", "emu"):
            shutil.rmtree(images_copy / split / name)
    root = images_copy if form == "train" else images_copy / "train"
    message = refusal(lambda: stage(root))
    assert ("one class folder, 'cat'" if form == "train" else "none of the known forms") in message


@pytest.mark.parametrize(
    "name",
    [
        *("@eaDir", "__MACOSX", "$RECYCLE.BIN", "#recycle", "lost+found", "_vti_cnf"),
        *("thumb", "Thumbs", "thumbnail", "THUMBNAILS"),
    ],
)
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
