"""A network has plain operators on Ascend and tuned ones on CPU, which compute the same."""

from collections.abc import Callable
from typing import Any

import mindspore as ms
import numpy as np
import numpy.typing as npt
import pytest
from mindspore import Tensor, nn

from sknet.models.backend import PLAIN, TUNED_FOR_CPU, Backend, StemPool, backend_of
from sknet.models.sknet import MixTwo, SelectiveKernel, SelectiveKernelAttention, SKNet, Weigh
from tests.sknet.tiny_networks import TINY, TINY_BOTTLENECK

Array = npt.NDArray[Any]
Result = dict[str, Array]

BACKENDS = pytest.mark.parametrize("backend", [PLAIN, TUNED_FOR_CPU], ids=["plain", "tuned"])
MODES = pytest.mark.parametrize(
    "mode",
    [pytest.param(ms.GRAPH_MODE, marks=pytest.mark.slow, id="graph"), ms.PYNATIVE_MODE],
)


@pytest.fixture(autouse=True)
def mode_kept() -> Any:
    mode = ms.get_context("mode")
    yield
    ms.set_context(mode=mode)


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def derivatives(cell: nn.Cell, *inputs: Array, dout: Array) -> Result:
    """Return a cell's output, and the gradients of its inputs and weights, all by name."""
    weights = ms.ParameterTuple(list(cell.trainable_params()))

    def value(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        output = cell(*tensors)
        return (output.astype(ms.float32) * Tensor(dout)).sum(), output

    grad = ms.value_and_grad(value, tuple(range(len(inputs))), weights, has_aux=True)
    (_, output), (d_inputs, d_weights) = grad(*map(Tensor, inputs))
    if len(inputs) == 1:  # then MindSpore returns no tuple
        d_inputs = (d_inputs,)
    named = {f"input {i}": gradient for i, gradient in enumerate(d_inputs)}
    named |= {w.name: gradient for w, gradient in zip(weights, d_weights, strict=True)}
    return {name: each.asnumpy() for name, each in {"output": output, **named}.items()}


def assert_near(actual: Result, expected: Result, tolerance: float) -> None:
    """Compare all tensors; the tolerance is a fraction of a tensor's largest magnitude."""
    assert actual.keys() == expected.keys()
    for name, values in expected.items():
        limit = tolerance * np.abs(values).max() + 1e-12
        difference = np.abs(actual[name].astype(np.float32) - values).max()
        assert difference <= limit, f"{name}: {difference} of {np.abs(values).max()}"


def test_the_device_decides_the_operators() -> None:
    assert backend_of("Ascend") is PLAIN
    assert backend_of("CPU") is backend_of() is TUNED_FOR_CPU
    network = SKNet(TINY, num_classes=3, in_channels=3, backend=PLAIN)
    assert isinstance(network.pool, StemPool)
    assert network.twin().backend is PLAIN


@pytest.mark.parametrize("form", [TINY, TINY_BOTTLENECK], ids=["basic", "bottleneck"])
def test_networks_of_both_backends_compute_the_same_from_one_checkpoint(form: Any) -> None:
    images, dout = random(8, 3, 33, 33), random(8, 3, seed=1)
    ms.set_seed(0)  # of the weights: how far sums in another order differ depends on them
    results = []
    saved: dict[str, Any] = {}
    for backend in (PLAIN, TUNED_FOR_CPU):
        network = SKNet(form, num_classes=3, in_channels=3, backend=backend).set_train(True)
        saved = saved or {p.name: p.copy() for p in network.get_parameters()}
        assert ms.load_param_into_net(network, saved, strict_load=True) == ([], [])
        results.append(derivatives(network, images, dout=dout))
    # The sums over pixels run in another order.
    assert_near(results[0], results[1], 1e-3)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("padding", ["both", "end"])
@pytest.mark.parametrize("size", [(8, 8), (9, 9), (8, 7)])
def test_pooling_is_the_same_on_every_device_and_in_training_and_evaluation(
    size: tuple[int, int], padding: Any, training: bool
) -> None:
    x = random(2, 3, *size, seed=2)
    borders = [(0, 1) if padding == "end" and side % 2 == 0 else (1, 1) for side in size]
    padded = np.pad(np.maximum(x, 0), ((0, 0), (0, 0), *borders))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))[:, :, ::2, ::2]
    expected = windows.max(axis=(4, 5))
    dout = random(*expected.shape, seed=3)
    plain, tuned = (
        derivatives(each.stem_pool(padding).set_train(training), x, dout=dout)
        for each in (PLAIN, TUNED_FOR_CPU)
    )
    np.testing.assert_array_equal(plain["output"], expected)
    np.testing.assert_array_equal(tuned["output"], expected)
    np.testing.assert_allclose(plain["input 0"], tuned["input 0"], rtol=1e-6)


def test_both_sums_of_squares_are_the_sum() -> None:
    x = random(300, 7)
    for backend in (PLAIN, TUNED_FOR_CPU):
        assert float(backend.sum_of_squares(Tensor(x)).asnumpy()) == pytest.approx(
            (x.astype(np.float64) ** 2).sum(), rel=1e-6
        )


def large_maps() -> Array:
    """Two maps of 56x56 whose sums over pixels, 125,000, are infinite in float16."""
    return 40 + random(2, 8, 56, 56)


def attention(backend: Backend) -> tuple[nn.Cell, tuple[Array, ...], Array]:
    cell = SelectiveKernelAttention(8, 4, 2, backend)
    return cell, (large_maps(),), random(2, 8, 1, 1, seed=1)


def attention_over_three(backend: Backend) -> tuple[nn.Cell, tuple[Array, ...], Array]:
    cell = SelectiveKernelAttention(8, 4, 3, backend)
    return cell, (large_maps(),), random(2, 3, 8, 1, 1, seed=1)


def mix_two(backend: Backend) -> tuple[nn.Cell, tuple[Array, ...], Array]:
    maps = large_maps(), -large_maps()
    return MixTwo(backend), (*maps, np.full((2, 8, 1, 1), 0.3, np.float32)), large_maps() / 40


def weigh(backend: Backend) -> tuple[nn.Cell, tuple[Array, ...], Array]:
    weight = np.full((2, 8, 1, 1), 0.3, np.float32)
    return Weigh(backend), (large_maps(), weight), large_maps() / 40


@pytest.mark.parametrize("make", [attention, attention_over_three, mix_two, weigh])
@pytest.mark.parametrize("level", ["O2", "O3"])
@BACKENDS
@MODES
def test_parts_in_float16_agree_with_float32_on_large_maps(
    mode: int,
    backend: Backend,
    level: str,
    make: Callable[[Backend], tuple[nn.Cell, tuple[Array, ...], Array]],
) -> None:
    ms.set_context(mode=mode)

    def results(level: str) -> Result:
        ms.set_seed(0)
        cell, inputs, dout = make(backend)
        cell = ms.amp.auto_mixed_precision(cell.set_train(False), level)
        return derivatives(cell, *inputs, dout=dout)

    assert_near(results(level), results("O0"), 0.01)


@pytest.mark.slow
@pytest.mark.parametrize("kernels", [(3, 5), (3, 5, 7)], ids=["two paths", "three paths"])
@pytest.mark.parametrize("level", ["O2", "O3"])
@BACKENDS
def test_a_unit_in_float16_agrees_with_float32_on_large_maps(
    backend: Backend, level: str, kernels: tuple[int, ...]
) -> None:
    def results(level: str) -> Result:
        ms.set_seed(0)
        unit = SelectiveKernel(4, 8, attention_channels=4, kernels=kernels, backend=backend)
        unit = ms.amp.auto_mixed_precision(unit.set_train(False), level)
        # Gradients of this size keep those of the convolutions' weights below the largest float16.
        return derivatives(unit, large_maps()[:, :4], dout=random(2, 8, 56, 56, seed=1) / 100)

    assert_near(results(level), results("O0"), 0.02)


def network_at(level: str, backend: Backend) -> nn.Cell:
    ms.set_seed(0)
    network = SKNet(TINY, num_classes=3, in_channels=3, backend=backend).set_train(True)
    return ms.amp.auto_mixed_precision(network, level)


@pytest.mark.slow
@BACKENDS
def test_a_network_in_float16_agrees_with_float32(backend: Backend) -> None:
    images, dout = random(16, 3, 32, 32), random(16, 3, seed=1)
    expected = derivatives(network_at("O0", backend), images, dout=dout)
    del expected["input 0"]  # nothing needs the gradients of images
    for level in ("O2", "O3"):
        actual = derivatives(network_at(level, backend), images, dout=dout)
        for name, values in expected.items():
            # Some inputs of ReLUs move over 0.
            limit = 0.01 if name == "output" else 0.2
            distance = np.linalg.norm(actual[name].astype(np.float32) - values)
            assert distance <= limit * np.linalg.norm(values), f"{level} {name}"


@pytest.mark.slow
@BACKENDS
def test_a_network_in_float16_agrees_with_float32_on_large_maps(backend: Backend) -> None:
    def logits(level: str) -> Array:
        network = network_at(level, backend)
        for parameter in network.get_parameters():
            if ".paths." in parameter.name and parameter.name.endswith("bn.beta"):
                parameter.set_data(Tensor(np.full(parameter.shape, 25, np.float32)))
        # The first units' maps are 56x56.
        result: Array = network(Tensor(random(2, 3, 224, 224))).asnumpy()
        return result

    expected = logits("O0")
    for level in ("O2", "O3"):
        assert_near({"logits": logits(level)}, {"logits": expected}, 0.02)
