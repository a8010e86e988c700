"""Judgements over evaluations: may a checkpoint be promoted, is it still what it was.

Functions of records and predictions alone; needs no MindSpore.
"""

from sknet.judgement.comparison import (
    PredictionPair,
    join,
    mcnemar_p_value,
    paired_counts,
)
from sknet.judgement.predictions import read_predictions
from sknet.judgement.promotion import (
    SIGNIFICANCE,
    Candidate,
    Criterion,
    Judgement,
    Production,
    judge_promotion,
    promotion_of,
    taken_back,
)
from sknet.judgement.revalidation import (
    MAX_LISTED,
    TOLERANCE,
    AtResolution,
    Finding,
    differing_fields,
    judge_night,
)

__all__ = [
    "MAX_LISTED",
    "SIGNIFICANCE",
    "TOLERANCE",
    "AtResolution",
    "Candidate",
    "Criterion",
    "Finding",
    "Judgement",
    "PredictionPair",
    "Production",
    "differing_fields",
    "join",
    "judge_night",
    "judge_promotion",
    "mcnemar_p_value",
    "paired_counts",
    "promotion_of",
    "read_predictions",
    "taken_back",
]
