"""Revalidation compares evaluations with the recorded ones: to the last digit, or by tolerance."""

import pytest

from sknet.judgement import EvaluationPair, Verdict, differing_fields, judge_revalidation
from sknet.records import CalibrationBin, DifferingSample, Evaluation
from tests.sknet.predictions import stored_predictions

COUNTS = Evaluation(
    split="val",
    resolution=32,
    seen=4,
    correct_top1=3,
    correct_top5=4,
    loss_sum=1.5,
    class_seen=(2, 2),
    class_correct=(2, 1),
    calibration=(CalibrationBin(seen=4, correct=3, confidence_sum=3.1),),
)
LABELS = (0, 0, 1, 1)
RECORDED = (0, 0, 1, 0)


def pair(
    found: Evaluation = COUNTS, *classes: int, recorded: Evaluation = COUNTS
) -> EvaluationPair:
    return EvaluationPair(
        recorded,
        found,
        stored_predictions(RECORDED, LABELS),
        stored_predictions(classes or RECORDED, LABELS),
    )


def judged(*pairs: EvaluationPair, same: bool = True, tolerance: float = 0.25) -> Verdict:
    return judge_revalidation(pairs, same_software=same, tolerance=tolerance)


def test_equal_evaluations_are_as_recorded() -> None:
    assert judged(pair()) == Verdict("as recorded", "every count is as recorded", ())


@pytest.mark.parametrize(
    ("change", "summary"),
    [
        ({"correct_top1": 2}, "correct_top1 was 3, is 2"),
        ({"loss_sum": 1.5000000000000002}, "loss_sum was 1.5, is 1.5000000000000002"),
        ({"class_correct": (1, 2)}, "class_correct differs in 2 of 2"),
        ({"calibration": ()}, "calibration had 1 entries, has 0"),
        ({"seen": 5}, "seen was 4, is 5"),
    ],
)
def test_on_the_same_software_every_difference_is_a_regression_with_both_values(
    change: dict[str, object], summary: str
) -> None:
    other = COUNTS.model_copy(update=change)
    assert differing_fields(COUNTS, COUNTS) == []
    assert judged(pair(other), tolerance=1.0) == Verdict("regressed", summary, ())


def test_what_an_older_version_did_not_count_is_no_difference() -> None:
    newer = COUNTS.model_copy(update={"class_predicted": (3, 1)})
    assert judged(pair(newer)).outcome == "as recorded"
    lost = judged(pair(COUNTS, recorded=newer))
    assert (lost.outcome, lost.summary) == ("regressed", "class_predicted was [3, 1], is null")


def test_equal_counts_with_other_predictions_are_a_regression_too() -> None:
    verdict = judged(pair(COUNTS, 1, 0, 1, 1), tolerance=1.0)
    assert verdict.outcome == "regressed"
    assert verdict.summary == "2 of 4 samples are predicted differently"
    assert verdict.differing == (
        DifferingSample(key="a", label=0, recorded=0, found=1),
        DifferingSample(key="d", label=1, recorded=0, found=1),
    )


@pytest.mark.parametrize(
    ("tolerance", "outcome"), [(0.25, "within tolerance"), (0.24, "regressed"), (0, "regressed")]
)
def test_other_software_may_predict_a_fraction_of_the_samples_differently(
    tolerance: float, outcome: str
) -> None:
    rounded = COUNTS.model_copy(update={"loss_sum": 1.4, "correct_top1": 4})
    verdict = judged(pair(rounded, 0, 0, 1, 1), same=False, tolerance=tolerance)
    assert verdict.outcome == outcome
    assert verdict.summary.startswith("1 of 4 samples are predicted differently (on other software")
    assert [sample.key for sample in verdict.differing] == ["d"]


def test_other_software_that_predicts_the_same_is_within_a_tolerance_of_zero() -> None:
    rounded = COUNTS.model_copy(update={"loss_sum": 1.4})
    verdict = judged(pair(rounded), same=False, tolerance=0)
    assert (verdict.outcome, verdict.differing) == ("within tolerance", ())


def test_every_resolution_counts_and_is_named() -> None:
    large = COUNTS.model_copy(update={"resolution": 48})
    other = large.model_copy(update={"correct_top5": 3})
    verdict = judged(pair(), pair(other, recorded=large))
    assert (verdict.outcome, verdict.summary) == ("regressed", "correct_top5 was 4, is 3 at 48")
    verdict = judged(pair(), pair(large, 1, 1, 1, 0, recorded=large), same=False)
    assert verdict.outcome == "regressed"
    assert verdict.summary.startswith("2 of 4 samples are predicted differently at 48")
    assert verdict.differing == ()


def test_predictions_of_other_samples_are_a_regression_on_any_software() -> None:
    fewer = EvaluationPair(
        COUNTS,
        COUNTS,
        stored_predictions(RECORDED, LABELS),
        stored_predictions(RECORDED[:3], LABELS[:3]),
    )
    for same in (True, False):
        verdict = judged(fewer, same=same, tolerance=1.0)
        assert verdict.outcome == "regressed"
        assert "of different samples: 1 are in one of them only, as 'd'" in verdict.summary
