"""mixup and CutMix: as computed pixel by pixel, shares as Beta draws them, the same everywhere."""

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sknet.data.order import generator
from sknet.data.reading.batch_operations import (
    Box,
    blend,
    cut_and_paste,
    draw_box,
    mix,
    mixes,
    soft_targets,
)
from sknet.recipe import Recipe, parse_recipe

Images = npt.NDArray[np.float32]
LABELS = np.array([0, 2, 2, 1], np.int32)
IMAGES = np.random.default_rng(1).standard_normal((4, 3, 6, 8)).astype(np.float32)
DRAWS = 2000


def recipe(**changes: Any) -> Recipe:
    smallest = {"model": "skresnet18", "global_batch_size": 4, "epoch_size": 2, "lr": 0.1}
    return parse_recipe({**smallest, **changes}, where="recipe")


def mixed(
    epoch: int = 0, step: int = 0, rank: int = 0, images: Images = IMAGES, **changes: Any
) -> tuple[Images, npt.NDArray[np.float32]]:
    place = {"epoch": epoch, "step": step, "rank": rank}
    return mix(images, LABELS, 3, recipe(**changes), **place)


def own_shares(**changes: Any) -> npt.NDArray[np.float32]:
    """The first image's share of its own class, which its counterpart has not, over many steps."""
    small = IMAGES[..., :2, :2]
    return np.array([mixed(step=step, images=small, **changes)[1][0, 0] for step in range(DRAWS)])


def test_blended_pixels_and_targets_are_the_weighted_sums() -> None:
    own = 0.3
    images, targets = blend(IMAGES, own), soft_targets(LABELS, 3, own)
    for place in range(4):
        other = 3 - place
        expected = own * IMAGES[place].astype(float) + (1 - own) * IMAGES[other].astype(float)
        np.testing.assert_allclose(images[place], expected, rtol=1e-5, atol=1e-6)
        shares = [0.0, 0.0, 0.0]
        shares[LABELS[place]] += own
        shares[LABELS[other]] += 1 - own
        np.testing.assert_allclose(targets[place], shares, rtol=1e-6)
    assert images.dtype == targets.dtype == np.float32


@given(st.data())
def test_pasted_pixels_are_the_counterparts_and_the_share_is_the_area_that_stays(
    data: st.DataObject,
) -> None:
    top, left = data.draw(st.integers(0, 6)), data.draw(st.integers(0, 8))
    box = Box(top, data.draw(st.integers(top, 6)), left, data.draw(st.integers(left, 8)))
    images, own = cut_and_paste(IMAGES, box)
    inside = 0
    for y, x in itertools.product(range(6), range(8)):
        pasted = box.top <= y < box.bottom and box.left <= x < box.right
        inside += pasted
        for place in range(4):
            source = IMAGES[3 - place] if pasted else IMAGES[place]
            assert images[place, :, y, x].tolist() == source[:, y, x].tolist()
    assert own == pytest.approx(1 - inside / 48)


@given(st.floats(0, 1), st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_a_box_is_centred_within_the_image_and_clipped_to_it(
    own: float, height: int, width: int, seed: int
) -> None:
    box = draw_box(height, width, own, generator(seed))
    assert 0 <= box.top <= box.bottom <= height
    assert 0 <= box.left <= box.right <= width
    assert box.area <= (1 - own) * height * width * (1 + 1e-9)


def test_boxes_are_as_large_as_they_are_asked_to_be_where_no_side_clips_them() -> None:
    drawn = [draw_box(100, 100, 0.84, generator(seed)) for seed in range(400)]
    assert max(box.area for box in drawn) == 40 * 40
    # A centre is at least 20 from the sides in 0.6 of either direction.
    share = np.mean([box.area == 1600 for box in drawn])
    assert share == pytest.approx(0.36, abs=0.08)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_shares_of_mixup_are_those_of_the_beta_distribution(alpha: float) -> None:
    shares = own_shares(mixup=alpha)
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_each_kind_has_half_of_the_batches_if_both_are_on() -> None:
    def cut(step: int) -> bool:
        """Pixels that are copied, not blended."""
        images, _ = mixed(step=step, mixup=1.0, cutmix=1.0)
        return bool(((images == IMAGES) | (images == IMAGES[::-1])).all())

    assert np.mean([cut(step) for step in range(DRAWS)]) == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("kind", [{"mixup": 1.0}, {"cutmix": 1.0}])
def test_as_many_batches_are_mixed_as_the_probability_says(kind: dict[str, float]) -> None:
    def is_mixed(step: int) -> bool:
        return not np.array_equal(mixed(step=step, cutmix_prob=0.25, **kind)[0], IMAGES)

    # Some boxes of CutMix are empty.
    assert np.mean([is_mixed(step) for step in range(DRAWS)]) == pytest.approx(0.24, abs=0.04)


def test_a_batch_that_is_not_mixed_has_soft_labels_too() -> None:
    images, targets = mixed(mixup=1.0, cutmix_prob=0.0)
    assert np.array_equal(images, IMAGES)
    assert targets.tolist() == np.eye(3)[LABELS].tolist()


def test_targets_say_how_much_of_an_image_is_its_own() -> None:
    for step in range(50):
        images, targets = mixed(step=step, cutmix=1.0)
        stayed = (images[0, 0] == IMAGES[0, 0]).mean()
        # The first image is of class 0 and its counterpart of class 1.
        np.testing.assert_allclose(targets[0], [stayed, 1 - stayed, 0], atol=1e-6)
        np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)


def test_the_middle_of_an_odd_batch_stays_itself() -> None:
    odd = IMAGES[:3]
    images, targets = blend(odd, 0.3), soft_targets(LABELS[:3], 3, 0.3)
    np.testing.assert_allclose(images[1], odd[1], rtol=1e-6)
    np.testing.assert_allclose(targets[1], [0, 0, 1], atol=1e-6)


def test_seed_epoch_step_and_rank_all_matter() -> None:
    places = [(1, 0, 0, 0), (2, 0, 0, 0), (1, 1, 0, 0), (1, 0, 1, 0), (1, 0, 0, 1)]
    drawn = {
        mixed(epoch, step, rank, seed=seed, mixup=1.0)[0].tobytes()
        for seed, epoch, step, rank in places
    }
    assert len(drawn) == len(places)


def test_the_given_images_are_not_changed() -> None:
    before = IMAGES.tobytes()
    for step in range(10):
        mixed(step=step, mixup=1.0, cutmix=1.0)
    assert IMAGES.tobytes() == before


def test_labels_are_soft_only_if_a_recipe_mixes() -> None:
    assert not mixes(recipe())
    assert mixes(recipe(mixup=0.2))
    assert mixes(recipe(cutmix=1.0))
