"""How a job ended: the statuses, and the file in which rank 0 reports its own.

msrun's exit code says too little to act on: it is 1 for every failure, and 0 after an interrupt.
"""

from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError


class JobStatus(StrEnum):
    """How a job ended."""

    DONE = "done"
    USER_ERROR = "user_error"  # the user's input is wrong; a retry cannot help
    NON_FINITE = "non_finite"  # the loss became NaN or infinite; a retry meets it again
    STOPPED = "stopped"  # asked to stop, with a checkpoint to resume from
    DISK_FULL = "disk_full"  # what was finished is kept
    FAILED = "failed"
    LOST_WORKER = "lost_worker"  # a rank died or hung, or no outcome was written
    OUT_OF_MEMORY = "out_of_memory"  # the same, and the kernel killed for want of memory meanwhile


class Outcome(BaseModel):
    """What rank 0 of the program writes as its last act."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: Literal["done", "user_error", "non_finite", "stopped", "disk_full", "failed"]
    message: str


def read_outcome(path: Path) -> Outcome | None:
    """Return the outcome in `path`; None if there is none or it is not valid."""
    try:
        return Outcome.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
