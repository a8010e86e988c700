"""Reports: the runs of a store as tables, as figures, and as one page that needs no other file."""

from sknet.report.comparison import RunComparison, compare_runs, find_run
from sknet.report.contents import (
    DataFacts,
    ReportContents,
    ShownExample,
    TaskOutput,
    TrainedRun,
    Unreadable,
)
from sknet.report.page import write_report
from sknet.report.published_table import published_table
from sknet.report.tables import all_tables, epochs_table, evaluations_table

__all__ = [
    "DataFacts",
    "ReportContents",
    "RunComparison",
    "ShownExample",
    "TaskOutput",
    "TrainedRun",
    "Unreadable",
    "all_tables",
    "compare_runs",
    "epochs_table",
    "evaluations_table",
    "find_run",
    "published_table",
    "write_report",
]
