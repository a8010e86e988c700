"""With a peer's weights our networks compute what the peer's do: logits, loss and gradients.

Two networks are compared in the suite: the basic one, and the paper's bottleneck with groups,
shortened to a few blocks that include each kind.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import numpy.typing as npt
import pytest
import torch
from mindspore import Tensor, ops
from mindspore.nn.utils import no_init_parameters
from safetensors.torch import load_file
from safetensors.torch import save_file as save_torch

from sknet.architectures import ARCHITECTURES
from sknet.models import create_model, fold
from sknet.models.sknet import SKNet
from sknet.models.weights import load_weights, name_in, save_safetensors
from sknet.training.loss import CrossEntropy
from tests.peers import mindcv_model, timm_model

SHORT = ", short"
# The first block of each stage has a convolution in its shortcut, and the others have none.
FEW_BLOCKS = (2, 1, 1, 1)
MODELS = [
    "skresnet18",
    f"skresnext50_32x4d{SHORT}",
    *(
        pytest.param(name, marks=pytest.mark.long)
        for name in ("skresnet34", "skresnet50", "skresnext50_32x4d")
    ),
]
# Seed and side of the images.
INPUTS = ((1, 224), (2, 64))
Array = npt.NDArray[np.float32]


@pytest.fixture(autouse=True)
def eager() -> Iterator[None]:
    """Run operation by operation, because compiling takes longer than one forward pass."""
    mode = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    yield
    ms.set_context(mode=mode)


def ours(name: str, num_classes: int = 1000, form: str = "") -> SKNet:
    """Return our network, whose weights are yet to be set; `form` is the end of its name."""
    name, _, short = name.partition(SHORT)
    architecture = ARCHITECTURES[f"{name}{form}"]
    if short:
        architecture = replace(architecture, depths=FEW_BLOCKS)
    with no_init_parameters():
        return SKNet(architecture, num_classes=num_classes, in_channels=3)


def timms(name: str, num_classes: int = 1000) -> Any:
    name, _, short = name.partition(SHORT)
    return timm_model(name, num_classes=num_classes, **({"layers": FEW_BLOCKS} if short else {}))


def mindcvs(name: str) -> Any:
    name, _, short = name.partition(SHORT)
    with no_init_parameters():
        network = mindcv_model(name)
    if short:
        for number, depth in enumerate(FEW_BLOCKS, 1):
            stage = f"layer{number}"
            setattr(network, stage, getattr(network, stage)[:depth])
    return network


def images(seed: int, size: int, batch: int = 2) -> Array:
    numbers = np.random.default_rng(seed)
    return numbers.standard_normal((batch, 3, size, size)).astype(np.float32)


def statistics(name: str, shape: tuple[int, ...], numbers: np.random.Generator) -> Array | None:
    """Return values of BatchNorm that are far from the identity, or None for other parameters.

    The last BatchNorm of a block has small ones, as after training: otherwise the gradients of a
    bottleneck network are so sensitive that timm's own in float32 and float64 differ by 2 %.
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
    """Return random values of a parameter; all but BatchNorm's are He-normal over the outputs."""
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


class SquarePlus(torch.nn.Module):
    """(x + √(x² + 1)) / 2, a ReLU without its corner."""

    def forward(self, x: Any) -> Any:
        return (x + torch.sqrt(x * x + 1)) / 2


def without_corners(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace ReLU by SquarePlus in timm's network and in ours."""
    monkeypatch.setattr(ops, "relu", lambda x: (x + ops.sqrt(x * x + 1)) / 2)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, torch.nn.ReLU):
                setattr(parent, name, SquarePlus())


def difference(result: Array, expected: Array) -> float:
    assert np.isfinite(expected).all()
    return float(np.abs(result - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("name", MODELS)
def test_timms_weights_give_timms_logits(name: str, tmp_path: Path) -> None:
    model = timms(name).eval()
    network = ours(name).set_train(False)
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
    model = mindcvs(name).set_train(False)
    network = ours(name, form="_mindcv").set_train(False)
    for seed, size in INPUTS:
        randomise_mindcv(model, seed)
        file = tmp_path / f"{seed}.ckpt"
        ms.save_checkpoint(model, str(file))
        assert load_weights(network, file) == []
        x = Tensor(images(seed, size))
        expected = model(x).asnumpy()
        assert difference(network(x).asnumpy(), expected) <= 1e-4
    assert difference(fold(network)(x).asnumpy(), expected) <= 1e-4


@pytest.mark.parametrize("name", ["skresnet18", pytest.param("skresnet50", marks=pytest.mark.long)])
def test_timm_loads_what_we_save_and_gives_it_back_exactly(name: str, tmp_path: Path) -> None:
    network = create_model(name, num_classes=3)
    mine, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
    save_safetensors(network, mine)
    model = timm_model(name, num_classes=3)
    model.load_state_dict(load_file(mine), strict=True)
    save_torch(model.state_dict(), theirs)
    again = create_model(name, num_classes=3)
    load_weights(again, theirs)
    for first, second in zip(network.get_parameters(), again.get_parameters(), strict=True):
        assert first.asnumpy().tobytes() == second.asnumpy().tobytes()


@dataclass
class Step:
    """The loss of a training step, and its gradients under timm's names."""

    loss: float
    gradients: dict[str, Array]


def both_steps(name: str, model: Any, tmp_path: Path) -> tuple[Step, Step, SKNet]:
    """Return timm's training step and ours from the same weights and batch, and our network."""
    file = tmp_path / "timm.safetensors"
    save_torch(model.state_dict(), file)
    network = ours(name, num_classes=10)
    load_weights(network, file)
    network.set_train(True)
    x, labels = images(5, 64, batch=8), np.arange(8, dtype=np.int32)

    loss = torch.nn.CrossEntropyLoss(label_smoothing=0.1)(
        model(torch.from_numpy(x)), torch.from_numpy(labels).long()
    )
    loss.backward()
    theirs = Step(loss.item(), {key: p.grad.numpy() for key, p in model.named_parameters()})

    criterion = CrossEntropy(0.1)

    def forward(images: Tensor, labels: Tensor) -> Tensor:
        return criterion(network(images), labels)

    weights = network.trainable_params()
    value, gradients = ms.value_and_grad(forward, None, weights)(Tensor(x), Tensor(labels))
    named = zip(weights, gradients, strict=True)
    mine = Step(float(value.asnumpy()), {name_in("timm", p.name): g.asnumpy() for p, g in named})
    return theirs, mine, network


@pytest.mark.parametrize("name", MODELS)
def test_a_training_step_has_timms_loss_and_gradients(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compare with a smooth activation: an input of a ReLU within rounding of 0 passes on one side
    only, and timm's own gradients in float32 and float64 then differ by 2 %."""
    model = timms(name, num_classes=10).train()
    randomise_timm(model, 4)
    without_corners(model, monkeypatch)
    theirs, mine, network = both_steps(name, model, tmp_path)
    assert mine.loss == pytest.approx(theirs.loss, rel=1e-4)
    assert mine.gradients.keys() == theirs.gradients.keys()
    for key, gradient in mine.gradients.items():
        assert difference(gradient, theirs.gradients[key]) <= 1e-3, key
    # The step also leaves the same statistics.
    running = dict(model.named_buffers())
    for parameter in network.get_parameters():
        if parameter.name.endswith((".moving_mean", ".moving_variance")):
            expected = running[name_in("timm", parameter.name)].numpy()
            np.testing.assert_allclose(parameter.asnumpy(), expected, rtol=1e-3, atol=1e-5)


def test_a_training_step_with_relu_has_timms_loss_and_nearly_all_gradients(tmp_path: Path) -> None:
    """Gradients differ by single pixels, whose input of a ReLU is within rounding of 0."""
    model = timm_model("skresnet18", num_classes=10).train()
    randomise_timm(model, 4)
    theirs, mine, _ = both_steps("skresnet18", model, tmp_path)
    assert mine.loss == pytest.approx(theirs.loss, rel=1e-4)
    errors = [difference(mine.gradients[key], theirs.gradients[key]) for key in mine.gradients]
    assert np.median(errors) <= 1e-3
    assert max(errors) <= 3e-2
