"""Automatic augmentation chooses as its papers say, with the strengths of torchvision."""

import math
from collections import Counter
from typing import Any, NamedTuple

import cv2
import mindspore.dataset as ds
import numpy as np
import pytest
from mindspore.dataset import vision
from scipy import stats

from sknet.data.images import Image8
from sknet.data.reading.auto_augment import CHOSEN, NUM_BINS, Policy, strength
from sknet.data.reading.draws import draws
from sknet.data.reading.threads import read_pipeline

SIDE = 224
FILL = (124, 116, 104)


def photo() -> Image8:
    """Return a smooth picture with colours, none of which is black or white."""
    noise = np.random.default_rng(1).integers(60, 200, (9, 9, 3), np.uint8)
    return np.asarray(cv2.resize(noise, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC))


def policy(text: str) -> Policy:
    return Policy(text, interpolation=cv2.INTER_LINEAR, fill=FILL)


def numbers_for(wanted: Policy, count: int) -> list[list[float]]:
    return draws("colours", 7, 0, 0, count, wanted.num_draws).tolist()


class Made(NamedTuple):
    """A change that a policy makes to an image."""

    change: str
    bin: int
    num_bins: int
    is_negative: bool


def changes_of(wanted: Policy, count: int, monkeypatch: pytest.MonkeyPatch) -> list[Made]:
    """Return the changes that a policy chooses for so many images."""
    made: list[Made] = []

    def record(
        self: Policy, image: Image8, change: str, number: int, num_bins: int, sign: float
    ) -> Image8:
        del self
        made.append(Made(change, number, num_bins, sign < 0.5))
        return image

    monkeypatch.setattr(Policy, "_changed", record)
    image = photo()
    for numbers in numbers_for(wanted, count):
        wanted(image, numbers)
    return made


def test_randaugment_chooses_all_changes_and_signs_equally_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count = 7000
    changes = changes_of(policy("randaug-m9-n2"), count, monkeypatch)
    assert len(CHOSEN) == 14
    chosen = Counter(each.change for each in changes)
    assert stats.chisquare([chosen[name] for name in CHOSEN]).pvalue > 1e-3
    assert {(each.bin, each.num_bins) for each in changes} == {(9, NUM_BINS)}
    negative = sum(each.is_negative for each in changes)
    assert stats.binomtest(negative, 2 * count).pvalue > 1e-3


def test_trivialaugment_makes_one_change_of_any_of_its_31_bins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count = 7000
    changes = changes_of(policy("trivialaugwide"), count, monkeypatch)
    assert len(changes) == count
    chosen = Counter(each.change for each in changes)
    assert stats.chisquare([chosen[name] for name in CHOSEN]).pvalue > 1e-3
    bins = Counter(each.bin for each in changes)
    assert set(bins) == set(range(31))
    assert stats.chisquare(list(bins.values())).pvalue > 1e-3


def test_autoaugment_makes_each_change_with_its_probability(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count = 10_000
    changes = changes_of(policy("autoaug"), count, monkeypatch)
    # Summed over the 25 pairs of the paper.
    expected = {"Equalize": 11.2, "Posterize": 2.8, "Invert": 1.8, "ShearX": 0.6, "Rotate": 3.6}
    chosen = Counter(each.change for each in changes)
    for name, probability in expected.items():
        error = math.sqrt(count * probability / 25)
        assert chosen[name] == pytest.approx(count * probability / 25, abs=4 * error), name
    assert {each.num_bins for each in changes} == {10}


@pytest.mark.parametrize(
    ("change", "number", "num_bins", "expected"),
    [
        ("ShearX", 10, 11, 0.3),
        ("ShearY", 5, 11, 0.15),
        ("TranslateX", 10, 11, 150 / 331 * 224),
        ("Rotate", 9, 11, 27),
        ("Brightness", 9, 11, 0.81),
        ("Posterize", 10, 11, 4),
        ("Posterize", 0, 11, 8),
        ("Solarize", 10, 11, 0),
        ("Solarize", 0, 11, 255),
        ("Rotate", 9, 10, 30),
        ("Posterize", 7, 10, 5),
        ("Solarize", 5, 10, 255 * 4 / 9),
        ("ShearX", 30, 31, 0.99),
        ("TranslateY", 30, 31, 32),
        ("Rotate", 30, 31, 135),
        ("Color", 30, 31, 0.99),
        ("Posterize", 30, 31, 2),
        ("Equalize", 30, 31, 0),
    ],
)
def test_strengths_are_torchvisions(
    change: str, number: int, num_bins: int, expected: float
) -> None:
    assert strength(change, number, num_bins, 224) == pytest.approx(expected)


@pytest.mark.parametrize("change", ["Invert", *CHOSEN])
def test_every_change_can_be_made_and_keeps_the_form(change: str) -> None:
    image = photo()
    for sign in (0.2, 0.7):
        changed = policy("randaug")._changed(image, change, 9, NUM_BINS, sign)
        assert (changed.shape, changed.dtype) == (image.shape, np.uint8)
        assert np.array_equal(changed, image) == (change == "Identity")


def test_what_a_translation_leaves_empty_has_the_fill_colour() -> None:
    moved = policy("randaug")._changed(photo(), "TranslateX", 10, NUM_BINS, 0.9)
    width = int(150 / 331 * SIDE)
    assert (moved[:, :width] == FILL).all()
    assert np.array_equal(moved[:, width:], photo()[:, : SIDE - width])


def test_a_rotation_turns_about_the_centre() -> None:
    image = np.zeros((65, 65, 3), np.uint8)
    image[31:34, 31:34] = 255
    turned = policy("randaug")._changed(image, "Rotate", 10, NUM_BINS, 0.9)
    assert (turned[32, 32] == 255).all()


def test_autoaugment_changes_images_as_much_as_mindspores() -> None:
    image, count = photo(), 1200

    def make() -> object:
        ds.config.set_seed(3)
        data = ds.NumpySlicesDataset([image] * count, ["image"], shuffle=False)
        operation: Any = vision.AutoAugment(
            vision.AutoAugmentPolicy.IMAGENET, vision.Inter.BILINEAR, FILL
        )
        return data.map(operation, "image").create_tuple_iterator(num_epochs=1, output_numpy=True)

    def distance(changed: Image8) -> float:
        # In steps of five levels: MindSpore's equalisation is one level from Pillow's.
        return round(float(np.abs(changed.astype(int) - image).mean()) / 5)

    theirs = [distance(changed) for (changed,) in read_pipeline(make)]
    wanted = policy("autoaug")
    ours = [distance(wanted(image, numbers)) for numbers in numbers_for(wanted, count)]
    assert stats.ks_2samp(ours, theirs).pvalue > 1e-3
