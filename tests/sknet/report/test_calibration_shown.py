"""A report shows what a temperature changes: numbers, and a diagram of the held-out half."""

import pytest

from sknet.records import CalibrationBin, Evaluation
from sknet.records.calibration import Calibration
from sknet.report import TrainedRun, evaluations_table
from sknet.report.run_figures import reliability_diagram
from sknet.report.text import evaluations_as_text
from tests.sknet.report.trained_runs import make_run

NUMBERS = ["temperature", "held-out error", "with temperature"]


def bins(**filled: tuple[int, int, float]) -> tuple[CalibrationBin, ...]:
    """Return 15 parts, of which those with these numbers have seen, correct and confidence."""
    counts = {int(name[1:]): values for name, values in filled.items()}
    return tuple(
        CalibrationBin(seen=seen, correct=correct, confidence_sum=confidence)
        for seen, correct, confidence in (counts.get(part, (0, 0, 0.0)) for part in range(15))
    )


BEFORE = bins(_14=(180, 150, 176.0))
AFTER = bins(_8=(100, 60, 58.0), _13=(80, 75, 72.0))


def run_with(calibration: Calibration | None) -> TrainedRun:
    return make_run(calibration=calibration)


def calibration(**changes: object) -> Calibration:
    values = {
        "split": "test",
        "resolution": 32,
        "temperature": 1.625,
        "is_fitted": True,
        "num_fitted": 180,
        "num_held_out": 180,
        "error_before": 0.144,
        "error_after": 0.028,
        "bins_before": BEFORE,
        "bins_after": AFTER,
        "curve": (),
    }
    return Calibration.model_validate(values | changes)


def test_the_evaluations_have_the_temperature_and_both_errors_as_numbers() -> None:
    (row,) = evaluations_table([run_with(calibration())])[NUMBERS].to_numpy().tolist()
    assert row == [1.625, 0.144, 0.028]
    (texts,) = evaluations_as_text([run_with(calibration())])[NUMBERS].to_numpy().tolist()
    assert texts == ["1.625", "0.1440", "0.0280"]


@pytest.mark.parametrize("changes", [{"split": "val"}, {"resolution": 48}])
def test_they_stand_beside_the_evaluation_that_they_were_measured_on(
    changes: dict[str, object],
) -> None:
    table = evaluations_table([run_with(calibration(**changes))])
    assert table[NUMBERS].isna().all(axis=None)
    assert not set(NUMBERS) & set(evaluations_as_text([run_with(None)]).columns)


def test_where_no_temperature_could_be_fitted_only_the_error_is_shown() -> None:
    found = calibration(is_fitted=False, temperature=1.0)
    (row,) = evaluations_as_text([run_with(found)])[["held-out error"]].to_numpy().tolist()
    assert row == ["0.1440"]
    assert "temperature" not in evaluations_as_text([run_with(found)]).columns


def counts() -> Evaluation:
    evaluation = make_run().evaluation
    assert evaluation is not None
    return evaluation.model_copy(update={"calibration": bins(_14=(360, 351, 340.0))})


def test_the_diagram_draws_the_held_out_half_without_and_with_the_temperature() -> None:
    drawing = reliability_diagram(run_with(calibration()), counts())
    for name in ("as predicted", "temperature 1.62"):
        assert f">{name}</text>" in drawing.svg
    for changes in ({"bins_before": AFTER}, {"bins_after": BEFORE}):
        other = reliability_diagram(run_with(calibration(**changes)), counts())
        assert other.svg != drawing.svg
    assert drawing.words.endswith(
        "A temperature of 1.62, fitted on 180 of the images, changes the error on the other 180 "
        "from 14.40 % to 2.80 %."
    )


@pytest.mark.parametrize(
    ("found", "end"),
    [
        (None, "overall the network is underconfident."),
        (calibration(is_fitted=False), "No temperature could be fitted."),
        (calibration(bins_before=(), bins_after=()), "from 14.40 % to 2.80 %."),
    ],
)
def test_without_a_temperature_or_its_parts_it_draws_all_images(
    found: Calibration | None, end: str
) -> None:
    drawing = reliability_diagram(run_with(found), counts())
    assert "as predicted" not in drawing.svg
    assert drawing.words.endswith(end)
