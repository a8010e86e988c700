"""With a peer's weights our networks are the peer's: same logits, same loss, same gradients."""

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import numpy.typing as npt
import pytest
import torch
from mindspore import Tensor
from safetensors.torch import load_file
from safetensors.torch import save_file as save_torch

from sknet.models import create_model, fold
from sknet.models.weights import load_weights, name_in, save_safetensors
from sknet.training.step import CrossEntropy
from tests.peers import mindcv_model, timm_model

NAMES = ("skresnet18", "skresnet34", "skresnet50", "skresnext50_32x4d")
MODELS = ["skresnet18", *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[1:])]
# seed, side of the images
INPUTS = ((1, 64), (2, 224), (3, 64))
Array = npt.NDArray[np.float32]


@pytest.fixture(autouse=True)
def eager() -> Iterator[None]:
    """One forward pass isn't worth a compilation."""
    mode = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    yield
    ms.set_context(mode=mode)


def images(seed: int, size: int, batch: int = 2) -> Array:
    numbers = np.random.default_rng(seed)
    return numbers.standard_normal((batch, 3, size, size)).astype(np.float32)


def statistics(name: str, shape: tuple[int, ...], numbers: np.random.Generator) -> Array | None:
    """BatchNorm's values, away from their start where they would do nothing.

    A block ends small, as after training: at the start the gradients of a bottleneck network are
    so sensitive that timm's own in float32 and float64 differ by 2 %.
    """
    if re.search(r"\.conv[23]\.(bn\.weight|1\.gamma)$", name):
        return numbers.uniform(0.02, 0.06, shape).astype(np.float32)
    if name.endswith(("running_var", "moving_variance", ".gamma")) or (
        len(shape) == 1 and name.endswith(".weight")
    ):
        return numbers.uniform(0.5, 1.5, shape).astype(np.float32)
    if name.endswith(("running_mean", "moving_mean", ".beta", ".bias")):
        return (0.1 * numbers.standard_normal(shape)).astype(np.float32)
    return None


def drawn(name: str, shape: tuple[int, ...], numbers: np.random.Generator) -> Array:
    """A parameter's values: statistics as above, all others He-normal over the outputs."""
    chosen = statistics(name, shape, numbers)
    if chosen is not None:
        return chosen
    scale = np.sqrt(2 / (shape[0] * np.prod(shape[2:])))
    return (scale * numbers.standard_normal(shape)).astype(np.float32)


def randomise_timm(model: Any, seed: int) -> None:
    numbers = np.random.default_rng(seed)
    for key, value in model.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            value.copy_(torch.from_numpy(drawn(key, tuple(value.shape), numbers)))


def randomise_mindcv(model: Any, seed: int) -> None:
    numbers = np.random.default_rng(seed)
    for parameter in model.get_parameters():
        parameter.set_data(Tensor(drawn(parameter.name, parameter.shape, numbers)))


def timms_step(model: Any, x: npt.NDArray[Any], labels: npt.NDArray[np.int32]) -> Any:
    """Loss and gradients."""
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    loss = criterion(model(torch.from_numpy(x)), torch.from_numpy(labels).long())
    loss.backward()
    return loss.item(), {key: value.grad.numpy() for key, value in model.named_parameters()}


def difference(result: Array, expected: Array) -> float:
    assert np.isfinite(expected).all()
    return float(np.abs(result - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("name", MODELS)
def test_timms_weights_give_timms_logits(name: str, tmp_path: Path) -> None:
    model = timm_model(name).eval()
    network = create_model(name).set_train(False)
    for seed, size in INPUTS:
        randomise_timm(model, seed)
        file = tmp_path / f"{seed}.safetensors"
        save_torch(model.state_dict(), file)
        assert load_weights(network, file) == []
        x = images(seed, size)
        with torch.inference_mode():
            expected = model(torch.from_numpy(x)).numpy()
        assert difference(network(Tensor(x)).asnumpy(), expected) <= 1e-4
    assert difference(fold(network)(Tensor(x)).asnumpy(), expected) <= 1e-4


@pytest.mark.parametrize("name", MODELS)
def test_mindcvs_weights_give_mindcvs_logits(name: str, tmp_path: Path) -> None:
    model = mindcv_model(name).set_train(False)
    network = create_model(f"{name}_mindcv").set_train(False)
    for seed, size in INPUTS:
        randomise_mindcv(model, seed)
        file = tmp_path / f"{seed}.ckpt"
        ms.save_checkpoint(model, str(file))
        assert load_weights(network, file) == []
        x = Tensor(images(seed, size))
        expected = model(x).asnumpy()
        assert difference(network(x).asnumpy(), expected) <= 1e-4
    assert difference(fold(network)(x).asnumpy(), expected) <= 1e-4


@pytest.mark.parametrize("name", ["skresnet18", "skresnet50"])
def test_timm_loads_what_we_save_and_gives_it_back_exactly(name: str, tmp_path: Path) -> None:
    network = create_model(name, num_classes=3)
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
    save_safetensors(network, ours)
    model = timm_model(name, num_classes=3)
    model.load_state_dict(load_file(ours), strict=True)
    save_torch(model.state_dict(), theirs)
    again = create_model(name, num_classes=3)
    load_weights(again, theirs)
    for first, second in zip(network.get_parameters(), again.get_parameters(), strict=True):
        assert first.asnumpy().tobytes() == second.asnumpy().tobytes()


@pytest.mark.parametrize("name", MODELS)
def test_a_training_step_has_timms_loss_and_gradients(name: str, tmp_path: Path) -> None:
    model = timm_model(name, num_classes=10).train()
    randomise_timm(model, 4)
    file = tmp_path / "timm.safetensors"
    save_torch(model.state_dict(), file)
    network = create_model(name, num_classes=10)
    load_weights(network, file)
    network.set_train(True)
    x = images(5, 64, batch=8)
    labels = np.arange(8, dtype=np.int32)

    exact_model = copy.deepcopy(model).double()
    loss, theirs = timms_step(model, x, labels)
    _, exact = timms_step(exact_model, x.astype(np.float64), labels)

    criterion = CrossEntropy(0.1)

    def forward(images: Tensor, labels: Tensor) -> Tensor:
        return criterion(network(images), labels)

    weights = network.trainable_params()
    value, gradients = ms.value_and_grad(forward, None, weights)(Tensor(x), Tensor(labels))
    assert float(value.asnumpy()) == pytest.approx(loss, rel=1e-4)
    norm = np.linalg.norm
    errors = {}
    for weight, gradient in zip(weights, gradients, strict=True):
        name = name_in("timm", weight.name)
        # BatchNorm cancels some down to rounding: there timm's own rounding is the measure.
        size = max(norm(exact[name]), 1e3 * norm(theirs[name] - exact[name]))
        errors[name] = norm(gradient.asnumpy() - exact[name]) / size
    # An input within rounding of 0 may pass a ReLU there and not here, and so touch a few
    # parameters of its block by one pixel's share; a wrong derivative would touch them wholly.
    assert np.quantile(list(errors.values()), 0.8) <= 1e-3
    assert max(errors.values()) <= 3e-2, max(errors, key=lambda name: errors[name])
    # and the statistics that the step leaves
    running = dict(model.named_buffers())
    for parameter in network.get_parameters():
        if parameter.name.endswith((".moving_mean", ".moving_variance")):
            np.testing.assert_allclose(
                parameter.asnumpy(),
                running[name_in("timm", parameter.name)].numpy(),
                rtol=1e-3,
                atol=1e-5,
            )
