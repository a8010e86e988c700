"""What moves between the stages, in their order; JSON in and out, never file handles."""

from infra.base.records import MAX_RECORD_BYTES, Record, Sha256
from sknet.records.base import FileName, NonNegativeInt
from sknet.records.data import (
    Dataset,
    QuarantinedSample,
    Reencoding,
    ShardFile,
    Shards,
)
from sknet.records.evaluation import (
    Attention,
    CalibrationBin,
    Check,
    CheckpointChecks,
    ConfusedPair,
    Evaluation,
    Example,
    Examples,
    UnitAttention,
)
from sknet.records.training import (
    Checkpoint,
    CheckpointFile,
    Layout,
    Run,
)
from sknet.records.verdicts import (
    Counts,
    DifferingSample,
    ProductionComparison,
    Promotion,
    Repair,
    Revalidation,
)

__all__ = [
    "MAX_RECORD_BYTES",
    "Attention",
    "CalibrationBin",
    "Check",
    "Checkpoint",
    "CheckpointChecks",
    "CheckpointFile",
    "ConfusedPair",
    "Counts",
    "Dataset",
    "DifferingSample",
    "Evaluation",
    "Example",
    "Examples",
    "FileName",
    "Layout",
    "NonNegativeInt",
    "ProductionComparison",
    "Promotion",
    "QuarantinedSample",
    "Record",
    "Reencoding",
    "Repair",
    "Revalidation",
    "Run",
    "Sha256",
    "ShardFile",
    "Shards",
    "UnitAttention",
]
