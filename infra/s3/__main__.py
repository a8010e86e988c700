"""Start or stop an S3 server on this machine, for trying things out and for tests.

Exit codes: 0 done, 1 the server failed, 2 an option or a variable is wrong.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from infra.base.interrupts import run_interruptible
from infra.base.options import whole_number
from infra.base.outcomes import ExitCode, UserError
from infra.s3.server import LOOPBACK, ServerError, Service, serving, start, stop

EVERYWHERE = "0.0.0.0"  # noqa: S104 (of a container, whose port is published on loopback)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], None] = options.command
    try:
        command(options)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return ExitCode.USER_ERROR
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
    commands = parser.add_subparsers(required=True, metavar="start|run|stop")
    common_bucket = argparse.ArgumentParser(add_help=False)
    common_bucket.add_argument(
        "--bucket", default="artifacts", help="bucket to create if missing (default: artifacts)"
    )
    begin = commands.add_parser(
        "start", parents=[common, common_bucket], help="start the server, unless it is running"
    )
    begin.set_defaults(command=_start)
    foreground = commands.add_parser(
        "run",
        parents=[common, common_bucket],
        help="run it until SIGTERM, for containers; its only user is the one of "
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, which must be set",
    )
    foreground.add_argument(
        "--address",
        choices=(LOOPBACK, EVERYWHERE),
        default=LOOPBACK,
        help="where to listen for S3: on loopback, or on all addresses (default: %(default)s)",
    )
    foreground.add_argument(
        "--port",
        type=whole_number(1, 55532),
        default=8333,
        help="port for S3; those of its parts, on loopback, are the next three and those 10,000 "
        "higher (default: 8333)",
    )
    foreground.set_defaults(command=_run)
    end = commands.add_parser("stop", parents=[common], help="stop the server; its data stays")
    end.set_defaults(command=_stop)
    return parser


def _run(options: argparse.Namespace) -> None:
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    access_key, secret_key = (os.environ.get(name) for name in names)
    if not access_key or not secret_key:
        raise UserError(f"{names[0]} and {names[1]} must be set: the server's user has them")
    # Raises SystemExit wherever this process is, so that the server ends with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(ExitCode.DONE))
    service = Service(
        address=options.address,
        port=options.port,
        credentials=(access_key, secret_key),
        logs_to_file=False,
        memory="1GiB",
        volume_megabytes=1024,
    )
    with serving(options.directory, bucket=options.bucket, service=service) as running:
        print(f"s3://{options.bucket} on {options.address}:{options.port}", flush=True)
        if running.process is not None:
            running.process.wait()
    raise ServerError("the S3 server has ended: see its output")


def _start(options: argparse.Namespace) -> None:
    running = start(options.directory, bucket=options.bucket)
    print(f"S3 on http://127.0.0.1:{running.port}: s3://{options.bucket}")
    print(f"To use it: . {options.directory / 'environment'}")


def _stop(options: argparse.Namespace) -> None:
    print("stopped" if stop(options.directory) else "no server runs there")


if __name__ == "__main__":
    sys.exit(run_interruptible(main))
