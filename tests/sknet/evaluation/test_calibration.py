"""Temperature scaling is fitted on one half of a split and measured on the other one."""

from collections.abc import Iterator

import numpy as np
import pytest

from sknet.errors import UserError
from sknet.evaluation.calibration import calibrate, expected_error, fitted_half, scaled_top
from sknet.evaluation.predictions import (
    Floats,
    Ints,
    calibration_bins,
    interleaved,
    probabilities,
)
from sknet.records.calibration import Calibration, ThresholdCounts

CLASSES = 4


def samples(num: int, sharpness: float) -> tuple[Floats, Ints]:
    """Return logits, and labels drawn from their probabilities at another sharpness."""
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 2, (num, CLASSES)).astype(np.float32)
    cumulated = probabilities(logits).cumsum(axis=1)
    labels = (rng.random((num, 1)) > cumulated).sum(axis=1).clip(max=CLASSES - 1)
    return logits * np.float32(sharpness), labels.astype(np.int32)


def calibrated(logits: Floats, labels: Ints) -> Calibration:
    numbers = np.arange(len(labels))
    options = {"split": "val", "resolution": 32}
    found = calibrate(
        probabilities(logits), labels, numbers, len(labels), lambda rows: rows, **options
    )
    assert found is not None
    return found


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_what_made_the_logits_too_sharp(sharpness: float) -> None:
    found = calibrated(*samples(20_000, sharpness))
    assert found.is_fitted
    assert found.temperature == pytest.approx(sharpness, rel=0.05)
    assert found.error_after < 0.02
    assert sharpness == 1 or found.error_before > 0.1


def test_the_temperature_minimises_the_loss_on_the_half_for_fitting() -> None:
    logits, labels = samples(400, 2.0)
    half = fitted_half(400)

    def loss(temperature: float) -> float:
        chosen = probabilities(logits[half] / np.float32(temperature))
        return -float(np.log(chosen[np.arange(200), labels[half]]).mean())

    best = calibrated(logits, labels).temperature
    assert loss(best) <= min(loss(best * 0.98), loss(best * 1.02))


def test_the_errors_are_those_of_the_held_out_half() -> None:
    logits, labels = samples(400, 3.0)
    found = calibrated(logits, labels)
    held_out = ~fitted_half(400)
    assert (found.num_fitted, found.num_held_out) == (200, 200)
    correct = logits.argmax(axis=1) == labels
    for temperature, error in ((1.0, found.error_before), (found.temperature, found.error_after)):
        top = scaled_top(probabilities(logits), 1 / temperature)[held_out]
        assert error == expected_error(calibration_bins(top, correct[held_out]))
    assert found.error_after == expected_error(found.bins_after) < found.error_before
    assert found.error_before == expected_error(found.bins_before)
    for bins in (found.bins_before, found.bins_after):
        assert (len(bins), sum(part.seen for part in bins)) == (15, 200)
    # Labels of the held-out half have no effect on the temperature.
    other = np.where(held_out, (labels + 1) % CLASSES, labels).astype(np.int32)
    assert calibrated(logits, other).temperature == found.temperature


def test_expected_error_is_the_mean_distance_in_the_parts() -> None:
    probability = np.array([0.9, 0.9, 0.5, 0.5], np.float32)
    correct = np.array([True, False, True, True])
    found = expected_error(calibration_bins(probability, correct))
    assert found == pytest.approx((0.8 + 1.0) / 4)


@pytest.mark.parametrize("size", [2, 3, 7])
def test_any_number_of_ranks_gives_the_same_calibration(size: int) -> None:
    logits, labels = samples(5, 2.0)
    labels[:] = [0, 1, 2, 3, 0]
    all_rows = probabilities(logits)
    # What a rank sends is recorded in a first pass with all ranks' rows at once.
    sent: list[Floats] = []
    options = {"split": "val", "resolution": 32}

    def record(rows: Floats) -> Floats:
        sent.append(rows)
        return rows

    alone = calibrate(all_rows, labels, np.arange(5), 5, record, **options)
    for rank in range(size):
        numbers = np.arange(rank, 5, size)
        steps = iter(sent)

        def gather(rows: Floats, rank: int = rank, steps: Iterator[Floats] = steps) -> Floats:
            expected = next(steps)
            most = -(-5 // size)
            parts = np.zeros((size, most, expected.shape[1]), np.float32)
            for other in range(size):
                own = rows if other == rank else expected[other::size]
                parts[other, : len(own)] = own
            return interleaved(parts, 5)

        found = calibrate(all_rows[numbers], labels[numbers], numbers, 5, gather, **options)
        assert found == alone


def test_no_temperature_is_fitted_where_every_sample_is_predicted_right() -> None:
    close, _ = samples(50, 1.0)
    clear = np.eye(CLASSES, dtype=np.float32)[np.arange(50) % CLASSES] * np.float32(3)
    for logits in (close, clear):
        found = calibrated(logits, logits.argmax(axis=1).astype(np.int32))
        assert (found.is_fitted, found.temperature) == (False, 1.0)
        assert found.error_before == found.error_after


def test_a_single_sample_gives_no_calibration() -> None:
    rows, labels = np.ones((1, 1), np.float32), np.zeros(1, np.int32)
    options = {"split": "val", "resolution": 32}
    assert calibrate(rows, labels, np.arange(1), 1, lambda each: each, **options) is None


def curve(*points: tuple[float, tuple[int, int], tuple[int, int]]) -> Calibration:
    return Calibration(
        split="val",
        resolution=32,
        temperature=1.0,
        is_fitted=True,
        num_fitted=100,
        num_held_out=100,
        error_before=0.1,
        error_after=0.05,
        curve=tuple(
            ThresholdCounts(probability=probability, fitted=fitted, held_out=held_out)
            for probability, fitted, held_out in points
        ),
    )


def test_the_threshold_is_the_lowest_at_which_both_halves_keep_the_error_rate() -> None:
    calibration = curve(
        (0.2, (100, 20), (100, 20)),
        (0.5, (80, 8), (80, 4)),
        (0.6, (70, 3), (70, 7)),
        (0.7, (60, 3), (60, 2)),
        (0.9, (20, 0), (20, 0)),
    )
    found = calibration.threshold(0.05)
    assert (found.probability, found.accepted, found.seen) == (0.7, 60, 100)
    assert found.error.value == 2 / 60
    assert 0 < found.error.low < 2 / 60 < found.error.high < 0.12
    assert calibration.threshold(0.2).accepted == 100
    assert calibration.threshold(0.0).probability == 0.9


def test_an_error_rate_that_is_just_kept_is_kept() -> None:
    """As 29 wrong ones of 100 keep 0.29, although 0.29 * 100 is less than 29 in floats."""
    for wrong in range(100):
        for fitted in ((100, wrong), (1, 0), (0, 0)):
            calibration = curve((0.2, fitted, (100, wrong)))
            assert calibration.threshold(float(f"0.{wrong:02}")).accepted == 100


def test_an_error_rate_that_no_threshold_keeps_is_refused() -> None:
    calibration = curve(
        (0.2, (100, 20), (100, 20)), (0.9, (10, 1), (11, 2)), (0.95, (1, 0), (0, 0))
    )
    said = (
        r"^no threshold keeps an error rate of 0\.01 on both halves of the 200 validation images "
        r".*: the lowest that can be kept is 0\.1819$"
    )
    with pytest.raises(UserError, match=said):
        calibration.threshold(0.01)
    assert calibration.threshold(0.1819).error.value == 2 / 11


def test_a_threshold_of_real_counts_keeps_the_error_on_the_held_out_half() -> None:
    logits, labels = samples(4_000, 2.0)
    found = calibrated(logits, labels)
    threshold = found.threshold(0.05)
    half = fitted_half(4_000)
    top = scaled_top(probabilities(logits), 1 / found.temperature)
    accepted = ~half & (top >= np.float32(threshold.probability))
    wrong = accepted & (logits.argmax(axis=1) != labels)
    assert int(accepted.sum()) == threshold.accepted > 200
    assert wrong.sum() / accepted.sum() == threshold.error.value <= 0.05


def test_it_says_what_the_temperature_changes() -> None:
    fitted = curve((0.2, (100, 20), (100, 20))).model_copy(update={"temperature": 1.25})
    assert fitted.describe() == (
        "with temperature 1.250, the calibration error on 100 held-out images is 0.0500 instead of "
        "0.1000"
    )
    unfitted = fitted.model_copy(update={"is_fitted": False, "temperature": 1.0})
    assert unfitted.describe() == "no temperature could be fitted"
