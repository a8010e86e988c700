"""The tables of a report."""

import csv
import io
import math

import pandas as pd
import pytest

from sknet.csv_text import as_csv
from sknet.report import epochs_table, evaluations_table, published_table
from tests.sknet.report.trained_runs import END, LOG, START, epoch_line, make_run

MINDCV_COLUMNS = [
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


def test_the_published_table_has_mindcvs_columns_in_order() -> None:
    assert list(published_table([make_run()]).columns) == MINDCV_COLUMNS
    assert list(published_table([]).columns) == MINDCV_COLUMNS


def test_own_runs_come_before_the_published_rows() -> None:
    table = published_table([make_run()])
    assert table.loc[0, "model name":"resolution"].tolist() == ["skresnet18", 11.96, 2, 16, "32x32"]
    assert table.loc[0, ["graph compile", "ms/step", "img/s"]].tolist() == [6.1, 170.25, 188.0]
    assert table.loc[0, "weight"] == "fedcba9876"
    assert not table["recipe"].str.startswith("published: ").iloc[0]
    assert table["recipe"].str.startswith("published: ").iloc[1:].all()
    mindcv = table.loc[1]
    assert mindcv["recipe"] == "published: MindCV, 8x Ascend 910*"
    assert mindcv[["ms/step", "img/s", "acc@top1"]].tolist() == [46.83, 10933.16, 72.85]


@pytest.mark.parametrize(("level", "shown"), [("O1", "O1"), ("O2", "O2"), (None, "default")])
def test_the_jit_level_is_the_one_of_the_runs_recipe(level: str | None, shown: str) -> None:
    run = make_run(recipe=make_run().recipe.model_copy(update={"jit_level": level}))
    assert published_table([run]).loc[0, "jit level"] == shown


def test_published_speeds_agree_with_their_batch_sizes() -> None:
    rows = published_table([]).dropna(subset=["ms/step"])
    assert len(rows) == 2
    for row in rows.to_dict("records"):
        speed = row["cards"] * row["batch size"] / row["ms/step"] * 1000
        assert row["img/s"] == pytest.approx(speed, rel=1e-4)


def test_counts_become_exact_percentages() -> None:
    evaluation = evaluations_table([make_run()]).loc[0]
    assert evaluation[["accuracy@1", "accuracy@5", "loss"]].tolist() == [97.5, 99.72, 0.25]
    epoch = epochs_table([make_run()]).loc[0]
    assert epoch[["epoch", "accuracy@1", "accuracy@5"]].tolist() == [1, 94.44, 99.44]
    assert epoch["validation loss"] == pytest.approx(0.585)
    assert epoch["lr at the end"] == 0.03 / 44


def test_a_log_without_an_end_gives_na() -> None:
    row = published_table([make_run(log=LOG[:-1])]).loc[0]
    assert row[["graph compile", "ms/step", "img/s"]].isna().all()
    assert row["acc@top1"] == 97.5


def test_an_epoch_without_an_evaluation_gives_na() -> None:
    line = {"type": "epoch", "step": 44, "epoch": 0, "train_loss": 1.7}
    row = epochs_table([make_run(log=[START, line])]).loc[0]
    assert row["train loss"] == 1.7
    assert row[["accuracy@1", "accuracy@5", "validation loss", "lr at the end"]].isna().all()


def test_a_row_names_the_numbers_that_are_not_finite() -> None:
    log = [START, epoch_line(0, train_loss=math.nan), {**END, "ms_per_step_p50": math.inf}]
    run = make_run(log=log)
    epoch = epochs_table([run]).loc[0]
    assert epoch.isna()["train loss"]
    assert epoch["note"] == "not finite: train loss is nan"
    assert "not finite: ms/step is inf" in published_table([run]).loc[0, "recipe"]


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "\n", " =", "\uff1d", "\uff20"])
def test_no_text_in_a_csv_file_is_a_formula(begin: str) -> None:
    text = begin + 'HYPERLINK("http://x")'
    table = pd.DataFrame({"name": pd.array([text, f"x\r{text}", None], dtype="string")})
    read = list(csv.reader(io.StringIO(as_csv(table), newline="")))
    assert read == [["name"], [f"'{text}"], [f"x\r{text}"], [""]]


def test_numbers_in_a_csv_file_stay_numbers() -> None:
    table = pd.DataFrame({"loss": pd.array([-0.5, None], dtype="Float64"), "n": [-3, 7]})
    assert as_csv(table) == "loss,n\r\n-0.5,-3\r\n,7\r\n"
