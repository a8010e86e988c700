"""Training steps of the tiny network on random images."""

from collections.abc import Callable
from typing import Any

import mindspore as ms
import numpy as np
import numpy.typing as npt
from mindspore import Tensor, nn

from sknet.training.inputs import InputMaker
from sknet.training.step import TrainStep
from sknet.world import ALONE
from tests.sknet.recipes import recipe
from tests.sknet.tiny_networks import tiny_network

BATCH, CLASSES, NUM_STEPS = 4, 3, 4
RATES = [0.01, 0.02, 0.02, 0.01]

State = dict[str, npt.NDArray[np.generic]]


def new_step(make_network: Callable[[int], nn.Cell] = tiny_network, **choices: Any) -> TrainStep:
    ms.set_seed(1)
    chosen = recipe(global_batch_size=BATCH, **choices)
    step = TrainStep(make_network(CLASSES), chosen, RATES, counts=np.array([30, 20, 10]))
    return step.set_train(True)


def batch(index: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    numbers = np.random.default_rng(index)
    images = numbers.standard_normal((BATCH, 3, 32, 32), np.float32)
    return images, numbers.integers(0, CLASSES, BATCH).astype(np.int32)


def take(step: TrainStep, index: int) -> float:
    """Take a step on the batch of this index and return its loss."""
    make = InputMaker(step.network, step.recipe, ALONE)
    done = int(step.optimizer.global_step.asnumpy()[0])
    return float(step(make(batch(index), done)).asnumpy()[0])


def state(cell: nn.Cell) -> State:
    """Return copies of all parameters."""
    return {p.name: p.asnumpy().copy() for p in cell.get_parameters()}


def set_state(cell: nn.Cell, values: State) -> None:
    for parameter in cell.get_parameters():
        parameter.set_data(Tensor(values[parameter.name]))


def differing(one: State, other: State) -> set[str]:
    """Return the names of the parameters whose bits differ."""
    assert one.keys() == other.keys()
    return {name for name in one if one[name].tobytes() != other[name].tobytes()}
