"""May a checkpoint become production? Every criterion is judged, and all are shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sknet.judgement.comparison import paired_counts
from sknet.records import Check, CheckpointChecks, Evaluation, PairedCounts, Promotion

if TYPE_CHECKING:
    import pandas as pd

SIGNIFICANCE = 0.05
"""The customary level: one in twenty candidates that are exactly as good is refused by chance, and
can be promoted by hand; a smaller one would let candidates pass that are worse by more samples."""


@dataclass(frozen=True)
class Criterion:
    """A condition for promotion, and what was found."""

    name: str
    passed: bool
    found: str
    expected: str

    @property
    def check(self) -> Check:
        """As the record keeps it."""
        return Check(
            name=self.name, passed=self.passed, detail=f"{self.found}; expected {self.expected}"
        )


@dataclass(frozen=True)
class Production:
    """What is known of the checkpoint in production, as far as a candidate is measured by it."""

    checkpoint: str
    """Digest."""
    classes: tuple[str, ...] | None
    """None if its checkpoint can't be read."""
    predictions: "pd.DataFrame | None"
    """Of the candidate's samples."""
    not_compared: str
    """Why there are none."""
    suspect: str | None
    """What a night has found wrong with it."""


@dataclass(frozen=True)
class Candidate:
    """What was found out about a checkpoint."""

    checkpoint: str
    """Digest."""
    classes: tuple[str, ...]
    checks: CheckpointChecks
    evaluation: Evaluation | None
    """None if a check failed."""
    predictions: "pd.DataFrame | None"
    taken_back: bool
    """Whether production was rolled back from it."""


@dataclass(frozen=True)
class Judgement:
    """All criteria, and the comparison with production."""

    criteria: tuple[Criterion, ...]
    comparison: PairedCounts | None

    @property
    def granted(self) -> bool:
        """Whether all criteria passed."""
        return all(criterion.passed for criterion in self.criteria)


def judge_promotion(
    candidate: Candidate, production: Production | None, *, floor: float, by_hand: str
) -> Judgement:
    """Judge every criterion; `by_hand` is the command that promotes nevertheless."""
    comparison = None
    if (
        production is not None
        and candidate.predictions is not None
        and production.predictions is not None
    ):
        comparison = paired_counts(candidate.predictions, production.predictions)
    criteria = [_checks(candidate.checks), _floor(candidate.evaluation, floor)]
    if production is not None:
        criteria.append(_classes(candidate.classes, production.classes, by_hand))
        criteria.append(_not_worse(comparison, production))
        criteria.append(_not_taken_back(candidate.taken_back, by_hand))
    return Judgement(tuple(criteria), comparison)


def promotion_of(
    candidate: Candidate, production: Production | None, judgement: Judgement, *, floor: float
) -> Promotion:
    """The judgement as a record."""
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


def taken_back(targets: Sequence[str], candidate: str) -> bool:
    """Whether a ref went from the candidate back to what it had pointed to before.

    Args:
        targets: What each entry of the ref points to, oldest first.
        candidate: The digest in question.
    """
    left = [index for index, target in enumerate(targets) if target == candidate]
    if not left or left[-1] == len(targets) - 1:
        return False
    return targets[left[-1] + 1] in targets[: left[-1]]


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


def _not_worse(comparison: PairedCounts | None, production: Production) -> Criterion:
    name = "not worse than production"
    expected = f"p at least {SIGNIFICANCE} (McNemar's exact test, one-sided)"
    if comparison is None:
        return Criterion(name, False, f"not compared: {production.not_compared}", expected)
    found = (
        f"p {comparison.p_value:.4g}: {comparison.only_production} samples right by production "
        f"only, {comparison.only_candidate} by the candidate only"
    )
    if production.suspect:
        # What is compared are files that are sound, of predictions from when it was promoted.
        found += f"; production is suspect ({production.suspect}), its recorded predictions are not"
    return Criterion(name, comparison.p_value >= SIGNIFICANCE, found, expected)


def _not_taken_back(was_taken_back: bool, by_hand: str) -> Criterion:
    name = "not taken back"
    found = "production was rolled back from it" if was_taken_back else "never rolled back from"
    return Criterion(name, not was_taken_back, found, f"another checkpoint, or by hand: {by_hand}")
