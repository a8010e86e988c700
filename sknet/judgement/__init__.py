"""Decisions about checkpoints: may one be promoted, and does production still give its results.

Functions of records and predictions alone; they need no MindSpore.
"""

from sknet.judgement.floors import NO_FLOORS, Floors
from sknet.judgement.promotion import (
    SIGNIFICANCE,
    Candidate,
    Criterion,
    Judgement,
    Production,
    below_floors,
    judge_promotion,
    promotion_of,
    was_rolled_back,
)
from sknet.judgement.revalidation import (
    MAX_LISTED,
    TOLERANCE,
    EvaluationPair,
    Verdict,
    differing_fields,
    judge_revalidation,
)

__all__ = [
    "MAX_LISTED",
    "NO_FLOORS",
    "SIGNIFICANCE",
    "TOLERANCE",
    "Candidate",
    "Criterion",
    "EvaluationPair",
    "Floors",
    "Judgement",
    "Production",
    "Verdict",
    "below_floors",
    "differing_fields",
    "judge_promotion",
    "judge_revalidation",
    "promotion_of",
    "was_rolled_back",
]
