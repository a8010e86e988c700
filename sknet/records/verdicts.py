"""Judgements over evaluations: a checkpoint's promotion, and its check each night."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from infra.base.records import Record, Sha256
from sknet.records.base import NonNegativeInt
from sknet.records.evaluation import Check


class PairedCounts(Record):
    """Two checkpoints on the same samples, and McNemar's exact test of their difference."""

    both_correct: NonNegativeInt
    only_production: NonNegativeInt
    """Correct by the production checkpoint and wrong by the candidate."""
    only_candidate: NonNegativeInt
    neither: NonNegativeInt
    p_value: Annotated[float, Field(ge=0, le=1)]
    """One-sided: how probable so many losses are among the differing samples, were the candidate as
    good as production."""


class Promotion(Record):
    """`promotion.json`: whether a checkpoint may become production, and why."""

    format_version: Literal[1] = 1
    candidate: Sha256
    """Digest of the checkpoint."""
    production: Sha256 | None
    """Digest of the checkpoint that it would replace, if there is one."""
    correct_top1: NonNegativeInt
    seen: NonNegativeInt
    floor: float
    """Least accuracy@1, as a share."""
    significance: float
    """The candidate is refused if the p value is below."""
    comparison: PairedCounts | None
    """None if there is nothing to compare with."""
    criteria: tuple[Check, ...]
    """All of them must pass."""

    @property
    def granted(self) -> bool:
        """Whether all criteria passed."""
        return all(check.passed for check in self.criteria)


class Repair(Record):
    """Something damaged that is sound again."""

    artifact: str
    """As `shards/KEY`."""
    how: Literal["fetched", "rebuilt"]
    damages: tuple[str, ...]


class Counts(Record):
    """The counts that a night compares."""

    seen: NonNegativeInt
    correct_top1: NonNegativeInt
    correct_top5: NonNegativeInt
    loss_sum: float


class DifferingSample(Record):
    """A sample that is predicted otherwise than recorded."""

    key: str
    label: NonNegativeInt
    recorded: NonNegativeInt
    """The class that was predicted then."""
    found: NonNegativeInt
    """The class that is predicted now."""


class Revalidation(Record):
    """`revalidation.json`: the promoted checkpoint against what was recorded of it."""

    format_version: Literal[1] = 1
    checkpoint: Sha256
    """Digest of the promoted checkpoint."""
    began: AwareDatetime
    scheduled: AwareDatetime | None
    """For when, if by a schedule."""
    outcome: Literal["as recorded", "within tolerance", "regressed", "damaged"]
    said: str
    """The finding, in one line."""
    damages: tuple[str, ...]
    """What could not be repaired."""
    repairs: tuple[Repair, ...]
    recorded_software: dict[str, str]
    """Versions and device of the recorded evaluation."""
    software: dict[str, str]
    """Of this one."""
    recorded: Counts | None
    found: Counts | None
    """None if damage left nothing to evaluate."""
    tolerance: float
    """Share of the samples that other software or another device may predict otherwise."""
    num_differing: NonNegativeInt
    differing: tuple[DifferingSample, ...]
    """The first of them."""

    @property
    def sound(self) -> bool:
        """Whether the checkpoint is what it was, as far as can be told."""
        return self.outcome in ("as recorded", "within tolerance")
