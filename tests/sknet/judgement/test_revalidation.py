"""A night compares an evaluation with the record: to the last digit, or within a tolerance."""

import numpy as np
import pandas as pd
import pytest

from sknet.judgement import AtResolution, Finding, differing_fields, judge_night
from sknet.records import CalibrationBin, DifferingSample, Evaluation

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
RECORDED = (0, 0, 1, 0)


def predicted(*classes: int) -> pd.DataFrame:
    frame = {"label": np.array([0, 0, 1, 1], np.int32), "predicted": np.array(classes, np.int32)}
    return pd.DataFrame(frame, index=pd.Index(list("abcd"), name="key"))


def pair(found: Evaluation = COUNTS, *classes: int, recorded: Evaluation = COUNTS) -> AtResolution:
    return AtResolution(recorded, found, predicted(*RECORDED), predicted(*(classes or RECORDED)))


def judged(*pairs: AtResolution, same: bool = True, tolerance: float = 0.25) -> Finding:
    return judge_night(pairs, same_software=same, tolerance=tolerance)


def test_what_is_equal_to_the_last_digit_is_as_recorded() -> None:
    assert judged(pair()) == Finding("as recorded", "every count is as recorded", ())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"correct_top1": 2}, "correct_top1 was 3, is 2"),
        ({"loss_sum": 1.5000000000000002}, "loss_sum was 1.5, is 1.5000000000000002"),
        ({"class_correct": (1, 2)}, "class_correct differs in 2 of 2"),
        ({"calibration": ()}, "calibration had 1 entries, has 0"),
        ({"seen": 5}, "seen was 4, is 5"),
    ],
)
def test_on_the_same_software_every_difference_is_a_regression_with_both_values(
    change: dict[str, object], said: str
) -> None:
    other = COUNTS.model_copy(update=change)
    assert differing_fields(COUNTS, COUNTS) == []
    assert judged(pair(other), tolerance=1.0) == Finding("regressed", said, ())


def test_equal_counts_of_other_samples_are_a_regression_too() -> None:
    finding = judged(pair(COUNTS, 1, 0, 1, 1), tolerance=1.0)
    assert finding.outcome == "regressed"
    assert finding.said == "2 of 4 samples are predicted otherwise"
    assert finding.differing == (
        DifferingSample(key="a", label=0, recorded=0, found=1),
        DifferingSample(key="d", label=1, recorded=0, found=1),
    )


@pytest.mark.parametrize(
    ("tolerance", "outcome"), [(0.25, "within tolerance"), (0.24, "regressed"), (0, "regressed")]
)
def test_other_software_may_predict_a_share_of_the_samples_otherwise(
    tolerance: float, outcome: str
) -> None:
    rounded = COUNTS.model_copy(update={"loss_sum": 1.4, "correct_top1": 4})
    finding = judged(pair(rounded, 0, 0, 1, 1), same=False, tolerance=tolerance)
    assert finding.outcome == outcome
    assert finding.said.startswith("1 of 4 samples are predicted otherwise (on other software")
    assert [sample.key for sample in finding.differing] == ["d"]


def test_other_software_that_predicts_the_same_is_within_no_tolerance_at_all() -> None:
    rounded = COUNTS.model_copy(update={"loss_sum": 1.4})
    finding = judged(pair(rounded), same=False, tolerance=0)
    assert (finding.outcome, finding.differing) == ("within tolerance", ())


def test_every_resolution_counts_and_says_which_it_is() -> None:
    large = COUNTS.model_copy(update={"resolution": 48})
    other = large.model_copy(update={"correct_top5": 3})
    finding = judged(pair(), pair(other, recorded=large))
    assert (finding.outcome, finding.said) == ("regressed", "correct_top5 was 4, is 3 at 48")
    finding = judged(pair(), pair(large, 1, 1, 1, 0, recorded=large), same=False)
    assert finding.outcome == "regressed"
    assert finding.said.startswith("2 of 4 samples are predicted otherwise at 48")
    assert finding.differing == ()


def test_other_samples_are_a_regression_on_any_software() -> None:
    fewer = AtResolution(COUNTS, COUNTS, predicted(*RECORDED), predicted(*RECORDED)[:3])
    for same in (True, False):
        finding = judged(fewer, same=same, tolerance=1.0)
        assert finding.outcome == "regressed"
        assert "of different samples: 1 are in one of them only, as 'd'" in finding.said
