"""What all programs share: options, exit codes, one line for each error, outcome files."""

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import get_args

from infra.base.interrupts import run_interruptible
from infra.base.options import fraction
from infra.base.outcomes import ExitCode, Outcome, write_outcome
from infra.base.progress import Sink, paced, watching
from infra.base.shortages import is_disk_full, memory_refused
from sknet.data.copies.leaks import ON_LEAK, OnLeak
from sknet.data.quarantine import DEFAULT_LIMIT
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
from sknet.recipe import Recipe, load_recipe


def run(main: Callable[[argparse.Namespace], None], arguments: argparse.Namespace) -> int:
    """Run `main` and return the exit code: 0 done, 1 the work failed, 2 the input is wrong.

    The outcome is also written to `arguments.outcome_file`, if given, because msrun loses the exit
    codes of its ranks. A program that people start says one line when it is interrupted.
    """
    if arguments.outcome_file or "MS_ROLE" in os.environ:  # a launcher's, which sends the signals
        return _run(main, arguments)
    return run_interruptible(partial(_run, main, arguments))


def _run(main: Callable[[argparse.Namespace], None], arguments: argparse.Namespace) -> int:
    try:
        with watching(_printed):
            main(arguments)
    except UserError as error:
        return _end(arguments, Outcome.USER_ERROR, str(error), ExitCode.USER_ERROR)
    except NonFiniteLossError as error:
        return _end(arguments, Outcome.NON_FINITE, str(error), ExitCode.FAILED)
    except StoppedError as error:
        return _end(arguments, Outcome.STOPPED, str(error), ExitCode.FAILED)
    except (CheckpointError, ExportError, GraphError, SampleError) as error:
        return _end(arguments, Outcome.FAILED, str(error), ExitCode.FAILED)
    except (LostProcessError, SourceReadError) as error:
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


def _memory_options(arguments: argparse.Namespace) -> list[str]:
    """Return what the user of a program can lower so that it needs less memory."""
    if "set" in arguments:  # a program that has a recipe
        return ["batch_size", "num_parallel_workers"]
    return [f"--{name}" for name in ("batch_size", "workers") if name in arguments]


def _printed(name: str) -> Sink:
    """Return a sink that prints, on rank 0, how far long work is."""

    def show(fraction: float) -> None:
        if os.environ.get("RANK_ID", "0") == "0":
            print(f"{name}: {fraction:.0%}", flush=True)

    return paced(show)


def _end(arguments: argparse.Namespace, status: Outcome, message: str, code: ExitCode) -> ExitCode:
    # Any rank may report an error; that all went well, only rank 0.
    is_first = os.environ.get("RANK_ID", "0") == "0"
    if arguments.outcome_file and (is_first or status is not Outcome.DONE):
        write_outcome(arguments.outcome_file, status, message)
    if message:
        kind = "stopped" if status is Outcome.STOPPED else "error"
        print(f"{kind}: {message}", file=sys.stderr, flush=True)
    return code


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options that launchers use."""
    result = argparse.ArgumentParser(description=description, allow_abbrev=False)
    result.add_argument("--outcome_file", type=Path, help=argparse.SUPPRESS)
    return result


def add_run_options(target: argparse.ArgumentParser, default_recipe: str | None = None) -> None:
    """Add the options that training and validation share: recipe, data and device.

    Names and values are MindCV's where MindCV has the option.

    Args:
        target: The parser.
        default_recipe: What takes the place of --config, for the help; None: it is required.
    """
    default = f" (default: {default_recipe})" if default_recipe else ""
    target.add_argument(
        "--config",
        "-c",
        required=default_recipe is None,
        help=f"recipe: its name, or the path of a YAML file{default}",
    )
    target.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="replace a value of the recipe (can be repeated)",
    )
    target.add_argument(
        "--data_dir",
        required=True,
        help="directory of image folders or of shards, or 'digits'",
    )
    target.add_argument(
        "--shards_dir",
        type=Path,
        default=Path("shards"),
        help="directory for shards converted from --data_dir (default: %(default)s)",
    )
    target.add_argument(
        "--distribute",
        type=boolean,
        metavar="BOOL",
        help="True for a rank that msrun started, False to work alone (default: detected)",
    )
    add_quarantine_option(target)
    add_leak_option(target)
    add_device_option(target)


def add_quarantine_option(target: argparse.ArgumentParser) -> None:
    """Add --max-quarantine, the limit for images that can't be used."""
    target.add_argument(
        "--max-quarantine",
        type=fraction,
        metavar="FRACTION",
        help=f"largest fraction of unreadable images tolerated (default: {DEFAULT_LIMIT})",
    )


def add_leak_option(target: argparse.ArgumentParser) -> None:
    """Add --on-leak, which says what happens to images that are in several splits."""
    target.add_argument(
        "--on-leak",
        choices=get_args(OnLeak),
        default=ON_LEAK,
        help="what to do if an image is in several splits: record it, refuse the source, or drop "
        "its copies from the split that matters less (default: %(default)s)",
    )


def add_device_option(target: argparse.ArgumentParser) -> None:
    """Add --device_target, which MindCV has too."""
    target.add_argument(
        "--device_target",
        help="CPU, Ascend, or auto: Ascend if this machine has cards and their driver, else CPU "
        "(default: the recipe's, which is auto unless it says otherwise)",
    )


def boolean(text: str) -> bool:
    """Return the value of an option that is True or False, as in MindCV.

    Raises:
        ArgumentTypeError: The text is neither.
    """
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return text.lower() == "true"


def recipe_of(arguments: argparse.Namespace, warn: Callable[[str], object]) -> Recipe:
    """Return the recipe that the options name; `warn` is that of `load_recipe`.

    Raises:
        UserError: There is no such recipe, or it is wrong.
    """
    return load_recipe(arguments.config, arguments.set, warn=warn)


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
