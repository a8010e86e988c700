"""A report shows every class of a run, which is taken for which, and results on sealed images."""

import csv
from pathlib import Path

import numpy as np
import pytest

from sknet.evaluation.classes import Confusion
from sknet.evaluation.predictions import Predictions, detailed
from sknet.records import Check, Evaluation, Promotion, SealedResult
from sknet.report import ReportContents, TrainedRun, write_report
from sknet.report.class_results import (
    MAX_CONFUSED,
    classes_as_text,
    confusion_figure,
    describe_confusion,
)
from sknet.report.tables import evaluations_table, runs_table
from sknet.report.text import criteria_as_text, evaluations_as_text, tiles
from tests.sknet.report.trained_runs import make_run

NAMES = ("cat", "<b>dog</b>", "=fish")
LABELS = np.array([0] * 10 + [1] * 5 + [2] * 5, np.int32)
PREDICTED = np.array([0] * 9 + [1] + [1] * 3 + [0] * 2 + [2] * 5, np.int32)


def evaluated(leaked: int = 0, num_classes: int = 3) -> Evaluation:
    """Return counts of LABELS and PREDICTED, of which the first samples are leaked."""
    keys = [str(index) for index in range(len(LABELS))]
    predictions = Predictions.of_logits(
        np.eye(num_classes, dtype=np.float32)[PREDICTED] * 3, LABELS
    )
    return detailed(
        predictions, keys, {*keys[:leaked]}, split="val", resolution=32, num_classes=num_classes
    ).model_copy(update={"class_average_precision": (0.9, 0.7, 1.0)})


def run_of(**changes: object) -> TrainedRun:
    return make_run(**{"classes": NAMES, "evaluation": evaluated().model_dump(), **changes})


RUN = run_of()
CONFUSION = Confusion.of(LABELS, PREDICTED)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_each_class_and_each_pair_is_in_the_tables_and_on_the_page(tmp_path: Path) -> None:
    write_report(ReportContents(runs=(RUN,)), tmp_path, confusions={RUN.key: CONFUSION})
    classes = rows_of(tmp_path / "classes.csv")
    assert [row["class"] for row in classes] == ["cat", "<b>dog</b>", "'=fish"]
    assert (classes[1]["recall"], classes[1]["precision"], classes[1]["F1"]) == (
        *("60.0", "75.0", "66.67"),
    )
    pairs = rows_of(tmp_path / "confusion.csv")
    assert [(row["label"], row["predicted label"], row["samples"]) for row in pairs] == [
        *(("0", "0", "9"), ("0", "1", "1"), ("1", "0", "2"), ("1", "1", "3"), ("2", "2", "5"))
    ]
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "Most frequent mistake: &lt;b&gt;dog&lt;/b&gt; taken for cat, 2 times." in page
    assert "<b>dog" not in page
    assert "Results of each class of " in page


def test_classes_come_with_the_lowest_recall_first_and_with_intervals() -> None:
    shown = classes_as_text(RUN)
    assert shown["class"].tolist() == ["<b>dog</b>", "cat", "=fish"]
    assert shown.iloc[0]["recall"] == "60.00 %"
    assert shown.iloc[0]["recall 95 %"].startswith("23.07 … 88.2")
    assert shown.iloc[2]["average precision"] == "100.00 %"


def test_a_report_of_older_evaluations_leaves_out_what_they_lack(tmp_path: Path) -> None:
    old = {"class_predicted": (), "class_average_precision": (), "macro_f1_interval": None}
    run = run_of(evaluation=evaluated().model_copy(update=old).model_dump())
    write_report(ReportContents(runs=(run,)), tmp_path)
    assert "Confusion matrix" not in (tmp_path / "report.html").read_text("utf-8")
    shown = evaluations_as_text([run])
    assert "balanced accuracy" in shown.columns
    assert not {"macro-F1", "mean average precision", "leaked", "looks"} & {*shown.columns}
    assert classes_as_text(run).iloc[0]["precision"] == "–"  # noqa: RUF001 (an empty cell's dash)


def test_the_figure_shows_the_classes_with_the_most_mistakes_and_says_so() -> None:
    labels = np.arange(40, dtype=np.int32).repeat(2)
    predicted = labels.copy()
    predicted[-2:] = 38
    confusion = Confusion.of(labels, predicted)
    run = make_run(classes=[f"class {label}" for label in range(40)])
    words = describe_confusion(run, confusion)
    assert f"the {MAX_CONFUSED} of 40 classes with the most wrong predictions" in words
    assert words.endswith("class 39 taken for class 38, 2 times.")
    svg = confusion_figure(run, confusion).svg
    assert ("class 39" in svg, "class 30" in svg) == (True, False)
    assert describe_confusion(RUN, Confusion.of(LABELS, LABELS)).endswith("No prediction is wrong.")


def test_leaked_images_have_their_columns_and_their_tile() -> None:
    run = run_of(evaluation=evaluated(leaked=10).model_dump())
    contents = ReportContents(runs=(run,))
    row = evaluations_table([run]).iloc[0]
    assert row[["accuracy@1", "without leaked", "leaked", "leaked correct@1"]].tolist() == [
        *(85.0, 80.0, 10, 9)
    ]
    assert tiles(contents)["without leaked images"] == ("80.00 %", "accuracy@1, 8 of 10")
    assert evaluations_as_text([run]).iloc[0]["without leaked"] == "80.00 %"


@pytest.mark.parametrize(("num", "shown"), [(3, False), (6, True)])
def test_accuracy_of_five_is_not_shown_of_fewer_than_six_classes(num: int, shown: bool) -> None:
    counts = evaluated(num_classes=num).model_copy(update={"class_average_precision": ()})
    run = run_of(classes=[*map(str, range(num))], evaluation=counts.model_dump())
    contents = ReportContents(runs=(run,))
    assert ("accuracy@5" in tiles(contents)) == shown
    assert ("accuracy@5" in evaluations_as_text([run]).columns) == shown
    assert runs_table(contents)["accuracy@5"].notna().tolist() == [shown]


def test_the_sealed_test_split_stands_with_its_looks_and_warnings_with_the_criteria() -> None:
    sealed = evaluated().model_copy(update={"split": "test"})
    promotion = Promotion(
        candidate="0" * 64,
        production=None,
        correct_top1=17,
        seen=20,
        floor=0.5,
        significance=0.05,
        comparison=None,
        criteria=(Check(name="accuracy@1", passed=True, detail="85.00%"),),
        warnings=("validation is too small for the floor of recall of cat",),
        sealed=SealedResult(evaluation=sealed, looks=3),
    )
    run = run_of(promotion=promotion)
    table = evaluations_table([run])
    assert table["split"].tolist() == ["val", "test"]
    assert table["looks"].tolist()[1] == 3
    rows = criteria_as_text(run)[["criterion", "outcome", "detail"]].values.tolist()
    assert rows[1] == ["worth", "warning", promotion.warnings[0]]
    assert rows[2][:2] == ["sealed test split", "for information"]
    assert rows[2][2].endswith("looked at 3 times so far")
