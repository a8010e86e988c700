"""Decisions about checkpoints: promotions, and revalidations of what was promoted."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from infra.base.records import Record, Sha256
from sknet.records.evaluation import Check, Evaluation, LeakedCounts
from sknet.records.fields import NonNegativeInt, PositiveInt, is_empty


class ProductionComparison(Record):
    """A candidate and production on the same samples, with McNemar's exact test."""

    both_correct: NonNegativeInt
    only_production: NonNegativeInt
    """Samples that production gets right and the candidate gets wrong."""
    only_candidate: NonNegativeInt
    neither: NonNegativeInt
    p_value: Annotated[float, Field(ge=0, le=1)]
    """One-sided: the probability that production is ahead by at least this much on the samples
    that only one of them gets right, if both are equally good."""


class SealedResult(Record):
    """The one evaluation of a promoted checkpoint on the sealed test split."""

    evaluation: Evaluation
    looks: PositiveInt
    """How often the test split was looked at so far in this store, this time included. Each choice
    that is made after a look makes the next result a little too good."""

    @property
    def text(self) -> str:
        """The result, and how often the split was looked at, in one line."""
        counts = self.evaluation
        low, high = counts.interval_top1
        looks = "for the first time" if self.looks == 1 else f"{self.looks} times so far"
        text = (
            f"accuracy@1 {counts.accuracy_top1:.2%} ({counts.correct_top1}/{counts.seen}), 95 % "
            f"interval {low:.2%} to {high:.2%}"
        )
        if without := counts.without_leaked:
            text += f", without leaked images {without[0] / without[1]:.2%}"
        return f"{text}; looked at {looks}"


class Promotion(Record):
    """`promotion.json`: whether a checkpoint may become production, and why.

    Fields that came later are left out of the JSON while they are empty.
    """

    format_version: Literal[1] = 1
    candidate: Sha256
    """Digest of the checkpoint that may become production."""
    production: Sha256 | None
    """Digest of the checkpoint in production; None if there is none yet."""
    correct_top1: NonNegativeInt
    seen: NonNegativeInt
    floor: float
    """Lowest accuracy@1 that is accepted, a fraction."""
    significance: float
    """The candidate is refused if the comparison's p value is below this."""
    comparison: ProductionComparison | None
    """None if there was nothing to compare with."""
    criteria: tuple[Check, ...]
    """The promotion is granted if all of them passed."""
    balanced_floor: Annotated[float | None, Field(exclude_if=is_empty)] = None
    """Lowest balanced accuracy that is accepted, a fraction."""
    class_floors: dict[str, float] = Field(default={}, exclude_if=is_empty)
    """Lowest recall that is accepted of each named class, a fraction."""
    warnings: Annotated[tuple[str, ...], Field(exclude_if=is_empty)] = ()
    """What makes the judgement worth less, such as a validation split that is too small."""
    leaked: Annotated[LeakedCounts | None, Field(exclude_if=is_empty)] = None
    """Counts over the samples of which a copy is in another split; `correct_top1` and `seen`
    include them."""
    sealed: Annotated[SealedResult | None, Field(exclude_if=is_empty)] = None
    """None if the promotion was refused, or the data has no test split."""

    @property
    def granted(self) -> bool:
        """Whether all criteria passed."""
        return all(check.passed for check in self.criteria)


class Repair(Record):
    """A damaged artifact that was repaired."""

    artifact: str
    """Kind and key, such as `shards/KEY`."""
    how: Literal["fetched", "rebuilt"]
    damages: tuple[str, ...]


class Counts(Record):
    """The counts that a revalidation compares."""

    seen: NonNegativeInt
    correct_top1: NonNegativeInt
    correct_top5: NonNegativeInt
    loss_sum: float


class DifferingSample(Record):
    """A sample for which another class is predicted than was recorded."""

    key: str
    label: NonNegativeInt
    recorded: NonNegativeInt
    """The class that was predicted for the record."""
    found: NonNegativeInt
    """The class that is predicted now."""


class Revalidation(Record):
    """`revalidation.json`: the promoted checkpoint, compared with what was recorded of it."""

    format_version: Literal[1] = 1
    checkpoint: Sha256
    """Digest of the promoted checkpoint."""
    began: AwareDatetime
    scheduled: AwareDatetime | None
    """When it was due; None if it was started by hand."""
    outcome: Literal["as recorded", "within tolerance", "regressed", "damaged"]
    said: str
    """Summary of what was found, in one line."""
    damages: tuple[str, ...]
    """Damages that could not be repaired."""
    repairs: tuple[Repair, ...]
    recorded_software: dict[str, str]
    """Versions and device of the recorded evaluation."""
    software: dict[str, str]
    """Versions and device of the new evaluation."""
    recorded: Counts | None
    found: Counts | None
    """None if damage left nothing to evaluate."""
    tolerance: float
    """Largest fraction of the samples for which other software or another device may predict
    another class."""
    num_differing: NonNegativeInt
    """Number of samples for which another class is predicted."""
    differing: tuple[DifferingSample, ...]
    """The first of them."""

    @property
    def passed(self) -> bool:
        """Whether the checkpoint is intact and gives the recorded results."""
        return self.outcome in ("as recorded", "within tolerance")
