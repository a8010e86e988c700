"""What is said of a checkpoint's size before a training is what it takes."""

import pytest

from sknet.models import create_model
from sknet.sizes import checkpoint_bytes
from sknet.training.checkpoint import Snapshot, parameters_of
from sknet.training.step import TrainStep
from tests.sknet.recipes import recipe


@pytest.mark.parametrize(
    "choices",
    [
        {"opt": "momentum"},
        {"opt": "momentum", "use_nesterov": True},
        {"opt": "lamb", "ema": True},
    ],
)
def test_the_size_of_a_checkpoint_is_foreseen(choices: dict[str, object]) -> None:
    asked = recipe(model="skresnet18", **choices)
    step = TrainStep(create_model("skresnet18", num_classes=3), asked, [0.1] * 9)
    actual = Snapshot(parameters_of(step)).num_bytes
    assert checkpoint_bytes(asked, 3) == pytest.approx(actual, rel=0.001)


def test_the_size_of_a_model_that_nobody_counted_is_not_told() -> None:
    assert checkpoint_bytes(recipe(model="tiny"), 3) is None
