"""Look into a store and keep it: ``python -m infra.artifacts COMMAND --store URI [--json]``.

Exit codes: 0 all is well, 1 damage was found or the work failed, 2 the input is wrong.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

from infra.artifacts import commands
from infra.artifacts.inspection import Level
from infra.artifacts.opening import open_store
from infra.artifacts.records import (
    DamagedArtifactError,
    DigestConflictError,
    RefConflictError,
    StoreError,
)
from infra.artifacts.store import ArtifactStore
from infra.base.outcomes import ExitCode

Command = Callable[[ArtifactStore, argparse.Namespace], int]
ARTIFACT = "KIND/KEY, or the name of a ref"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(levelname)s %(message)s")
    command: Command = options.command
    try:
        return command(open_store(options.store, create=False), options)
    except DamagedArtifactError as error:
        sys.stderr.write(f"damaged: {error}\n")
        return ExitCode.FAILED
    except (DigestConflictError, RefConflictError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return ExitCode.FAILED
    except StoreError as error:
        sys.stderr.write(f"error: {error}\n")
        return ExitCode.USER_ERROR
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command does the rest\n")
        return ExitCode.FAILED


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--store", required=True, metavar="URI", help="a path, file:///abs/path or s3://bucket/x"
    )
    common.add_argument("--json", action="store_true", help="print JSON")
    level = argparse.ArgumentParser(add_help=False)
    level.add_argument(
        "--level",
        choices=get_args(Level),
        default="full",
        help="what is read: no file (size), files whose status has changed since they were last "
        "read (changed), all (full, the default)",
    )

    parser = argparse.ArgumentParser(prog="python -m infra.artifacts", description=__doc__)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(command: Command, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        added = subparsers.add_parser(
            command.__name__,
            parents=[common, *parents],
            help=(command.__doc__ or "").partition(".")[0].lower(),
            description=command.__doc__,
        )
        added.set_defaults(command=command)
        return added

    add(commands.ls).add_argument("kind", nargs="?", help="of this kind only")
    add(commands.show).add_argument("artifact", help=ARTIFACT)
    add(commands.verify, level).add_argument(
        "artifact", nargs="?", help=f"{ARTIFACT}; without, all"
    )
    fetch = add(commands.fetch)
    fetch.add_argument("artifact", help=ARTIFACT)
    fetch.add_argument("--out", required=True, type=Path, metavar="DIR", help="new, or empty")
    push = add(commands.push)
    push.add_argument("artifact", help=ARTIFACT)
    push.add_argument("--to", required=True, metavar="URI", help="the other store")
    push.add_argument("--with-inputs", action="store_true", help="and all it was made from")
    gc = add(commands.gc)
    gc.add_argument("--days", type=_days, default=30.0, help="how long unused things stay (30)")
    gc.add_argument("--delete", action="store_true", help="remove it, instead of showing it")
    refs = add(commands.refs)
    forms = "[NAME | rollback NAME | set NAME KIND/KEY]"
    refs.add_argument("words", nargs="*", metavar=forms, help="show one, take it back, or move it")
    refs.add_argument("--reason", metavar="TEXT", help="of set: why, for the history")
    add(commands.repair, level)
    return parser


def _days(text: str) -> float:
    days = float(text)
    if not 0 <= days <= 36500:
        raise argparse.ArgumentTypeError(f"{text} is no number of days from 0 to 36500")
    return days


if __name__ == "__main__":
    sys.exit(main())
