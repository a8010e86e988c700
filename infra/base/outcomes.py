"""How a program ends: its exit code, and the outcome file that tells its launcher why.

msrun's exit code says too little to act on: it is 1 for every failure, and 0 after an interrupt.
"""

import json
import os
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError


class UserError(ValueError):
    """The user's input is wrong: says what, what was expected and the cure. Exit code 2."""


class ExitCode(IntEnum):
    """The exit codes of every program and command."""

    DONE = 0
    FAILED = 1
    USER_ERROR = 2


class Outcome(StrEnum):
    """How a job ended."""

    DONE = "done"
    USER_ERROR = "user_error"  # the user's input is wrong; a retry can't help
    NON_FINITE = "non_finite"  # the loss became NaN or infinite; a retry would repeat it
    STOPPED = "stopped"  # stopped on request, with a checkpoint to resume from
    DISK_FULL = "disk_full"  # the finished parts remain
    FAILED = "failed"
    LOST_WORKER = "lost_worker"  # a rank died or hung, or no outcome was written
    OUT_OF_MEMORY = "out_of_memory"  # as LOST_WORKER, and the kernel killed a rank for its memory


class OutcomeReport(BaseModel):
    """The content of an outcome file, which a program writes as its last act.

    Only the launcher can know that a rank was lost or killed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: Literal[
        Outcome.DONE,
        Outcome.USER_ERROR,
        Outcome.NON_FINITE,
        Outcome.STOPPED,
        Outcome.DISK_FULL,
        Outcome.FAILED,
    ]
    message: str


def write_outcome(path: Path, status: Outcome, message: str) -> None:
    """Write an outcome file. Several ranks may do so at the same time; the last one wins."""
    part = path.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps({"status": status, "message": message}), "utf-8")
    part.rename(path)


def read_outcome(path: Path) -> OutcomeReport | None:
    """Return the content of an outcome file, or None if it is missing or not valid."""
    try:
        return OutcomeReport.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
