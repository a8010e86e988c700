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
    "Attention",
    "CalibrationBin",
    "Check",
    "Checkpoint",
    "CheckpointChecks",
    "CheckpointFile",
    "ConfusedPair",
    "CopyGroup",
    "Counts",
    "Dataset",
    "DifferingSample",
    "Evaluation",
    "Example",
    "Examples",
    "Layout",
    "ProductionComparison",
    "Promotion",
    "QuarantinedSample",
    "Reencoding",
    "Repair",
    "Revalidation",
    "Run",
    "ShardFile",
    "Shards",
    "UnitAttention",
]
