"""Matching: copies of real photographs are found, other images aren't, and not all pairs are tried.

tests/bench/bench_copies.py has more kinds of copies, more images, and the figures of the docs.
"""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL.Image import Image

from sknet.data.copies import matching
from sknet.data.copies.fingerprint import FINGERPRINT, fingerprint
from sknet.data.copies.matching import Copies, find_copies
from tests.photographs import encoded, photographs, tiles


@pytest.fixture(scope="module")
def originals() -> list[Image]:
    """Tiles of 64 pixels of three photographs, without overlap."""
    return [tile for photograph in photographs().values() for tile in tiles(photograph, 64)]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def copies_of(contents: Sequence[bytes]) -> Copies:
    return find_copies([sha256(each) for each in contents], [fingerprint(c) for c in contents])


def cropped(image: Image) -> Image:
    """Return the image without 5 % of its width and height."""
    return image.crop((2, 2, image.width - 1, image.height - 1))


def mirrored(image: Image) -> Image:
    return image.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)


@pytest.mark.parametrize(
    ("copy", "least_recall"),
    [
        (lambda image: encoded(image, 50), 0.99),
        (lambda image: encoded(image.resize((45, 45)), 75), 0.99),
        (lambda image: encoded(image.resize((128, 100)), 90), 0.99),
        (lambda image: encoded(mirrored(image)), 0.99),
        (lambda image: encoded(cropped(image)), 0.75),
    ],
    ids=["re-encoded", "smaller", "larger, of another aspect", "mirrored", "cropped"],
)
def test_copies_of_photographs_are_found_and_nothing_else(
    originals: list[Image], copy: Callable[[Image], Image], least_recall: float
) -> None:
    contents = [encoded(image) for image in originals] + [copy(image) for image in originals]
    found = copies_of(contents)
    assert not found.alike
    expected = {(each, each + len(originals)) for each in range(len(originals))}
    assert set(found.groups) <= expected
    assert len(found.groups) >= least_recall * len(originals)


def test_equal_bytes_are_copies_whatever_they_show() -> None:
    digests = [sha256(b"a"), sha256(b"b"), sha256(b"a"), sha256(b"c"), sha256(b"b"), sha256(b"a")]
    assert find_copies(digests, [b""] * 6).groups == ((0, 2, 5), (1, 4))


def test_equal_and_near_copies_are_one_group(originals: list[Image]) -> None:
    one, other, third = originals[:3]
    contents = [encoded(other), encoded(one), encoded(third), encoded(one), encoded(one, 60)]
    assert copies_of(contents).groups == ((1, 3, 4),)


def test_nothing_has_no_copies() -> None:
    assert find_copies([], []) == Copies(())


def test_another_hue_or_brightness_is_another_image(originals: list[Image]) -> None:
    image = originals[0]
    red, green, blue = image.split()
    other_hue = PIL.Image.merge("RGB", (blue, red, green))
    darker = image.point(lambda level: level // 2)
    assert copies_of([encoded(each) for each in (image, other_hue, darker)]).groups == ()


def synthetic(number: int, *, seed: int = 0) -> np.ndarray:
    """Return random fingerprints, which are of no copies."""
    random = np.random.default_rng(seed)
    prints = np.zeros(number, FINGERPRINT)
    for field in ("hash", "mirrored"):
        prints[field] = random.integers(0, 1 << 64, number, dtype=np.uint64)
    prints["brightness"] = random.integers(0, 1 << 16, number)
    prints["contrast"] = 50
    prints["coefficients"] = random.integers(-127, 128, (number, 63))
    return prints


def groups_of(prints: np.ndarray) -> Copies:
    return find_copies([str(each) for each in range(len(prints))], [p.tobytes() for p in prints])


@given(
    bits=st.sets(st.integers(0, 63), max_size=7),
    is_mirrored=st.booleans(),
    seed=st.integers(0, 9),
)
def test_hashes_that_differ_in_at_most_seven_bits_are_compared(
    bits: set[int], is_mirrored: bool, seed: int
) -> None:
    prints = synthetic(30, seed=seed)
    prints[20] = prints[10]
    mask = np.uint64(sum(1 << bit for bit in bits))
    if is_mirrored:
        prints["hash"][20], prints["mirrored"][20] = prints["mirrored"][10] ^ mask, 0
        prints["coefficients"][20] *= matching.MIRROR
    else:
        prints["hash"][20] ^= mask
    assert groups_of(prints).groups == ((10, 20),)


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of pairs that are compared; a list that grows."""
    counts: list[int] = []
    runs = matching._runs

    def counted(low: matching.Indices, high: matching.Indices) -> object:
        counts.append(int((high - low).sum()))
        return runs(low, high)

    monkeypatch.setattr(matching, "_runs", counted)
    return counts


def test_number_of_comparisons_grows_far_less_than_that_of_pairs(compared: list[int]) -> None:
    assert groups_of(synthetic(20_000)).groups == ()
    assert 0 < sum(compared) < 20_000**2 / 2 / 1000


def test_images_that_look_alike_are_compared_with_few_of_each_other(
    compared: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    prints = np.repeat(synthetic(1), 3000)
    prints["coefficients"][:, 0] = np.arange(3000) % 127
    monkeypatch.setattr(matching, "MAX_PARTNERS", 16)
    found = groups_of(prints)
    assert found.alike
    assert found.groups == ()
    assert max(compared) <= 3000 * 16


def test_images_of_one_camera_count_as_copies_only_if_their_bytes_are_equal(
    originals: list[Image],
) -> None:
    background = originals[0].resize((96, 96))
    contents = []
    for number in range(120):
        shot = background.copy()
        shot.putpixel((number % 96, number // 96), (255, 0, 255))
        contents.append(encoded(shot))
    contents.append(contents[7])
    assert copies_of(contents) == Copies(((7, 120),), alike=True)


def chain(length: int) -> np.ndarray:
    """Return fingerprints of which each looks like a crop of the next one, and of no other."""
    prints = np.repeat(synthetic(1), length)
    for number in range(length):
        coefficients = np.full(63, 100, np.int8)
        coefficients[3 * number : 3 * number + 5] = -100
        prints["coefficients"][number] = coefficients
    return prints


def test_chain_of_crops_is_no_group_of_copies() -> None:
    assert groups_of(chain(4)).groups == ((0, 1, 2, 3),)
    assert groups_of(chain(18)).groups == ()


def test_labels_of_a_graph_are_the_same_however_often_its_pairs_are_counted_in() -> None:
    random = np.random.default_rng(3)
    one, other = random.integers(0, 300, (2, 200))
    at_once, piecewise = matching._Graph(300), matching._Graph(300)
    at_once.join(one, other)
    for each in range(200):
        piecewise.join(one[each : each + 1], other[each : each + 1])
        if each % 7 == 0:
            piecewise.labels()
    assert np.array_equal(at_once.labels(), piecewise.labels())
    label = at_once.labels()
    assert (label[one] == label[other]).all()
