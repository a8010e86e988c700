"""Operations on batches: normalisation, random erasing, mixup and CutMix.

Normalisation gives the nearest floats, erasing draws the rectangles of its paper, and mixing equals
a loop over pixels. Each depends on nothing but its arguments.
"""

import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mindspore.dataset import vision

from sknet.data.order import generator
from sknet.data.reading.batch_operations import (
    Box,
    Images,
    Targets,
    blend,
    cut_and_paste,
    draw_box,
    erase,
    mix,
    normalise,
    soft_targets,
)
from sknet.recipe import Recipe, parse_recipe

NUM_DRAWS = 2000


def make_recipe(**changes: Any) -> Recipe:
    smallest = {"model": "skresnet18", "global_batch_size": 4, "epoch_size": 2, "lr": 0.1}
    return parse_recipe({**smallest, **changes}, where="recipe")


# Normalisation

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
# Every byte in every channel of two images of 8 x 32.
BYTES = np.stack([np.arange(256, dtype=np.uint8).reshape(8, 32)] * 6).reshape(2, 3, 8, 32)


def test_normalised_bytes_are_the_nearest_floats_of_each_step() -> None:
    normalised = normalise(BYTES, MEAN, STD)
    for channel, (mean, std) in enumerate(zip(MEAN, STD, strict=True)):
        mean_32, std_32 = np.float32(mean), np.float32(std)
        for byte in range(256):
            difference = np.float32(float(Fraction(byte) - Fraction(float(mean_32))))
            quotient = np.float32(float(Fraction(float(difference)) / Fraction(float(std_32))))
            where = BYTES[:, channel] == byte
            assert (normalised[:, channel][where] == quotient).all()


def test_normalisation_equals_mindspores_within_rounding() -> None:
    theirs = vision.Normalize(list(MEAN), list(STD), is_hwc=False)
    normalised = normalise(BYTES, MEAN, STD)
    for image, ours in zip(BYTES, normalised, strict=True):
        np.testing.assert_allclose(ours, theirs(image), rtol=0, atol=5e-7)


def test_normalisation_returns_contiguous_float32_and_leaves_its_input() -> None:
    before = BYTES.copy()
    normalised = normalise(BYTES, MEAN, STD)
    assert normalised.dtype == np.float32
    assert normalised.flags.c_contiguous
    np.testing.assert_array_equal(BYTES, before)


# Random erasing


def ones(count: int, height: int = 40, width: int = 50) -> Images:
    return np.ones((count, 3, height, width), np.float32)


def erased(count: int = NUM_DRAWS, **changes: Any) -> Images:
    recipe = make_recipe(**{"re_prob": 1.0, **changes})
    return erase(ones(count), recipe, 0, np.arange(count))


def box_sides(images: Images) -> npt.NDArray[np.int64]:
    """Height and width (N, 2) of what is no longer 1 in each image."""
    changed = (images != 1).any(axis=1)
    return np.stack([changed.any(axis=2).sum(axis=1), changed.any(axis=1).sum(axis=1)], axis=1)


def test_erased_is_one_rectangle_of_the_value_in_all_channels() -> None:
    images = erased(100, re_value=[5, 6, 7])
    for image, (height, width) in zip(images, box_sides(images), strict=True):
        for channel, value in zip(image, (5, 6, 7), strict=True):
            assert (channel == value).sum() == height * width
            assert (channel == 1).sum() == channel.size - height * width


def test_erased_areas_and_ratios_are_uniform_in_their_ranges() -> None:
    # Small enough for the image, which would refuse larger ones.
    height, width = box_sides(erased(re_scale=[0.1, 0.3], re_ratio=[0.5, 1.5])).T
    area, ratio = height * width / (40 * 50), width / height
    # Half a pixel of rounding on either side of 10 to 25.
    assert 0.09 < area.min() < area.max() < 0.32
    assert 0.45 < ratio.min() < ratio.max() < 1.6
    assert area.mean() == pytest.approx(0.2, abs=0.005)
    assert ratio.mean() == pytest.approx(1.0, abs=0.03)
    assert area.std() == pytest.approx(0.2 / 12**0.5, rel=0.05)


def test_erased_rectangles_are_anywhere_in_the_image() -> None:
    changed = (erased() != 1).any(axis=1).mean(axis=0)
    assert changed.min() > 0
    np.testing.assert_allclose(changed, changed[::-1, ::-1], atol=0.06)


def test_fraction_of_erased_images_is_the_probability() -> None:
    fraction = (erased(re_prob=0.25) != 1).any(axis=(1, 2, 3)).mean()
    assert fraction == pytest.approx(0.25, abs=0.04)


def test_random_erased_values_are_normally_distributed() -> None:
    images = erased(200, re_value="random")
    values = images[images != 1]
    assert values.mean() == pytest.approx(0, abs=0.01)
    assert values.std() == pytest.approx(1, abs=0.01)


def test_image_stays_as_it_is_if_no_rectangle_fits() -> None:
    assert (erased(20, re_scale=[1, 1], re_ratio=[1, 1], re_max_attempts=3) == 1).all()


def test_without_erasing_the_images_are_returned_themselves() -> None:
    images = ones(2)
    assert erase(images, make_recipe(re_prob=0), 0, np.arange(2)) is images


def test_erasing_depends_on_the_position_whatever_the_batch_and_the_rank() -> None:
    whole = erased(12, re_value="random")
    recipe = make_recipe(re_prob=1.0, re_value="random")
    for parts in (3, 4):
        positions = np.split(np.arange(12), parts)
        pieces = [erase(ones(len(part)), recipe, 0, part) for part in reversed(positions)]
        assert np.array_equal(np.concatenate(pieces[::-1]), whole)


def test_erasing_depends_on_seed_epoch_and_position() -> None:
    def one(seed: int, epoch: int, position: int) -> bytes:
        recipe = make_recipe(re_prob=1.0, seed=seed, re_value="random")
        return erase(ones(1), recipe, epoch, np.array([position])).tobytes()

    arguments = [(1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 0, 1), (0, 1, 1)]
    assert len({one(*each) for each in arguments}) == len(arguments)


def test_erasing_leaves_its_input() -> None:
    images = ones(4)
    assert (erase(images, make_recipe(re_prob=1.0), 0, np.arange(4)) != 1).any()
    assert (images == 1).all()


# mixup and CutMix

LABELS = np.array([0, 1, 2, 2], np.int32)
IMAGES = np.random.default_rng(1).standard_normal((4, 3, 6, 8)).astype(np.float32)


def mixed(
    epoch: int = 0, step: int = 0, images: Images = IMAGES, **changes: Any
) -> tuple[Images, Targets]:
    labels = LABELS[: len(images)]
    return mix(images, labels, 3, make_recipe(**changes), epoch=epoch, step=step)


def own_fractions(**changes: Any) -> npt.NDArray[np.float32]:
    """The first image's fraction of its own class, which its neighbour lacks, in many steps."""
    small = IMAGES[..., :2, :2]
    targets = [mixed(step=step, images=small, **changes)[1] for step in range(NUM_DRAWS)]
    return np.array([each[0, 0] for each in targets])


def test_blended_pixels_and_targets_are_the_weighted_sums() -> None:
    own = 0.3
    images, targets = blend(IMAGES, own), soft_targets(LABELS, 3, own)
    for index in range(4):
        other = index ^ 1
        expected = own * IMAGES[index].astype(float) + (1 - own) * IMAGES[other].astype(float)
        np.testing.assert_allclose(images[index], expected, rtol=1e-5, atol=1e-6)
        fractions = [0.0, 0.0, 0.0]
        fractions[LABELS[index]] += own
        fractions[LABELS[other]] += 1 - own
        np.testing.assert_allclose(targets[index], fractions, rtol=1e-6)
    assert images.dtype == targets.dtype == np.float32


@given(st.data())
def test_pasted_pixels_are_the_neighbours_and_the_own_fraction_is_the_rest(
    data: st.DataObject,
) -> None:
    top, left = data.draw(st.integers(0, 6)), data.draw(st.integers(0, 8))
    box = Box(top, data.draw(st.integers(top, 6)), left, data.draw(st.integers(left, 8)))
    images, own = cut_and_paste(IMAGES, box)
    inside = 0
    for y, x in itertools.product(range(6), range(8)):
        pasted = box.top <= y < box.bottom and box.left <= x < box.right
        inside += pasted
        for index in range(4):
            source = IMAGES[index ^ 1] if pasted else IMAGES[index]
            assert images[index, :, y, x].tolist() == source[:, y, x].tolist()
    assert own == pytest.approx(1 - inside / 48)


@given(st.floats(0, 1), st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_box_is_centred_in_the_image_and_clipped_to_it(
    own: float, height: int, width: int, seed: int
) -> None:
    box = draw_box(height, width, own, generator(seed))
    assert 0 <= box.top <= box.bottom <= height
    assert 0 <= box.left <= box.right <= width
    assert box.area <= (1 - own) * height * width * (1 + 1e-9)


def test_box_has_the_requested_area_where_no_side_clips_it() -> None:
    drawn = [draw_box(100, 100, 0.84, generator(seed)) for seed in range(400)]
    assert max(box.area for box in drawn) == 40 * 40
    # In each direction, the centre is at least 20 from the sides with probability 0.6.
    fraction = np.mean([box.area == 1600 for box in drawn])
    assert fraction == pytest.approx(0.36, abs=0.08)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_fractions_have_the_beta_distribution(alpha: float) -> None:
    fractions = own_fractions(mixup=alpha)
    assert fractions.mean() == pytest.approx(0.5, abs=0.03)
    assert fractions.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_mixup_and_cutmix_have_half_of_the_steps_each_if_both_are_on() -> None:
    def is_cut(step: int) -> bool:
        """Whether pixels are copied, not blended."""
        images, _ = mixed(step=step, mixup=1.0, cutmix=1.0)
        return bool(((images == IMAGES) | (images == IMAGES[[1, 0, 3, 2]])).all())

    assert np.mean([is_cut(step) for step in range(NUM_DRAWS)]) == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("kind", [{"mixup": 1.0}, {"cutmix": 1.0}])
def test_fraction_of_mixed_steps_is_the_probability(kind: dict[str, float]) -> None:
    def is_mixed(step: int) -> bool:
        return not np.array_equal(mixed(step=step, cutmix_prob=0.25, **kind)[0], IMAGES)

    # Some boxes of CutMix are empty.
    assert np.mean([is_mixed(step) for step in range(NUM_DRAWS)]) == pytest.approx(0.24, abs=0.04)


def test_batch_that_is_not_mixed_has_soft_targets_too() -> None:
    images, targets = mixed(mixup=1.0, cutmix_prob=0.0)
    assert np.array_equal(images, IMAGES)
    assert targets.tolist() == np.eye(3)[LABELS].tolist()


def test_cutmix_targets_are_the_fractions_of_the_pixels() -> None:
    for step in range(50):
        images, targets = mixed(step=step, cutmix=1.0)
        own = (images[0, 0] == IMAGES[0, 0]).mean()
        # The first image is of class 0 and its neighbour of class 1.
        np.testing.assert_allclose(targets[0], [own, 1 - own, 0], atol=1e-6)
        np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)


def test_mixing_depends_on_seed_epoch_and_step() -> None:
    arguments = [(1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 0, 1)]
    drawn = {
        mixed(epoch, step, seed=seed, mixup=1.0)[0].tobytes() for seed, epoch, step in arguments
    }
    assert len(drawn) == len(arguments)


@pytest.mark.parametrize("kind", [{"mixup": 1.0}, {"cutmix": 1.0}])
def test_half_of_a_batch_is_mixed_as_in_the_whole_one(kind: dict[str, float]) -> None:
    images, targets = mixed(step=3, **kind)
    first, its_targets = mixed(step=3, images=IMAGES[:2], **kind)
    assert np.array_equal(first, images[:2])
    assert np.array_equal(its_targets, targets[:2])


def test_mixing_leaves_its_input() -> None:
    before = IMAGES.tobytes()
    for step in range(10):
        mixed(step=step, mixup=1.0, cutmix=1.0)
    assert IMAGES.tobytes() == before
