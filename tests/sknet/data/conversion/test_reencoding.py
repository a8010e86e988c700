"""Re-encoding: large images become smaller, and all others keep their bytes."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sknet.data.conversion.converter import reencode, reencoding_to
from sknet.data.shards import read_rows
from sknet.records import Shards
from tests.sknet.conversions import contents, convert

TO_24 = reencoding_to(24, 90)


def encoded(image: Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def decoded(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


@pytest.mark.parametrize(
    ("size", "smaller"), [((48, 96), (24, 48)), ((100, 30), (80, 24)), ((25, 25), (24, 24))]
)
@pytest.mark.parametrize(("mode", "form"), [("RGB", "JPEG"), ("L", "PNG"), ("RGB", "BMP")])
def test_shorter_side_becomes_the_limit(
    size: tuple[int, int], smaller: tuple[int, int], mode: str, form: str
) -> None:
    image = decoded(reencode(encoded(Image.new(mode, size), form), TO_24))
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", smaller)
    # 4:2:0: each chroma sample is of 2 x 2 pixels.
    assert [layer[1:3] for layer in image.layer] == [(2, 2), (1, 1), (1, 1)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", [(24, 24), (24, 500), (8, 8)])
def test_smaller_images_keep_their_bytes(size: tuple[int, int]) -> None:
    content = encoded(Image.new("RGB", size, (1, 2, 3)), "JPEG")
    assert reencode(content, TO_24) is content


@pytest.mark.parametrize("long", [(25, 70_000), (70_000, 25)])
def test_strip_that_would_be_too_long_for_a_jpeg_keeps_its_bytes(long: tuple[int, int]) -> None:
    content = encoded(Image.new("L", long), "PNG")
    assert reencode(content, TO_24) is content


def test_resizing_antialiases() -> None:
    # Stripes of one pixel, which would become black or white without antialiasing.
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (96, 48)))
    pixels = np.asarray(decoded(reencode(encoded(stripes, "PNG"), TO_24)), np.int16)
    assert np.abs(pixels[:, 2:-2] - 127).max() < 8


def test_converted_images_are_smaller_and_the_record_has_the_settings(
    folders: Path, tmp_path: Path
) -> None:
    shards = convert(folders, tmp_path / "one", num_shards=1, reencoding=TO_24)
    (train, _) = shards.files
    rows = read_rows(tmp_path / "one" / train.name, range(15))
    assert {min(decoded(row.image).size) for row in rows} == {24}
    assert [row.image for row in rows] == [
        reencode((folders / row.key).read_bytes(), TO_24) for row in rows
    ]
    assert Shards.read(tmp_path / "one/shards.json").reencoding == TO_24
    convert(folders, tmp_path / "two", num_shards=1, reencoding=TO_24)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
