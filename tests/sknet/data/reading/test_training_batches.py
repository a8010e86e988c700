"""Training batches follow from (seed, epoch, position): not from ranks, threads or the start."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sknet.data.balanced_order import balanced_slice
from sknet.data.order import Indices, epoch_order
from sknet.data.reading import training_batches
from sknet.data.reading.batch_operations import normalise
from sknet.data.reading.pipeline import encoded_samples, eval_batches, sample_keys
from sknet.data.reading.threads import read_ahead
from sknet.data.reading.training_batches import TrainBatch, TrainingBatches
from sknet.data.shards import ShardSet
from sknet.planning import plan_run
from sknet.recipe import Recipe, load_recipe
from sknet.records import Run, Shards
from sknet.world import ALONE, World

# Two epochs of 3 steps, from 15 samples.
EVERYTHING = {
    "global_batch_size": 4,
    "vflip": 0.5,
    "re_prob": 0.5,
    "re_value": "random",
    "mixup": 0.2,
    "cutmix": 1.0,
}
NOT_MIXED = {"mixup": 0.0, "cutmix": 0.0, "re_prob": 0.0}
AUGMENTATIONS: list[dict[str, Any]] = [
    {"color_jitter": [0.4, 0.4, 0.4, 0.1]},
    {"auto_augment": "randaug-m9-n2", "interpolation": "bicubic"},
    {"auto_augment": "autoaug", "antialias": True},
    {"auto_augment": "trivialaugwide"},
]


def plan(recipe_file: Path, shards: Shards, world_size: int = 1, **changes: Any) -> Run:
    recipe: Recipe = load_recipe(str(recipe_file))
    changed = Recipe.model_validate({**recipe.model_dump(), **EVERYTHING, **changes})
    return plan_run(changed, shards, world_size, "CPU")


def batches_of(
    run: Run, shards: ShardSet, world: World = ALONE, *, start: int = 0, threads: int = 2
) -> Iterator[TrainBatch]:
    return TrainingBatches(run, shards, world, threads).after(start)


def joined_ranks(
    run: Run, shards: ShardSet, size: int, *, threads: int = 2
) -> Iterator[TrainBatch]:
    """Yield for each step what all ranks read, one after the other."""
    ranks = [batches_of(run, shards, World(rank, size), threads=threads) for rank in range(size)]
    for parts in zip(*ranks, strict=True):
        images, labels = (np.concatenate(pieces) for pieces in zip(*parts, strict=True))
        yield images, labels


def hashes(batches: Iterable[TrainBatch]) -> list[str]:
    return [
        hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
        for images, labels in batches
    ]


@pytest.fixture(autouse=True)
def many_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many threads as are asked for, whatever the machine has."""
    monkeypatch.setattr(training_batches, "usable_threads", lambda wanted: wanted)


@pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=lambda each: next(iter(each.values())))
def test_a_run_that_starts_at_any_step_reads_what_the_undisturbed_one_read(
    augmentation: dict[str, Any], recipe_file: Path, converted: ShardSet
) -> None:
    run = plan(recipe_file, converted.record, **augmentation)
    with closing(read_ahead(batches_of(run, converted), 2)) as batches:
        undisturbed = hashes(batches)
    assert len(set(undisturbed)) == run.total_steps == 6
    for start in range(1, 6):
        assert hashes(batches_of(run, converted, start=start)) == undisturbed[start:]
    assert hashes(batches_of(run, converted, start=6)) == []


@pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=lambda each: next(iter(each.values())))
def test_tensors_are_equal_for_any_number_of_ranks_and_threads(
    augmentation: dict[str, Any], recipe_file: Path, converted: ShardSet
) -> None:
    run = plan(recipe_file, converted.record, global_batch_size=8, **augmentation)
    expected = hashes(batches_of(run, converted, threads=1))
    assert len(expected) == 2
    for size, threads in ((1, 3), (2, 1), (4, 2)):
        assert hashes(joined_ranks(run, converted, size, threads=threads)) == expected


def test_batches_do_not_depend_on_how_many_samples_are_opened_at_once(
    recipe_file: Path, converted: ShardSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = plan(recipe_file, converted.record)
    expected = hashes(batches_of(run, converted))
    for samples in (1, 8):
        monkeypatch.setattr(training_batches, "MAX_SAMPLES_OPENED", samples)
        assert hashes(batches_of(run, converted)) == expected


BLOCKS = {"shuffle": "blocks", "shuffle_parts": 2, "shuffle_window": 3}


def test_an_order_by_blocks_gives_the_same_tensors_from_any_step_on_any_ranks(
    recipe_file: Path, many_shards: ShardSet
) -> None:
    run = plan(recipe_file, many_shards.record, **BLOCKS)
    expected = hashes(batches_of(run, many_shards))
    assert len(expected) == 6
    for start in range(1, 6):
        assert hashes(batches_of(run, many_shards, start=start)) == expected[start:]
    for size in (2, 4):
        changed = {"mixup": 0.0, "cutmix": 0.0} if size == 4 else {}
        run = plan(recipe_file, many_shards.record, **BLOCKS, **changed)
        whole = hashes(batches_of(run, many_shards))
        assert hashes(joined_ranks(run, many_shards, size)) == whole


def test_a_rank_opens_the_shards_of_its_windows_alone(
    recipe_file: Path, many_shards: ShardSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[set[str]] = []

    def record(shards: ShardSet, split: str, indices: Indices, num_workers: int) -> Any:
        opened.append({*shards.paths(split)})
        return encoded_samples(shards, split, indices, num_workers)

    monkeypatch.setattr(training_batches, "encoded_samples", record)
    changes = {**BLOCKS, **NOT_MIXED, "shuffle_window": 2, "epoch_size": 1, "warmup_epochs": 0}
    run = plan(recipe_file, many_shards.record, **changes)
    of_ranks = []
    for rank in (0, 1):
        opened.clear()
        labels = []
        batches = TrainingBatches(run, many_shards, World(rank, 2), 2)
        for step, (_, of_step) in enumerate(batches.after(0)):
            labels.append(of_step)
            assert len(opened) == batches.read_with(step) + 1, "a window lasts a step"
        positions = np.arange(12).reshape(3, 2, 2)[:, rank].reshape(-1)
        order = training_batches.block_order(run, many_shards, 0)
        keys = sample_keys(many_shards, "train", order.at(positions))
        classes = [run.classes[label] for label in np.concatenate(labels)]
        assert classes == [key.split("/")[-2] for key in keys]
        # A window of two samples lasts a step, and lies in two shards at most.
        assert len(opened) == 3
        assert max(map(len, opened)) <= 2
        of_ranks.append(set.union(*opened))
    assert len(of_ranks[0] & of_ranks[1]) <= 1


@pytest.mark.parametrize("samples", [[], [0], [14], [3, 3, 2], [14, 0, 7, 8, 9, 1], [*range(15)]])
def test_samples_keep_their_keys_in_the_set_of_their_own_files(
    samples: list[int], many_shards: ShardSet
) -> None:
    few, numbers = many_shards.of_samples("train", np.array(samples, np.int64))
    keys = sample_keys(many_shards, "train", np.array(samples, np.int64)) if samples else []
    assert (sample_keys(few, "train", numbers) if samples else []) == keys
    ends = np.cumsum([file.num_samples for file in many_shards.record.files_of("train")])
    owners = {int(np.searchsorted(ends, sample, side="right")) for sample in samples}
    paths = many_shards.paths("train")
    assert few.paths("train") == [paths[number] for number in sorted(owners)]


def test_batches_read_at_the_same_time_do_not_influence_each_other(
    recipe_file: Path, converted: ShardSet
) -> None:
    run = plan(recipe_file, converted.record)
    alone = hashes(batches_of(run, converted))
    readers = [batches_of(run, converted, start=start) for start in (0, 3)]
    together: list[list[str]] = [[], []]
    for number in (1, 0, 1, 0, 0, 1):  # and an evaluation between any two batches
        together[number] += hashes([next(readers[number])])
        next(eval_batches(run.recipe, converted, "val", np.arange(6), 2, [32]))
    assert together == [alone[:3], alone[3:]]


def test_an_image_is_augmented_otherwise_in_each_epoch(
    recipe_file: Path, converted: ShardSet
) -> None:
    changes = {**NOT_MIXED, "global_batch_size": 15}
    run = plan(recipe_file, converted.record, **changes)
    first, second = (
        {image.tobytes() for image in images} for images, _ in batches_of(run, converted)
    )
    assert len(first) == len(second) == 15
    assert not first & second


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_labels_are_fractions_of_classes_if_the_recipe_mixes(
    kind: str, recipe_file: Path, converted: ShardSet
) -> None:
    run = plan(recipe_file, converted.record, **{**NOT_MIXED, kind: 1.0})
    for images, targets in batches_of(run, converted):
        assert (images.shape, targets.shape) == ((4, 3, 32, 32), (4, 3))
        assert images.dtype == targets.dtype == np.float32
        np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)


def test_labels_are_integers_if_the_recipe_does_not_mix(
    recipe_file: Path, converted: ShardSet
) -> None:
    run = plan(recipe_file, converted.record, **NOT_MIXED)
    for images, labels in batches_of(run, converted):
        assert (images.dtype, labels.dtype, labels.shape) == (np.float32, np.int32, (4,))


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
    run = plan(recipe_file, converted.record, **NOT_MIXED, normalise_on=place)
    run = run.model_copy(update={"device_target": device_target})
    by_host = plan(recipe_file, converted.record, **NOT_MIXED, normalise_on="host")
    pairs = zip(batches_of(run, converted), batches_of(by_host, converted), strict=True)
    for (images, labels), (normalised, same_labels) in pairs:
        assert images.dtype == kind
        if kind == np.uint8:
            images = normalise(images, run.recipe.mean, run.recipe.std)
        assert np.array_equal(images, normalised)
        assert np.array_equal(labels, same_labels)


@pytest.mark.parametrize("kind", ["mixup", "cutmix", "re_prob"])
def test_the_host_normalises_images_that_are_erased_or_mixed(
    kind: str, recipe_file: Path, converted: ShardSet
) -> None:
    run = plan(recipe_file, converted.record, **{**NOT_MIXED, "normalise_on": "device", kind: 1.0})
    images, _ = next(batches_of(run, converted))
    assert images.dtype == np.float32


@pytest.mark.parametrize("sampler", ["uniform", "balanced"])
def test_samples_come_in_the_order_of_their_epoch(
    sampler: str, recipe_file: Path, converted: ShardSet
) -> None:
    run = plan(recipe_file, converted.record, 2, **NOT_MIXED, sampler=sampler)
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
    # A change of the number of ranks after each step of the first epoch.
    for stop in (1, 2, 3):
        ranks = [batches_of(run, converted, World(rank, 2)) for rank in (0, 1)]
        parts = [part for step in itertools.islice(zip(*ranks, strict=True), stop) for part in step]
        parts += batches_of(run, converted, start=stop)
        labels = np.concatenate([labels for _, labels in parts])
        classes = [run.classes[label] for label in labels]
        assert classes == [key.split("/")[-2] for key in keys[0] + keys[1]]


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
