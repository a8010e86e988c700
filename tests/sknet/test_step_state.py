"""A step's cell is its whole state: another one with its parameters takes the same steps."""

from collections.abc import Iterator
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from tests.sknet.steps import STEPS, differing, new_step, state, take

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
HALF = {"use_nesterov": True, "amp_level": "O3", "loss_scale": 128, "loss": "BCE"}
FROZEN = {
    "clip_grad": True,
    "clip_mode": "value",
    "clip_value": 1e-3,
    "ckpt_sha256": "0" * 64,
    "freeze": ["stem", "layer1"],
}
GRAPH, PYNATIVE = ms.GRAPH_MODE, ms.PYNATIVE_MODE


@pytest.fixture(autouse=True)
def back_to_pynative(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    yield
    ms.set_context(mode=ms.PYNATIVE_MODE)


@pytest.mark.parametrize(
    ("mode", "choices"),
    [
        pytest.param(GRAPH, ALL_OF_FLOAT32, marks=pytest.mark.slow, id="all of float32, graph"),
        pytest.param(PYNATIVE, ALL_OF_FLOAT32, id="all of float32, pynative"),
        pytest.param(GRAPH, OVERFLOWING, marks=pytest.mark.slow, id="overflows, graph"),
        pytest.param(PYNATIVE, HALF, id="float16, pynative"),
        pytest.param(PYNATIVE, FROZEN, id="frozen, pynative"),
    ],
)
def test_a_restored_step_goes_on_with_the_same_bits(mode: int, choices: dict[str, Any]) -> None:
    ms.set_context(mode=mode)
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
