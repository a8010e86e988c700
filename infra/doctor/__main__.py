"""Is this machine fit? ``python -m infra.doctor [--json OUT] [--store URI] [--ascend] …``.

Exit codes: 0 fit (warnings may be there), 1 something failed, 2 the input is wrong.
"""

import argparse
import ipaddress
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from infra.base.outcomes import ExitCode
from infra.doctor.ascend import check_ascend
from infra.doctor.ascend_tools import gather
from infra.doctor.findings import Finding, Status, as_json, as_table, failed, redacted
from infra.doctor.machine import (
    Installation,
    check_installation,
    check_resources,
    installation,
    resources,
)
from infra.doctor.services import (
    WrongInputError,
    ask_prefect,
    check_prefect,
    check_store,
    local_directory,
    prefect_url,
    try_store,
)

Check = Callable[[], list[Finding]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Check everything, print the table and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        checks = _checks(options)
        if options.json:
            _write(options.json, "")
        findings = [finding for name, check in checks for finding in _guarded(name, check)]
        if options.json:
            _write(options.json, as_json(findings))
    except WrongInputError as error:
        sys.stderr.write(f"error: {redacted(str(error))}\n")
        return ExitCode.USER_ERROR
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return ExitCode.FAILED
    print(as_table(findings))
    return ExitCode.FAILED if failed(findings) else ExitCode.DONE


def _checks(options: argparse.Namespace) -> list[tuple[str, Check]]:
    """What is asked for. Raises WrongInputError."""
    directory = local_directory(options.store) if options.store else None
    api = prefect_url(options.api)
    facts = installation()
    checks: list[tuple[str, Check]] = [
        ("installation", lambda: check_installation(facts)),
        (
            "resources",
            lambda: check_resources(
                resources(directory or Path.cwd()),
                workers=options.workers,
                disk_gigabytes=options.disk,
            ),
        ),
        ("Prefect API", lambda: check_prefect(ask_prefect(api), _version(facts, "prefect"))),
    ]
    if options.store:
        checks.append(("store", lambda: check_store(try_store(options.store, directory))))
    if options.ascend or shutil.which("npu-smi"):
        mindspore = _version(facts, "mindspore")
        checks.append(("Ascend", lambda: check_ascend(gather(options.peer), mindspore)))
    return checks


def _guarded(name: str, check: Check) -> list[Finding]:
    try:
        return check()
    except Exception as error:  # noqa: BLE001 (a check that breaks must not hide the others)
        found = f"the check itself failed: {type(error).__name__}: {error}"
        return [Finding(name, Status.FAIL, found, "", "report it as an issue, with this line")]


def _version(facts: Installation, name: str) -> str | None:
    return (facts.versions or {}).get(name)


def _write(path: Path, content: str) -> None:
    try:
        path.write_text(content, "utf-8")
    except OSError as error:
        raise WrongInputError(f"--json {path} can't be written: {error.strerror}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m infra.doctor", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="a file for programs, too")
    parser.add_argument("--store", metavar="URI", help="a path, file:///abs/path or s3://bucket/x")
    parser.add_argument("--api", metavar="URL", help="of Prefect (default: PREFECT_API_URL)")
    parser.add_argument("--workers", type=_count, default=2, help="ranks on this host (2)")
    parser.add_argument(
        "--disk", type=_gigabytes, default=2.0, metavar="GB", help="that have to be free (2)"
    )
    parser.add_argument("--ascend", action="store_true", help="default where npu-smi is installed")
    parser.add_argument(
        "--peer",
        type=_address,
        action="append",
        default=[],
        metavar="ADDRESS",
        help="of a device of another host, to be reached over HCCL's network; may be repeated",
    )
    return parser


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of ranks from 1 to 1024")
    return int(text)


def _gigabytes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of gigabytes from 0 to 1e9")
    return value


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no IP address") from None


if __name__ == "__main__":
    sys.exit(main())
