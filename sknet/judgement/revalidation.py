"""Decide whether a checkpoint still gives the results that were recorded of it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sknet.errors import UserError
from sknet.evaluation.predictions import StoredPredictions, pair
from sknet.records import DifferingSample, Evaluation

TOLERANCE = 0.005
"""Largest fraction of the samples for which other software or another device may predict another
class.

Different rounding changes only predictions whose two best classes are nearly equal, and those are
few; whatever changes more of them computes something else."""

MAX_LISTED = 100
"""Number of differing samples that a record lists: enough to see what they have in common."""


@dataclass(frozen=True)
class EvaluationPair:
    """The recorded evaluation and the new one at one resolution, with their predictions."""

    recorded: Evaluation
    found: Evaluation
    recorded_predictions: StoredPredictions
    found_predictions: StoredPredictions


@dataclass(frozen=True)
class Verdict:
    """The result of comparing evaluations with the recorded ones."""

    outcome: Literal["as recorded", "within tolerance", "regressed"]
    summary: str
    """What differs, in one line."""
    differing: tuple[DifferingSample, ...]
    """Samples for which another class is predicted at the first resolution, in recorded order."""


def judge_revalidation(
    pairs: Sequence[EvaluationPair], *, same_software: bool, tolerance: float
) -> Verdict:
    """Compare evaluations with the recorded ones.

    Args:
        pairs: One for each resolution, the recipe's own resolution first.
        same_software: Whether both were made by the same versions on the same device. Then every
            value must be equal to the last digit.
        tolerance: If not, the largest fraction of the samples for which another class may be
            predicted.
    """
    differences, within_tolerance = [], True
    listed: tuple[DifferingSample, ...] = ()
    for position, each in enumerate(pairs):
        where = f" at {each.recorded.resolution}" if len(pairs) > 1 else ""
        try:
            differing = _differing_samples(each.recorded_predictions, each.found_predictions)
        except UserError as error:
            return Verdict("regressed", f"{error}{where}", listed)
        if position == 0:
            listed = differing
        fields = differing_fields(each.recorded, each.found) if same_software else []
        num_samples = len(each.recorded_predictions)
        if differing:
            fields.append(f"{len(differing)} of {num_samples} samples are predicted differently")
        if fields:
            differences.append(f"{'; '.join(fields)}{where}")
        within_tolerance &= len(differing) <= tolerance * num_samples
    if same_software:
        if differences:
            return Verdict("regressed", "; ".join(differences), listed)
        return Verdict("as recorded", "every count is as recorded", listed)
    summary = "; ".join(differences) or "no sample is predicted differently"
    limit = f"on other software or another device, {tolerance:.2%} may be"
    outcome: Literal["within tolerance", "regressed"] = (
        "within tolerance" if within_tolerance else "regressed"
    )
    return Verdict(outcome, f"{summary} ({limit})", listed)


def differing_fields(recorded: Evaluation, found: Evaluation) -> list[str]:
    """Describe each differing field: both values, or how many of its entries differ.

    Fields that the recorded one lacks, as older versions didn't count them, are not compared.
    """
    before, now = recorded.model_dump(mode="json"), found.model_dump(mode="json")
    return [
        _describe(name, before[name], now.get(name))
        for name in before
        if before[name] != now.get(name)
    ]


def _differing_samples(
    recorded: StoredPredictions, found: StoredPredictions
) -> tuple[DifferingSample, ...]:
    paired = pair(recorded, found)
    return tuple(
        DifferingSample(
            key=paired.keys[index],
            label=int(paired.labels[index]),
            recorded=int(paired.first[index]),
            found=int(paired.second[index]),
        )
        for index in (paired.first != paired.second).nonzero()[0]
    )


def _describe(name: str, before: object, now: object) -> str:
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        differing = sum(was != is_now for was, is_now in zip(before, now, strict=True))
        return f"{name} differs in {differing} of {len(before)}"
    if isinstance(before, list) and isinstance(now, list):
        return f"{name} had {len(before)} entries, has {len(now)}"
    return f"{name} was {json.dumps(before)}, is {json.dumps(now)}"
