"""The check of images: what it accepts decodes in full, in Pillow and in MindSpore."""

import io
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from mindspore.dataset import vision
from PIL import Image

from sknet.data.images import is_decodable_baseline_jpeg, undecodable


def jpeg(mode: str = "RGB", size: tuple[int, int] = (72, 56), **options: object) -> bytes:
    pixels = random.Random(3).randbytes(size[0] * size[1] * len(mode))
    buffer = io.BytesIO()
    Image.frombytes(mode, size, pixels).save(buffer, "JPEG", **{"quality": 90, **options})
    return buffer.getvalue()


def mutilated(content: bytes, number: int) -> bytes:
    """Return an image that is cut, overwritten, or has flipped bits in its header.

    The same number gives the same damage.
    """
    chance = random.Random(number)
    changed = bytearray(content)
    match number % 4:
        case 0:
            del changed[chance.randrange(len(changed)) :]
        case 1:
            start = chance.randrange(len(changed))
            stop = min(len(changed), start + chance.randrange(1, 300))
            changed[start:stop] = bytes(stop - start)
        case 2:
            for _ in range(chance.randrange(1, 4)):
                changed[chance.randrange(len(changed))] = chance.randrange(256)
        case 3:
            position = chance.randrange(content.index(b"\xff\xda") + 12)
            changed[position] ^= 1 << chance.randrange(8)
    return bytes(changed)


def decodes_in_pillow(content: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            image.load()
    except Exception:  # noqa: BLE001 (many kinds)
        return False
    return True


def mutants() -> Iterator[bytes]:
    sources = [jpeg(), jpeg(subsampling="4:2:0"), jpeg("L"), jpeg(restart_marker_blocks=2)]
    sources.append(jpeg(progressive=True))
    for number in range(2000):
        yield mutilated(sources[number % len(sources)], number // len(sources))


def test_check_equals_a_full_decoding_of_mutilated_jpegs() -> None:
    assert [undecodable(mutant) is None for mutant in mutants()] == [
        decodes_in_pillow(mutant) for mutant in mutants()
    ]


def test_images_that_pass_without_decoding_decode_in_mindspore(away: Path) -> None:
    # Some of the others end the process in MindSpore by a division by zero.
    passed = [mutant for mutant in mutants() if is_decodable_baseline_jpeg(mutant)]
    assert len(passed) > 400
    for mutant in passed:
        with Image.open(io.BytesIO(mutant)) as image:
            width, height = image.size
        decoded = vision.Decode()(np.frombuffer(mutant, np.uint8))
        assert decoded.shape == (height, width, 3)


@pytest.mark.parametrize("content", [jpeg(), jpeg("L"), jpeg(optimize=True, exif=b"Exif\0\0made")])
def test_baseline_jpegs_pass_without_decoding(content: bytes) -> None:
    assert is_decodable_baseline_jpeg(content)


@pytest.mark.parametrize("content", [jpeg(progressive=True), jpeg("CMYK"), b"", b"\xff\xd8"])
def test_other_images_need_decoding(content: bytes) -> None:
    assert not is_decodable_baseline_jpeg(content)


def test_undamaged_images_pass(folders: Path) -> None:
    assert [undecodable(path.read_bytes()) for path in folders.glob("val/*/*")] == [None] * 6


@pytest.mark.parametrize("name", ["000.png", "001.jpg"])
def test_truncated_image_is_refused(folders: Path, name: str) -> None:
    content = (folders / "val/dog" / name).read_bytes()
    assert "truncated" in (undecodable(content[: len(content) // 2]) or "")


@pytest.mark.parametrize("content", [b"", b"no image", b"GIF89a"])
def test_content_that_is_no_image_is_refused(content: bytes) -> None:
    assert undecodable(content) == "UnidentifiedImageError: not a JPEG, PNG or BMP image"


@pytest.mark.parametrize("name", ["000.png", "001.jpg"])
def test_decompression_bomb_is_refused(
    monkeypatch: pytest.MonkeyPatch, folders: Path, name: str
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    reason = undecodable((folders / "val/dog" / name).read_bytes())
    assert (reason or "").startswith("DecompressionBomb")
