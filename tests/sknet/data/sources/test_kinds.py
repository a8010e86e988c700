"""What files are by their first bytes: images of any format that is known, or none."""

import io
from pathlib import Path

import pytest
from PIL import Image

from sknet.data.sources.kinds import HEAD_BYTES, skipped_by_content
from sknet.data.sources.trees import Skipped
from tests.sknet.conversions import stage

OTHER_FORMATS = ["PCX", "PPM", "DDS", "TGA", "ICO", "IM", "TIFF", "GIF", "WEBP", "SGI"]


def encoded(image_format: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(buffer, image_format)
    return buffer.getvalue()[:HEAD_BYTES]


def reason(kind: str) -> str:
    return f"an image of the format {kind}: convert it to JPEG, PNG or BMP"


@pytest.mark.filterwarnings("ignore:IM image format")
@pytest.mark.parametrize("image_format", OTHER_FORMATS)
def test_image_of_another_format_is_named_with_it(image_format: str) -> None:
    found = skipped_by_content("cat/photo.txt", encoded(image_format))
    kind = {"WEBP": "WebP"}.get(image_format, image_format)
    assert found == Skipped("cat/photo.txt", reason(kind))


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"II+\0\x08\0\0\0", "BigTIFF"),
        (b"MM\0+\0\x08\0\0", "BigTIFF"),
        (b"\xff\x0a\xfa\x1f", "JPEG XL"),
        (b"\0\0\0\x20ftypavis", "AVIF"),
    ],
)
def test_image_that_pillow_may_not_know_is_named_by_its_first_bytes(head: bytes, kind: str) -> None:
    assert skipped_by_content("cat/photo", head) == Skipped("cat/photo", reason(kind))


@pytest.mark.parametrize(
    "head",
    [
        *(b"", b"no image", b"path,group\na.png,1\n", b"name: cat\nsize: 3\n", b"PK\x03\x04\x14\0"),
        *(
            bytes(HEAD_BYTES),
            b"\x89HDF\r\n\x1a\n" + bytes(99),
            b"\x93NUMPY\x01\0v\0",
            b"%PDF-1.7\n",
        ),
        *(b"\0\0\x01\xba" + bytes(99), b"0 0.5 0.5 1 1\n", b"P6 is no picture here\n"),
    ],
)
def test_other_files_are_no_images(head: bytes) -> None:
    assert skipped_by_content("cat/file", head) == Skipped(
        "cat/file", "no image", quarantined=False
    )


def test_image_of_another_format_is_quarantined(images_copy: Path) -> None:
    (images_copy / "train/cat/photo.pcx").write_bytes(encoded("PCX"))
    (quarantined,) = stage(images_copy).dataset.quarantined
    assert (quarantined.key, quarantined.reason) == ("train/cat/photo.pcx", reason("PCX"))
