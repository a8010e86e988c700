"""The errors that end a task, and which of them are worth another attempt."""

from sknet.errors import NonFiniteLossError, UserError


class LostWorkerError(RuntimeError):
    """A process of the job died or hung. Finished work is stored, so a retry is safe."""


class OutOfMemoryError(LostWorkerError):
    """The kernel killed a process of the job because memory ran out.

    A retry resumes from the finished work, and other programs may have freed memory by then.
    """


class JobFailedError(RuntimeError):
    """The job ended with an error of its own, which a retry would repeat."""


class JobStoppedError(RuntimeError):
    """The job was asked to stop, and did. A new run resumes from its last checkpoint."""


class ToldToGoError(RuntimeError):
    """The task got SIGTERM. `flows.command.stoppable` decides how its run goes on."""


class NotPromotedError(Exception):
    """The checkpoint was not promoted, and the user wants that to be a failure."""


class RegressionError(RuntimeError):
    """The promoted checkpoint is damaged, or its evaluation differs from the recorded one."""


PERMANENT = (UserError, NonFiniteLossError, JobFailedError)
"""Failures that a retry would only repeat. Errors of the store are UserErrors."""


def is_worth_retrying(error: BaseException | None) -> bool:
    """Tell whether another attempt may succeed.

    I/O errors, a full disk, and lost workers or hosts may pass. Wrong input and a diverged loss
    remain. So does memory that a limit of the program's own refused (a JobFailedError). A job that
    was asked to stop must not start again.
    """
    return isinstance(error, LostWorkerError | OSError)
