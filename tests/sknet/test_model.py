"""The network is the published one: its size, its unit's arithmetic, its start."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from sknet.errors import UserError
from sknet.models import create_model, list_models
from sknet.models.sknet import SelectiveKernel
from sknet.training.step import moving_statistics


def sizes(parameters: list[ms.Parameter]) -> int:
    return sum(int(np.prod(parameter.shape)) for parameter in parameters)


@pytest.fixture(scope="module")
def network() -> nn.Cell:
    return create_model("skresnet18")


def test_skresnet18_has_as_many_weights_as_published(network: nn.Cell) -> None:
    assert sizes(network.trainable_params()) == 11_958_056
    assert sizes(list(network.get_parameters())) == 11_972_008
    assert sizes(moving_statistics(network)) == 11_972_008 - 11_958_056


def test_logits_are_one_row_a_sample() -> None:
    network = create_model("skresnet18", num_classes=5, in_channels=1).set_train(False)
    logits = network(ms.ops.ones((2, 1, 48, 32), ms.float32))
    assert logits.shape == (2, 5)


def test_unknown_name_is_refused_naming_the_nearest() -> None:
    with pytest.raises(UserError, match=r"^no model 'skresnet81' \(did you mean 'skresnet18'\?\)"):
        create_model("skresnet81")


def test_every_listed_model_is_made() -> None:
    for name in list_models():
        assert isinstance(create_model(name, num_classes=2), nn.Cell)


@pytest.mark.parametrize("split_input", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
def test_selective_kernel_is_a_softmax_over_its_two_paths(split_input: bool, stride: int) -> None:
    ms.set_seed(3)
    unit = SelectiveKernel(8, 16, stride=stride, attention_channels=4, split_input=split_input)
    numbers = np.random.default_rng(3)
    for parameter in unit.get_parameters():
        # Variances among them, so above 0.
        values = numbers.uniform(0.1, 0.9, parameter.shape) * numbers.choice(
            [1] if "moving" in parameter.name else [1, -1], parameter.shape
        )
        parameter.set_data(Tensor(values.astype(np.float32)))
    unit.set_train(False)
    x = Tensor(numbers.standard_normal((2, 8, 12, 12)).astype(np.float32))

    # Section 3.1: U = U1 + U2, s = pool(U), z = relu(bn(W s)), softmax over paths, weighted sum.
    halves = (x[:, :4], x[:, 4:]) if split_input else (x, x)
    paths = np.stack([unit.path_3x3(halves[0]).asnumpy(), unit.path_5x5(halves[1]).asnumpy()])
    pooled = Tensor(paths.sum(axis=0).mean(axis=(2, 3), keepdims=True))
    attention = unit.attention
    hidden = ops.relu(attention.bn(attention.fc_reduce(pooled)))
    logits = attention.fc_select(hidden).asnumpy().reshape(2, 2, 16).swapaxes(0, 1)
    weights = np.exp(logits) / np.exp(logits).sum(axis=0)
    expected = (paths * weights[..., None, None]).sum(axis=0)

    result = unit(x).asnumpy()
    assert result.shape == (2, 16, 12 // stride, 12 // stride)
    assert np.abs(paths[0] - paths[1]).max() > 0.1
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


def test_the_5x5_path_sees_two_pixels_far_and_the_3x3_path_one() -> None:
    unit = SelectiveKernel(2, 2, stride=1, attention_channels=2, split_input=False)
    for path, reach in ((unit.path_3x3, 1), (unit.path_5x5, 2)):
        path[0].weight.set_data(ops.ones_like(path[0].weight))
        path.set_train(False)
        point = np.zeros((1, 2, 9, 9), np.float32)
        point[0, :, 4, 4] = 1
        seen = np.argwhere(path(Tensor(point)).asnumpy()[0, 0]) - 4
        assert np.abs(seen).max() == reach


def test_the_seed_decides_the_weights() -> None:
    def weights(seed: int) -> dict[str, bytes]:
        ms.set_seed(seed)
        network = create_model("skresnet18", num_classes=3)
        return {p.name: p.asnumpy().tobytes() for p in network.get_parameters()}

    first, other, again = weights(1), weights(2), weights(1)
    assert first == again
    changed = {name for name in first if first[name] != other[name]}
    assert {"stem.0.weight", "layer4.1.conv2.0.weight", "fc.weight"} <= changed


def test_weights_start_he_normal_over_the_outputs(network: nn.Cell) -> None:
    weight = network.layer4[1].conv2[0].weight.asnumpy()
    assert weight.shape == (512, 512, 3, 3)
    assert weight.std() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)
    assert not network.fc.bias.asnumpy().any()
