"""Folding keeps the function; the attention probe shows the units' weights and changes nothing."""

from collections.abc import Iterator
from dataclasses import replace

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from sknet.architectures import Architecture
from sknet.models import attention_probe, fold
from sknet.models.sknet import SKNet
from tests.sknet.tiny_networks import TINY, TINY_BOTTLENECK, tiny_network


@pytest.fixture(autouse=True)
def back_to_pynative() -> Iterator[None]:
    yield
    ms.set_context(mode=ms.PYNATIVE_MODE)


def images(seed: int, *size: int) -> Tensor:
    return Tensor(np.random.default_rng(seed).standard_normal(size).astype(np.float32))


def with_statistics(architecture: Architecture) -> SKNet:
    """Return a network whose BatchNorm is not the identity."""
    network = SKNet(architecture, num_classes=7, in_channels=3)
    numbers = np.random.default_rng(1)
    for parameter in network.get_parameters():
        if ".bn." in parameter.name:
            values = numbers.uniform(0.5, 1.5, parameter.shape)
            parameter.set_data(Tensor(values.astype(np.float32)))
    return network.set_train(False)


@pytest.mark.parametrize("architecture", [TINY, TINY_BOTTLENECK], ids=["basic", "bottleneck"])
def test_a_folded_network_is_the_same_function_without_batchnorm(
    architecture: Architecture,
) -> None:
    network = with_statistics(architecture)
    before = {p.name: p.asnumpy().tobytes() for p in network.get_parameters()}
    folded = fold(network)
    names = [parameter.name for parameter in folded.get_parameters()]
    assert not any(".bn." in name for name in names)
    assert len(set(names)) == len(names)
    assert {name for name in before if ".bn." not in name} <= set(names)
    for size in ((2, 3, 64, 64), (1, 3, 65, 97)):
        expected, result = (cell(images(2, *size)).asnumpy() for cell in (network, folded))
        assert np.abs(result - expected).max() <= 1e-4 * np.abs(expected).max()
    assert before == {p.name: p.asnumpy().tobytes() for p in network.get_parameters()}
    assert not folded.trainable_params()


def test_the_probe_names_units_as_the_paper_does() -> None:
    network = SKNet(replace(TINY, depths=(2, 1, 1, 2)), num_classes=2, in_channels=3)
    weights = attention_probe(network)(images(3, 2, 3, 64, 64))
    assert list(weights) == ["SK_2_1", "SK_2_2", "SK_3_1", "SK_4_1", "SK_5_1", "SK_5_2"]
    for value in weights.values():
        assert value.shape == (2,)
        assert value.sum() == pytest.approx(1)
        assert ((value > 0) & (value < 1)).all()


def test_the_probe_follows_the_attention() -> None:
    network = tiny_network()
    unit = network.layer2[0].conv1.attention
    weight = np.zeros(unit.select.weight.shape, np.float32)
    # e³ to 1 for the first path wherever the reduced features are 1.
    weight[:128, 0] = 3
    unit.select.weight.set_data(Tensor(weight))
    unit.reduce.bn.gamma.set_data(ms.ops.zeros_like(unit.reduce.bn.gamma))
    unit.reduce.bn.beta.set_data(ms.ops.ones_like(unit.reduce.bn.beta))
    weights = attention_probe(network)(images(3, 2, 3, 64, 64))
    assert weights["SK_3_1"] == pytest.approx([np.exp(3) / (np.exp(3) + 1), 1 / (np.exp(3) + 1)])


def test_the_probe_leaves_the_forward_pass_as_it_was() -> None:
    network = tiny_network().set_train(True)
    ms.set_context(mode=ms.GRAPH_MODE)
    x = images(4, 2, 3, 64, 64)
    probe = attention_probe(network)
    first = probe(x)
    assert network.training
    assert ms.get_context("mode") == ms.GRAPH_MODE
    assert not any(cell._forward_hook for _, cell in network.cells_and_names())
    again = probe(x)
    assert all((first[name] == again[name]).all() for name in first)
