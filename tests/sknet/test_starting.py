"""A training starts from the weights that its recipe names by their SHA-256, or not at all."""

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from sknet.models import create_model
from sknet.models.weights import HEAD, load_weights, save_safetensors
from sknet.recipe import Recipe, load_recipe
from sknet.training.trainer import starting_network
from tests.refusals import refusal
from tests.sknet.steps import new_step, take

CLASSES = 5


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """skresnet18 for seven classes, as timm has it; not to be changed."""
    ms.set_seed(7)
    path = tmp_path_factory.mktemp("weights") / "skresnet18.safetensors"
    save_safetensors(create_model("skresnet18", num_classes=7), path)
    return path


def from_weights(path: Path, *overrides: str) -> Recipe:
    return load_recipe("skresnet18_digits", [f"ckpt_path={path}", *overrides])


def test_another_number_of_classes_starts_a_classifier_of_its_own(weights: Path) -> None:
    network = starting_network(from_weights(weights, "replace_head=true"), CLASSES, weights)
    ms.set_seed(9)
    given = create_model("skresnet18", num_classes=7)
    load_weights(given, weights)
    values = {p.name: p.asnumpy() for p in given.get_parameters()}
    for parameter in network.get_parameters():
        if parameter.name in HEAD:
            assert parameter.shape[0] == CLASSES
        else:
            np.testing.assert_array_equal(parameter.asnumpy(), values[parameter.name])


def test_without_replace_head_another_number_of_classes_is_refused(weights: Path) -> None:
    message = refusal(lambda: starting_network(from_weights(weights), CLASSES, weights))
    assert "is for 7 classes, the network has 5" in message


def test_the_recipe_names_the_weights_and_other_ones_are_refused(
    weights: Path, tmp_path: Path
) -> None:
    chosen = from_weights(weights, "replace_head=true")
    assert chosen.ckpt_sha256 and chosen.digest != load_recipe("skresnet18_digits").digest
    other = tmp_path / "other.safetensors"
    save_safetensors(create_model("skresnet18", num_classes=7), other)
    assert "but ckpt_sha256 is" in refusal(lambda: starting_network(chosen, CLASSES, other))
    missing = tmp_path / "none"
    assert "does not exist" in refusal(lambda: starting_network(chosen, CLASSES, missing))


def test_weights_that_are_not_there_are_refused_when_the_recipe_is_loaded(tmp_path: Path) -> None:
    message = refusal(lambda: from_weights(tmp_path / "none"))
    assert message.endswith("none can't be read: No such file or directory")


def test_a_checkpoint_with_an_average_gives_its_average(tmp_path: Path) -> None:
    step = new_step(ema=True, ema_decay=0.5, opt="adamw", model="skresnet18")
    take(step, 0)
    take(step, 1)
    ms.save_checkpoint(step, str(tmp_path / "model.ckpt"))
    loaded = step.network.twin()
    load_weights(loaded, tmp_path / "model.ckpt")
    averaged = {p.name: p.asnumpy() for p in step.evaluated().get_parameters()}
    for parameter in loaded.get_parameters():
        np.testing.assert_array_equal(parameter.asnumpy(), averaged[parameter.name])
