"""A step's cell is its whole state: another one with its parameters takes the same steps."""

from collections.abc import Iterator
from typing import Any

import mindspore as ms
import numpy as np
import numpy.typing as npt
import pytest
from mindspore import Tensor

from sknet.models.sknet import Architecture, SKNet
from sknet.training.step import TrainStep
from tests.recipes import recipe

ARCHITECTURE = Architecture("basic", (1, 1, 1, 1), attention_divisor=16, attention_reduction=8)
BATCH, CLASSES, STEPS = 4, 3, 4
RATES = [0.01, 0.02, 0.02, 0.01]

State = dict[str, npt.NDArray[np.generic]]
ALL_OF_FLOAT32 = {
    "opt": "adamw",
    "weight_decay": 0.1,
    "gradient_accumulation_steps": 2,
    "ema": True,
    "ema_decay": 0.9,
    "drop_path_rate": 0.5,
    "clip_grad": True,
    "clip_value": 0.5,
}
# 2^24 overflows float16 until it was halved a few times.
OVERFLOWING = {
    "opt": "lamb",
    "amp_level": "O2",
    "loss_scale_type": "dynamic",
    "loss_scale": 1 << 24,
    "drop_overflow_update": True,
    "ema": True,
}


@pytest.fixture(params=[ms.GRAPH_MODE, ms.PYNATIVE_MODE], ids=["graph", "pynative"])
def mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    ms.set_context(mode=request.param)
    yield request.param
    ms.set_context(mode=ms.PYNATIVE_MODE)


def new_step(**choices: Any) -> TrainStep:
    ms.set_seed(1)
    network = SKNet(ARCHITECTURE, num_classes=CLASSES, in_channels=3)
    step = TrainStep(network, recipe(global_batch_size=BATCH, **choices), RATES, 1)
    return step.set_train(True)


def take(step: TrainStep, index: int) -> float:
    numbers = np.random.default_rng(index)
    images = numbers.standard_normal((BATCH, 3, 32, 32), np.float32)
    labels = numbers.integers(0, CLASSES, BATCH).astype(np.int32)
    return float(step(Tensor(images), Tensor(labels)).asnumpy())


def state(step: TrainStep) -> State:
    return {p.name: p.asnumpy().copy() for p in step.get_parameters()}


def differing(one: State, other: State) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if one[name].tobytes() != other[name].tobytes()]


@pytest.mark.parametrize(
    "choices",
    [
        ALL_OF_FLOAT32,
        OVERFLOWING,
        {"opt": "sgd", "use_nesterov": True, "amp_level": "O3", "loss_scale": 128, "loss": "BCE"},
        {"clip_grad": True, "clip_mode": "value", "clip_value": 1e-3, "ckpt_sha256": "0" * 64}
        | {"freeze": ["stem", "layer1"]},
    ],
    ids=["adamw", "lamb", "sgd", "momentum"],
)
def test_a_restored_step_goes_on_with_the_same_bits(mode: int, choices: dict[str, Any]) -> None:
    whole = new_step(**choices)
    losses = [take(whole, index) for index in range(2)]
    saved = state(whole)
    whole.evaluated()
    losses += [take(whole, index) for index in range(2, STEPS)]
    restored = new_step(**choices)
    for parameter in restored.get_parameters():
        parameter.set_data(Tensor(saved[parameter.name]))
    assert [take(restored, index) for index in range(2, STEPS)] == losses[2:]
    assert np.isfinite(losses).all()
    assert not differing(state(whole), state(restored))
    assert differing(state(whole), saved)
