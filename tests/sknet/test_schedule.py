"""The learning rate of every step: warm-up, peak, decay, end."""

from typing import Any

import pytest

from sknet.recipe import parse_recipe
from sknet.records import Run
from sknet.training.schedule import learning_rates


def rates(*, world_size: int = 1, steps_per_epoch: int = 5, **choices: Any) -> list[float]:
    values = {"model": "m", "global_batch_size": 64, "epoch_size": 4, "lr": 0.4, **choices}
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
def test_there_is_one_rate_a_step(scheduler: str, warmup_epochs: int) -> None:
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
    # One step before the end: 0.1 + 0.3 · (1 + cos(19π/20)) / 2.
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
