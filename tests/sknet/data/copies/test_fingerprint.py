"""Fingerprints: what changes them, what doesn't, and which images have none."""

import io
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL.Image import Image

from sknet.data.copies import fingerprint as fingerprints
from sknet.data.copies.fingerprint import FINGERPRINT, MIRROR, fingerprint
from tests.photographs import encoded, photographs


@pytest.fixture(scope="module")
def portrait() -> Image:
    """A photograph of 120 x 150 pixels."""
    return photographs()["portrait"].resize((120, 150))


def saved(image: Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def fields(content: bytes) -> np.void:
    """Return the fields of an image's fingerprint."""
    (found,) = np.frombuffer(fingerprint(content), FINGERPRINT)
    return found


def test_same_image_has_the_same_fingerprint_in_any_lossless_file(portrait: Image) -> None:
    expected = fingerprint(saved(portrait, "PNG"))
    assert len(expected) == FINGERPRINT.itemsize
    assert fingerprint(saved(portrait, "BMP")) == expected
    assert fingerprint(saved(portrait.convert("RGBA"), "PNG")) == expected


def test_grey_image_of_16_bits_has_the_fingerprint_of_its_upper_bits(portrait: Image) -> None:
    grey = np.asarray(portrait.convert("L"))
    deep = PIL.Image.fromarray(grey.astype(np.uint16) * 256 + 77)
    of_eight_bits = PIL.Image.fromarray(grey)
    assert fingerprint(saved(deep, "PNG")) == fingerprint(saved(of_eight_bits, "PNG"))


def test_fingerprint_holds_what_it_says(portrait: Image) -> None:
    found = fields(saved(portrait, "PNG"))
    pixels = np.asarray(portrait.resize((32, 32), PIL.Image.Resampling.LANCZOS))
    assert np.abs(found["colour"] - pixels.mean(axis=(0, 1))).max() <= 0.5
    grey = np.asarray(PIL.Image.fromarray(pixels).convert("L"))
    assert found["brightness"] == round(grey.mean() * 256)
    assert found["contrast"] == round(grey.std())


def test_mirrored_image_has_the_mirrored_hash_and_coefficients(portrait: Image) -> None:
    found = fields(saved(portrait, "PNG"))
    mirrored = fields(saved(portrait.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT), "PNG"))
    assert found["mirrored"] == mirrored["hash"]
    assert found["hash"] == mirrored["mirrored"]
    difference = found["coefficients"].astype(int) * MIRROR - mirrored["coefficients"]
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("size", [(33, 40), (127, 95), (500, 375), (501, 374)])
def test_decoder_that_leaves_frequencies_out_changes_next_to_nothing(size: tuple[int, int]) -> None:
    image = photographs()["temple"].resize(size)
    shrunken, whole = fields(encoded(image, 95)), fields(saved(image, "PNG"))
    difference = shrunken["coefficients"].astype(int) - whole["coefficients"]
    assert np.sqrt(np.mean((difference / 127) ** 2)) < 0.05


def test_small_image_has_a_fingerprint_but_no_contrast(portrait: Image) -> None:
    assert fields(saved(portrait.resize((16, 40)), "PNG"))["contrast"] == 0


@pytest.mark.parametrize(
    "case", ["small", "blank", "nearly blank", "GIF", "cut off", "empty", "no image"]
)
def test_image_without_looks_has_no_fingerprint(portrait: Image, case: str) -> None:
    content = {
        "small": saved(portrait.resize((15, 200)), "PNG"),
        "blank": saved(PIL.Image.new("RGB", (90, 90), (200, 10, 90)), "PNG"),
        "nearly blank": saved(portrait.point(lambda level: 128 + level // 64), "PNG"),
        "GIF": saved(portrait, "GIF"),
        "cut off": encoded(portrait)[:200],
        "empty": b"",
        "no image": b"\xff\xd8\xff no image",
    }[case]
    assert fingerprint(content) == b""


def test_decompression_bomb_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    content = saved(PIL.Image.new("L", (300, 200)), "PNG")
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 300 * 200 - 1)
    monkeypatch.setattr(PIL.Image.Image, "load", lambda _: pytest.fail("it was decoded"))
    assert fingerprint(content) == b""


def test_refused_memory_is_no_property_of_the_image(
    portrait: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(PIL.Image.Image, "resize", refuse)
    with pytest.raises(MemoryError, match="the image's decoder was refused memory"):
        fingerprint(saved(portrait, "PNG"))


@pytest.mark.parametrize(
    ("owner", "name"),
    [(PIL.Image, "open"), (PIL.Image.Image, "resize")],
    ids=["filters of warnings are changed", "large images are decoded"],
)
def test_one_thread_at_a_time(
    portrait: Image, owner: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, before = saved(portrait.resize((40, 40)), "PNG"), list(warnings.filters)
    monkeypatch.setattr(fingerprints, "LARGE_IMAGE", 1000)
    real, inside, largest = getattr(owner, name), 0, 0

    def watched(*arguments: Any, **options: Any) -> Any:
        nonlocal inside, largest
        if options.get("box") or name == "open":
            inside += 1
            largest = max(largest, inside)
            time.sleep(0.002)
            inside -= 1
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, watched)
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(fingerprint, [content] * 20))) == 1
    assert largest == 1
    assert warnings.filters == before


@given(st.binary(max_size=300))
def test_any_bytes_give_a_fingerprint_or_none(content: bytes) -> None:
    assert len(fingerprint(content)) in (0, FINGERPRINT.itemsize)
