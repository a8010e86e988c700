"""Launch a training program, on this host or a gang of hosts: msrun under a supervisor each."""

from infra.launch.job import Control, Job, JobResult, Rendezvous
from infra.launch.msrun import run
from infra.base.outcomes import JobStatus

__all__ = ["Control", "Job", "JobResult", "JobStatus", "Rendezvous", "run"]
