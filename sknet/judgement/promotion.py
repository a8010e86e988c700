"""Decide whether a checkpoint may become production: all criteria are judged, and all are shown."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sknet.evaluation.predictions import PairedPredictions, StoredPredictions, pair
from sknet.judgement.floors import NO_FLOORS, Floors, too_small
from sknet.records import (
    Check,
    CheckpointChecks,
    Evaluation,
    ProductionComparison,
    Promotion,
    SealedResult,
)
from sknet.significance import Interval, holm, mcnemar_p_value

SIGNIFICANCE = 0.05
"""The customary level. One in twenty candidates that are exactly as good as production is refused
by chance, and can be promoted by hand; a lower level would let worse candidates pass."""

MAX_WORSE = 3
"""Most classes that the criterion about single classes names."""


@dataclass(frozen=True)
class Production:
    """The checkpoint in production, as far as a candidate is compared with it."""

    checkpoint: str
    """Digest."""
    classes: tuple[str, ...] | None
    """None if its checkpoint can't be read."""
    predictions: StoredPredictions | None
    """Of the samples on which the candidate was evaluated."""
    not_compared: str
    """The reason why there are no predictions; empty if there are."""
    suspect: str | None
    """What a revalidation found wrong with it."""


@dataclass(frozen=True)
class Candidate:
    """A checkpoint that may become production."""

    checkpoint: str
    """Digest."""
    classes: tuple[str, ...]
    titles: tuple[str, ...]
    """Readable names of the classes."""
    checks: CheckpointChecks
    evaluation: Evaluation | None
    """None if a check failed."""
    predictions: StoredPredictions | None
    """None if a check failed."""
    rolled_back: bool
    """Whether production was rolled back from it."""


@dataclass(frozen=True)
class Criterion:
    """A condition for promotion, and what was found."""

    name: str
    passed: bool
    found: str
    expected: str

    @property
    def check(self) -> Check:
        """The criterion as the `Promotion` record lists it."""
        return Check(
            name=self.name, passed=self.passed, detail=f"{self.found}; expected {self.expected}"
        )


@dataclass(frozen=True)
class Judgement:
    """All criteria, and the comparison with production."""

    criteria: tuple[Criterion, ...]
    comparison: ProductionComparison | None
    warnings: tuple[str, ...]
    """What makes the judgement worth less, such as floors that are not set."""

    @property
    def granted(self) -> bool:
        """Whether all criteria passed."""
        return all(criterion.passed for criterion in self.criteria)


def judge_promotion(
    candidate: Candidate,
    production: Production | None,
    *,
    floor: float,
    floors: Floors = NO_FLOORS,
    by_hand: str,
) -> Judgement:
    """Judge every criterion.

    Args:
        candidate: The checkpoint to be promoted.
        production: None if nothing was promoted yet; the candidate is then judged on its own.
        floor: Lowest accuracy@1 that passes, a fraction.
        floors: The other floors.
        by_hand: The command that promotes regardless, for the texts of failed criteria.

    Raises:
        UserError: The two were evaluated on different samples, or a floor is of an unknown class.
    """
    paired = comparison = None
    if (
        production is not None
        and candidate.predictions is not None
        and production.predictions is not None
    ):
        paired = pair(production.predictions, candidate.predictions)
        comparison = _compare(paired)
    criteria = [_checks(candidate.checks), *_floors(candidate, floor, floors)]
    if production is not None:
        criteria.append(_classes(candidate.classes, production.classes, by_hand))
        criteria.append(_not_worse(comparison, production))
        criteria.append(_no_class_worse(paired, candidate, production))
        criteria.append(_not_rolled_back(candidate.rolled_back, by_hand))
    return Judgement(tuple(criteria), comparison, tuple(_warnings(candidate, floor, floors)))


def below_floors(candidate: Candidate, *, floor: float, floors: Floors) -> list[str]:
    """Return each floor that a checkpoint misses, with what was found and expected, in one line."""
    criteria = _floors(candidate, floor, floors)
    return [f"{each.name}: {each.check.detail}" for each in criteria if not each.passed]


def promotion_of(
    candidate: Candidate,
    production: Production | None,
    judgement: Judgement,
    *,
    floor: float,
    floors: Floors = NO_FLOORS,
    sealed: SealedResult | None = None,
) -> Promotion:
    """Return the judgement as a record.

    Args:
        candidate: The checkpoint that was judged.
        production: What it was compared with.
        judgement: The judgement.
        floor: The floor of accuracy@1.
        floors: The other floors.
        sealed: The result on the sealed test split, if the promotion is granted.
    """
    evaluation = candidate.evaluation
    return Promotion(
        candidate=candidate.checkpoint,
        production=production.checkpoint if production else None,
        correct_top1=evaluation.correct_top1 if evaluation else 0,
        seen=evaluation.seen if evaluation else 0,
        floor=floor,
        significance=SIGNIFICANCE,
        comparison=judgement.comparison,
        criteria=tuple(criterion.check for criterion in judgement.criteria),
        balanced_floor=floors.balanced_floor,
        class_floors=floors.class_floor,
        warnings=judgement.warnings,
        leaked=evaluation.leaked if evaluation else None,
        sealed=sealed,
    )


def was_rolled_back(targets: Sequence[str], candidate: str) -> bool:
    """Tell whether a ref moved from the candidate back to an earlier target.

    Args:
        targets: The digest of each entry of the ref's history, oldest first.
        candidate: The candidate's digest.
    """
    positions = [index for index, target in enumerate(targets) if target == candidate]
    if not positions or positions[-1] == len(targets) - 1:
        return False
    return targets[positions[-1] + 1] in targets[: positions[-1]]


def _compare(paired: PairedPredictions) -> ProductionComparison:
    counts = paired.counts
    return ProductionComparison(
        both_correct=counts.both,
        only_production=counts.only_first,
        only_candidate=counts.only_second,
        neither=counts.neither,
        p_value=mcnemar_p_value(counts, alternative="greater"),
    )


def _checks(checks: CheckpointChecks) -> Criterion:
    failed = [check for check in checks.checks if not check.passed]
    found = (
        "; ".join(f"{check.name}: {check.detail}" for check in failed)
        or f"all {len(checks.checks)} passed"
    )
    return Criterion(
        "the checkpoint is sound", not failed and bool(checks.checks), found, "all checks passed"
    )


def _floors(candidate: Candidate, floor: float, floors: Floors) -> Iterator[Criterion]:
    """Yield accuracy@1, balanced accuracy and the recall of each class that has a floor."""
    evaluation = candidate.evaluation
    accuracy = balanced = None
    counted = ""
    if evaluation is not None:
        accuracy = Interval(evaluation.accuracy_top1, *evaluation.interval_top1)
        counted = f"({evaluation.correct_top1}/{evaluation.seen})"
        if without := evaluation.without_leaked:
            correct, seen = without
            counted += f", without leaked images {correct / seen:.2%} ({correct}/{seen})"
        balanced = evaluation.balanced_accuracy
    absent = "not evaluated" if evaluation is None else "no samples"
    yield _floor("accuracy@1", accuracy, counted, floor, absent)
    yield _floor("balanced accuracy", balanced, "", floors.balanced_floor or 0.0, absent)
    for label, lowest in floors.by_label(candidate.classes, candidate.titles).items():
        result = evaluation.classes[label] if evaluation else None
        counted = f"({result.correct}/{result.seen})" if result else ""
        recall = result.recall if result else None
        yield _floor(f"recall of {candidate.titles[label]}", recall, counted, lowest, absent)


def _floor(name: str, value: Interval | None, counted: str, floor: float, absent: str) -> Criterion:
    """Return whether a result reaches its floor; 0 is none, but a missing result never passes."""
    expected = f"at least {floor:.2%}" if floor else "anything, as no floor is set"
    if value is None:
        return Criterion(name, False, absent, expected)
    found = f"{value.value:.2%} {counted}".rstrip()
    found += f", 95 % interval {value.low:.2%} to {value.high:.2%}"
    return Criterion(name, value.value >= floor, found, expected)


def _warnings(candidate: Candidate, floor: float, floors: Floors) -> Iterator[str]:
    """Yield what makes the judgement worth less."""
    if not floor and not floors.are_set:
        yield (
            "no floor is set, so any accuracy passes: set min_accuracy in the recipe, "
            "--balanced-floor or --class-floor"
        )
    evaluation = candidate.evaluation
    if evaluation is None:
        return
    seen = evaluation.class_seen
    fears = [
        too_small("accuracy@1", floor, [evaluation.seen]),
        too_small("balanced accuracy", floors.balanced_floor or 0.0, seen),
        *(
            too_small(f"recall of {candidate.titles[label]}", lowest, [seen[label]])
            for label, lowest in floors.by_label(candidate.classes, candidate.titles).items()
        ),
    ]
    yield from (fear for fear in fears if fear)
    if leaked := evaluation.leaked:
        without = evaluation.without_leaked
        accuracy = f"{without[0] / without[1]:.2%}" if without else "unknown"
        below = ", below the floor" if without and without[0] / without[1] < floor else ""
        yield (
            f"{leaked.seen} of {evaluation.seen} validation samples have a copy in another split: "
            f"accuracy@1 without them is {accuracy}{below}"
        )


def _classes(
    candidate: tuple[str, ...], production: tuple[str, ...] | None, by_hand: str
) -> Criterion:
    name, expected = "classes", f"those of production, or by hand: {by_hand}"
    if production is None:
        return Criterion(name, False, "production's checkpoint can't be read", expected)
    if candidate == production:
        return Criterion(name, True, f"{len(candidate)}, the same", "those of production")
    differing = set(candidate) ^ set(production)
    what = f"{min(differing)!r} is of one only" if differing else "in another order"
    found = f"{len(candidate)} where production has {len(production)}: {what}"
    return Criterion(name, False, found, expected)


def _not_worse(comparison: ProductionComparison | None, production: Production) -> Criterion:
    name = "not worse than production"
    expected = f"p at least {SIGNIFICANCE} (McNemar's exact test, one-sided)"
    if comparison is None:
        return Criterion(name, False, f"not compared: {production.not_compared}", expected)
    found = (
        f"p {comparison.p_value:.4g}: {comparison.only_production} samples right by production "
        f"only, {comparison.only_candidate} by the candidate only"
    )
    if production.suspect:
        # The compared predictions are verified files of the time when production was promoted.
        found += f"; production is suspect ({production.suspect}), its recorded predictions are not"
    return Criterion(name, comparison.p_value >= SIGNIFICANCE, found, expected)


def _no_class_worse(
    paired: PairedPredictions | None, candidate: Candidate, production: Production
) -> Criterion:
    """Compare each class with production's, corrected for there being many.

    A rare class may get worse without a trace in the accuracy of all.
    """
    name = "no class worse than production"
    expected = f"p at least {SIGNIFICANCE} for each, by the same test with Holm's correction"
    if paired is None:
        return Criterion(name, False, f"not compared: {production.not_compared}", expected)
    by_class = paired.counts_by_class
    corrected = holm([mcnemar_p_value(each, alternative="greater") for each in by_class.values()])
    compared = sorted(zip(corrected, by_class.items(), strict=True), key=lambda each: each[0])
    worse = [each for each in compared if each[0] < SIGNIFICANCE]
    described = [
        f"{candidate.titles[label]}: p {p_value:.4g}, {counts.only_first} of {counts.seen} samples "
        f"right by production only, {counts.only_second} by the candidate only"
        for p_value, (label, counts) in (worse or compared[:1])[:MAX_WORSE]
    ]
    if len(worse) > MAX_WORSE:
        described.append(f"and {len(worse) - MAX_WORSE} more classes")
    found = "; ".join(described)
    if not worse:
        found = f"none of {len(by_class)}; lowest p of {found}"
    return Criterion(name, not worse, found, expected)


def _not_rolled_back(rolled_back: bool, by_hand: str) -> Criterion:
    name = "not taken back"
    found = "production was rolled back from it" if rolled_back else "never rolled back from"
    return Criterion(name, not rolled_back, found, f"another checkpoint, or by hand: {by_hand}")
