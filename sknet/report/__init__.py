"""Performance report: what runs recorded, as tables, curves and one page that stands alone."""

from sknet.report.figures import learning_curve
from sknet.report.frames import epochs_table, evaluations_table, published_table
from sknet.report.render import write_report
from sknet.report.runs import EvaluationCounts, StageTime, TrainedRun

__all__ = [
    "EvaluationCounts",
    "StageTime",
    "TrainedRun",
    "epochs_table",
    "evaluations_table",
    "learning_curve",
    "published_table",
    "write_report",
]
