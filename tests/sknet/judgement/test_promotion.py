"""A checkpoint is promoted if every criterion passes; each criterion that fails says why."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sknet.errors import UserError
from sknet.evaluation.predictions import StoredPredictions
from sknet.judgement import (
    SIGNIFICANCE,
    Candidate,
    Floors,
    Judgement,
    Production,
    judge_promotion,
    promotion_of,
    was_rolled_back,
)
from sknet.judgement.floors import too_small
from sknet.records import Check, CheckpointChecks, Evaluation, Promotion, SealedResult
from tests.sknet.predictions import stored_predictions

BY_HAND = "sknet store refs set production checkpoint/KEY --reason …"
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


def of_two_classes(cats: tuple[int, int], dogs: tuple[int, int], **change: object) -> Evaluation:
    """Return counts: of each class the number of correct samples and of all samples."""
    (right_cats, num_cats), (right_dogs, num_dogs) = cats, dogs
    values: dict[str, object] = {
        "seen": num_cats + num_dogs,
        "correct_top1": right_cats + right_dogs,
        "correct_top5": num_cats + num_dogs,
        "class_seen": (num_cats, num_dogs),
        "class_correct": (right_cats, right_dogs),
        "leaked": None,
    }
    return Evaluation.model_validate({**evaluation(1, 1).model_dump(), **values, **change})


def candidate(wrong: int = 0, seen: int = 20, **change: object) -> Candidate:
    """Return a candidate that gets the first samples wrong."""
    values: dict[str, object] = {
        "checkpoint": "c" * 64,
        "classes": CLASSES,
        "titles": CLASSES,
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


def judged(
    of: Candidate, against: Production | None, floor: float = 0.5, **floors: object
) -> Judgement:
    chosen = Floors.model_validate(floors)
    return judge_promotion(of, against, floor=floor, floors=chosen, by_hand=BY_HAND)


def failed(judgement: Judgement) -> list[str]:
    return [criterion.name for criterion in judgement.criteria if not criterion.passed]


def test_the_first_checkpoint_only_needs_passed_checks_and_the_floor() -> None:
    judgement = judged(candidate(wrong=10), None)
    assert judgement.granted
    assert [criterion.name for criterion in judgement.criteria] == [
        "the checkpoint is sound",
        "accuracy@1",
        "balanced accuracy",
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
        "balanced accuracy",
        "not worse than production",
        "no class worse than production",
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
    assert failed(judgement) == [
        *("classes", "not worse than production", "no class worse than production")
    ]
    assert judgement.criteria[3].found == found
    assert BY_HAND in judgement.criteria[3].expected


# 4 losses of 4 have p 1/16, 5 of 5 have 1/32.
@pytest.mark.parametrize(("wrong", "passes"), [(4, True), (5, False)])
def test_significantly_worse_than_production_is_refused(wrong: int, passes: bool) -> None:
    of, against = candidate(wrong=wrong), production()
    judgement = judged(of, against)
    # All samples are of one class.
    assert failed(judgement) == (
        [] if passes else ["not worse than production", "no class worse than production"]
    )
    record = promotion_of(of, against, judgement, floor=0.5)
    assert record.granted == passes
    assert record.significance == SIGNIFICANCE == 0.05
    assert record.comparison is not None
    assert record.comparison.p_value == pytest.approx(0.5**wrong)
    assert f"p {0.5**wrong:.4g}: {wrong} samples right by production only" in (
        record.criteria[4].detail
    )


def test_a_suspect_production_is_compared_and_named_as_suspect() -> None:
    judgement = judged(candidate(), production(suspect="regressed: 2 samples differ"))
    assert judgement.granted
    assert "production is suspect (regressed: 2 samples differ)" in judgement.criteria[4].found


def test_a_rolled_back_checkpoint_is_not_promoted_again() -> None:
    judgement = judged(candidate(rolled_back=True), production())
    assert failed(judgement) == ["not taken back"]
    assert BY_HAND in judgement.criteria[6].expected


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


def criterion(judgement: Judgement, name: str) -> tuple[bool, str, str]:
    (found,) = (each for each in judgement.criteria if each.name == name)
    return found.passed, found.found, found.expected


RARE = of_two_classes(cats=(95, 100), dogs=(1, 4))
"""92 % of all, 95 % of the cats, a quarter of the dogs."""


def test_a_floor_of_balanced_accuracy_refuses_what_the_accuracy_hides() -> None:
    of = candidate(evaluation=RARE, predictions=None)
    judgement = judged(of, None, floor=0.9, balanced_floor=0.8)
    assert failed(judgement) == ["balanced accuracy"]
    _, found, expected = criterion(judgement, "balanced accuracy")
    assert found.startswith("60.00%, 95 % interval ")
    assert expected == "at least 80.00%"
    assert judged(of, None, floor=0.9, balanced_floor=0.6).granted


@pytest.mark.parametrize(("floor", "passes"), [(0.25, True), (0.26, False)])
def test_a_floor_of_a_class_is_one_of_its_recall(floor: float, passes: bool) -> None:
    of = candidate(evaluation=RARE, predictions=None)
    judgement = judged(of, None, class_floor=[f"dog={floor}", "cat=0.9"])
    assert failed(judgement) == ([] if passes else ["recall of dog"])
    _, found, expected = criterion(judgement, "recall of dog")
    assert found.startswith("25.00% (1/4), 95 % interval ")
    assert expected == f"at least {floor:.2%}"
    record = promotion_of(of, None, judgement, floor=0.5, floors=Floors(class_floor={"dog": floor}))
    assert record.class_floors == {"dog": floor}


def test_a_class_without_samples_does_not_reach_its_floor() -> None:
    of = candidate(evaluation=of_two_classes(cats=(4, 4), dogs=(0, 0)))
    judgement = judged(of, None, class_floor=["dog=0.1"])
    assert criterion(judgement, "recall of dog")[:2] == (False, "no samples")


@pytest.mark.parametrize(
    ("floors", "message"),
    [
        (
            ["fish=0.5"],
            "names 'fish', but the data has no such class: the classes are n01, n02, n03",
        ),
        (["Dgo=0.5"], "names 'Dgo', but the data has no such class: did you mean 'Dog'?"),
        (["n02=0.5", "Dog=0.6"], "names class 'n02' twice"),
        (["Crane=0.5"], "names 'Crane', which 'n01', 'n03' are called: name one of them"),
    ],
)
def test_floors_of_unknown_or_unclear_classes_are_refused(floors: list[str], message: str) -> None:
    chosen = Floors.model_validate({"class_floor": floors})
    with pytest.raises(UserError) as refused:
        chosen.check(("n01", "n02", "n03"), ("Crane", "Dog", "Crane"))
    assert message in str(refused.value)


@pytest.mark.parametrize("text", ["cat", "cat=", "=0.5", "cat=1.5", "cat=90%", "cat=nan", "cat=-1"])
def test_a_floor_of_a_class_is_a_name_and_a_fraction(text: str) -> None:
    with pytest.raises(ValueError, match="is not of the form CLASS=FRACTION"):
        Floors.model_validate({"class_floor": [text]})


def test_names_of_classes_may_have_an_equals_sign_and_no_class_has_two_floors() -> None:
    assert Floors.model_validate({"class_floor": ["a=b=0.5"]}).class_floor == {"a=b": 0.5}
    with pytest.raises(ValueError, match="class 'cat' has two floors"):
        Floors.model_validate({"class_floor": ["cat=0.5", "cat=0.5"]})


def test_it_is_said_that_no_floor_is_set() -> None:
    judgement = judged(candidate(wrong=19, evaluation=evaluation(100, 200)), None, floor=0.0)
    assert judgement.granted
    (warning,) = judgement.warnings
    assert warning.startswith("no floor is set, so any accuracy passes")
    assert criterion(judgement, "accuracy@1")[2] == "anything, as no floor is set"
    assert judged(candidate(), None, floor=0.0, class_floor=["cat=0.1"]).warnings == ()


# Wilson's interval of n of n begins at n / (n + 3.84): for 0.9 that takes 35 samples.
@pytest.mark.parametrize(("seen", "warned"), [(34, True), (35, False)])
def test_a_split_is_too_small_if_even_a_perfect_result_does_not_show_the_floor(
    seen: int, warned: bool
) -> None:
    of = candidate(evaluation=of_two_classes(cats=(900, 900), dogs=(seen, seen)), predictions=None)
    warnings = judged(of, None, floor=0.9, class_floor=["dog=0.9"]).warnings
    if not warned:
        assert warnings == ()
        return
    assert warnings == (
        "validation is too small for the floor of recall of dog: of 34 samples, even a perfect "
        "result has a 95 % interval from 89.85%, below 90.00%; 35 would do",
    )
    record = promotion_of(of, None, judged(of, None, class_floor=["dog=0.9"]), floor=0.9)
    assert record.warnings == warnings


@given(st.floats(0.01, 0.99), st.integers(1, 40))
def test_the_number_of_samples_that_would_do_is_the_smallest(floor: float, classes: int) -> None:
    warning = too_small("x", floor, [1] * classes)
    if warning is None:
        return
    found = re.search(r"(\d+) (?:of each class )?would do", warning)
    assert found
    enough = int(found[1])
    assert too_small("x", floor, [enough] * classes) is None
    assert too_small("x", floor, [enough - 1] * classes) is not None


def test_no_number_of_samples_shows_that_all_are_right() -> None:
    warning = too_small("accuracy@1", 1.0, [10**6])
    assert warning is not None
    assert warning.endswith("no number of samples would do")


def test_leaked_samples_are_warned_of_and_accuracy_is_given_without_them() -> None:
    leaked = {"seen": 40, "correct_top1": 40}
    of = candidate(evaluation=of_two_classes((50, 60), (50, 60), leaked=leaked), predictions=None)
    judgement = judged(of, None, floor=0.8)
    assert judgement.granted
    assert "83.33% (100/120), without leaked images 75.00% (60/80)" in judgement.criteria[1].found
    assert judgement.warnings == (
        "40 of 120 validation samples have a copy in another split: accuracy@1 without them is "
        "75.00%, below the floor",
    )
    record = promotion_of(of, None, judgement, floor=0.8)
    assert record.leaked is not None
    assert (record.leaked.seen, record.leaked.correct_top1) == (40, 40)


def with_classes(right: dict[int, int], num: int = 100) -> StoredPredictions:
    """Return predictions of samples of ten classes of which so many are right: all, by default."""
    labels = [label for label in range(10) for _ in range(num)]
    predicted = [
        label if index < right.get(label, num) else (label + 1) % 10
        for label in range(10)
        for index in range(num)
    ]
    return stored_predictions(predicted, labels, [str(index) for index in range(10 * num)])


TEN = tuple(f"class {label}" for label in range(10))


# Of 100 samples, 7 lost and none won have p 2^-7, times 10 classes 0.078; 8 lost have 0.039.
@pytest.mark.parametrize(("lost", "passes"), [(7, True), (8, False)])
def test_a_class_that_gets_significantly_worse_refuses_a_checkpoint_that_is_better_in_all(
    lost: int, passes: bool
) -> None:
    of = candidate(classes=TEN, titles=TEN, predictions=with_classes({3: 100 - lost}))
    against = production(classes=TEN, predictions=with_classes({7: 50, 8: 50}))
    judgement = judged(of, against)
    assert failed(judgement) == ([] if passes else ["no class worse than production"])
    _, found, expected = criterion(judgement, "no class worse than production")
    described = f"class 3: p {10 / 2**lost:.4g}, {lost} of 100 samples right by production only, 0"
    assert described in found
    assert found.startswith("none of 10; lowest p of") == passes
    assert expected.endswith("with Holm's correction")


def test_of_many_worse_classes_the_worst_are_named_and_the_others_counted() -> None:
    right = {label: 80 - label for label in range(5)}
    of = candidate(classes=TEN, titles=TEN, predictions=with_classes(right))
    against = production(classes=TEN, predictions=with_classes({}))
    _, found, _ = criterion(judged(of, against), "no class worse than production")
    assert [part.split(":")[0] for part in found.split("; ")] == [
        *("class 4", "class 3", "class 2", "and 2 more classes")
    ]


def test_records_of_promotions_without_the_new_choices_are_written_as_before() -> None:
    of = candidate(evaluation=evaluation(100, 200), predictions=None)
    record = promotion_of(of, None, judged(of, None), floor=0.5)
    assert record.model_dump(mode="json").keys() == {
        *("format_version", "candidate", "production", "correct_top1", "seen", "floor"),
        *("significance", "comparison", "criteria"),
    }


def test_a_sealed_result_says_how_often_and_what_it_is_without_leaked_images() -> None:
    first = SealedResult(evaluation=of_two_classes((45, 50), (45, 50)), looks=1)
    assert first.text == (
        "accuracy@1 90.00% (90/100), 95 % interval 82.56% to 94.48%; looked at for the first time"
    )
    leaked = {"seen": 20, "correct_top1": 20}
    later = SealedResult(evaluation=of_two_classes((45, 50), (45, 50), leaked=leaked), looks=4)
    assert later.text.endswith(", without leaked images 87.50%; looked at 4 times so far")
