"""Counts are computed from predictions exactly, whatever the batches and ranks."""

import math
from collections import Counter
from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sknet.evaluation.predictions import Predictions, detailed, evaluation_of, interleaved
from sknet.records import Evaluation
from sknet.significance import wilson_interval

Logits = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]

CLASSES = 7
# Few different values, so that most samples have ties.
logits_and_labels = st.integers(1, 20).flatmap(
    lambda n: st.tuples(
        arrays(np.float32, (n, CLASSES), elements=st.integers(-2, 2)),
        arrays(np.int32, (n,), elements=st.integers(0, CLASSES - 1)),
    )
)


def counts_by_sorting(logits: Logits, labels: Labels) -> list[float]:
    # A stable sort in descending order puts the lower class first among equal logits.
    orders = np.argsort(-logits, axis=1, kind="stable")
    seen, correct, top5 = [0] * CLASSES, [0] * CLASSES, 0
    for order, label in zip(orders, labels, strict=True):
        seen[label] += 1
        correct[label] += int(order[0] == label)
        top5 += int(label in order[:5])
    return [sum(correct), top5, *seen, *correct]


def counted(
    predictions: Predictions, num_classes: int = CLASSES, leaked: Collection[int] = ()
) -> Evaluation:
    keys = [str(index) for index in range(len(predictions))]
    return detailed(
        predictions,
        keys,
        {keys[index] for index in leaked},
        split="val",
        resolution=32,
        num_classes=num_classes,
    )


@given(logits_and_labels)
def test_counts_are_those_of_sorting_even_with_ties(batch: tuple[Logits, Labels]) -> None:
    result = counted(Predictions.of_logits(*batch))
    counts = [
        *(result.correct_top1, result.correct_top5),
        *result.class_seen,
        *result.class_correct,
    ]
    assert counts == counts_by_sorting(*batch)
    assert result.seen == len(batch[1])


@given(logits_and_labels)
def test_the_loss_is_the_summed_cross_entropy(batch: tuple[Logits, Labels]) -> None:
    logits, labels = batch
    probabilities = np.exp(logits.astype(float))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    expected = -np.log(probabilities[np.arange(len(labels)), labels]).sum()
    predictions = Predictions.of_logits(logits, labels)
    assert counted(predictions).loss_sum == pytest.approx(expected)
    assert predictions.probability == pytest.approx(probabilities.max(axis=1))


def test_large_logits_do_not_overflow() -> None:
    logits = np.array([[3e38, -3e38]], np.float32)
    result = counted(Predictions.of_logits(logits, np.array([0], np.int32)), num_classes=2)
    assert (result.correct_top1, result.correct_top5, result.loss_sum) == (1, 1, 0)
    assert (result.class_seen, result.class_correct) == ((1, 0), (1, 0))


@given(
    st.tuples(*[st.sampled_from([0.0, 1.0, math.inf, -math.inf, math.nan])] * 3),
    st.integers(0, 2),
)
def test_logits_that_are_not_finite_have_no_finite_loss(
    logits: tuple[float, ...], label: int
) -> None:
    rows = np.array([logits], np.float32)
    (loss,) = Predictions.of_logits(rows, np.array([label], np.int32)).loss
    assert math.isfinite(loss) == all(map(math.isfinite, logits))


@given(logits_and_labels, st.data())
def test_any_batches_and_ranks_give_the_same_predictions_and_counts(
    batch: tuple[Logits, Labels], data: st.DataObject
) -> None:
    logits, labels = batch
    num_ranks = data.draw(st.integers(1, len(labels) + 2))
    most = -(-len(labels) // num_ranks)
    gathered = np.full((num_ranks, most, 5 + 3), np.nan, np.float32)
    for rank in range(num_ranks):
        own_logits, own_labels = logits[rank::num_ranks], labels[rank::num_ranks]
        cut = data.draw(st.integers(0, len(own_labels)))
        parts = [
            Predictions.of_logits(own_logits[part], own_labels[part]).rows
            for part in (slice(cut), slice(cut, None))
        ]
        own = np.concatenate(parts)
        gathered[rank, : len(own)] = own
    merged = Predictions.of_rows(interleaved(gathered, len(labels)))
    whole = Predictions.of_logits(logits, labels)
    assert merged.rows.tobytes() == whole.rows.tobytes()
    assert counted(merged) == counted(whole)


@given(logits_and_labels)
def test_confused_pairs_list_every_wrong_prediction_most_frequent_first(
    batch: tuple[Logits, Labels],
) -> None:
    predictions = Predictions.of_logits(*batch)
    wrong = Counter(
        (label, first)
        for label, first in zip(
            predictions.labels.tolist(), predictions.top[:, 0].tolist(), strict=True
        )
        if label != first
    )
    found = [(pair.label, pair.predicted, pair.count) for pair in counted(predictions).confused]
    expected = sorted(wrong.items(), key=lambda item: (-item[1], item[0]))
    assert found == [(*pair, count) for pair, count in expected]


def test_fifty_of_many_confused_pairs_are_listed() -> None:
    labels = np.arange(60, dtype=np.int32)
    logits = np.eye(61, dtype=np.float32)[labels + 1]
    pairs = counted(Predictions.of_logits(logits, labels), num_classes=61).confused
    assert [(pair.label, pair.predicted) for pair in pairs] == [(n, n + 1) for n in range(50)]


@given(logits_and_labels)
def test_calibration_counts_each_sample_in_the_part_of_its_probability(
    batch: tuple[Logits, Labels],
) -> None:
    predictions = Predictions.of_logits(*batch)
    result = counted(predictions)
    assert len(result.calibration) == 15
    for number, part in enumerate(result.calibration):
        inside = [
            (float(p), bool(c))
            for p, c in zip(predictions.probability, predictions.correct, strict=True)
            if number / 15 <= p < (number + 1) / 15 or p == number + 1 == 15
        ]
        assert (part.seen, part.correct) == (len(inside), sum(c for _, c in inside))
        assert part.confidence_sum == math.fsum(p for p, _ in inside)


def test_the_calibration_error_is_the_mean_distance_of_accuracy_and_confidence() -> None:
    # Two samples with probability 3/4, one of them correct; four with 1/2, all of them correct.
    confident, even = [math.log(3), 0.0], [0.0, 0.0]
    logits = np.array([confident] * 2 + [even] * 4, np.float32)
    result = counted(
        Predictions.of_logits(logits, np.array([0, 1, 0, 0, 0, 0], np.int32)), num_classes=2
    )
    expected = (2 * abs(1 / 2 - 3 / 4) + 4 * abs(1 - 1 / 2)) / 6
    assert result.calibration_error == pytest.approx(expected)
    assert result.interval_top1 == wilson_interval(5, 6)


@given(logits_and_labels, st.data())
def test_the_counts_without_leaked_samples_are_those_of_the_other_samples(
    batch: tuple[Logits, Labels], data: st.DataObject
) -> None:
    predictions = Predictions.of_logits(*batch)
    leaked = data.draw(st.sets(st.integers(0, len(predictions) - 1)))
    result = counted(predictions, leaked=leaked)
    others = [index for index in range(len(predictions)) if index not in leaked]
    if not leaked or not others:
        assert result.without_leaked is None
    else:
        assert result.without_leaked == (predictions.correct[others].sum(), len(others))
    assert (result.leaked is None) == (not leaked)


def test_evaluations_while_training_are_written_as_they_always_were() -> None:
    """Their JSON is part of each checkpoint, whose bytes must not change."""
    logits = np.eye(3, dtype=np.float32)
    plain = evaluation_of(
        Predictions.of_logits(logits, np.arange(3, dtype=np.int32)),
        split="val",
        resolution=32,
        num_classes=3,
    )
    assert plain.model_dump(mode="json").keys() == {
        *("format_version", "split", "resolution", "seen", "correct_top1", "correct_top5"),
        *("loss_sum", "class_seen", "class_correct", "confused", "calibration"),
    }
