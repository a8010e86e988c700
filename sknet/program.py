"""What all programs share: exit codes, the one line of an error, and the outcome for a launcher."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.base.outcomes import ExitCode, Outcome, write_outcome
from infra.base.records import Record
from infra.base.shortages import is_disk_full, memory_refused
from sknet.errors import (
    CheckpointError,
    ExportError,
    LostProcessError,
    MemoryRefusedError,
    NonFiniteLossError,
    SampleError,
    SourceReadError,
    StoppedError,
    UserError,
)
from sknet.recipe import Recipe, load_recipe


def run(main: Callable[[argparse.Namespace], None], arguments: argparse.Namespace) -> int:
    """Run `main` and return the exit code: 0 done, 1 the work failed, 2 the input is wrong.

    The outcome goes to `arguments.outcome_file` too, if given: under msrun exit codes are lost.
    """
    try:
        main(arguments)
    except UserError as error:
        return _end(arguments, Outcome.USER_ERROR, str(error), ExitCode.USER_ERROR)
    except NonFiniteLossError as error:
        return _end(arguments, Outcome.NON_FINITE, str(error), ExitCode.FAILED)
    except StoppedError as error:
        return _end(arguments, Outcome.STOPPED, str(error), ExitCode.FAILED)
    except (CheckpointError, ExportError, SampleError) as error:
        return _end(arguments, Outcome.FAILED, str(error), ExitCode.FAILED)
    except (LostProcessError, SourceReadError) as error:
        # Without an outcome, a launcher takes the job for lost and starts it again.
        print(f"error: {error}", file=sys.stderr, flush=True)
        return ExitCode.FAILED
    except OSError as error:
        if not is_disk_full(error):
            raise
        return _end(arguments, Outcome.DISK_FULL, str(error), ExitCode.FAILED)
    except (MemoryError, RuntimeError) as error:
        refused = error if isinstance(error, MemoryRefusedError) else memory_refused(error)
        if refused is None:
            raise
        return _end(arguments, Outcome.FAILED, str(refused), ExitCode.FAILED)
    return _end(arguments, Outcome.DONE, "", ExitCode.DONE)


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with the option that launchers use."""
    result = argparse.ArgumentParser(description=description, allow_abbrev=False)
    result.add_argument("--outcome_file", type=Path, help=argparse.SUPPRESS)
    return result


def add_recipe(target: argparse.ArgumentParser) -> None:
    """The options by which programs take a recipe."""
    target.add_argument("--config", "-c", required=True, help="recipe: a name or a YAML file")
    target.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")


def recipe_of(arguments: argparse.Namespace) -> Recipe:
    """The recipe that the options name."""
    return load_recipe(arguments.config, arguments.set)


def write_record(record: Record, path: Path | None) -> None:
    """Write the record to the path of a --json option, if given. Raises UserError if it can't."""
    if path:
        make_directory(path.parent, "--json")
        write(record, path, "--json")


def write(record: Record, path: Path, option: str) -> None:
    """Write the record where an option says. Raises UserError if that is not possible."""
    with writing(path, option):
        record.write(path)


@contextmanager
def writing(path: Path, option: str) -> Iterator[None]:
    """What is done while this is open writes where an option says. Raises UserError if it can't."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{option} {path} can't be written: {error.strerror}") from None


def make_directory(path: Path, option: str) -> None:
    """Make a directory that an option names. Raises UserError if that is not possible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{option} {path} can't be made: {error.strerror}") from None


def is_distributed(option: bool | None, module: str) -> bool:
    """Whether this is one of msrun's ranks: by the option --distribute, or as it was started.

    Raises UserError if it should be one and isn't.
    """
    started = "MS_ROLE" in os.environ
    if option and not started:
        raise UserError(
            f"--distribute True without msrun: start with `msrun --worker_num N … {module}`"
        )
    return started if option is None else option


def boolean(text: str) -> bool:
    """True or False, as MindCV's options have it."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return text.lower() == "true"


def _end(arguments: argparse.Namespace, status: Outcome, message: str, code: ExitCode) -> ExitCode:
    # An error is reported by the rank that met it; only rank 0 can say that all went well.
    leader = os.environ.get("RANK_ID", "0") == "0"
    if arguments.outcome_file and (leader or status is not Outcome.DONE):
        write_outcome(arguments.outcome_file, status, message)
    if message:
        kind = "stopped" if status is Outcome.STOPPED else "error"
        print(f"{kind}: {message}", file=sys.stderr, flush=True)
    return code
