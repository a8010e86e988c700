"""Is a checkpoint still what was recorded of it?"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sknet.errors import UserError
from sknet.judgement.comparison import join
from sknet.records import DifferingSample, Evaluation

if TYPE_CHECKING:
    import pandas as pd

TOLERANCE = 0.005
"""Share of the samples that other software or another device may take for another class.

Other rounding turns only predictions whose first two classes are as good as equal, and those are
few; whatever changes more of them is another computation."""

MAX_LISTED = 100
"""Differing samples that a record names: enough to see what they have in common."""


@dataclass(frozen=True)
class AtResolution:
    """An evaluation as recorded and as found, with its predictions."""

    recorded: Evaluation
    found: Evaluation
    recorded_predictions: "pd.DataFrame"
    found_predictions: "pd.DataFrame"


@dataclass(frozen=True)
class Finding:
    """What a comparison came to."""

    outcome: Literal["as recorded", "within tolerance", "regressed"]
    said: str
    """In one line."""
    differing: tuple[DifferingSample, ...]
    """All samples that are taken for another class at the first resolution, in their order."""


def judge_night(pairs: Sequence[AtResolution], *, same_software: bool, tolerance: float) -> Finding:
    """Compare evaluations with what was recorded, the recipe's own resolution first.

    On the same software and device everything must be equal to the last digit; on others at most
    a share of `tolerance` of the samples may be taken for another class.
    """
    said, within = [], True
    listed: tuple[DifferingSample, ...] = ()
    for position, pair in enumerate(pairs):
        where = f" at {pair.recorded.resolution}" if len(pairs) > 1 else ""
        try:
            differing = differing_samples(pair.recorded_predictions, pair.found_predictions)
        except UserError as error:
            return Finding("regressed", f"{error}{where}", listed)
        if position == 0:
            listed = differing
        fields = differing_fields(pair.recorded, pair.found) if same_software else []
        num_samples = len(pair.recorded_predictions)
        if differing:
            fields.append(f"{len(differing)} of {num_samples} samples are predicted otherwise")
        if fields:
            said.append(f"{'; '.join(fields)}{where}")
        within &= not fields if same_software else len(differing) <= tolerance * num_samples
    if same_software:
        if said:
            return Finding("regressed", "; ".join(said), listed)
        return Finding("as recorded", "every count is as recorded", listed)
    told = "; ".join(said) or "no sample is predicted otherwise"
    limit = f"on other software or another device, {tolerance:.2%} may be"
    return Finding("within tolerance" if within else "regressed", f"{told} ({limit})", listed)


def differing_samples(
    recorded: "pd.DataFrame", found: "pd.DataFrame"
) -> tuple[DifferingSample, ...]:
    """The samples that are taken for another class, in the recorded order.

    Raises:
        UserError: the predictions are not of the same samples.
    """
    pair = join(recorded, found)
    return tuple(
        DifferingSample(
            key=pair.keys[index],
            label=int(pair.labels[index]),
            recorded=int(pair.first[index]),
            found=int(pair.second[index]),
        )
        for index in (pair.first != pair.second).nonzero()[0]
    )


def differing_fields(recorded: Evaluation, found: Evaluation) -> list[str]:
    """Every field that is not equal: with both values, or how many of its entries differ."""
    before, now = recorded.model_dump(mode="json"), found.model_dump(mode="json")
    return [_told(name, before[name], now[name]) for name in before if before[name] != now[name]]


def _told(name: str, before: object, now: object) -> str:
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        differing = sum(was != is_now for was, is_now in zip(before, now, strict=True))
        return f"{name} differs in {differing} of {len(before)}"
    if isinstance(before, list) and isinstance(now, list):
        return f"{name} had {len(before)} entries, has {len(now)}"
    return f"{name} was {json.dumps(before)}, is {json.dumps(now)}"
