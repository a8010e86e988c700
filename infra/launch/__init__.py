"""Launch a training program as ranks on one host, or on several hosts of a Ray cluster."""

from infra.base.outcomes import Outcome
from infra.launch.job import Control, Job, JobResult, Preparation, PreparedHost, Rendezvous
from infra.launch.msrun import run

__all__ = [
    "Control",
    "Job",
    "JobResult",
    "Outcome",
    "Preparation",
    "PreparedHost",
    "Rendezvous",
    "run",
]
