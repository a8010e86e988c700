"""Segments: a run that starts at a checkpoint reads the same bits as one that came there."""

import hashlib
import itertools
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sknet.data.balanced_order import balanced_slice
from sknet.data.order import epoch_order
from sknet.data.reading.batch_operations import normalise
from sknet.data.reading.pipeline import eval_batches, sample_keys, train_batches
from sknet.data.reading.segments import (
    Segment,
    TrainBatch,
    batches_of,
    segment_batches,
    segments_from,
)
from sknet.data.reading.threads import read_ahead
from sknet.data.shards import ShardSet
from sknet.planning import plan_run
from sknet.recipe import Recipe, load_recipe
from sknet.records import Run, Shards
from sknet.world import World

# Steps 0 to 6 of an epoch of 15 samples in batches of 2, cut after 3 and 6.
SEGMENTS = [Segment(0, 0, 3), Segment(0, 3, 6), Segment(0, 6, 7)]
EVERYTHING = {
    "global_batch_size": 2,
    "checkpoint_every_steps": 3,
    "num_parallel_workers": 2,
    "vflip": 0.5,
    "re_prob": 0.5,
    "re_value": "random",
    "mixup": 0.2,
    "cutmix": 1.0,
}
AUGMENTATIONS: list[dict[str, Any]] = [
    {"color_jitter": [0.4, 0.4, 0.4, 0.1]},
    {"auto_augment": "randaug-m9-n2", "interpolation": "bicubic"},
    {"auto_augment": "autoaug"},
    {"auto_augment": "trivialaugwide"},
]


def plan(recipe_file: Path, shards: Shards, world_size: int = 1, **changes: Any) -> Run:
    recipe: Recipe = load_recipe(str(recipe_file))
    changed = Recipe.model_validate({**recipe.model_dump(), **EVERYTHING, **changes})
    return plan_run(changed, shards, world_size, "CPU")


def hashes(batches: Iterable[TrainBatch]) -> list[str]:
    return [
        hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
        for images, labels in batches
    ]


def test_segments_end_at_the_interval_and_with_the_epoch(
    recipe_file: Path, converted: ShardSet
) -> None:
    run = plan(recipe_file, converted.record, global_batch_size=4, checkpoint_every_steps=2)
    whole = [Segment(0, 0, 2), Segment(0, 2, 3), Segment(1, 0, 2), Segment(1, 2, 3)]
    assert list(segments_from(run, 0)) == whole
    for steps_done, segments_done in {2: 1, 3: 2, 5: 3, 6: 4}.items():
        assert list(segments_from(run, steps_done)) == whole[segments_done:]


@pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=lambda each: next(iter(each.values())))
def test_epoch_resumed_at_a_segment_reads_what_the_undisturbed_one_read(
    augmentation: dict[str, Any], recipe_file: Path, converted: ShardSet
) -> None:
    run = plan(recipe_file, converted.record, **augmentation)
    assert list(itertools.islice(segments_from(run, 0), 3)) == SEGMENTS
    with closing(read_ahead(batches_of(SEGMENTS, run, converted, World(0, 1)), 2)) as batches:
        undisturbed = hashes(batches)
    assert len(set(undisturbed)) == run.steps_per_epoch == 7
    for start, done in ((1, 3), (2, 6)):
        resumed = batches_of(SEGMENTS[start:], run, converted, World(0, 1))
        assert hashes(resumed) == undisturbed[done:]


def test_segments_read_at_the_same_time_do_not_influence_each_other(
    recipe_file: Path, converted: ShardSet
) -> None:
    run = plan(recipe_file, converted.record)
    alone = [hashes(segment_batches(segment, run, converted, World(0, 1))) for segment in SEGMENTS]
    readers = [segment_batches(segment, run, converted, World(0, 1)) for segment in SEGMENTS]
    together: list[list[str]] = [[], [], []]
    # The last segment first, and an evaluation between any two batches.
    for number in (2, 0, 1, 0, 1, 0, 1):
        together[number] += hashes([next(readers[number])])
        next(eval_batches(run.recipe, converted, "val", np.arange(6), 2, [32]))
    assert together == alone


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_labels_are_fractions_of_classes_if_the_recipe_mixes(
    kind: str, recipe_file: Path, converted: ShardSet
) -> None:
    run = plan(recipe_file, converted.record, **{"mixup": 0.0, "cutmix": 0.0, kind: 1.0})
    for images, targets in segment_batches(SEGMENTS[0], run, converted, World(0, 1)):
        assert (images.shape, targets.shape) == ((2, 3, 32, 32), (2, 3))
        assert images.dtype == targets.dtype == np.float32
        np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)


def test_labels_are_integers_if_the_recipe_does_not_mix(
    recipe_file: Path, converted: ShardSet
) -> None:
    run = plan(recipe_file, converted.record, mixup=0.0, cutmix=0.0)
    for images, labels in segment_batches(SEGMENTS[0], run, converted, World(0, 1)):
        assert (images.dtype, labels.dtype, labels.shape) == (np.float32, np.int32, (2,))


@pytest.mark.parametrize(
    ("place", "device_target", "kind"),
    [
        ("auto", "CPU", np.float32),
        ("auto", "Ascend", np.uint8),
        ("host", "Ascend", np.float32),
        ("device", "CPU", np.uint8),
    ],
)
def test_images_are_pixels_if_the_device_normalises_them(
    place: str, device_target: str, kind: type, recipe_file: Path, converted: ShardSet
) -> None:
    changes = {"mixup": 0.0, "cutmix": 0.0, "re_prob": 0.0, "normalise_on": place}
    run = plan(recipe_file, converted.record, **changes)
    run = run.model_copy(update={"device_target": device_target})
    by_host = plan(recipe_file, converted.record, **changes | {"normalise_on": "host"})
    batches, expected = (
        segment_batches(SEGMENTS[0], each, converted, World(0, 1)) for each in (run, by_host)
    )
    for (images, labels), (normalised, same_labels) in zip(batches, expected, strict=True):
        assert images.dtype == kind
        if kind == np.uint8:
            images = normalise(images, run.recipe.mean, run.recipe.std)
        assert np.array_equal(images, normalised)
        assert np.array_equal(labels, same_labels)


@pytest.mark.parametrize("kind", ["mixup", "cutmix", "re_prob"])
def test_the_host_normalises_images_that_are_erased_or_mixed(
    kind: str, recipe_file: Path, converted: ShardSet
) -> None:
    changes = {"mixup": 0.0, "cutmix": 0.0, "re_prob": 0.0, "normalise_on": "device", kind: 1.0}
    run = plan(recipe_file, converted.record, **changes)
    images, _ = next(segment_batches(SEGMENTS[0], run, converted, World(0, 1)))
    assert images.dtype == np.float32


@pytest.mark.parametrize("sampler", ["uniform", "balanced"])
def test_samples_keep_their_order_when_the_world_size_changes(
    sampler: str, recipe_file: Path, converted: ShardSet
) -> None:
    # Centre crops, as in the test below, so that an image tells which sample it is.
    changes = {"scale": [1, 1], "ratio": [0.01, 0.01], "hflip": 0, "vflip": 0, "color_jitter": None}
    changes |= {"mixup": 0.0, "cutmix": 0.0, "re_prob": 0.0, "global_batch_size": 4}
    changes |= {"sampler": sampler, "checkpoint_every_steps": 2}
    run = plan(recipe_file, converted.record, 2, **changes)
    orders = [
        epoch_order(15, run.recipe.seed, epoch)[:12]
        if sampler == "uniform"
        else balanced_slice(
            converted.by_class, "balanced", length=12, seed=42, epoch=epoch, start=0, stop=12
        )
        for epoch in (0, 1)
    ]
    keys = [sample_keys(converted, "train", order) for order in orders]
    assert len(set(keys[0])) == 12
    assert keys[0] != keys[1]
    expected = np.concatenate(
        [
            normalise(pixels, run.recipe.mean, run.recipe.std)
            for order in orders
            for pixels, _ in train_batches(run.recipe, converted, order, 1, seed=0)
        ]
    )
    # A stop after each step of the first epoch, within a segment or at its end.
    for stop in (1, 2, 3):
        ranks = [
            batches_of(segments_from(run, 0), run, converted, World(rank, 2)) for rank in (0, 1)
        ]
        parts = [part for step in itertools.islice(zip(*ranks, strict=True), stop) for part in step]
        parts += batches_of(segments_from(run, stop), run, converted, World(0, 1))
        images, labels = (np.concatenate(each) for each in zip(*parts, strict=True))
        classes = [run.classes[label] for label in labels]
        assert classes == [key.split("/")[-2] for key in keys[0] + keys[1]]
        assert np.array_equal(images, expected)


def test_ranks_divide_a_step_and_erase_by_position(recipe_file: Path, converted: ShardSet) -> None:
    # Every random crop fails, so that the centre is cropped: the C++ operations draw nothing.
    changes = {"scale": [1, 1], "ratio": [0.01, 0.01], "hflip": 0, "vflip": 0, "color_jitter": None}
    changes |= {"mixup": 0.0, "cutmix": 0.0, "global_batch_size": 4}
    segment = Segment(1, 1, 3)
    whole = segment_batches(
        segment, plan(recipe_file, converted.record, **changes), converted, World(0, 1)
    )
    run = plan(recipe_file, converted.record, 2, **changes)
    ranks = [segment_batches(segment, run, converted, World(rank, 2)) for rank in (0, 1)]
    for step, first, second in zip(whole, *ranks, strict=True):
        for together, *parts in zip(step, first, second, strict=True):
            assert np.array_equal(np.concatenate(parts), together)


def test_evaluation_accepts_more_workers_than_there_are_processors(
    recipe_file: Path, converted: ShardSet
) -> None:
    recipe = load_recipe(str(recipe_file))
    many = load_recipe(str(recipe_file), ["num_parallel_workers=4096"])
    few, same = (
        list(eval_batches(each, converted, "val", np.arange(6), 4, [32])) for each in (recipe, many)
    )
    for (images, labels), (images_too, labels_too) in zip(few, same, strict=True):
        assert np.array_equal(images, images_too)
        assert np.array_equal(labels, labels_too)
