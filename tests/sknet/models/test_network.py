"""The networks are the published ones: their sizes, the unit's arithmetic, their first weights."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import mindspore as ms
import numpy as np
import numpy.typing as npt
import pytest
from mindspore import Tensor, nn, ops
from mindspore.nn.utils import no_init_parameters

from sknet import sizes
from sknet.architectures import ARCHITECTURES
from sknet.errors import UserError
from sknet.models import create_model, list_models, profile
from sknet.models.sknet import SelectiveKernel, SKNet
from sknet.sizes import RESOLUTION, SIZES
from sknet.training.step import moving_statistics
from tests.sknet.tiny_networks import TINY, tiny_network

# Numbers of trainable parameters, of these and BatchNorm's statistics, and GMACs at 224 pixels, as
# published by timm and MindCV for their forms, and in table 2 of the paper for SKNet-50 and -101.
PUBLISHED = {
    "skresnet18": (11_958_056, 11_972_008, 1.82),
    "skresnet34": (22_282_376, 22_307_944, 3.67),
    "skresnet50": (25_803_160, 25_864_328, 4.11),
    "skresnext50_32x4d": (27_479_784, 27_564_328, 4.47),
    "sknet26": (16_746_408, None, None),
    "sknet50": (27_479_784, 27_564_328, 4.47),
    "sknet101": (48_736_040, None, 8.46),
    "skresnet18_mindcv": (11_958_056, 11_972_008, 1.82),
    "skresnet34_mindcv": (22_282_376, 22_307_944, 3.67),
    "skresnet50_mindcv": (25_803_160, 25_864_328, 4.11),
    "skresnext50_32x4d_mindcv": (37_245_352, 37_307_048, None),
}


@pytest.fixture(scope="module")
def network() -> nn.Cell:
    return create_model("skresnet18")


def test_every_published_form_is_listed() -> None:
    assert list_models() == [*PUBLISHED, "tiny"]  # tests/tiny_model adds the last one


IN_SUITE = ("skresnet18", "sknet50")


def test_the_stored_sizes_are_as_published() -> None:
    assert list(SIZES) == list(PUBLISHED)
    for name, (params, with_statistics, gmacs) in PUBLISHED.items():
        stored = SIZES[name]
        assert stored.params == params
        assert with_statistics in (None, stored.params_with_statistics)
        assert gmacs is None or stored.macs == pytest.approx(gmacs * 1e9, rel=0.01)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in IN_SUITE else pytest.mark.long)
        for name in ARCHITECTURES
        if name in PUBLISHED
    ],
)
def test_the_stored_sizes_are_those_of_the_networks(name: str) -> None:
    assert profile(name, RESOLUTION) == SIZES[name]


def test_stored_sizes_are_printed_without_mindspore() -> None:
    code = (
        "import sys; from flows.console import console; from infra.base.commands import start;"
        "assert start(console(), ['models']) == 0; assert 'mindspore' not in sys.modules"
    )
    # PYTHONPATH has a model for tests.
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=env
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert list(sizes_in(ended.stdout, RESOLUTION)) == list(PUBLISHED)


def test_work_grows_with_the_pixels_and_the_sizes_do_not() -> None:
    small, large = profile("skresnet18", 64), profile("skresnet18", 128)
    classifier = 512 * 1000
    # Attention and classifier work on means, whatever the resolution.
    on_means = small.macs - (large.macs - small.macs) // 3
    assert classifier < on_means < classifier + 1_000_000
    assert (small.params, small.params_with_statistics) == (
        large.params,
        large.params_with_statistics,
    )


def test_statistics_are_what_is_not_trained(network: nn.Cell) -> None:
    assert (
        sum(parameter.size for parameter in moving_statistics(network)) == 11_972_008 - 11_958_056
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_are_as_published(name: str) -> None:
    params, with_statistics, _ = PUBLISHED[name]
    with no_init_parameters():
        network = create_model(name)
    assert sum(parameter.size for parameter in network.trainable_params()) == params
    if with_statistics:
        assert sum(parameter.size for parameter in network.get_parameters()) == with_statistics


def sizes_in(table: str, resolution: int = 32) -> dict[str, tuple[int, int]]:
    """Return the two sizes of each model, as the program printed them."""
    header, _, *rows = table.splitlines()
    assert [cell.strip() for cell in header.split("|")[1:-1]] == [
        *("model", "params", "with statistics", "MB", f"GMACs @{resolution}")
    ]
    printed = {}
    for row in rows:
        name, params, with_statistics, *_ = (cell.strip() for cell in row.split("|")[1:-1])
        printed[name] = int(params.replace(",", "")), int(with_statistics.replace(",", ""))
    return printed


@pytest.mark.usefixtures("program_state")
def test_the_table_has_the_sizes_of_each_model(
    call: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    smallest = {name: ARCHITECTURES[name] for name in ("skresnet18", "sknet26")}
    monkeypatch.setattr(sizes, "ARCHITECTURES", smallest)
    code, output, errors = call(sizes, "--resolution", 32, "--quiet")
    assert (code, errors) == (0, "")
    printed = sizes_in(output)
    assert list(printed) == list(smallest)
    assert printed["skresnet18"] == PUBLISHED["skresnet18"][:2]
    assert printed["sknet26"][0] == PUBLISHED["sknet26"][0]


@pytest.mark.long
def test_the_table_for_another_resolution_has_the_published_sizes() -> None:
    # PYTHONPATH has a model for tests.
    env = {key: value for key, value in os.environ.items() if key not in ("GLOG_v", "PYTHONPATH")}
    ended = subprocess.run(
        [sys.executable, "-m", "sknet.models", "--quiet", "--resolution", "32"],
        capture_output=True,
        text=True,
        timeout=600,
        env=env,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    printed = sizes_in(ended.stdout)
    assert list(printed) == list(PUBLISHED)
    for name, (params, with_statistics, _) in PUBLISHED.items():
        assert printed[name] == (params, with_statistics or printed[name][1]), name


def test_there_is_a_row_of_logits_for_each_sample() -> None:
    network = SKNet(TINY, num_classes=5, in_channels=1).set_train(False)
    logits = network(ms.ops.ones((2, 1, 48, 32), ms.float32))
    assert logits.shape == (2, 5)


def test_unknown_name_is_refused_naming_the_nearest() -> None:
    message = r"^no model 'sknet5' \(did you mean 'sknet50' or 'sknet26' or .*\?\): expected one of"
    with pytest.raises(UserError, match=message):
        create_model("sknet5")


def randomised(unit: nn.Cell, seed: int) -> nn.Cell:
    """Return the unit in evaluation mode, with every parameter far from its first value."""
    numbers = np.random.default_rng(seed)
    for parameter in unit.get_parameters():
        # Variances must be above 0.
        values = numbers.uniform(0.1, 0.9, parameter.shape) * numbers.choice(
            [1] if "moving" in parameter.name else [1, -1], parameter.shape
        )
        parameter.set_data(Tensor(values.astype(np.float32)))
    return unit.set_train(False)


def by_the_paper(unit: nn.Cell, x: Tensor, split_input: bool) -> npt.NDArray[np.float32]:
    """Section 3.1: U = ΣU_i, s = pool(U), z = relu(bn(W s)), softmax over paths, V = Σ a_i U_i."""
    num_paths = len(unit.paths)
    width = x.shape[1] // num_paths
    inputs = [x[:, i * width : (i + 1) * width] if split_input else x for i in range(num_paths)]
    maps = np.stack([path(part).asnumpy() for path, part in zip(unit.paths, inputs, strict=True)])
    pooled = Tensor(maps.sum(axis=0).mean(axis=(2, 3), keepdims=True))
    logits = unit.attention.select(unit.attention.reduce(pooled)).asnumpy()
    weights = np.exp(logits.reshape(len(logits), num_paths, -1, 1, 1).swapaxes(0, 1))
    result: npt.NDArray[np.float32] = (maps * weights / weights.sum(axis=0)).sum(axis=0)
    return result


@pytest.mark.parametrize("kernels", [(3, 5), (3, 5, 7)], ids=["two paths", "three paths"])
@pytest.mark.parametrize("split_input", [True, False], ids=["split", "whole"])
@pytest.mark.parametrize(
    "options", [{}, {"stride": 2}, {"keep_3x3": False}, {"groups": 4}], ids=str
)
def test_a_unit_is_a_softmax_over_its_paths(
    kernels: Sequence[int], split_input: bool, options: dict[str, Any]
) -> None:
    unit = randomised(
        SelectiveKernel(
            12 if len(kernels) == 3 else 8,
            16,
            attention_channels=4,
            kernels=kernels,
            split_input=split_input,
            **options,
        ),
        seed=3,
    )
    shape = (2, 12 if len(kernels) == 3 else 8, 12, 12)
    x = Tensor(np.random.default_rng(4).standard_normal(shape).astype(np.float32))
    result = unit(x).asnumpy()
    side = 12 // options.get("stride", 1)
    assert result.shape == (2, 16, side, side)
    np.testing.assert_allclose(result, by_the_paper(unit, x, split_input), rtol=1e-4, atol=1e-4)


def test_a_unit_of_one_path_is_a_convolution() -> None:
    unit = randomised(SelectiveKernel(4, 8, attention_channels=4, kernels=(5,)), seed=3)
    x = Tensor(np.random.default_rng(4).standard_normal((2, 4, 9, 9)).astype(np.float32))
    assert (unit(x).asnumpy() == unit.paths[0](x).asnumpy()).all()
    assert not any("attention" in parameter.name for parameter in unit.get_parameters())


@pytest.mark.parametrize(
    ("keep_3x3", "kernel", "dilation"), [(True, (3, 3), (2, 2)), (False, (5, 5), (1, 1))]
)
def test_the_second_path_reaches_two_pixels_far(
    keep_3x3: bool, kernel: tuple[int, int], dilation: tuple[int, int]
) -> None:
    unit = SelectiveKernel(2, 2, attention_channels=2, keep_3x3=keep_3x3)
    assert (unit.paths[1].conv.kernel_size, unit.paths[1].conv.dilation) == (kernel, dilation)
    for path, reach in zip(unit.paths, (1, 2), strict=True):
        path.conv.weight.set_data(ops.ones_like(path.conv.weight))
        path.set_train(False)
        point = np.zeros((1, 2, 9, 9), np.float32)
        point[0, :, 4, 4] = 1
        seen = np.argwhere(path(Tensor(point)).asnumpy()[0, 0]) - 4
        assert np.abs(seen).max() == reach


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernels": (3, 4)}, r"kernels are \[3, 4\], expected odd ones from 3"),
        ({"kernels": (3, 5, 7), "split_input": True}, "8 channels can't be split among 3 paths"),
    ],
)
def test_an_impossible_unit_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SelectiveKernel(8, 8, attention_channels=4, **options)


def test_the_units_gradient_is_the_derivative() -> None:
    """Compare the hand-written derivative with a finite difference in a random direction."""
    unit = randomised(SelectiveKernel(4, 6, attention_channels=3), seed=8)
    numbers = np.random.default_rng(9)
    x = numbers.standard_normal((2, 4, 5, 5)).astype(np.float32)
    weight = Tensor(numbers.standard_normal((2, 6, 5, 5)).astype(np.float32))

    def value(x: Tensor) -> Tensor:
        return (unit(x) * weight).sum()

    gradient = ms.grad(value)(Tensor(x)).asnumpy()
    direction = numbers.standard_normal(x.shape).astype(np.float32)
    step = 1e-3
    ahead, behind = (
        float(value(Tensor(x + sign * step * direction)).asnumpy()) for sign in (1, -1)
    )
    assert (ahead - behind) / (2 * step) == pytest.approx((gradient * direction).sum(), rel=1e-2)


def test_the_seed_decides_the_weights() -> None:
    def weights(seed: int) -> dict[str, bytes]:
        ms.set_seed(seed)
        network = tiny_network()
        return {p.name: p.asnumpy().tobytes() for p in network.get_parameters()}

    first, other, again = weights(1), weights(2), weights(1)
    assert first == again
    changed = {name for name in first if first[name] != other[name]}
    assert {"stem.conv.weight", "layer2.0.conv2.conv.weight", "fc.weight"} <= changed


def test_weights_start_he_normal_over_the_outputs(network: nn.Cell) -> None:
    weight = network.layer4[1].conv2.conv.weight.asnumpy()
    assert weight.shape == (512, 512, 3, 3)
    assert weight.std() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)
    assert not network.fc.bias.asnumpy().any()
