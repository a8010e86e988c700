"""What is counted of classes equals scikit-learn's numbers; intervals cover; tables hold it all."""

import csv
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from sklearn import metrics

from sknet.evaluation.classes import (
    MAX_MATRIX_CLASSES,
    Confusion,
    average_precision,
    macro_f1_interval,
    write_class_tables,
)
from sknet.evaluation.predictions import Predictions, detailed
from sknet.records import Evaluation
from tests.sknet.evaluation.test_counts import CLASSES, Labels, Logits, counted, logits_and_labels


def probabilities(logits: Logits) -> npt.NDArray[np.float64]:
    powers = np.exp(logits.astype(float))
    return powers / powers.sum(axis=1, keepdims=True)


@given(logits_and_labels)
def test_counts_by_class_are_those_of_scikit_learn(batch: tuple[Logits, Labels]) -> None:
    predictions = Predictions.of_logits(*batch)
    labels, predicted = predictions.labels, predictions.predicted
    result = counted(predictions)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, predicted, labels=range(CLASSES), zero_division=np.nan
    )
    for each in result.classes:
        assert each.seen == support[each.label]
        for interval, expected in (
            (each.precision, precision[each.label]),
            (each.recall, recall[each.label]),
            (each.f1, f1[each.label]),
        ):
            if interval is None:
                assert np.isnan(expected)
            else:
                assert interval.value == pytest.approx(expected)
                assert 0 <= interval.low <= interval.value <= interval.high <= 1
    with warnings.catch_warnings():  # of classes that are predicted and don't occur
        warnings.simplefilter("ignore", UserWarning)
        expected = metrics.balanced_accuracy_score(labels, predicted)
    assert result.balanced_accuracy is not None
    assert result.balanced_accuracy.value == pytest.approx(expected)
    assert result.macro_f1 is not None
    assert result.macro_f1.low <= result.macro_f1.value <= result.macro_f1.high
    assert result.macro_f1.value == pytest.approx(
        metrics.f1_score(labels, predicted, average="macro", zero_division=0)
    )
    confusion = Confusion.of(labels, predicted)
    assert confusion.matrix(range(CLASSES)).tolist() == (
        metrics.confusion_matrix(labels, predicted, labels=range(CLASSES)).tolist()
    )


@given(logits_and_labels)
def test_average_precision_is_that_of_scikit_learn_even_with_ties(
    batch: tuple[Logits, Labels],
) -> None:
    logits, labels = batch
    scores = probabilities(logits).astype(np.float32)
    for label in range(CLASSES):
        found = average_precision(scores[:, label], labels == label)
        if not (labels == label).any():
            assert found is None
        else:
            expected = metrics.average_precision_score(labels == label, scores[:, label])
            assert found == pytest.approx(expected)


def test_mean_average_precision_is_that_of_the_classes_that_have_samples() -> None:
    result = evaluation(
        class_seen=(4, 0, 4),
        class_correct=(4, 0, 2),
        class_average_precision=(1.0, None, 0.5),
    )
    found = result.mean_average_precision
    assert found is not None
    assert found.value == pytest.approx(0.75)
    assert 0.44 < found.low < 0.75 < found.high < 1


def evaluation(**changes: object) -> Evaluation:
    return Evaluation.model_validate(
        {
            "split": "val",
            "resolution": 32,
            "seen": 8,
            "correct_top1": 6,
            "correct_top5": 8,
            "loss_sum": 1.0,
            "class_seen": (4, 4),
            "class_correct": (4, 2),
            **changes,
        }
    )


def test_old_evaluations_have_balanced_accuracy_and_no_more() -> None:
    old = evaluation()
    assert old.balanced_accuracy is not None
    assert old.balanced_accuracy.value == 0.75
    assert (old.macro_f1, old.mean_average_precision, old.without_leaked) == (None, None, None)
    assert [each.precision for each in old.classes] == [None, None]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_predicted": (4, 1)}, "class_predicted and class_correct"),
        ({"class_predicted": (8,)}, "class_predicted and class_correct"),
        ({"class_average_precision": (1.0,)}, "class_average_precision and class_seen"),
        ({"class_average_precision": (1.0, 1.5)}, "less than or equal to 1"),
        ({"leaked": {"seen": 9, "correct_top1": 6}}, "leaked is no part"),
        ({"leaked": {"seen": 7, "correct_top1": 7}}, "leaked is no part"),
        ({"leaked": {"seen": 3, "correct_top1": 0}}, "leaked is no part"),
    ],
)
def test_counts_that_contradict_each_other_are_refused(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        evaluation(**changes)


@pytest.mark.parametrize(("num_classes", "telling"), [(2, False), (5, False), (6, True)])
def test_accuracy_of_five_says_nothing_below_six_classes(num_classes: int, telling: bool) -> None:
    counts = (1,) * num_classes
    assert evaluation(class_seen=counts, class_correct=counts).is_top5_telling == telling


def interval_of(
    labels: npt.NDArray[np.int32], predicted: npt.NDArray[np.int32]
) -> tuple[float, float]:
    top = np.stack([predicted], axis=1)
    zeros = np.zeros(len(labels), np.float32)
    predictions = Predictions(labels=labels, top=top, probability=zeros, loss=zeros)
    interval = counted(predictions, num_classes=3).macro_f1_interval
    assert interval is not None
    return interval


def test_the_interval_of_macro_f1_covers_the_true_value() -> None:
    """19 of 20 intervals should; a bootstrap alone covers in 1 of 4 cases of few errors."""
    generator = np.random.default_rng(0)
    prior, right = np.array([0.6, 0.3, 0.1]), 0.97
    joint = np.diag(prior * right) + np.roll(np.diag(prior * (1 - right)), 1, axis=1)
    true = (2 * np.diag(joint) / (joint.sum(axis=0) + joint.sum(axis=1))).mean()
    covered = 0
    for _ in range(40):
        cells = generator.choice(9, 60, p=joint.ravel())
        low, high = interval_of((cells // 3).astype(np.int32), (cells % 3).astype(np.int32))
        covered += low <= true <= high
    assert covered >= 37


def test_the_interval_of_macro_f1_has_a_width_even_without_errors() -> None:
    labels = np.arange(30, dtype=np.int32) % 3
    low, high = interval_of(labels, labels)
    assert 0.75 < low < 0.95
    assert high == 1


def test_the_most_confused_classes_are_chosen_for_the_figure() -> None:
    labels = np.array([0, 1, 2, 3, 3, 4], np.int32)
    predicted = np.array([0, 4, 2, 4, 4, 4], np.int32)
    confusion = Confusion.of(labels, predicted)
    assert confusion.most_confused(2) == [3, 4]
    assert confusion.most_confused(9) == [0, 1, 2, 3, 4]
    assert confusion.matrix([3, 4]).tolist() == [[0, 2], [0, 1]]


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_tables_hold_every_class_and_the_matrix_and_no_formulas(tmp_path: Path) -> None:
    names = ["cat", "=1+1", "a,b"]
    labels = np.array([0, 0, 1, 2], np.int32)
    logits = np.eye(3, dtype=np.float32)[[0, 1, 1, 2]]
    predictions = Predictions.of_logits(logits, labels)
    counts = detailed(predictions, "abcd", set(), split="val", resolution=32, num_classes=3)
    write_class_tables(tmp_path, counts, Confusion.of(labels, predictions.predicted), names)

    classes = rows_of(tmp_path / "classes.csv")
    assert [row[:5] for row in classes[1:]] == [
        ["0", "cat", "2", "1", "1"],
        ["1", "'=1+1", "1", "2", "1"],
        ["2", "a,b", "1", "1", "1"],
    ]
    by_name = dict(zip(classes[0], classes[2], strict=True))
    assert (by_name["recall"], by_name["precision"]) == ("1.0", "0.5")
    assert float(by_name["f1"]) == pytest.approx(2 / 3)
    assert rows_of(tmp_path / "confusion.csv") == [
        ["label", "cat", "'=1+1", "a,b"],
        ["cat", "1", "1", "0"],
        ["'=1+1", "0", "1", "0"],
        ["a,b", "0", "0", "1"],
    ]


def test_a_matrix_of_too_many_classes_is_left_out(tmp_path: Path) -> None:
    num = MAX_MATRIX_CLASSES + 1
    zeros = (0,) * (num - 2)
    counts = evaluation(class_seen=(4, 4, *zeros), class_correct=(4, 2, *zeros))
    labels = np.zeros(1, np.int32)
    write_class_tables(tmp_path, counts, Confusion.of(labels, labels), ["x"] * num)
    assert [path.name for path in tmp_path.iterdir()] == ["classes.csv"]
    assert len(rows_of(tmp_path / "classes.csv")) == 1 + num


def test_equal_counts_give_equal_intervals() -> None:
    labels = np.arange(40, dtype=np.int32) % 3
    predicted = np.where(np.arange(40) % 7, labels, 0).astype(np.int32)
    confusion = Confusion.of(labels, predicted)
    zeros = np.zeros(40, np.float32)
    results = counted(
        Predictions(labels=labels, top=predicted[:, None], probability=zeros, loss=zeros), 3
    ).classes
    assert macro_f1_interval(confusion, results) == macro_f1_interval(confusion, results)
