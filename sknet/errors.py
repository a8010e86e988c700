"""The ways in which this library refuses or gives up, each with one clear line for its reader."""


class UserError(ValueError):
    """The input is wrong: says what, which value, what was expected, what to do. Exit code 2."""


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


class DiskFullError(OSError):
    """The disk takes no more: says what is needed, what is free and where. Exit code 1.

    What was finished is kept, so trying again costs little.
    """


class MemoryRefusedError(MemoryError):
    """The process may have no more memory; trying again would only repeat it. Exit code 1."""


class SourceReadError(OSError):
    """A source can't be read at the moment, through no fault of one file: trying again may help.

    Exit code 1, no outcome.
    """
