"""The time that is left is told once it can be known, and then it is right."""

import pytest

from sknet.training.metrics import epoch_line
from sknet.training.pace import Pace


def test_nothing_is_told_while_only_the_compilation_is_known() -> None:
    pace = Pace(total_steps=100, steps_per_epoch=10)
    pace.epoch_begins(0.0)
    pace.step_ends(60.0)
    assert pace.seconds_left(1) is None
    assert pace.seconds_left_in_epoch(1) is None


def test_before_the_first_evaluation_only_the_rest_of_the_epoch_is_known() -> None:
    pace = Pace(total_steps=20, steps_per_epoch=10)
    pace.epoch_begins(0.0)
    for step in range(1, 6):
        pace.step_ends(60.0 + step)
    assert pace.seconds_left(5) is None
    assert pace.seconds_left_in_epoch(5) == pytest.approx(5.0)


def test_then_steps_and_evaluations_count() -> None:
    pace = Pace(total_steps=30, steps_per_epoch=10)
    now = 60.0
    pace.epoch_begins(0.0)
    for step in range(1, 31):
        now += 1.0
        pace.step_ends(now)
        if step == 12:
            # 18 steps of a second, and a pause of 5 s after both of the epochs that are left.
            assert pace.seconds_left(step) == pytest.approx(18 + 2 * 5.0)
        if step % 10 == 0 and step < 30:
            now += 5.0
            pace.epoch_begins(now)
    assert pace.seconds_left(30) == 0.0


def test_a_single_step_an_epoch_is_timed_with_its_pause() -> None:
    pace = Pace(total_steps=10, steps_per_epoch=1)
    for step in range(1, 5):
        pace.epoch_begins(3.0 * step - 1)
        pace.step_ends(3.0 * step)
    assert pace.seconds_left(4) == pytest.approx(6 * 3.0)


def test_an_epoch_without_an_evaluation_has_its_loss_rate_and_seconds() -> None:
    assert epoch_line(0.41234, None, 0.08, 12.34) == "train loss 0.4123, lr 0.08, 12.3 s"
