"""Launch a training program on this host: msrun under a supervisor that leaves no orphan."""

from infra.launch.msrun import Job, JobResult, run
from infra.launch.outcome import JobStatus

__all__ = ["Job", "JobResult", "JobStatus", "run"]
