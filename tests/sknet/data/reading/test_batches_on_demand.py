"""Shards that come on demand give the batches of shards that are there, and come when needed."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import sknet.train
from sknet.data.reading.pipeline import eval_batches, sample_keys
from sknet.data.reading.training_batches import TrainingBatches, block_order
from sknet.data.shards import ShardSet, read_shards
from sknet.planning import plan_run
from sknet.recipe import load_recipe
from sknet.records import Run
from sknet.world import World
from tests.sknet.supplied import Supplied
from tests.waiting import wait_for

# A window of two samples lasts a step, and lies in two shards at most.
BLOCKS = {"shuffle": "blocks", "shuffle_parts": 2, "shuffle_window": 2}


def plan(recipe_file: Path, shards: ShardSet, **changes: Any) -> Run:
    recipe = load_recipe(str(recipe_file))
    changed = recipe.model_validate({**recipe.model_dump(), **changes})
    return plan_run(changed, shards.record, 1, "CPU")


def hashes(run: Run, shards: ShardSet, world: World) -> list[str]:
    return [
        hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
        for images, labels in TrainingBatches(run, shards, world, 1).after(0)
    ]


def test_two_ranks_read_the_same_batches_from_a_few_shards_at_a_time(
    recipe_file: Path, many_shards: ShardSet, tmp_path: Path
) -> None:
    run = plan(recipe_file, many_shards, **BLOCKS)
    supplied = Supplied(many_shards, tmp_path / "host", 4, val=True)
    worlds = [World(rank, 2) for rank in (0, 1)]
    with supplied.supplier(), ThreadPoolExecutor(2) as ranks:
        shards = [read_shards(tmp_path / "host") for _ in worlds]
        for of_rank in shards:
            of_rank.keep("val")
        found = [
            ranks.submit(hashes, run, of_rank, world)
            for of_rank, world in zip(shards, worlds, strict=True)
        ]
        assert [each.result(300) for each in found] == [
            hashes(run, many_shards, world) for world in worlds
        ]
        evaluated = [
            next(eval_batches(run.recipe, each, "val", np.arange(6), 6, [32]))[0][0]
            for each in (shards[0], many_shards)
        ]
        assert np.array_equal(*evaluated)
    assert supplied.num_train > 7  # some were removed in between


def test_the_first_batch_waits_for_the_shards_of_the_first_windows_alone(
    recipe_file: Path, many_shards: ShardSet, tmp_path: Path
) -> None:
    run = plan(recipe_file, many_shards, **BLOCKS, global_batch_size=2)
    supplied = Supplied(many_shards, tmp_path / "host", 20)
    order, files = block_order(run, many_shards, 0), many_shards.record.files_of("train")

    def first_windows(number: int) -> set[str]:
        shards = order.shards_of(0, 2, 0, number * order.steps_of_window())
        return {name for each in shards for name, *_ in files[each].files}

    supplied.at_once = first_windows(1)
    with supplied.supplier():
        try:
            next(TrainingBatches(run, read_shards(tmp_path / "host"), World(0, 1), 1).after(0))
            wait_for(lambda: not {*supplied.copied} <= first_windows(1))
        finally:
            supplied.release.set()
    # Two more windows were announced.
    assert (
        {*supplied.copied}
        <= first_windows(3)
        < {name for shard in files for name, *_ in shard.files}
    )


def test_the_full_order_needs_all_shards_and_rare_classes_only_the_indexes(
    recipe_file: Path, many_shards: ShardSet, tmp_path: Path
) -> None:
    supplied = Supplied(many_shards, tmp_path / "host", 7)
    with supplied.supplier():
        shards = read_shards(tmp_path / "host")
        assert shards.by_class.counts.tolist() == [5, 5, 5]
        assert all(name.endswith(".db") for name in supplied.copied)
        run = plan(recipe_file, many_shards)
        assert hashes(run, shards, World(0, 1)) == hashes(run, many_shards, World(0, 1))
        assert supplied.num_train == 7


def test_a_training_whose_shards_do_not_come_ends_with_one_line_and_is_worth_a_retry(
    call: Callable[..., tuple[int, str, str]],
    program_state: None,
    recipe_file: Path,
    many_shards: ShardSet,
    away: Path,
) -> None:
    supplied = Supplied(many_shards, away / "host", 1)
    changes = {**BLOCKS, "model": "tiny"}
    with supplied.supplier():
        code, _, errors = call(
            sknet.train,
            *("--config", recipe_file, "--data_dir", away / "host"),
            *(word for key, value in changes.items() for word in ("--set", f"{key}={value}")),
            *("--outcome_file", away / "outcome.json"),
        )
    (line,) = errors.splitlines()
    # The room for the evaluations is missing, too, and is asked for from the beginning.
    assert line.startswith("error: the files that this host's processes (1) need at once take ")
    assert code == 1
    assert not (away / "outcome.json").exists()


def test_the_names_of_a_few_samples_need_only_their_shards(
    many_shards: ShardSet, tmp_path: Path
) -> None:
    samples = np.array([14, 0, 7])
    supplied = Supplied(many_shards, tmp_path / "host", 3)
    with supplied.supplier():
        few, numbers = read_shards(tmp_path / "host").of_samples("train", samples)
        assert sample_keys(few, "train", numbers) == sample_keys(many_shards, "train", samples)
