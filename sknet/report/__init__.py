"""Performance report: what runs recorded, as tables, figures and one page that stands alone."""

from sknet.report.comparison import Comparison, compare_runs, find_run
from sknet.report.findings import (
    DataFacts,
    Findings,
    ShownExample,
    StageTime,
    TrainedRun,
    Unreadable,
)
from sknet.report.page import write_report
from sknet.report.tables import all_frames, epochs_table, evaluations_table, published_table

__all__ = [
    "Comparison",
    "DataFacts",
    "Findings",
    "ShownExample",
    "StageTime",
    "TrainedRun",
    "Unreadable",
    "all_frames",
    "compare_runs",
    "epochs_table",
    "evaluations_table",
    "find_run",
    "published_table",
    "write_report",
]
