"""A checkpoint is promoted if every criterion passes; each criterion that fails says why."""

from pathlib import Path

import pytest

from sknet.evaluation.predictions import StoredPredictions
from sknet.judgement import (
    SIGNIFICANCE,
    Candidate,
    Judgement,
    Production,
    judge_promotion,
    promotion_of,
    was_rolled_back,
)
from sknet.records import Check, CheckpointChecks, Evaluation, Promotion
from tests.sknet.predictions import stored_predictions

BY_HAND = "python -m infra.artifacts refs set production checkpoint/KEY --reason …"
CLASSES = ("cat", "dog")
PASSED = CheckpointChecks(checks=(Check(name="files", passed=True, detail="as recorded"),))


def predictions(*predicted: int) -> StoredPredictions:
    """Return the predictions of samples that are all of class 0."""
    return stored_predictions(predicted, [0] * len(predicted))


def evaluation(correct: int, seen: int) -> Evaluation:
    return Evaluation(
        split="val",
        resolution=32,
        seen=seen,
        correct_top1=correct,
        correct_top5=seen,
        loss_sum=1.0,
        class_seen=(seen, 0),
        class_correct=(correct, 0),
    )


def candidate(wrong: int = 0, seen: int = 20, **change: object) -> Candidate:
    """Return a candidate that gets the first samples wrong."""
    values: dict[str, object] = {
        "checkpoint": "c" * 64,
        "classes": CLASSES,
        "checks": PASSED,
        "evaluation": evaluation(seen - wrong, seen),
        "predictions": predictions(*[1] * wrong, *[0] * (seen - wrong)),
        "rolled_back": False,
    }
    return Candidate(**{**values, **change})  # type: ignore[arg-type]


def production(wrong: int = 0, seen: int = 20, **change: object) -> Production:
    """Return a production that gets the last samples wrong."""
    values: dict[str, object] = {
        "checkpoint": "a" * 64,
        "classes": CLASSES,
        "predictions": predictions(*[0] * (seen - wrong), *[1] * wrong),
        "not_compared": "",
        "suspect": None,
    }
    return Production(**{**values, **change})  # type: ignore[arg-type]


def judged(of: Candidate, against: Production | None, floor: float = 0.5) -> Judgement:
    return judge_promotion(of, against, floor=floor, by_hand=BY_HAND)


def failed(judgement: Judgement) -> list[str]:
    return [criterion.name for criterion in judgement.criteria if not criterion.passed]


def test_the_first_checkpoint_only_needs_passed_checks_and_the_floor() -> None:
    judgement = judged(candidate(wrong=10), None)
    assert judgement.granted
    assert [criterion.name for criterion in judgement.criteria] == [
        "the checkpoint is sound",
        "accuracy@1",
    ]
    assert judgement.comparison is None


def test_as_good_as_production_is_good_enough() -> None:
    judgement = judged(candidate(wrong=2), production(wrong=2))
    assert judgement.granted
    assert judgement.comparison is not None
    assert judgement.comparison.p_value == pytest.approx(11 / 16)


def test_a_checkpoint_that_failed_a_check_is_refused_by_its_name() -> None:
    check = Check(name="finite", passed=False, detail="fc.weight has values that are not")
    failing = candidate(
        checks=CheckpointChecks(checks=(*PASSED.checks, check)), evaluation=None, predictions=None
    )
    judgement = judged(failing, production(not_compared="the candidate was not evaluated"))
    assert failed(judgement) == [
        "the checkpoint is sound",
        "accuracy@1",
        "not worse than production",
    ]
    assert judgement.criteria[0].found == "finite: fc.weight has values that are not"
    record = promotion_of(failing, None, judgement, floor=0.5)
    assert (record.granted, record.seen) == (False, 0)


def test_a_checkpoint_without_checks_is_refused() -> None:
    assert failed(judged(candidate(checks=CheckpointChecks(checks=())), None)) == [
        "the checkpoint is sound"
    ]


@pytest.mark.parametrize(("wrong", "passes"), [(10, True), (11, False)])
def test_the_floor_itself_passes(wrong: int, passes: bool) -> None:
    judgement = judged(candidate(wrong=wrong), None, floor=0.5)
    assert failed(judgement) == ([] if passes else ["accuracy@1"])
    assert judgement.criteria[1].expected == "at least 50.00%"


@pytest.mark.parametrize(
    ("classes", "found"),
    [
        (("cat", "cow"), "2 where production has 2: 'cow' is of one only"),
        (("dog", "cat"), "2 where production has 2: in another order"),
        (None, "production's checkpoint can't be read"),
    ],
)
def test_other_classes_are_refused_with_the_command_that_promotes_by_hand(
    classes: tuple[str, ...] | None, found: str
) -> None:
    other = production(classes=classes, predictions=None, not_compared="production has others")
    judgement = judged(candidate(), other)
    assert failed(judgement) == ["classes", "not worse than production"]
    assert judgement.criteria[2].found == found
    assert BY_HAND in judgement.criteria[2].expected


# 4 losses of 4 have p 1/16, 5 of 5 have 1/32.
@pytest.mark.parametrize(("wrong", "passes"), [(4, True), (5, False)])
def test_significantly_worse_than_production_is_refused(wrong: int, passes: bool) -> None:
    of, against = candidate(wrong=wrong), production()
    judgement = judged(of, against)
    assert failed(judgement) == ([] if passes else ["not worse than production"])
    record = promotion_of(of, against, judgement, floor=0.5)
    assert record.granted == passes
    assert record.significance == SIGNIFICANCE == 0.05
    assert record.comparison is not None
    assert record.comparison.p_value == pytest.approx(0.5**wrong)
    assert f"p {0.5**wrong:.4g}: {wrong} samples right by production only" in (
        record.criteria[3].detail
    )


def test_a_suspect_production_is_compared_and_named_as_suspect() -> None:
    judgement = judged(candidate(), production(suspect="regressed: 2 samples differ"))
    assert judgement.granted
    assert "production is suspect (regressed: 2 samples differ)" in judgement.criteria[3].found


def test_a_rolled_back_checkpoint_is_not_promoted_again() -> None:
    judgement = judged(candidate(rolled_back=True), production())
    assert failed(judgement) == ["not taken back"]
    assert BY_HAND in judgement.criteria[4].expected


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ("", False),
        ("A", False),
        ("B", False),
        ("AB", False),
        ("ABA", True),
        ("ABBA", True),  # marked as suspect in between
        ("ABAA", True),
        ("ABAC", True),
        ("ABC", False),  # replaced, not rolled back
        ("ABAB", False),  # promoted again by hand
        ("ABABC", False),
    ],
)
def test_a_rollback_differs_from_a_replacement(targets: str, expected: bool) -> None:
    assert was_rolled_back(list(targets), "B") == expected


def test_the_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    of, against = candidate(wrong=1), production(wrong=1)
    record = promotion_of(of, against, judged(of, against), floor=0.5)
    record.write(tmp_path / "promotion.json")
    assert Promotion.read(tmp_path / "promotion.json") == record
    assert (record.candidate, record.production) == ("c" * 64, "a" * 64)
