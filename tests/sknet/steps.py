"""Training steps of a network that is small in every way."""

from typing import Any

import mindspore as ms
import numpy as np
import numpy.typing as npt
from mindspore import Tensor

from sknet.models.sknet import Architecture, SKNet
from sknet.training.step import TrainStep
from tests.recipes import recipe

ARCHITECTURE = Architecture("basic", (1, 1, 1, 1), attention_divisor=16, attention_reduction=8)
BATCH, CLASSES, STEPS = 4, 3, 4
RATES = [0.01, 0.02, 0.02, 0.01]

State = dict[str, npt.NDArray[np.generic]]


def new_step(**choices: Any) -> TrainStep:
    ms.set_seed(1)
    network = SKNet(ARCHITECTURE, num_classes=CLASSES, in_channels=3)
    step = TrainStep(network, recipe(global_batch_size=BATCH, **choices), RATES)
    return step.set_train(True)


def batch(index: int) -> tuple[Tensor, Tensor]:
    numbers = np.random.default_rng(index)
    images = numbers.standard_normal((BATCH, 3, 32, 32), np.float32)
    return Tensor(images), Tensor(numbers.integers(0, CLASSES, BATCH).astype(np.int32))


def take(step: TrainStep, index: int) -> float:
    return float(step(*batch(index)).asnumpy())


def state(step: TrainStep) -> State:
    return {p.name: p.asnumpy().copy() for p in step.get_parameters()}


def differing(one: State, other: State) -> set[str]:
    assert one.keys() == other.keys()
    return {name for name in one if one[name].tobytes() != other[name].tobytes()}
