"""Reading the log of a run."""

import math

import pytest
from pydantic import ValidationError

from sknet.report import TrainedRun
from tests.sknet.report.trained_runs import END, LOG, START, epoch_line, make_run, step_line

RESUME = {"type": "start", "step": 22}


def test_the_steps_that_a_resume_repeats_count_once() -> None:
    log = [START, step_line(22, 2.0), step_line(33, 9.0), RESUME, step_line(33, 1.5), END]
    history = make_run(log=log).history
    assert [(line.step, line.loss) for line in history.steps] == [(22, 2.0), (33, 1.5)]


def test_an_epoch_that_a_resume_repeats_counts_once() -> None:
    log = [START, epoch_line(0, correct_top1=1), RESUME, epoch_line(0, correct_top1=2)]
    (epoch,) = make_run(log=log).history.epochs
    assert epoch.correct_top1 == 2


def test_lines_of_other_types_are_ignored() -> None:
    assert make_run(log=[{"type": "gpu"}, {}, *LOG]).history == make_run().history


def test_a_run_with_an_unreadable_log_line_is_refused() -> None:
    with pytest.raises(ValidationError, match="step"):
        make_run(log=[{"type": "step", "step": "many", "epoch": 0}])


def test_a_run_with_a_loss_of_nan_survives_json() -> None:
    run = make_run(log=[START, epoch_line(0, train_loss=math.nan), END])
    again = TrainedRun.model_validate_json(run.model_dump_json())
    assert again.recipe.name == "digits"
    (epoch,) = again.history.epochs
    assert epoch.train_loss is not None
    assert math.isnan(epoch.train_loss)
