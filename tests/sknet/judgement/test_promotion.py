"""A checkpoint may be promoted if every criterion passes; each that doesn't says why."""

from math import comb
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sknet.errors import UserError
from sknet.evaluation.predictions import Predictions, write_predictions
from sknet.judgement import (
    SIGNIFICANCE,
    Candidate,
    Judgement,
    Production,
    judge_promotion,
    mcnemar_p_value,
    paired_counts,
    promotion_of,
    read_predictions,
    taken_back,
)
from sknet.records import Check, CheckpointChecks, Evaluation, Promotion

BY_HAND = "python -m infra.artifacts refs set production checkpoint/KEY --reason …"
CLASSES = ("cat", "dog")
SOUND = CheckpointChecks(checks=(Check(name="files", passed=True, detail="as recorded"),))
COUNTS = st.integers(0, 400)


def predictions(*predicted: int, label: int = 0) -> pd.DataFrame:
    """Of samples a, b, … with one label."""
    keys = [chr(ord("a") + index) for index in range(len(predicted))]
    frame = {"label": np.int32(label), "predicted": np.array(predicted, np.int32)}
    return pd.DataFrame(frame, index=pd.Index(keys, name="key"))


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
    """The first samples are wrong."""
    values: dict[str, object] = {
        "checkpoint": "c" * 64,
        "classes": CLASSES,
        "checks": SOUND,
        "evaluation": evaluation(seen - wrong, seen),
        "predictions": predictions(*[1] * wrong, *[0] * (seen - wrong)),
        "taken_back": False,
    }
    return Candidate(**{**values, **change})  # type: ignore[arg-type]


def production(wrong: int = 0, seen: int = 20, **change: object) -> Production:
    """The last samples are wrong."""
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


# By hand: the upper tail of a fair coin.
@pytest.mark.parametrize(
    ("only_production", "only_candidate", "p"),
    [
        (0, 0, 1.0),
        (0, 3, 1.0),
        (1, 0, 1 / 2),
        (3, 0, 1 / 8),
        (3, 1, 5 / 16),
        (5, 0, 1 / 32),
        (8, 2, 56 / 1024),
        (9, 1, 11 / 1024),
    ],
)
def test_mcnemar_by_hand(only_production: int, only_candidate: int, p: float) -> None:
    assert mcnemar_p_value(only_production, only_candidate) == pytest.approx(p, rel=1e-12)


@settings(deadline=None, max_examples=50)
@given(COUNTS, COUNTS)
def test_mcnemar_is_the_upper_tail_of_a_fair_coin(lost: int, won: int) -> None:
    thrown = lost + won
    exact = sum(comb(thrown, heads) for heads in range(lost, thrown + 1)) / 2**thrown
    assert mcnemar_p_value(lost, won) == pytest.approx(exact, rel=1e-9)


@settings(deadline=None, max_examples=50)
@given(COUNTS, COUNTS)
def test_one_more_loss_never_makes_a_candidate_look_better(lost: int, won: int) -> None:
    assert mcnemar_p_value(lost + 1, won) <= mcnemar_p_value(lost, won) * (1 + 1e-9)
    assert mcnemar_p_value(lost, won + 1) >= mcnemar_p_value(lost, won) * (1 - 1e-9)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=1, max_size=30), st.randoms())
def test_samples_are_paired_by_key_whatever_their_order(samples, random) -> None:
    labels, first, second = (np.array(column, np.int32) for column in zip(*samples, strict=True))
    keys = [f"sample-{index}" for index in range(len(samples))]
    one = pd.DataFrame({"label": labels, "predicted": first}, index=keys)
    other = pd.DataFrame({"label": labels, "predicted": second}, index=keys)
    shuffled = other.loc[random.sample(keys, len(keys))]

    counts = paired_counts(one, shuffled)

    assert counts == paired_counts(one, other)
    assert counts.both_correct + counts.only_candidate == int((first == labels).sum())
    assert counts.both_correct + counts.only_production == int((second == labels).sum())
    told = (counts.both_correct, counts.only_production, counts.only_candidate, counts.neither)
    assert sum(told) == len(samples)
    assert counts.p_value == mcnemar_p_value(counts.only_production, counts.only_candidate)


def test_other_samples_or_labels_are_not_compared() -> None:
    with pytest.raises(UserError, match=r"1 are in one of them only, as 'c'"):
        paired_counts(predictions(0, 0), predictions(0, 0, 0))
    with pytest.raises(UserError, match=r"give sample 'a' different labels"):
        paired_counts(predictions(0, 0), predictions(0, 0, label=1))


def test_predictions_are_read_by_key(tmp_path: Path) -> None:
    logits = np.array([[0.0, 1.0, 2.0], [3.0, 1.0, 2.0]], np.float32)
    kept = Predictions.of_logits(logits, np.array([2, 1], np.int32))
    write_predictions(tmp_path / "p.parquet", ["b", "a"], kept)
    frame = read_predictions(tmp_path / "p.parquet")
    assert list(frame.index) == ["b", "a"]
    assert frame["label"].to_list() == [2, 1]
    assert frame["predicted"].to_list() == [2, 0]
    write_predictions(tmp_path / "twice.parquet", ["a", "a"], kept)
    with pytest.raises(UserError, match="has sample 'a' more than once"):
        read_predictions(tmp_path / "twice.parquet")


def test_the_first_checkpoint_needs_to_be_sound_and_above_the_floor_only() -> None:
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
    unsound = candidate(
        checks=CheckpointChecks(checks=(*SOUND.checks, check)), evaluation=None, predictions=None
    )
    judgement = judged(unsound, production(not_compared="the candidate was not evaluated"))
    assert failed(judgement) == [
        "the checkpoint is sound",
        "accuracy@1",
        "not worse than production",
    ]
    assert judgement.criteria[0].found == "finite: fc.weight has values that are not"
    record = promotion_of(unsound, None, judgement, floor=0.5)
    assert (record.granted, record.seen) == (False, 0)


def test_no_check_at_all_is_no_sound_checkpoint() -> None:
    assert failed(judged(candidate(checks=CheckpointChecks(checks=())), None)) == [
        "the checkpoint is sound"
    ]


@pytest.mark.parametrize(("wrong", "passes"), [(10, True), (11, False)])
def test_the_floor_itself_passes(wrong: int, passes: bool) -> None:
    judgement = judged(candidate(wrong=wrong), None, floor=0.5)
    assert failed(judgement) == ([] if passes else ["accuracy@1"])
    assert judgement.criteria[1].expected == "at least 50.00%"


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (("cat", "cow"), "2 where production has 2: 'cow' is of one only"),
        (("dog", "cat"), "2 where production has 2: in another order"),
        (None, "production's checkpoint can't be read"),
    ],
)
def test_other_classes_are_refused_with_the_way_by_hand(
    classes: tuple[str, ...] | None, said: str
) -> None:
    other = production(classes=classes, predictions=None, not_compared="production has others")
    judgement = judged(candidate(), other)
    assert failed(judgement) == ["classes", "not worse than production"]
    assert judgement.criteria[2].found == said
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


def test_a_suspect_production_is_compared_with_and_said_to_be_suspect() -> None:
    judgement = judged(candidate(), production(suspect="regressed: 2 samples differ"))
    assert judgement.granted
    assert "production is suspect (regressed: 2 samples differ)" in judgement.criteria[3].found


def test_what_was_rolled_back_is_not_promoted_again() -> None:
    judgement = judged(candidate(taken_back=True), production())
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
        ("ABBA", True),  # a mark between
        ("ABAA", True),
        ("ABAC", True),
        ("ABC", False),  # replaced, not taken back
        ("ABAB", False),  # promoted again by hand
        ("ABABC", False),
    ],
)
def test_a_rollback_is_told_from_a_replacement(targets: str, expected: bool) -> None:
    assert taken_back(list(targets), "B") == expected


def test_the_record_goes_to_json_and_back(tmp_path: Path) -> None:
    of, against = candidate(wrong=1), production(wrong=1)
    record = promotion_of(of, against, judged(of, against), floor=0.5)
    record.write(tmp_path / "promotion.json")
    assert Promotion.read(tmp_path / "promotion.json") == record
    assert (record.candidate, record.production) == ("c" * 64, "a" * 64)
