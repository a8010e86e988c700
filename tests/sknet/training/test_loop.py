"""A training that diverges ends at once, names its samples, and saves no such weights."""

import json
import math
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest

from sknet.data.order import epoch_order
from sknet.data.shards import ShardSet, read_rows
from sknet.planning import plan_run
from sknet.recipe import load_recipe
from sknet.records import Checkpoint, Run
from sknet.training.checkpoint import checkpoint_name
from sknet.training.loop import divergence
from sknet.world import World
from tests.sknet.training.conftest import Trainings
from tests.sknet.training.logs import metrics, output


def keys_in_order(run: Run, shards: ShardSet, epoch: int) -> list[str]:
    """Return the keys of all training samples in the order in which the epoch reads them."""
    keys = [
        row.key
        for file in shards.record.files_of("train")
        for row in read_rows(shards.directory / file.name, range(file.num_samples))
    ]
    assert len(set(keys)) == 15
    return [keys[index] for index in epoch_order(15, run.recipe.seed, epoch)]


@pytest.fixture
def run(recipe_file: Path, converted: ShardSet) -> Run:
    """Two ranks of two samples a step."""
    return plan_run(load_recipe(str(recipe_file)), converted.record, 2, "CPU")


def test_divergence_names_the_samples_of_the_rank_and_the_step(
    run: Run, converted: ShardSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_order = keys_in_order(run, converted, epoch=1)
    for rank, keys in enumerate((in_order[4:6], in_order[6:8])):
        error = divergence("the loss is nan at", 5, 0.01, run, converted, World(rank, 2))
        assert str(error) == (
            "the loss is nan at step 5 (epoch 2, learning rate 0.01): lower lr or lengthen the "
            f"warm-up; samples of rank {rank}: {keys[0]}, {keys[1]}"
        )
    monkeypatch.setattr("sknet.training.loop.KEYS_SHOWN", 1)
    error = divergence("the loss is nan at", 5, 0.01, run, converted, World(1, 2))
    assert str(error).endswith(f"; samples of rank 1: {in_order[6]} and 1 more")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("choices", "message", "step"),
    [
        # The first update leaves all weights finite.
        ({"lr": 1e30, "checkpoint_every_steps": 1}, "the loss is nan at step 2 (", 2),
        ({"lr": 1e30, "checkpoint_every_steps": None}, "the loss is nan at step 2 (", 2),
        (
            {"lr": 3e38, "weight_decay": 10.0, "checkpoint_every_steps": 1},
            " has non-finite values after step 1 (",
            1,
        ),
    ],
    ids=["loss", "loss, read when the next step has begun", "weights"],
)
def test_divergence_ends_the_training_and_leaves_no_bad_checkpoint(
    forked: Trainings,
    run: Run,
    converted: ShardSet,
    tmp_path: Path,
    choices: dict[str, Any],
    message: str,
    step: int,
) -> None:
    directory = tmp_path / "ckpt"
    assert forked(directory, recipe=choices) == 1
    (line,) = [line for line in output(directory).splitlines() if line.startswith("error: ")]
    assert message in line
    keys = keys_in_order(run, converted, epoch=0)[4 * (step - 1) : 4 * step]
    assert line.endswith(f"; samples of rank 0: {', '.join(keys)}")
    assert "Traceback" not in output(directory)
    num_saved = step - 1 if choices["checkpoint_every_steps"] else 0
    assert len(list(directory.glob("step-*"))) == num_saved
    for path in directory.glob("step-*"):
        for parameter in ms.load_checkpoint(str(path / "model.ckpt")).values():
            assert np.isfinite(parameter.asnumpy()).all()
    for entry in metrics(directory):
        assert all(math.isfinite(value) for value in entry.values() if isinstance(value, float))


@pytest.mark.slow
def test_checkpoints_are_saved_at_the_interval_of_epochs_at_the_best_and_at_the_end(
    forked: Trainings, run: Run, tmp_path: Path
) -> None:
    choices = {
        "epoch_size": 5,
        "checkpoint_every_steps": None,
        "checkpoint_every_epochs": 2,
        "keep_checkpoint_max": 9,
    }
    rarely = choices | {"val_interval": 5}
    assert forked(tmp_path / "rarely", recipe=rarely) == 0
    assert forked(tmp_path / "often", recipe=choices) == 0
    planned = {checkpoint_name(epoch * run.steps_per_epoch) for epoch in (2, 4, 5)}
    assert {path.name for path in (tmp_path / "rarely").glob("step-*")} == planned
    *_, last = sorted((tmp_path / "often").glob("step-*"))
    counts = [each.correct_top1 for _, each in Checkpoint.read(last / "state.json").evaluations]
    best = {
        checkpoint_name(epoch * run.steps_per_epoch)
        for epoch, count in enumerate(counts, 1)
        if count > max(counts[: epoch - 1], default=-1)
    }
    assert {path.name for path in (tmp_path / "often").glob("step-*")} == planned | best


@pytest.mark.slow
def test_a_step_reads_the_device_once_when_the_next_has_begun_on_inputs_made_ahead(
    forked: Trainings, tmp_path: Path
) -> None:
    choices = {
        "global_batch_size": 2,
        "epoch_size": 1,
        "checkpoint_every_steps": None,
        "drop_path_rate": 0.2,
    }
    log = tmp_path / "host.log"
    assert forked(tmp_path / "ckpt", recipe=choices, host_log=str(log)) == 0
    num_reads, makers = zip(*map(json.loads, log.read_text().splitlines()), strict=True)
    # Seven steps up to one checkpoint, of which the first compiles.
    assert [count - num_reads[1] for count in num_reads[1:]] == [0, 1, 2, 3, 4, 5]
    assert set(makers) == {"read-ahead"}


@pytest.mark.slow
def test_the_times_of_steps_sum_up_to_the_time_that_passed(
    forked: Trainings, tmp_path: Path
) -> None:
    choices = {
        "global_batch_size": 2,
        "epoch_size": 2,
        "val_interval": 2,
        "checkpoint_every_steps": None,
    }
    assert forked(tmp_path / "ckpt", recipe=choices, seconds=0.1) == 0
    entries = metrics(tmp_path / "ckpt")
    (compiled,) = (entry for entry in entries if entry["type"] == "compile")
    epoch = next(entry for entry in entries if entry["type"] == "epoch")
    steps = [entry for entry in entries if entry["type"] == "step" and entry["epoch"] == 0]
    # The first compiles.
    times = [entry["ms_per_step"] / 1000 for entry in steps[1:]]
    assert len(times) == 6
    # What the host notes of the step before is in each but the last, which a checkpoint follows.
    assert min(times[:-1]) >= 0.2
    first = compiled["first_batch_seconds"] + compiled["compile_seconds"]
    assert first + sum(times) <= epoch["seconds"]


@pytest.mark.slow
@pytest.mark.parametrize("mode", [0, 1], ids=["graph", "pynative"])
def test_pixels_that_the_device_normalises_train_the_same_bits(
    forked: Trainings, tmp_path: Path, mode: int
) -> None:
    trained = []
    for place in ("host", "device"):
        directory = tmp_path / place
        assert forked(directory, recipe={"mode": mode, "normalise_on": place, "epoch_size": 1}) == 0
        trained.append((directory / "step-00000003/model.ckpt").read_bytes())
    assert trained[0] == trained[1]
