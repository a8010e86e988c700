"""The typed JSON documents that tasks pass on, in the order of the flow."""

from sknet.records.data import (
    CopyGroup,
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
    ClassResult,
    ConfusedPair,
    Evaluation,
    Example,
    Examples,
    LeakedCounts,
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
    SealedResult,
)

__all__ = [
    "Attention",
    "CalibrationBin",
    "Check",
    "Checkpoint",
    "CheckpointChecks",
    "CheckpointFile",
    "ClassResult",
    "ConfusedPair",
    "CopyGroup",
    "Counts",
    "Dataset",
    "DifferingSample",
    "Evaluation",
    "Example",
    "Examples",
    "Layout",
    "LeakedCounts",
    "ProductionComparison",
    "Promotion",
    "QuarantinedSample",
    "Reencoding",
    "Repair",
    "Revalidation",
    "Run",
    "SealedResult",
    "ShardFile",
    "Shards",
    "UnitAttention",
]
