"""Reading a run's log, and the tables made of it."""

import math

import pytest
from pydantic import ValidationError

from sknet.recipe import Recipe
from sknet.report import TrainedRun, epochs_table, evaluations_table, published_table
from sknet.statistics import wilson_interval

STEPS_PER_EPOCH = 44
COLUMNS = [
    "model name",
    "params(M)",
    "cards",
    "batch size",
    "resolution",
    "jit level",
    "graph compile",
    "ms/step",
    "img/s",
    "acc@top1",
    "acc@top5",
    "recipe",
    "weight",
]


def step_line(step: int, loss: float) -> dict:
    return {
        "type": "step",
        "step": step,
        "epoch": (step - 1) // STEPS_PER_EPOCH,
        "loss": loss,
        "lr": 0.03 / step,
        "images_per_second": 180.2,
        "data_wait_share": 0.02,
        "ms_per_step": 170.1,
    }


def epoch_line(epoch: int, **values: object) -> dict:
    evaluated = {"correct_top1": 340, "correct_top5": 358, "seen": 360, "loss_sum": 210.6}
    line = {"type": "epoch", "step": STEPS_PER_EPOCH * (epoch + 1), "epoch": epoch}
    return {**line, "train_loss": 1.7, "seconds": 9.1, **evaluated, **values}


START = {"type": "start", "step": 0, "world_size": 2}
END = {
    "type": "end",
    "compile_seconds": 6.1,
    "ms_per_step_p50": 170.25,
    "ms_per_step_p90": 180.0,
    "ms_per_step_p99": 200.0,
    "images_per_second": 188.0,
    "data_wait_share": 0.01,
    "restarts": 0,
}
LOG = [START, step_line(22, 2.1), step_line(44, 1.2), epoch_line(0), END]


def make_run(**changes: object) -> TrainedRun:
    evaluation = {
        "split": "test",
        "resolution": 32,
        "seen": 360,
        "correct_top1": 351,
        "correct_top5": 359,
        "loss_sum": 90.0,
        "class_seen": (),
        "class_correct": (),
    }
    values = {
        "key": "0123456789abcdef" * 4,
        "recipe": Recipe(name="digits", model="skresnet18", batch_size=16, epoch_size=6, lr=0.05),
        "model": "skresnet18",
        "params": 11_958_056,
        "world_size": 2,
        "global_batch_size": 32,
        "device_target": "CPU",
        "mindspore": "2.10.0",
        "steps": 264,
        "evaluation": evaluation,
        "log": LOG,
        "tasks": [{"task": "train", "seconds": 61.5}],
        "checkpoint_digest": "fedcba9876543210" * 4,
    }
    return TrainedRun.model_validate(values | changes)


def test_the_published_table_has_the_13_columns_in_order():
    assert list(published_table([make_run()]).columns) == COLUMNS
    assert list(published_table([]).columns) == COLUMNS


def test_own_runs_come_before_the_published_rows():
    table = published_table([make_run()])
    assert table.loc[0].tolist()[:6] == ["skresnet18", 11.96, 2, 16, "32x32", table.loc[0].iloc[5]]
    assert table.loc[0, ["graph compile", "ms/step", "img/s"]].tolist() == [6.1, 170.25, 188.0]
    assert table.loc[0, "weight"] == "fedcba9876"
    assert not table["recipe"].str.startswith("published: ").iloc[0]
    assert table["recipe"].str.startswith("published: ").iloc[1:].all()
    mindcv = table.loc[1]
    assert mindcv["recipe"] == "published: MindCV, 8x Ascend 910*"
    assert mindcv[["ms/step", "img/s", "acc@top1"]].tolist() == [46.83, 10933.16, 72.85]


def test_published_speeds_agree_with_their_batch():
    rows = published_table([]).dropna(subset=["ms/step"])
    assert len(rows) == 2
    for row in rows.to_dict("records"):
        speed = row["cards"] * row["batch size"] / row["ms/step"] * 1000
        assert row["img/s"] == pytest.approx(speed, rel=1e-4)


def test_counts_become_exact_percentages():
    evaluation = evaluations_table([make_run()]).loc[0]
    assert evaluation[["accuracy@1", "accuracy@5", "loss"]].tolist() == [97.5, 99.72, 0.25]
    epoch = epochs_table([make_run()]).loc[0]
    assert epoch[["epoch", "accuracy@1", "accuracy@5"]].tolist() == [1, 94.44, 99.44]
    assert epoch["validation loss"] == pytest.approx(0.585)
    assert epoch["lr at the end"] == 0.03 / 44


@pytest.mark.parametrize(("correct", "seen"), [(351, 360), (1, 10), (5, 7), (49_999, 50_000)])
def test_the_bounds_are_where_the_score_test_just_rejects(correct, seen):
    for bound in wilson_interval(correct, seen):
        score = abs(correct / seen - bound) / math.sqrt(bound * (1 - bound) / seen)
        assert score == pytest.approx(1.959964, abs=1e-6)


def test_the_interval_of_none_or_all_correct_stays_within_0_and_1():
    z2 = 1.959963984540054**2
    assert wilson_interval(0, 10) == pytest.approx((0.0, z2 / (10 + z2)))
    assert wilson_interval(10, 10) == pytest.approx((10 / (10 + z2), 1.0))
    assert wilson_interval(10, 10)[1] <= 1
    assert wilson_interval(0, 10)[0] >= 0


def test_a_log_without_an_end_gives_na():
    row = published_table([make_run(log=LOG[:-1])]).loc[0]
    assert row[["graph compile", "ms/step", "img/s"]].isna().all()
    assert row["acc@top1"] == 97.5


def test_an_epoch_without_evaluation_gives_na():
    bare = {"type": "epoch", "step": 44, "epoch": 0, "train_loss": 1.7}
    row = epochs_table([make_run(log=[START, bare])]).loc[0]
    assert row["train loss"] == 1.7
    assert row[["accuracy@1", "accuracy@5", "validation loss", "lr at the end"]].isna().all()


def test_a_row_says_which_number_is_not_finite():
    broken = [START, epoch_line(0, train_loss=math.nan), {**END, "ms_per_step_p50": math.inf}]
    run = make_run(log=broken)
    epoch = epochs_table([run]).loc[0]
    assert epoch.isna()["train loss"]
    assert epoch["note"] == "not finite: train loss is nan"
    assert "not finite: ms/step is inf" in published_table([run]).loc[0, "recipe"]


def test_a_restart_takes_back_the_steps_after_its_checkpoint():
    restart = {"type": "start", "step": 22}
    log = [START, step_line(22, 2.0), step_line(33, 9.0), restart, step_line(33, 1.5), END]
    history = make_run(log=log).history
    assert [(line.step, line.loss) for line in history.steps] == [(22, 2.0), (33, 1.5)]


def test_an_epoch_that_ran_twice_is_one_row():
    restart = {"type": "start", "step": 22}
    log = [START, epoch_line(0, correct_top1=1), restart, epoch_line(0, correct_top1=2)]
    assert epochs_table([make_run(log=log)])["correct@1"].tolist() == [2]


def test_lines_of_other_types_are_ignored():
    assert make_run(log=[{"type": "gpu"}, {}, *LOG]).history == make_run().history


def test_a_log_line_that_cannot_be_read_is_refused_when_the_run_is_made():
    with pytest.raises(ValidationError, match="step"):
        make_run(log=[{"type": "step", "step": "many", "epoch": 0}])


def test_counts_that_contradict_each_other_are_refused():
    counts = make_run().evaluation.model_dump() | {"correct_top1": 361}
    with pytest.raises(ValidationError, match="correct_top1 361"):
        make_run(evaluation=counts)


def test_a_run_survives_json_with_a_loss_that_is_not_a_number():
    run = make_run(log=[START, epoch_line(0, train_loss=math.nan), END])
    again = TrainedRun.model_validate_json(run.model_dump_json())
    assert again.recipe.name == "digits"
    (epoch,) = again.history.epochs
    assert math.isnan(epoch.train_loss)
