"""The errors of this library. The message of each is one line for the user."""

from infra.base.outcomes import UserError
from infra.base.shortages import DiskFullError, MemoryRefusedError

__all__ = [
    "CheckpointError",
    "DiskFullError",
    "ExportError",
    "GraphError",
    "LostProcessError",
    "MemoryRefusedError",
    "NonFiniteLossError",
    "SampleError",
    "SourceReadError",
    "StoppedError",
    "UserError",
    "shortened",
]

MAX_SHOWN = 100
"""Characters of a value that a message shows."""


def shortened(value: object) -> str:
    """Return a value's text for a message, limited in length: a file may hold anything."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print a number of more than 4300 digits
        return "a number of thousands of digits"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


class NonFiniteLossError(ArithmeticError):
    """The loss became NaN or infinite; a retry would only repeat it. Exit code 1."""


class StoppedError(RuntimeError):
    """A stop was requested; there is a checkpoint to resume from. Exit code 1."""


class CheckpointError(RuntimeError):
    """A checkpoint couldn't be saved or failed its checks. Earlier ones are intact. Exit code 1."""


class ExportError(RuntimeError):
    """An exported file gives other results than its network. Exit code 1."""


class GraphError(RuntimeError):
    """The graphs of a training are unfit for its device, or can't be read. Exit code 1."""


class LostProcessError(RuntimeError):
    """A worker process was killed; its finished parts are saved. Exit code 1, without an outcome,
    so that a launcher retries."""


class SampleError(RuntimeError):
    """A sample of the shards can't be decoded. Exit code 1."""


class SourceReadError(OSError):
    """A source can't be read at the moment, which is not one file's fault. Exit code 1, without an
    outcome, so that a launcher retries."""
