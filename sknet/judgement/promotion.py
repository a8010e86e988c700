"""Decide whether a checkpoint may become production: all criteria are judged, and all are shown."""

from collections.abc import Sequence
from dataclasses import dataclass

from sknet.evaluation.predictions import StoredPredictions, pair
from sknet.records import Check, CheckpointChecks, Evaluation, ProductionComparison, Promotion
from sknet.significance import mcnemar_p_value

SIGNIFICANCE = 0.05
"""The customary level. One in twenty candidates that are exactly as good as production is refused
by chance, and can be promoted by hand; a lower level would let worse candidates pass."""


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

    @property
    def granted(self) -> bool:
        """Whether all criteria passed."""
        return all(criterion.passed for criterion in self.criteria)


def judge_promotion(
    candidate: Candidate, production: Production | None, *, floor: float, by_hand: str
) -> Judgement:
    """Judge every criterion.

    Args:
        candidate: The checkpoint to be promoted.
        production: None if nothing was promoted yet; the candidate is then judged on its own.
        floor: Lowest accuracy@1 that passes, a fraction.
        by_hand: The command that promotes regardless, for the texts of failed criteria.

    Raises:
        UserError: The two were evaluated on different samples.
    """
    comparison = None
    if (
        production is not None
        and candidate.predictions is not None
        and production.predictions is not None
    ):
        comparison = _compare(production.predictions, candidate.predictions)
    criteria = [_checks(candidate.checks), _floor(candidate.evaluation, floor)]
    if production is not None:
        criteria.append(_classes(candidate.classes, production.classes, by_hand))
        criteria.append(_not_worse(comparison, production))
        criteria.append(_not_rolled_back(candidate.rolled_back, by_hand))
    return Judgement(tuple(criteria), comparison)


def promotion_of(
    candidate: Candidate, production: Production | None, judgement: Judgement, *, floor: float
) -> Promotion:
    """Return the judgement as a record."""
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


def _compare(production: StoredPredictions, candidate: StoredPredictions) -> ProductionComparison:
    counts = pair(production, candidate).counts
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


def _floor(evaluation: Evaluation | None, floor: float) -> Criterion:
    name, expected = "accuracy@1", f"at least {floor:.2%}"
    if evaluation is None:
        return Criterion(name, False, "not evaluated", expected)
    found = f"{evaluation.accuracy_top1:.2%} ({evaluation.correct_top1}/{evaluation.seen})"
    return Criterion(name, evaluation.accuracy_top1 >= floor, found, expected)


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


def _not_rolled_back(rolled_back: bool, by_hand: str) -> Criterion:
    name = "not taken back"
    found = "production was rolled back from it" if rolled_back else "never rolled back from"
    return Criterion(name, not rolled_back, found, f"another checkpoint, or by hand: {by_hand}")
