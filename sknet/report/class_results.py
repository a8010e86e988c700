"""The classes of a run: what became of each, and which is taken for which."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sknet.evaluation.classes import Confusion
from sknet.records import ClassResult
from sknet.report.cells import Row, interval_cells, table_of
from sknet.report.contents import TrainedRun
from sknet.report.figures import BLUE, INK, WIDTH, Drawing, draw, panels, shortened
from sknet.report.text import UNKNOWN
from sknet.significance import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Confusions = Mapping[str, Confusion]
"""How the classes of runs are confused, by the key of the run."""

MAX_CONFUSED = 20
"""Most classes in the figure of the confusion matrix."""

CLASS_COLUMNS = {
    "run": "string",
    "label": "Int64",
    "class": "string",
    "seen": "Int64",
    "predicted": "Int64",
    "correct": "Int64",
    **{
        column: "Float64"  # percent
        for name in ("recall", "precision", "F1")
        for column in (name, f"{name} 95 % from", f"{name} 95 % to")
    },
    "average precision": "Float64",  # percent
}

CONFUSION_COLUMNS = {
    "run": "string",
    "label": "Int64",
    "class": "string",
    "predicted label": "Int64",
    "predicted class": "string",
    "samples": "Int64",
}


def classes_table(runs: Sequence[TrainedRun]) -> pd.DataFrame:
    """Return one row for each class of each run that was evaluated."""
    rows = (
        _class_row(run, each)
        for run in runs
        if run.evaluation is not None
        for each in run.evaluation.classes
    )
    return table_of(rows, CLASS_COLUMNS)


def confusion_table(runs: Sequence[TrainedRun], confusions: Confusions) -> pd.DataFrame:
    """Return one row for each pair of true and predicted class of each run that has samples."""
    rows = (row for run in runs for row in _confusion_rows(run, confusions.get(run.key)))
    return table_of(rows, CONFUSION_COLUMNS)


def classes_as_text(run: TrainedRun) -> pd.DataFrame:
    """Return one row for each class that occurs, the lowest recall first, as a reader sees it."""
    results = run.evaluation.classes if run.evaluation else ()
    occurring = [each for each in results if each.seen or each.predicted]
    occurring.sort(key=lambda each: each.recall.value if each.recall else 2.0)
    rows = [
        {
            "class": run.class_name(each.label),
            "samples": str(each.seen),
            **_as_text("recall", each.recall),
            **_as_text("precision", each.precision),
            **_as_text("F1", each.f1),
            "average precision": UNKNOWN
            if each.average_precision is None
            else f"{100 * each.average_precision:.2f} %",
        }
        for each in occurring
    ]
    return pd.DataFrame(rows, dtype="string")


def confusion_figure(run: TrainedRun, confusion: Confusion) -> Drawing:
    """Draw how many samples of each class are predicted as each, coloured by the share of a row."""
    labels = confusion.most_confused(MAX_CONFUSED)
    matrix = confusion.matrix(labels)
    num = len(labels)
    left = 0.27
    side = WIDTH * (0.97 - left)

    def paint(figure: "Figure") -> None:
        from matplotlib.patches import Rectangle

        (axes,) = panels(figure, 1, left=left)
        figure.subplots_adjust(bottom=1.2 / figure.get_figheight())
        axes.set_title("Confusion matrix, samples", x=-0.36)
        shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        for row, column in np.argwhere(matrix).tolist():
            strength = 0.12 + 0.73 * float(shares[row, column])
            axes.add_patch(
                Rectangle((column - 0.5, row - 0.5), 1, 1, color=BLUE, alpha=strength, linewidth=0)
            )
            count = str(matrix[row, column])
            size = min(10.0, 100 * side / num / max(2, len(count)))
            axes.text(column, row, count, ha="center", va="center", fontsize=size, color=INK)
        names = [shortened(run.class_name(label), 14) for label in labels]
        axes.set_xticks(range(num), names, rotation=90, fontsize=min(10.0, 90 * side / num))
        axes.set_yticks(range(num), names, fontsize=min(10.0, 90 * side / num))
        axes.tick_params(length=0)
        axes.set_xlim(-0.5, num - 0.5)
        axes.set_ylim(num - 0.5, -0.5)
        axes.set_xlabel("predicted")

    name = f"confusion-{run.short_key}"
    return draw(name, describe_confusion(run, confusion), paint, height=side + 1.52)


def describe_confusion(run: TrainedRun, confusion: Confusion) -> str:
    """Return what the confusion matrix shows, in words."""
    num = len(np.union1d(confusion.labels, confusion.predicted))
    which = (
        f"the {MAX_CONFUSED} of {num} classes with the most wrong predictions"
        if num > MAX_CONFUSED
        else f"{num} classes"
    )
    sentence = (
        f"Confusion matrix of {which}: a row is a true class, a column a predicted one, and a cell "
        "is coloured more strongly the larger its share of the row."
    )
    wrong = np.flatnonzero(confusion.labels != confusion.predicted)
    if not len(wrong):
        return f"{sentence} No prediction is wrong."
    most = wrong[confusion.counts[wrong].argmax()]
    label, predicted = int(confusion.labels[most]), int(confusion.predicted[most])
    return (
        f"{sentence} Most frequent mistake: {run.class_name(label)} taken for "
        f"{run.class_name(predicted)}, {confusion.counts[most]} times."
    )


def _class_row(run: TrainedRun, result: ClassResult) -> Row:
    precision = result.average_precision
    return {
        "run": run.short_key,
        "label": result.label,
        "class": run.class_name(result.label),
        "seen": result.seen,
        "predicted": result.predicted,
        "correct": result.correct,
        **interval_cells("recall", result.recall),
        **interval_cells("precision", result.precision),
        **interval_cells("F1", result.f1),
        "average precision": None if precision is None else round(100 * precision, 2),
    }


def _confusion_rows(run: TrainedRun, confusion: Confusion | None) -> Iterator[Row]:
    if confusion is None:
        return
    columns = (confusion.labels.tolist(), confusion.predicted.tolist(), confusion.counts.tolist())
    for label, predicted, count in zip(*columns, strict=True):
        yield {
            "run": run.short_key,
            "label": label,
            "class": run.class_name(label),
            "predicted label": predicted,
            "predicted class": run.class_name(predicted),
            "samples": count,
        }


def _as_text(name: str, result: Interval | None) -> dict[str, str]:
    if result is None:
        return {name: UNKNOWN, f"{name} 95 %": UNKNOWN}
    return {
        name: f"{100 * result.value:.2f} %",
        f"{name} 95 %": f"{100 * result.low:.2f} … {100 * result.high:.2f}",
    }
