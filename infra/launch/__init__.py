"""Launch a training program, on this host or a gang of hosts: msrun under a supervisor each."""

from infra.base.outcomes import Outcome
from infra.launch.job import Control, Job, JobResult, Rendezvous
from infra.launch.msrun import run

__all__ = ["Control", "Job", "JobResult", "Outcome", "Rendezvous", "run"]
