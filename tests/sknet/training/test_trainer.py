"""A training is planned and starts as its recipe, data, weights and directory allow, or refuses."""

import fcntl
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest

from sknet.data.shards import ShardSet
from sknet.errors import UserError
from sknet.models import create_model
from sknet.models.weights import HEAD, load_weights, save_safetensors
from sknet.planning import plan_run
from sknet.recipe import Recipe, load_recipe
from sknet.training import trainer
from sknet.training.stopping import StopRequest
from sknet.training.trainer import Options, Trainer, starting_network
from sknet.world import ALONE
from tests.refusals import refusal

NUM_CLASSES = 5


@pytest.fixture
def recipe(recipe_file: Path) -> Recipe:
    return load_recipe(str(recipe_file))


def test_a_run_has_as_many_steps_as_fill_a_batch(recipe: Recipe, converted: ShardSet) -> None:
    run = plan_run(recipe, converted.record, 1, "CPU")
    assert (run.steps_per_epoch, run.total_steps, run.global_batch_size) == (3, 6, 4)


@pytest.mark.parametrize(
    ("changes", "world_size", "message"),
    [
        ({"num_classes": 4}, 1, "num_classes is 4, but the data set has 3 classes"),
        (
            {"global_batch_size": 16},
            1,
            "the global batch is 16, but there are 15 training samples: choose a smaller batch, "
            "such as --set global_batch_size=15",
        ),
        (
            {"global_batch_size": None, "batch_size": 9},
            2,
            "the global batch is 18, but there are 15 training samples: choose a smaller batch, "
            "such as --set batch_size=7",
        ),
        (
            {"global_batch_size": 64},
            8,
            "there are 15 training samples for 8 workers, expected 16 or more: add images, or "
            "choose fewer workers",
        ),
        (
            {"global_batch_size": 16, "cutmix": 1.0},
            1,
            "choose a smaller batch, such as --set global_batch_size=14",
        ),
        (
            {"global_batch_size": 18, "shuffle": "blocks", "shuffle_parts": 6},
            1,
            "choose a smaller batch, such as --set global_batch_size=12",
        ),
        ({}, 3, "global_batch_size 4 can't be divided among 3 workers"),
        (
            {"global_batch_size": 6, "mixup": 0.2},
            2,
            "each of 2 workers gets 3 images of a step, but mixup and cutmix mix two at a time",
        ),
        (
            {"shuffle": "blocks", "shuffle_parts": 3},
            1,
            "the global batch is 4, which shuffle_parts 3 don't divide",
        ),
    ],
)
def test_a_recipe_that_does_not_fit_the_data_or_the_ranks_is_refused(
    recipe: Recipe,
    converted: ShardSet,
    changes: dict[str, Any],
    world_size: int,
    message: str,
) -> None:
    with pytest.raises(UserError) as caught:
        plan_run(recipe.model_copy(update=changes), converted.record, world_size, "CPU")
    assert message in str(caught.value)


def test_two_trainings_in_one_directory_are_refused(
    recipe: Recipe, converted: ShardSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "LOCK_SECONDS", 0)
    run = plan_run(recipe, converted.record, 1, "CPU")
    options = Options(
        directory=tmp_path, report=print, log_interval=1, keep_checkpoint_max=2, num_workers=1
    )
    with (tmp_path / ".rank-0.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another training has been at work"):
            Trainer(run, converted, ALONE, StopRequest(distributed=False), options).train()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a network for seven classes, not to be changed."""
    ms.set_seed(7)
    path = tmp_path_factory.mktemp("weights") / "seven.safetensors"
    save_safetensors(create_model("tiny", num_classes=7), path)
    return path


def from_weights(path: Path, *overrides: str) -> Recipe:
    return load_recipe("skresnet18_digits", ["model=tiny", f"ckpt_path={path}", *overrides])


def test_for_another_number_of_classes_the_classifier_is_new(weights: Path) -> None:
    network = starting_network(from_weights(weights, "replace_head=true"), NUM_CLASSES, weights)
    given = create_model("tiny", num_classes=7)
    load_weights(given, weights)
    values = {p.name: p.asnumpy() for p in given.get_parameters()}
    for parameter in network.get_parameters():
        if parameter.name in HEAD:
            assert parameter.shape[0] == NUM_CLASSES
        else:
            np.testing.assert_array_equal(parameter.asnumpy(), values[parameter.name])


def test_without_replace_head_another_number_of_classes_is_refused(weights: Path) -> None:
    message = refusal(lambda: starting_network(from_weights(weights), NUM_CLASSES, weights))
    assert "is for 7 classes, the network has 5" in message


def test_weights_other_than_the_recipes_are_refused(weights: Path, tmp_path: Path) -> None:
    chosen = from_weights(weights, "replace_head=true")
    assert chosen.ckpt_sha256 and chosen.digest != load_recipe("skresnet18_digits").digest
    other = tmp_path / "other.safetensors"
    save_safetensors(create_model("tiny", num_classes=7), other)
    assert "but ckpt_sha256 is" in refusal(lambda: starting_network(chosen, NUM_CLASSES, other))
    missing = tmp_path / "none"
    assert "does not exist" in refusal(lambda: starting_network(chosen, NUM_CLASSES, missing))


def test_weights_that_do_not_exist_are_refused_when_the_recipe_is_loaded(tmp_path: Path) -> None:
    message = refusal(lambda: from_weights(tmp_path / "none"))
    assert message.endswith("none can't be read: No such file or directory")
