"""Start or stop an S3 server on this machine, for trying things out and for tests.

Exit codes: 0 done, 1 the server failed.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from infra.base.outcomes import ExitCode
from infra.s3.server import ServerError, start, stop


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], None] = options.command
    try:
        command(options)
    except (ServerError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return ExitCode.FAILED
    return ExitCode.DONE


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--directory",
        type=Path,
        default=Path(".s3"),
        help="directory of the server's data, log and credentials (default: .s3)",
    )
    parser = argparse.ArgumentParser(prog="python -m infra.s3", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="start|stop")
    begin = commands.add_parser(
        "start", parents=[common], help="start the server, unless it is running"
    )
    begin.add_argument(
        "--bucket", default="artifacts", help="bucket to create if missing (default: artifacts)"
    )
    begin.set_defaults(command=_start)
    end = commands.add_parser("stop", parents=[common], help="stop the server; its data stays")
    end.set_defaults(command=_stop)
    return parser


def _start(options: argparse.Namespace) -> None:
    running = start(options.directory, bucket=options.bucket)
    print(f"S3 on http://127.0.0.1:{running.port}: s3://{options.bucket}")
    print(f"To use it: . {options.directory / 'environment'}")


def _stop(options: argparse.Namespace) -> None:
    print("stopped" if stop(options.directory) else "no server runs there")


if __name__ == "__main__":
    sys.exit(main())
