"""What all programs share: exit codes, one line for each error, outcome files, ranks."""

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from infra.base.console import opened, show_work
from infra.base.interrupts import run_interruptible
from infra.base.on_demand import SupplyError
from infra.base.outcomes import ExitCode, Outcome, write_outcome
from infra.base.progress import watching
from infra.base.shortages import is_disk_full, memory_refused
from sknet.errors import (
    CheckpointError,
    ExportError,
    GraphError,
    LostProcessError,
    NonFiniteLossError,
    SampleError,
    SourceReadError,
    StoppedError,
    UserError,
)
from sknet.progress import console_of_program


class Launched(Protocol):
    """Options of a program that a launcher may have started."""

    @property
    def outcome_file(self) -> Path | None:
        """The file for the outcome; None: nobody launched it."""


Options = TypeVar("Options", bound=Launched)


def run(main: Callable[[Options], None], arguments: Options) -> int:
    """Run `main` and return the exit code: 0 done, 1 the work failed, 2 the input is wrong.

    The outcome is also written to `arguments.outcome_file`, if given, because msrun loses the exit
    codes of its ranks. A program that people start says one line when it is interrupted.
    """
    # MindSpore's warnings are for its developers, and would be written over the live display.
    os.environ.setdefault("GLOG_v", "3")
    if arguments.outcome_file or "MS_ROLE" in os.environ:  # a launcher's, which sends the signals
        return _run(main, arguments)
    return run_interruptible(partial(_run, main, arguments))


def _run(main: Callable[[Options], None], arguments: Options) -> int:
    try:
        with opened(console_of_program(arguments)), watching(show_work):
            main(arguments)
    except UserError as error:
        return _end(arguments, Outcome.USER_ERROR, str(error), ExitCode.USER_ERROR)
    except NonFiniteLossError as error:
        return _end(arguments, Outcome.NON_FINITE, str(error), ExitCode.FAILED)
    except StoppedError as error:
        return _end(arguments, Outcome.STOPPED, str(error), ExitCode.FAILED)
    except (CheckpointError, ExportError, GraphError, SampleError) as error:
        return _end(arguments, Outcome.FAILED, str(error), ExitCode.FAILED)
    except (LostProcessError, SourceReadError, SupplyError) as error:
        # Without an outcome, a launcher treats the job as lost and starts it again.
        print(f"error: {error}", file=sys.stderr, flush=True)
        return ExitCode.FAILED
    except OSError as error:
        if not is_disk_full(error):
            raise
        return _end(arguments, Outcome.DISK_FULL, str(error), ExitCode.FAILED)
    except (MemoryError, RuntimeError) as error:
        refused = memory_refused(error, options=_memory_options(arguments))
        if refused is None:
            raise
        return _end(arguments, Outcome.FAILED, str(refused), ExitCode.FAILED)
    return _end(arguments, Outcome.DONE, "", ExitCode.DONE)


def _memory_options(arguments: Launched) -> list[str]:
    """Return what the user of a program can lower so that it needs less memory."""
    if hasattr(arguments, "set"):  # a program that has a recipe
        return ["batch_size", "num_parallel_workers"]
    return [f"--{name}" for name in ("batch_size", "workers") if hasattr(arguments, name)]


def _end(arguments: Launched, status: Outcome, message: str, code: ExitCode) -> ExitCode:
    # Any rank may report an error; that all went well, only rank 0.
    is_first = os.environ.get("RANK_ID", "0") == "0"
    if arguments.outcome_file and (is_first or status is not Outcome.DONE):
        write_outcome(arguments.outcome_file, status, message)
    if message:
        kind = "stopped" if status is Outcome.STOPPED else "error"
        print(f"{kind}: {message}", file=sys.stderr, flush=True)
    return code


def is_distributed(option: bool | None, program: str) -> bool:
    """Tell whether this process is one of msrun's ranks.

    Args:
        option: The value of --distribute; None if it wasn't given.
        program: The program's path, for the message.

    Raises:
        UserError: The option says so, but msrun didn't start this process.
    """
    started = "MS_ROLE" in os.environ
    if option and not started:
        raise UserError(
            f"--distribute True without msrun: start with `msrun --worker_num N … {program}`"
        )
    return started if option is None else option


def num_ranks(*, distribute: bool) -> int:
    """Return the number of ranks of this process's job, before it joins them."""
    return int(os.environ["MS_WORKER_NUM"]) if distribute else 1
