"""The ways in which this library refuses or gives up. Each has one clear line for its reader."""

from infra.base.outcomes import UserError
from infra.base.shortages import DiskFullError, MemoryRefusedError

__all__ = [
    "CheckpointError",
    "DiskFullError",
    "ExportError",
    "LostProcessError",
    "MemoryRefusedError",
    "NonFiniteLossError",
    "SampleError",
    "SourceReadError",
    "StoppedError",
    "UserError",
]


class NonFiniteLossError(ArithmeticError):
    """The loss became NaN or infinite; trying again would only repeat it. Exit code 1."""


class StoppedError(RuntimeError):
    """Someone asked to stop, and there is a checkpoint to go on from. Exit code 1."""


class CheckpointError(RuntimeError):
    """The last checkpoint couldn't be saved; those before it are intact. Exit code 1."""


class ExportError(RuntimeError):
    """An exported file computes something else than its network. Exit code 1."""


class LostProcessError(RuntimeError):
    """A process was killed from outside; what it had finished is kept. Exit code 1, no outcome."""


class SampleError(RuntimeError):
    """A sample of the shards doesn't decode: says which one and why. Exit code 1."""


class SourceReadError(OSError):
    """A source can't be read at the moment, through no fault of one file: trying again may help.

    Exit code 1, no outcome.
    """
