"""What each choice of a recipe does to a step, and that a step's parameters are its whole state."""

from collections.abc import Callable, Iterator
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from sknet.models.backend import sum_of_squares
from sknet.training.inputs import branch_factors, drop_rates
from sknet.training.step import (
    SCALE_FACTOR,
    LossScale,
    TrainStep,
    all_finite,
    clip,
    moving_statistics,
)
from tests.sknet.recipes import recipe
from tests.sknet.tiny_networks import ThreeLayers, tiny_network
from tests.sknet.training.steps import (
    NUM_STEPS,
    batch,
    differing,
    new_step,
    set_state,
    state,
    take,
)


@pytest.fixture(autouse=True)
def back_to_pynative() -> Iterator[None]:
    yield
    ms.set_context(mode=ms.PYNATIVE_MODE)


def weights_of(step: TrainStep) -> set[str]:
    return {str(p.name) for p in step.network.trainable_params()}


# Every kind of state. 2^24 overflows float16 until it was halved a few times.
LAMB_OF_FLOAT16 = {
    "opt": "lamb",
    "amp_level": "O2",
    "loss_scale_type": "dynamic",
    "loss_scale": 1 << 24,
    "drop_overflow_update": True,
    "gradient_accumulation_steps": 2,
    "drop_path_rate": 0.5,
    "class_weights": [1, 2, 4],
    "logit_adjustment": 1.0,
    "clip_grad": True,
    "clip_value": 0.5,
    "ema": True,
    "ema_decay": 0.9,
}
ADAMW_OF_FLOAT32 = {
    "opt": "adamw",
    "weight_decay": 0.1,
    "gradient_accumulation_steps": 2,
    "ema": True,
    "ema_decay": 0.9,
    "drop_path_rate": 0.5,
    "clip_grad": True,
    "clip_value": 0.5,
}
NESTEROV_OF_FLOAT16 = {"use_nesterov": True, "amp_level": "O3", "loss_scale": 128, "loss": "BCE"}
FROZEN = {
    "clip_grad": True,
    "clip_mode": "value",
    "clip_value": 1e-3,
    "ckpt_sha256": "0" * 64,
    "freeze": ["stem", "layer1"],
}


@pytest.mark.parametrize(
    ("mode", "network", "choices"),
    [
        pytest.param(
            ms.GRAPH_MODE, ThreeLayers, LAMB_OF_FLOAT16, marks=pytest.mark.slow, id="lamb, graph"
        ),
        pytest.param(ms.PYNATIVE_MODE, ThreeLayers, ADAMW_OF_FLOAT32, id="adamw"),
        pytest.param(ms.PYNATIVE_MODE, ThreeLayers, NESTEROV_OF_FLOAT16, id="nesterov"),
        pytest.param(ms.PYNATIVE_MODE, tiny_network, FROZEN, id="frozen"),
    ],
)
def test_a_step_with_the_parameters_of_another_continues_with_the_same_bits(
    mode: int, network: Callable[[int], nn.Cell], choices: dict[str, Any]
) -> None:
    ms.set_context(mode=mode)
    uninterrupted = new_step(network, **choices)
    losses = [take(uninterrupted, index) for index in range(2)]
    saved = state(uninterrupted)
    uninterrupted.evaluated()  # which must not change the training
    losses += [take(uninterrupted, index) for index in range(2, NUM_STEPS)]
    restored = new_step(network, **choices)
    set_state(restored, saved)
    assert [take(restored, index) for index in range(2, NUM_STEPS)] == losses[2:]
    assert np.isfinite(losses).all()
    assert not differing(state(uninterrupted), state(restored))
    assert differing(state(uninterrupted), saved)


def test_an_overflow_drops_the_update_halves_the_scale_and_counts_as_a_step() -> None:
    dynamic = {"loss_scale_type": "dynamic", "loss_scale": 1 << 24, "drop_overflow_update": True}
    step = new_step(ThreeLayers, amp_level="O3", ema=True, **dynamic)
    before = state(step)
    assert np.isfinite(take(step, 0))
    statistics = {str(p.name) for p in moving_statistics(step.network)}
    assert differing(before, state(step)) == statistics | {"global_step", "loss_scale"}
    assert float(step.loss_scale.value.asnumpy()) == 1 << 23
    assert step.optimizer.global_step.asnumpy() == 1
    # A scale that fits stays, and the step counts towards its doubling.
    step.loss_scale.value.set_data(Tensor(np.float32(128)))
    take(step, 1)
    assert float(step.loss_scale.value.asnumpy()) == 128
    assert int(step.loss_scale.steps_without.asnumpy()) == 1
    assert weights_of(step) <= differing(before, state(step))


def test_the_average_of_weights_and_statistics_is_mindcvs() -> None:
    step = new_step(ThreeLayers, ema=True, ema_decay=0.9)
    expected = {p.name: p.asnumpy().astype(float) for p in step.network.get_parameters()}
    for index in range(3):
        take(step, index)
        weight = 0.9 * (1 - np.exp(-(index + 1) / 2000))
        for parameter in step.network.get_parameters():
            expected[parameter.name] *= weight
            expected[parameter.name] += (1 - weight) * parameter.asnumpy()
    evaluated = step.evaluated()
    assert evaluated is not step.network
    for parameter in evaluated.get_parameters():
        np.testing.assert_allclose(
            parameter.asnumpy(), expected[parameter.name], rtol=1e-5, atol=1e-7
        )


def test_without_an_average_and_in_float32_the_network_itself_is_evaluated() -> None:
    step = new_step()
    assert step.evaluated() is step.network


@pytest.mark.parametrize("amp_level", ["O2", "O3"])
def test_mixed_precision_trains_like_float32_and_is_evaluated_in_float32(amp_level: str) -> None:
    half, full = new_step(amp_level=amp_level, loss_scale=1024), new_step()
    assert take(half, 0) == pytest.approx(take(full, 0), rel=0.02)
    assert state(half.network).keys() == state(full.network).keys()
    images = Tensor(batch(1)[0])
    in_float32 = half.network.twin()
    set_state(in_float32, state(half.network))
    np.testing.assert_array_equal(
        half.evaluated().set_train(False)(images).asnumpy(),
        in_float32.set_train(False)(images).asnumpy(),
    )
    kinds = {type(cell).__name__ for _, cell in half.network.cells_and_names()}
    assert ("_OutputTo16" in kinds) == (amp_level == "O2")


def test_a_batch_in_two_passes_equals_one_batch_except_for_batch_norm() -> None:
    whole, parts = new_step(ThreeLayers), new_step(ThreeLayers, gradient_accumulation_steps=2)
    for step in (whole, parts):
        # With its moving statistics, BatchNorm doesn't depend on the batch.
        for _, cell in step.network.cells_and_names():
            if isinstance(cell, nn.BatchNorm2d):
                cell.use_batch_statistics = False
    losses = [(take(whole, index), take(parts, index)) for index in range(2)]
    for one, other in losses:
        assert one == pytest.approx(other, rel=1e-5)
    summed = state(parts)
    for name, value in state(whole).items():
        np.testing.assert_allclose(summed[name], value, rtol=1e-3, atol=2e-5, err_msg=name)


def test_frozen_layers_keep_weights_and_statistics() -> None:
    step = new_step(freeze=["stem", "layer1"], ckpt_sha256="0" * 64)
    before = state(step)
    take(step, 0)
    changed = differing(before, state(step))
    frozen = ("stem.", "layer1.")
    assert not {name for name in changed if name.startswith(frozen)}
    assert weights_of(step) <= changed
    statistics = {str(p.name) for p in moving_statistics(step.network)}
    assert {name for name in statistics if not name.startswith(frozen)} <= changed


@pytest.mark.parametrize("norm", [0.5, 1e6])
def test_clipping_by_norm_limits_all_gradients_together(norm: float) -> None:
    gradients = tuple(Tensor(np.full(shape, 2, np.float32)) for shape in ((3, 4), (4,)))
    clipped = clip(gradients, recipe(clip_grad=True, clip_value=norm), sum_of_squares)
    # Sixteen elements of 2 have the norm 8.
    factor = min(1.0, norm / 8)
    for gradient in clipped:
        np.testing.assert_allclose(gradient.asnumpy(), 2 * factor, rtol=1e-6)


def test_the_dynamic_loss_scale_is_mindspores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sknet.training.step.SCALE_WINDOW", 3)
    dynamic = {"loss_scale_type": "dynamic", "drop_overflow_update": True}
    ours = LossScale(recipe(loss_scale=2.0, **dynamic))
    theirs = ms.amp.DynamicLossScaler(2.0, SCALE_FACTOR, 3)
    # It reaches its lowest value, grows, is halved; then it would become infinite.
    falling = [False, False, True, True, False, *[True] * 7, False]
    for start, updates in ((2.0, falling), (2.0**126, [True] * 9)):
        for value in (ours.value, theirs.scale_value):
            value.set_data(Tensor(start, ms.float32))
        for finite in updates:
            ours.adjust(Tensor(finite))
            theirs.adjust(Tensor(finite))
            assert ours.value.asnumpy() == theirs.scale_value.asnumpy()
            assert ours.steps_without.asnumpy() == theirs.counter.asnumpy()
    assert ours.value.asnumpy() == 2.0**127


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_value_that_is_not_finite_is_an_overflow(place: int, value: float) -> None:
    gradients = [np.ones(shape, np.float32) for shape in ((2, 3), (4,), (5, 1, 1))]
    assert all_finite(tuple(map(Tensor, gradients))).asnumpy()
    gradients[place].flat[-1] = value
    assert not all_finite(tuple(map(Tensor, gradients))).asnumpy()


def test_clipping_by_value_limits_each_element() -> None:
    gradient = Tensor(np.array([-3, -0.5, 0.5, 3], np.float32))
    (clipped,) = clip(
        (gradient,), recipe(clip_grad=True, clip_mode="value", clip_value=1), sum_of_squares
    )
    np.testing.assert_array_equal(clipped.asnumpy(), [-1, -0.5, 0.5, 1])


def test_branches_are_dropped_as_often_as_their_depth_says_and_keep_their_mean() -> None:
    factors = branch_factors(5, 0.4, seed=1, step=2, global_batch=20_000)
    np.testing.assert_allclose(drop_rates(5, 0.4), [0, 0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose((factors == 0).mean(axis=1), drop_rates(5, 0.4), atol=0.015)
    np.testing.assert_allclose(factors.mean(axis=1), 1, atol=0.03)


def test_which_branches_are_dropped_follows_from_seed_and_step() -> None:
    def drawn(seed: int, step: int) -> bytes:
        return branch_factors(8, 0.5, seed=seed, step=step, global_batch=16).tobytes()

    assert drawn(1, 1) == drawn(1, 1)
    assert len({drawn(seed, step) for seed in range(3) for step in range(3)}) == 9


def test_a_block_whose_branch_is_dropped_is_its_shortcut() -> None:
    block = tiny_network().set_train(False).layer1.cell_list[0]
    x = Tensor(np.random.default_rng(0).random((2, 64, 8, 8), np.float32))
    result = block(x, Tensor(np.array([0, 1], np.float32))).asnumpy()
    np.testing.assert_array_equal(result[0], x.asnumpy()[0])
    np.testing.assert_array_equal(result[1], block(x).asnumpy()[1])


def test_clipping_and_dropping_of_branches_change_the_steps() -> None:
    losses: dict[str, Any] = {
        key: [take(step, index) for index in range(2)]
        for key, step in {
            "plain": new_step(ThreeLayers),
            "clipped": new_step(ThreeLayers, clip_grad=True, clip_value=1e-3),
            "dropped": new_step(ThreeLayers, drop_path_rate=0.9),
        }.items()
    }
    assert losses["plain"][0] == losses["clipped"][0] != losses["dropped"][0]
    assert losses["plain"][1] != losses["clipped"][1]
