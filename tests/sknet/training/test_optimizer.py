"""Optimizers update weights as PyTorch's do, and LAMB as its paper says."""

from typing import Any

import mindspore as ms
import numpy as np
import numpy.typing as npt
import pytest
import torch
from mindspore import Parameter, Tensor, nn

from sknet.models.backend import backend_of
from sknet.training.optimizer import create_optimizer
from tests.sknet.recipes import recipe

RATES = [0.1, 0.02, 0.05, 0.01]
DECAY = 0.1
SHAPES = {"conv.weight": (3, 4), "bn.gamma": (4,), "bn.beta": (4,), "fc.bias": (3,)}

Arrays = dict[str, npt.NDArray[np.float32]]


class Weights(nn.Cell):
    def __init__(self, values: Arrays) -> None:
        super().__init__()
        parameters = [Parameter(Tensor(value), name=name) for name, value in values.items()]
        self.weights = ms.ParameterTuple(parameters)
        self.backend = backend_of()


def arrays(seed: int) -> Arrays:
    numbers = np.random.default_rng(seed)
    return {name: numbers.standard_normal(shape, np.float32) for name, shape in SHAPES.items()}


def ours(**choices: Any) -> Arrays:
    cell = Weights(arrays(0))
    optimizer = create_optimizer(cell, recipe(weight_decay=DECAY, **choices), RATES)
    for step in range(len(RATES)):
        gradients = arrays(1 + step)
        optimizer(tuple(Tensor(gradients[p.name]) for p in optimizer.parameters))
    return {parameter.name: parameter.asnumpy() for parameter in cell.weights}


def theirs(kind: type[torch.optim.Optimizer], decayed: set[str], **options: Any) -> Arrays:
    values = {name: torch.nn.Parameter(torch.tensor(v)) for name, v in arrays(0).items()}
    groups = [
        {"params": [value], "weight_decay": DECAY if name in decayed else 0.0}
        for name, value in values.items()
    ]
    optimizer = kind(groups, lr=1.0, **options)
    for step, rate in enumerate(RATES):
        for name, gradient in arrays(1 + step).items():
            values[name].grad = torch.tensor(gradient)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
    return {name: value.detach().numpy() for name, value in values.items()}


EVERY = set(SHAPES)
FILTERS = {
    "disable": EVERY,
    "auto": {"conv.weight", "fc.bias"},
    "norm_and_bias": {"conv.weight"},
}


def assert_equal(one: Arrays, other: Arrays) -> None:
    for name in SHAPES:
        np.testing.assert_allclose(one[name], other[name], rtol=2e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("opt", ["momentum", "sgd"])
@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_equals_pytorchs(opt: str, nesterov: bool) -> None:
    # Both add the decay to the gradient; by default only the convolution decays.
    expected = theirs(torch.optim.SGD, FILTERS["norm_and_bias"], momentum=0.8, nesterov=nesterov)
    assert_equal(ours(opt=opt, momentum=0.8, use_nesterov=nesterov), expected)


@pytest.mark.parametrize("weight_decay_filter", FILTERS)
def test_adamw_equals_pytorchs_with_every_filter(weight_decay_filter: str) -> None:
    expected = theirs(torch.optim.AdamW, FILTERS[weight_decay_filter])
    assert_equal(ours(opt="adamw", weight_decay_filter=weight_decay_filter), expected)


def lamb(decayed: set[str]) -> Arrays:
    """Compute algorithm 2 of You et al. 2020 in float64, with φ the identity."""
    result = {}
    for name, value in arrays(0).items():
        weight = value.astype(float)
        first, second = np.zeros_like(weight), np.zeros_like(weight)
        for step, rate in enumerate(RATES, 1):
            gradient = arrays(step)[name].astype(float)
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            update = first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-6)
            update += DECAY * weight if name in decayed else 0
            weight -= rate * np.linalg.norm(weight) / np.linalg.norm(update) * update
        result[name] = weight.astype(np.float32)
    return result


@pytest.mark.parametrize("weight_decay_filter", FILTERS)
def test_lamb_equals_its_paper_with_every_filter(weight_decay_filter: str) -> None:
    expected = lamb(FILTERS[weight_decay_filter])
    assert_equal(ours(opt="lamb", weight_decay_filter=weight_decay_filter), expected)


def test_lamb_updates_weights_that_are_zero() -> None:
    cell = Weights({"fc.bias": np.zeros(3, np.float32)})
    optimizer = create_optimizer(cell, recipe(opt="lamb", weight_decay_filter="disable"), RATES)
    optimizer((Tensor(np.array([1, -1, 2], np.float32)),))
    np.testing.assert_allclose(cell.weights[0].asnumpy(), [-0.1, 0.1, -0.1], rtol=1e-5)
