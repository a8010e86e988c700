"""Hostile images: accepted as documented, with the same pixels in Pillow and MindSpore, or refused.

A refusal has its reason in one line.
"""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mindspore.dataset import vision
from PIL import Image, ImageOps

from sknet.data.conversion.converter import reencode, reencoding_to
from sknet.data.copies.fingerprint import eight_bits, open_image
from sknet.data.images import decode, decode_quickly, undecodable
from sknet.evaluation.examples import thumbnail

rng = np.random.default_rng(5)
PIXELS = rng.integers(0, 256, (40, 56, 3), np.uint8)
PHOTO = Image.fromarray(PIXELS)
ROTATED = Image.Exif()
ROTATED[0x0112] = 6


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def ycck() -> bytes:
    """Return a four-channel JPEG of Adobe's transform 2: its first three channels are YCC."""
    content = bytearray(encoded(PHOTO.convert("CMYK"), "JPEG"))
    content[content.index(b"Adobe\0") + 11] = 2
    return bytes(content)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int) -> bytes:
    """Return a PNG whose header claims a size, and that has no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + (chunk(b"IEND", b""))
    )


def jpeg_of(width: int, height: int) -> bytes:
    """Return a JPEG whose header claims a size."""
    content = bytearray(encoded(PHOTO, "JPEG"))
    struct.pack_into(">HH", content, content.index(b"\xff\xc0") + 5, height, width)
    return bytes(content)


ACCEPTED = {
    "jpeg": encoded(PHOTO, "JPEG"),
    "jpeg 4:4:4": encoded(PHOTO, "JPEG", subsampling=0),
    "jpeg 4:2:2": encoded(PHOTO, "JPEG", subsampling=1),
    "progressive": encoded(PHOTO, "JPEG", progressive=True),
    "optimized": encoded(PHOTO, "JPEG", optimize=True),
    "restart markers": encoded(PHOTO, "JPEG", restart_marker_blocks=1),
    "worst quality": encoded(PHOTO, "JPEG", quality=1),
    "grey jpeg": encoded(PHOTO.convert("L"), "JPEG"),
    "cmyk": encoded(PHOTO.convert("CMYK"), "JPEG"),
    "ycck": ycck(),
    "exif-rotated": encoded(PHOTO, "JPEG", exif=ROTATED),
    "comment": encoded(PHOTO, "JPEG", comment=b"\xff\xd9" * 99),
    "icc profile": encoded(PHOTO, "JPEG", icc_profile=b"\0" * 70_000),
    "trailing garbage": encoded(PHOTO, "JPEG") + b"garbage" * 99,
    "a second image behind": encoded(PHOTO, "JPEG") * 2,
    "1x1 jpeg": encoded(PHOTO.resize((1, 1)), "JPEG"),
    "1 pixel high": encoded(PHOTO.resize((300, 1)), "JPEG"),
    "1 pixel wide": encoded(PHOTO.resize((1, 300)), "JPEG"),
    "png": encoded(PHOTO, "PNG"),
    "png named .JPEG": encoded(PHOTO, "PNG"),
    "grey png": encoded(PHOTO.convert("L"), "PNG"),
    "palette png": encoded(PHOTO.convert("P"), "PNG"),
    "1-bit png": encoded(PHOTO.convert("1"), "PNG"),
    "png with alpha": encoded(PHOTO.convert("RGBA"), "PNG"),
    "grey png with alpha": encoded(PHOTO.convert("LA"), "PNG"),
    "rotated png": encoded(PHOTO, "PNG", exif=ROTATED),
    "animated png": encoded(
        PHOTO, "PNG", save_all=True, append_images=[ImageOps.invert(PHOTO)], duration=9
    ),
    "png with trailing garbage": encoded(PHOTO, "PNG") + b"garbage",
    "1x1 png": encoded(PHOTO.resize((1, 1)), "PNG"),
    "bmp": encoded(PHOTO, "BMP"),
    "grey bmp": encoded(PHOTO.convert("L"), "BMP"),
    "palette bmp": encoded(PHOTO.convert("P"), "BMP"),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted_images_have_the_same_pixels_in_pillow_and_mindspore(name: str) -> None:
    content = ACCEPTED[name]
    assert undecodable(content) is None
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(image.convert("RGB"))
    decoded = vision.Decode()(np.frombuffer(content, np.uint8))
    assert (decoded == expected).all()


def test_quick_decoding_has_mindspores_pixels_for_all_but_four_channels() -> None:
    left = {name for name, content in ACCEPTED.items() if decode_quickly(content) is None}
    assert left == {"cmyk", "ycck"}
    for name in ACCEPTED.keys() - left:
        content = ACCEPTED[name]
        decoded = vision.Decode()(np.frombuffer(content, np.uint8))
        assert np.array_equal(decode_quickly(content), decoded), name


@pytest.mark.parametrize("kind", ["WEBP", "JPEG2000", "TIFF", "PPM", "GIF"])
def test_quick_decoding_leaves_what_mindspore_refuses(kind: str) -> None:
    assert decode_quickly(encoded(PHOTO, kind)) is None


def test_a_jpeg_of_an_unusual_sampling_is_left_to_mindspore() -> None:
    content = bytearray(encoded(PHOTO.convert("L"), "JPEG"))
    expected = decode(bytes(content))
    # 1x4, for which simplejpeg has no name; it changes nothing in a grey image.
    content[content.index(b"\xff\xc0") + 11] = 0x14
    assert undecodable(bytes(content)) is None
    assert np.array_equal(decode(bytes(content)), expected)


def test_exif_orientation_is_ignored_as_in_training_of_the_published_networks() -> None:
    decoded = vision.Decode()(np.frombuffer(ACCEPTED["exif-rotated"], np.uint8))
    assert decoded.shape == PIXELS.shape


DEEP = rng.integers(0, 1 << 16, (40, 56), np.uint16)
DEEP_PNG = encoded(Image.fromarray(DEEP), "PNG")


def test_upper_eight_of_sixteen_bits_are_used() -> None:
    assert undecodable(DEEP_PNG) is None
    assert (decode(DEEP_PNG) == (DEEP >> 8)[:, :, None]).all()


@pytest.mark.parametrize(
    ("content", "pixels"),
    [
        *(
            (content, np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))
            for content in ACCEPTED.values()
        ),
        (DEEP_PNG, np.repeat((DEEP >> 8).astype(np.uint8)[:, :, None], 3, axis=2)),
    ],
    ids=[*ACCEPTED, "16-bit grey png"],
)
def test_smaller_copies_show_the_pixels_that_training_sees(
    content: bytes, pixels: npt.NDArray[np.uint8]
) -> None:
    plain = encoded(Image.fromarray(pixels), "PNG")
    side = max(1, min(pixels.shape[:2]) // 2)
    settings = reencoding_to(side, 90)
    if side < min(pixels.shape[:2]):
        assert reencode(content, settings) == reencode(plain, settings)
    assert thumbnail(content).tobytes() == thumbnail(plain).tobytes()
    # The page about a data set and the search for copies decode by Pillow.
    assert (np.asarray(eight_bits(open_image(content))) == pixels).all()


def test_first_image_of_an_animation_is_used() -> None:
    decoded = vision.Decode()(np.frombuffer(ACCEPTED["animated png"], np.uint8))
    assert (decoded == PIXELS).all()


JPEG, PNG = ACCEPTED["jpeg"], ACCEPTED["png"]
REFUSED = {
    "nothing": b"",
    "text": b"no image at all\n" * 9,
    "html": b"<!doctype html><html><body>404 Not Found</body></html>",
    "zeros": bytes(4096),
    "jpeg's first bytes": b"\xff\xd8\xff\xe0",
    "png's first bytes": b"\x89PNG\r\n\x1a\n",
    "gif": encoded(PHOTO, "GIF"),
    "webp": encoded(PHOTO, "WEBP"),
    "tiff": encoded(PHOTO, "TIFF"),
    "jpeg 2000": encoded(PHOTO, "JPEG2000"),
    "ico": encoded(PHOTO, "ICO"),
    "ppm": encoded(PHOTO, "PPM"),
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "zip": b"PK\x03\x04" + bytes(99),
    "gzipped jpeg": zlib.compress(JPEG),
    "jpeg without its end": JPEG[:-2],
    "jpeg cut in its header": JPEG[:300],
    "jpeg of header only": JPEG[: JPEG.index(b"\xff\xda") + 14],
    "png without its data": PNG[:40],
    "png with a wrong checksum": PNG[:45] + bytes([PNG[45] ^ 1]) + PNG[46:],
    "0x0 png": png_of(0, 0),
    "65k x 65k png": png_of(65_000, 65_000),
    "65k x 65k jpeg": jpeg_of(65_000, 65_000),
    "12k x 12k png": png_of(12_000, 12_000),
    "12k x 12k jpeg": jpeg_of(12_000, 12_000),
    "0 high jpeg": jpeg_of(56, 0),
    "2 billion pixels wide": png_of((1 << 31) - 1, 1),
    "bmp cut": ACCEPTED["bmp"][:-100],
    "bmp of a huge size": ACCEPTED["bmp"][:18] + struct.pack("<ii", 1 << 30, 1 << 30),
    **{f"jpeg cut at {part} of 10": JPEG[: len(JPEG) * part // 10] for part in range(1, 10)},
    **{f"png cut at {part} of 10": PNG[: len(PNG) * part // 10] for part in range(1, 10)},
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_image_has_a_reason_in_one_line(name: str) -> None:
    reason = undecodable(REFUSED[name])
    assert reason
    assert reason.isprintable()
    assert len(reason) < 200


def test_image_that_only_mindspore_refuses_is_refused() -> None:
    """Damage the length of the chunk after the header, which Pillow doesn't check."""
    content = PNG[:33] + b"\x21" + PNG[34:]
    assert undecodable(content) == "MindSpore: Decode: image decode failed."


def test_refused_image_leaves_no_file_behind(away: Path) -> None:
    for content in REFUSED.values():
        undecodable(content)
    assert not list(away.iterdir())


@settings(max_examples=400)
@given(
    st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"BM", JPEG[:200], PNG[:60]]),
    st.binary(max_size=600),
)
def test_arbitrary_bytes_are_judged_in_one_line(start: bytes, rest: bytes) -> None:
    reason = undecodable(start + rest)
    assert reason is None or reason.isprintable()


@settings(max_examples=200)
@given(st.sampled_from(["png", "bmp", "progressive", "cmyk", "palette png"]), st.data())
def test_mutated_images_that_pass_decode_in_mindspore(name: str, data: st.DataObject) -> None:
    content = bytearray(ACCEPTED[name])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    if undecodable(bytes(content)) is None:
        vision.Decode()(np.frombuffer(bytes(content), np.uint8))
