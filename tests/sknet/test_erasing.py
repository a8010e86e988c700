"""Erasing: the rectangles that the paper draws, and the same ones wherever they are computed."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from sknet.data.reading.batch_operations import erase
from sknet.recipe import Recipe, parse_recipe

Images = npt.NDArray[np.float32]
NUM_IMAGES = 2000


def recipe(**changes: Any) -> Recipe:
    smallest = {"model": "skresnet18", "global_batch_size": 4, "epoch_size": 2, "lr": 0.1}
    return parse_recipe({**smallest, "re_prob": 1.0, **changes}, where="recipe")


def ones(count: int, height: int = 40, width: int = 50) -> Images:
    return np.ones((count, 3, height, width), np.float32)


def erased(count: int = NUM_IMAGES, **changes: Any) -> Images:
    return erase(ones(count), recipe(**changes), 0, np.arange(count))


def boxes(images: Images) -> npt.NDArray[np.int64]:
    """Height and width of what is no longer 1 in each image."""
    changed = (images != 1).any(axis=1)
    return np.stack([changed.any(axis=2).sum(axis=1), changed.any(axis=1).sum(axis=1)], axis=1)


def test_what_is_erased_is_one_rectangle_of_the_value_in_all_channels() -> None:
    images = erased(100, re_value=[5, 6, 7])
    for image, (height, width) in zip(images, boxes(images), strict=True):
        for channel, value in zip(image, (5, 6, 7), strict=True):
            assert (channel == value).sum() == height * width
            assert (channel == 1).sum() == channel.size - height * width


def test_areas_and_ratios_are_drawn_evenly_from_their_ranges() -> None:
    # Far from the sides, which would turn the large ones away.
    changes = {"re_scale": [0.1, 0.3], "re_ratio": [0.5, 1.5]}
    height, width = boxes(erased(**changes)).T
    area, ratio = height * width / (40 * 50), width / height
    # Half a pixel of rounding on either side of 10 to 25.
    assert 0.09 < area.min() < area.max() < 0.32
    assert 0.45 < ratio.min() < ratio.max() < 1.6
    assert area.mean() == pytest.approx(0.2, abs=0.005)
    assert ratio.mean() == pytest.approx(1.0, abs=0.03)
    assert area.std() == pytest.approx(0.2 / 12**0.5, rel=0.05)


def test_rectangles_lie_anywhere_within_the_image() -> None:
    changed = (erased() != 1).any(axis=1).mean(axis=0)
    assert changed.min() > 0
    np.testing.assert_allclose(changed, changed[::-1, ::-1], atol=0.06)


def test_as_many_images_are_erased_as_the_probability_says() -> None:
    share = (erased(re_prob=0.25) != 1).any(axis=(1, 2, 3)).mean()
    assert share == pytest.approx(0.25, abs=0.04)


def test_random_values_are_normally_distributed() -> None:
    images = erased(200, re_value="random")
    values = images[images != 1]
    assert values.mean() == pytest.approx(0, abs=0.01)
    assert values.std() == pytest.approx(1, abs=0.01)


def test_no_rectangle_that_fits_leaves_the_image_as_it_is() -> None:
    assert (erased(20, re_scale=[1, 1], re_ratio=[1, 1], re_max_attempts=3) == 1).all()


def test_without_erasing_the_images_are_handed_on() -> None:
    images = ones(2)
    assert erase(images, recipe(re_prob=0), 0, np.arange(2)) is images


def test_an_image_is_erased_by_its_position_whatever_batch_and_rank_it_is_in() -> None:
    whole = erased(12, re_value="random")
    for parts in (3, 4):
        positions = np.split(np.arange(12), parts)
        pieces = [erase(ones(len(p)), recipe(re_value="random"), 0, p) for p in reversed(positions)]
        assert np.array_equal(np.concatenate(pieces[::-1]), whole)


def test_seed_epoch_and_position_all_matter() -> None:
    def one(seed: int, epoch: int, position: int) -> bytes:
        drawn = recipe(seed=seed, re_value="random")
        return erase(ones(1), drawn, epoch, np.array([position])).tobytes()

    places = [(1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 0, 1), (0, 1, 1)]
    assert len({one(*place) for place in places}) == len(places)


def test_the_given_images_are_not_changed() -> None:
    images = ones(4)
    assert (erase(images, recipe(), 0, np.arange(4)) != 1).any()
    assert (images == 1).all()
