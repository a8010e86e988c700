"""Files, directories and patterns are found as conversion would find them; the rest is named."""

import errno
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sknet.data.sources.trees import LocalTree
from sknet.errors import SourceReadError, UserError
from sknet.prediction.inputs import find_files, pixels_of, read_pixels, several
from sknet.prediction.results import Unreadable


@pytest.fixture
def photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two images, one in a folder, beside a note, a hidden file and an image of another format."""
    monkeypatch.chdir(tmp_path)
    image = Image.new("RGB", (40, 30), (200, 10, 10))
    (tmp_path / "photos" / "more").mkdir(parents=True)
    image.save(tmp_path / "photos" / "b.jpg")
    image.save(tmp_path / "photos" / "more" / "a.png")
    image.save(tmp_path / "photos" / ".hidden.png")
    image.save(tmp_path / "photos" / "c.webp")
    (tmp_path / "photos" / "note.txt").write_text("no image")
    return tmp_path


def test_a_directory_stands_for_all_images_below_it(photographs: Path) -> None:
    found = find_files(["photos"])
    assert found.files == ("photos/b.jpg", "photos/more/a.png")
    (other,) = found.unreadable
    assert other.file == "photos/c.webp"
    assert "WebP" in other.reason


def test_a_file_that_is_named_twice_is_predicted_once(photographs: Path) -> None:
    assert find_files(["photos/b.jpg", "photos", "photos/*.jpg"]).files == (
        "photos/b.jpg",
        "photos/more/a.png",
    )


def test_a_pattern_finds_files_in_all_folders(photographs: Path) -> None:
    found = find_files(["photos/**/[ab].*"]).files
    assert found == ("photos/b.jpg", "photos/more/a.png")


def test_a_file_whose_name_has_signs_of_a_pattern_is_a_file(photographs: Path) -> None:
    (photographs / "photos" / "b.jpg").rename("[1].jpg")
    assert find_files(["[1].jpg"]).files == ("[1].jpg",)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing.jpg", r"^missing\.jpg does not exist: "),
        ("photos/*.gif", r"^no file matches photos/\*\.gif: "),
        ("empty", r"^directory empty has no images"),
        ("", r"^'' does not exist: "),
        ("https://example.org/a.jpg?size=1", r"^https://example\.org/a\.jpg\?size=1 is a URL: "),
    ],
)
def test_a_name_that_stands_for_nothing_is_refused(photographs: Path, name: str, said: str) -> None:
    (photographs / "empty").mkdir()
    with pytest.raises(UserError, match=said):
        find_files([name])


@pytest.mark.parametrize("name", ["photos", "photos/b.jpg"])
def test_a_disk_that_fails_is_no_fault_of_an_image(
    photographs: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(LocalTree, "read", fail)
    said = r"^photos/b\.jpg can't be read: Input/output error; try again$"
    with pytest.raises(SourceReadError, match=said):
        if name == "photos":
            find_files([name])
        else:
            read_pixels(name)


def test_what_is_no_image_is_named_with_the_reason(photographs: Path) -> None:
    content = (photographs / "photos" / "b.jpg").read_bytes()
    Path("cut.jpg").write_bytes(content[: len(content) // 2])
    for name, reason in (
        ("cut.jpg", "OSError: "),
        ("photos/note.txt", "no image"),
        ("photos/c.webp", "an image of the format WebP"),
        ("gone.jpg", "can't be read: No such file or directory"),
        ("photos", "it is a directory, expected the path of a file"),
        ("photos/b.jpg/c.jpg", "can't be read: Not a directory"),
        ("n" * 300, "can't be read: File name too long"),
        ("null\0byte", "can't be read: embedded null byte"),
        ("s3://bucket/a.jpg", "can't be read: it is a URL, expected the path of a file"),
        (str(Path("s3://bucket/a.jpg")), "can't be read: it is a URL"),
    ):
        found = read_pixels(name)
        assert isinstance(found, Unreadable)
        assert (found.file, found.reason[: len(reason)]) == (name, reason)


def test_arrays_and_pillow_images_give_the_pixels_of_the_file(photographs: Path) -> None:
    _, pixels = pixels_of(Path("photos/more/a.png"), 0)
    assert isinstance(pixels, np.ndarray)
    for image in (pixels, Image.fromarray(pixels), Image.fromarray(pixels).convert("RGBA")):
        name, found = pixels_of(image, 3)
        assert name == "#3"
        np.testing.assert_array_equal(found, pixels)
    _, grey = pixels_of(pixels[:, :, 0], 0)
    np.testing.assert_array_equal(grey, np.stack([pixels[:, :, 0]] * 3, axis=2))


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((4, 4, 3), np.float32), r"an array of float32 with shape \(4, 4, 3\)"),
        (np.zeros((4, 4, 4), np.uint8), r"an array of uint8 with shape \(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), r"an array of uint8 with shape \(0, 4, 3\)"),
        (io.BytesIO(), "is of type BytesIO: expected a path"),
        (b"photo.jpg", "is of type bytes: expected a path"),
        (Image.new("RGB", (0, 4)), r"an array of uint8 with shape \(4, 0, 3\)"),
        (Image.new("I", (4, 4)), "is a Pillow image of mode I: expected one of 8 or 16 bits"),
        (Image.new("F", (4, 4)), "is a Pillow image of mode F: expected one of 8 or 16 bits"),
    ],
)
def test_what_is_no_image_is_refused(image: object, said: str) -> None:
    with pytest.raises(UserError, match=said):
        pixels_of(image, 0)  # type: ignore[arg-type]


def test_a_pillow_image_of_a_damaged_file_is_named_with_the_reason() -> None:
    content = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 256, (20, 20, 3), np.uint8)
    Image.fromarray(noise).save(content, "PNG")
    image = Image.open(io.BytesIO(content.getvalue()[:600]))
    name, found = pixels_of(image, 2)
    assert isinstance(found, Unreadable)
    assert (name, found.file, found.reason[:9]) == ("#2", "#2", "OSError: ")


def test_one_image_stands_for_a_list_of_one_and_an_array_of_images_for_each() -> None:
    pixels, picture = np.zeros((2, 4, 4, 3), np.uint8), Image.new("L", (4, 4))
    for one in ("a.jpg", Path("a.jpg"), pixels[0], pixels[0, :, :, 0], picture, b"a.jpg", 7):
        (found,) = several(one)  # type: ignore[arg-type]
        assert found is one
    assert [each.shape for each in several(pixels)] == [(4, 4, 3)] * 2  # type: ignore[union-attr]
    assert list(several(iter(["a.jpg", "b.jpg"]))) == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_pillow_image_has_the_pixels_that_its_file_has(tmp_path: Path, mode: str) -> None:
    rng = np.random.default_rng(1)
    path = tmp_path / "image.png"
    if mode == "I;16":
        Image.fromarray(rng.integers(0, 65536, (9, 7), np.uint16)).save(path)
    else:
        Image.fromarray(rng.integers(0, 256, (9, 7, 4), np.uint8)).convert(mode).save(path)
    with Image.open(path) as image:
        assert image.mode == mode
        _, found = pixels_of(image, 0)
    np.testing.assert_array_equal(found, read_pixels(str(path)))
