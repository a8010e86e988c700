"""The learning rate of every step, from the warm-up to the end."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sknet.recipe import parse_recipe
from sknet.records import Run
from sknet.training.schedule import learning_rates
from tests.peers import mindcv_rates


def rates(*, world_size: int = 1, steps_per_epoch: int = 5, **choices: Any) -> list[float]:
    values = {"model": "tiny", "global_batch_size": 64, "epoch_size": 4, "lr": 0.4, **choices}
    recipe = parse_recipe(values, where="recipe")
    return learning_rates(
        Run(
            recipe=recipe,
            classes=("a", "b"),
            shards_digest="0" * 64,
            world_size=world_size,
            global_batch_size=recipe.global_batch(world_size),
            steps_per_epoch=steps_per_epoch,
            device_target="CPU",
            mindspore="2.10.0",
        )
    )


@pytest.mark.parametrize("scheduler", ["cosine_decay", "constant"])
@pytest.mark.parametrize("warmup_epochs", [0, 1, 3])
def test_there_is_one_rate_for_each_step(scheduler: str, warmup_epochs: int) -> None:
    assert len(rates(scheduler=scheduler, warmup_epochs=warmup_epochs)) == 20


def test_warm_up_grows_linearly_to_the_peak() -> None:
    assert rates(warmup_epochs=1)[:6] == pytest.approx([0.08, 0.16, 0.24, 0.32, 0.4, 0.4])


def test_without_warm_up_the_first_step_has_the_peak() -> None:
    assert rates()[0] == 0.4


def test_cosine_is_half_way_down_in_the_middle() -> None:
    assert rates(min_lr=0.1)[10] == pytest.approx(0.25)


def test_cosine_falls_to_just_above_its_end() -> None:
    result = rates(min_lr=0.1)
    assert result == sorted(result, reverse=True)
    # One step before the end it is 0.1 + 0.3 · (1 + cos(19π/20)) / 2.
    assert result[-1] == pytest.approx(0.1018467489)


def test_constant_stays_at_the_peak() -> None:
    assert rates(scheduler="constant", warmup_epochs=1)[5:] == [0.4] * 15


def test_rate_scales_with_the_global_batch() -> None:
    assert max(rates(reference_global_batch_size=256)) == 0.1
    per_device = {"global_batch_size": None, "batch_size": 64, "reference_global_batch_size": 256}
    assert [max(rates(world_size=world, **per_device)) for world in (1, 2, 8)] == [0.1, 0.2, 0.8]


def test_rate_without_a_reference_is_the_same_for_every_world() -> None:
    per_device = {"global_batch_size": None, "batch_size": 64}
    assert rates(world_size=8, **per_device) == rates(world_size=1, **per_device)


SCHEDULERS = ["cosine_decay", "constant", "step_decay", "multi_step_decay", "one_cycle"]


@given(
    st.sampled_from(SCHEDULERS),
    st.integers(1, 7),
    st.integers(1, 9),
    st.integers(0, 4),
    st.none() | st.floats(0, 1),
    st.none() | st.integers(1, 5),
    st.floats(0.01, 1),
)
def test_every_schedule_reaches_its_peak_and_stays_within_its_limits(
    scheduler: str,
    steps_per_epoch: int,
    epochs_after: int,
    warmup_epochs: int,
    warmup_factor: float | None,
    decay_epochs: int | None,
    decay_rate: float,
) -> None:
    if scheduler == "step_decay":
        decay_epochs = decay_epochs or 1
    result = rates(
        steps_per_epoch=steps_per_epoch,
        scheduler=scheduler,
        epoch_size=warmup_epochs + epochs_after,
        warmup_epochs=warmup_epochs,
        warmup_factor=warmup_factor,
        decay_epochs=decay_epochs,
        decay_rate=decay_rate,
        multi_step_decay_milestones=[1, 3],
        min_lr=0.001,
    )
    assert len(result) == steps_per_epoch * (warmup_epochs + epochs_after)
    assert all(math.isfinite(rate) and 0 <= rate <= 0.4 * (1 + 1e-12) for rate in result)
    warmup = warmup_epochs * steps_per_epoch
    if scheduler == "one_cycle":
        top = result.index(max(result))
        assert result[top:] == sorted(result[top:], reverse=True)
        assert result[-1] == pytest.approx(0.001)
        return
    assert result[warmup] == 0.4
    assert result[:warmup] == sorted(result[:warmup])
    assert result[warmup:] == sorted(result[warmup:], reverse=True)


@pytest.mark.parametrize(
    "choices",
    [
        {"scheduler": "cosine_decay", "warmup_epochs": 2, "decay_epochs": 6},
        {"scheduler": "cosine_decay", "warmup_epochs": 2, "decay_epochs": 4},
        {"scheduler": "cosine_decay", "warmup_epochs": 2, "decay_epochs": 9, "warmup_factor": 0.1},
        {"scheduler": "step_decay", "decay_epochs": 3, "decay_rate": 0.1},
        {"scheduler": "step_decay", "warmup_epochs": 1, "decay_epochs": 2, "decay_rate": 0.5},
        {"scheduler": "multi_step_decay", "warmup_epochs": 1, "decay_rate": 0.1},
        {"scheduler": "constant", "warmup_epochs": 3},
        {"scheduler": "one_cycle"},
    ],
    ids=lambda choices: "-".join(str(value) for value in choices.values()),
)
def test_with_a_warm_up_factor_the_rates_equal_mindcvs(choices: dict[str, Any]) -> None:
    values: dict[str, Any] = {"warmup_epochs": 0, "warmup_factor": 0.0, "decay_epochs": 8} | choices
    if values["scheduler"] == "one_cycle":
        values["warmup_factor"] = None
    expected = mindcv_rates(
        5,
        scheduler=values["scheduler"],
        lr=0.4,
        min_lr=0.001,
        warmup_epochs=values["warmup_epochs"],
        warmup_factor=values["warmup_factor"],
        decay_epochs=values["decay_epochs"],
        decay_rate=values.get("decay_rate", 0.9),
        milestones=[2, 5],
        num_epochs=8,
    )
    assert rates(
        epoch_size=8, min_lr=0.001, multi_step_decay_milestones=[2, 5], **values
    ) == pytest.approx(expected)


def test_one_cycle_rises_over_the_warm_up_if_it_has_one() -> None:
    result = rates(scheduler="one_cycle", epoch_size=8, warmup_epochs=2, warmup_factor=0.5)
    assert result[0] == pytest.approx(0.2)
    assert result.index(max(result)) == 9


def test_the_papers_schedule_falls_to_a_tenth_every_thirty_epochs() -> None:
    result = rates(
        scheduler="step_decay", epoch_size=100, decay_epochs=30, decay_rate=0.1, steps_per_epoch=2
    )
    falls = [step for step in range(1, 200) if result[step] != result[step - 1]]
    assert falls == [60, 120, 180]
    assert [result[step] for step in (0, *falls)] == pytest.approx([0.4, 0.04, 0.004, 0.0004])
