"""Changes of colours are those of Pillow, whose names they have, and of MindSpore's jitter."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mindspore.dataset import vision
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from sknet.data.images import Image8
from sknet.data.reading import colours
from sknet.data.reading.colours import jitter
from sknet.data.reading.draws import draws

RNG = np.random.default_rng(3)
# Noise has every value; a ramp has few, and its histogram has gaps.
NOISE = RNG.integers(0, 256, (40, 56, 3), np.uint8)
RAMP = np.broadcast_to(np.arange(60, 180, 3, np.uint8)[:, None, None], (40, 56, 3)).copy()
FLAT = np.full((8, 8, 3), 77, np.uint8)
IMAGES = {"noise": NOISE, "ramp": RAMP, "flat": FLAT}
FACTORS = (0.0, 0.1, 0.6, 1.0, 1.4, 1.9)

Enhancement = Callable[[Image8, float], Image8]
ENHANCEMENTS: list[tuple[Enhancement, type]] = [
    (colours.brightness, ImageEnhance.Brightness),
    (colours.contrast, ImageEnhance.Contrast),
    (colours.saturation, ImageEnhance.Color),
    (colours.sharpness, ImageEnhance.Sharpness),
]


def levels_apart(one: Image8, other: object) -> int:
    return int(np.abs(one.astype(int) - np.asarray(other).astype(int)).max())


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
@pytest.mark.parametrize(("ours", "pillows"), ENHANCEMENTS, ids=lambda each: each.__name__)
def test_enhancements_are_pillows_to_a_level(
    ours: Enhancement, pillows: type, image: Image8
) -> None:
    for factor in FACTORS:
        expected = pillows(Image.fromarray(image)).enhance(factor)
        # Pillow cuts fractions off where this rounds, and its grey may be one off.
        assert levels_apart(ours(image, factor), expected) <= 2, factor


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_operations_are_pillows_to_the_bit(image: Image8) -> None:
    pillow = Image.fromarray(image)
    assert levels_apart(colours.invert(image), ImageOps.invert(pillow)) == 0
    assert levels_apart(colours.equalize(image), ImageOps.equalize(pillow)) == 0
    for bits in (4, 5, 8):
        assert levels_apart(colours.posterize(image, bits), ImageOps.posterize(pillow, bits)) == 0
    for threshold in (0, 25, 128, 255):
        solarized = ImageOps.solarize(pillow, threshold)
        assert levels_apart(colours.solarize(image, threshold), solarized) == 0
    assert levels_apart(colours.auto_contrast(image), ImageOps.autocontrast(pillow)) <= 1


def test_sharpness_smooths_with_pillows_kernel() -> None:
    expected = Image.fromarray(NOISE).filter(ImageFilter.SMOOTH)
    assert levels_apart(colours.sharpness(NOISE, 0), expected) <= 1


@pytest.mark.parametrize(
    ("change", "keyword"),
    [
        (colours.brightness, "brightness"),
        (colours.contrast, "contrast"),
        (colours.saturation, "saturation"),
    ],
)
def test_jitter_of_one_kind_is_mindspores_to_a_level(change: Enhancement, keyword: str) -> None:
    for factor in (0.3, 0.8, 1.0, 1.7):
        mindspores = vision.RandomColorAdjust(**{keyword: (factor, factor)})(NOISE)
        assert levels_apart(change(NOISE, factor), mindspores) <= 1


@pytest.mark.parametrize("turn", [-0.5, -0.1, 0.02, 0.1, 0.5])
def test_hue_is_mindspores_to_a_level(turn: float) -> None:
    mindspores = vision.RandomColorAdjust(hue=(turn, turn))(NOISE)
    assert levels_apart(colours.hue(NOISE, turn), mindspores) <= 1


def test_all_four_changes_come_in_every_order_with_strengths_of_their_ranges(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[tuple[str, float]] = []
    for name in ("brightness", "contrast", "saturation", "hue"):

        def record(image: Image8, strength: float, name: str = name) -> Image8:
            made.append((name, strength))
            return image

        record.__name__ = name
        monkeypatch.setattr(colours, name, record)
    num_images = 2400
    for numbers in draws("colours", 1, 0, 0, num_images, 8).tolist():
        jitter(FLAT, (0.4, 1.5, 0.2, 0.1), numbers)
    assert len(made) == 4 * num_images
    names = [name for name, _ in made]
    orders = [tuple(names[first : first + 4]) for first in range(0, len(names), 4)]
    counts = {order: orders.count(order) for order in set(orders)}
    assert len(counts) == 24
    assert min(counts.values()) > 60, "each order is expected 100 times"
    for name, (low, high) in {
        "brightness": (0.6, 1.4),
        "contrast": (0.0, 2.5),
        "saturation": (0.8, 1.2),
        "hue": (-0.1, 0.1),
    }.items():
        strengths = [strength for kind, strength in made if kind == name]
        assert low <= min(strengths) < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < max(strengths) <= high


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=8, max_size=8))
def test_a_range_of_zero_changes_nothing(numbers: list[float]) -> None:
    assert np.array_equal(jitter(NOISE, (0.0, 0.0, 0.0, 0.0), numbers), NOISE)
