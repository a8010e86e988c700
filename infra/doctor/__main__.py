"""Check whether this machine can train. The table says what was found, and what to do.

Exit codes: 0 it can (there may be warnings), 1 a check failed, 2 an option is wrong.
"""

import argparse
import ipaddress
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from infra.base.ascend import count_device_files
from infra.base.cann import accepted_versions
from infra.base.commands import OPTIONS, app_of, parsed_by, start
from infra.base.interrupts import run_interruptible
from infra.base.options import non_negative_float, whole_number
from infra.base.outcomes import ExitCode, UserError
from infra.doctor.ascend import check_ascend
from infra.doctor.ascend_tools import gather
from infra.doctor.binding import check_binding, gather_binding
from infra.doctor.cann import SHARED, Needs
from infra.doctor.host_ports import check_host_ports, gather_host_ports
from infra.doctor.machine import (
    Installation,
    check_installation,
    check_resources,
    extra_requirements,
    installation,
    resources,
)
from infra.doctor.results import CheckResult, Status, any_failed, as_json, as_table, redacted
from infra.doctor.services import (
    ask_prefect,
    check_prefect,
    check_store,
    local_directory,
    prefect_url,
    try_store,
)

Check = Callable[[], list[CheckResult]]


def main(options: "Options") -> int:
    """Run all checks, print the table and return the exit code."""
    try:
        checks = _checks(options)
        if options.json:
            _write(options.json, "")  # refuse an unwritable path before the checks, which take time
        results = [result for name, check in checks for result in _run(name, check)]
        if options.json:
            _write(options.json, as_json(results))
    except UserError as error:
        sys.stderr.write(f"error: {redacted(str(error))}\n")
        return ExitCode.USER_ERROR
    print(as_table(results))
    return ExitCode.FAILED if any_failed(results) else ExitCode.DONE


def _checks(options: "Options") -> list[tuple[str, Check]]:
    """Return the requested checks, with their names.

    Raises:
        UserError: An option has a wrong value.
    """
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
    if store := options.store:
        checks.append(("store", lambda: check_store(try_store(store, directory))))
    if options.ascend or shutil.which("npu-smi") or count_device_files():
        needs = _needs(facts)
        packages = [*(each.name for each in needs.packages), *SHARED]
        checks.append(("Ascend", lambda: check_ascend(gather(options.peer, packages), needs)))
        checks.append(("HCCL's TCP ports", lambda: check_host_ports(gather_host_ports(os.environ))))
        checks.append(("--bind_core", lambda: check_binding(gather_binding())))
    return checks


def _needs(facts: Installation) -> Needs:
    of_mindspore = {each.name: each.specifier for each in installation("mindspore").requirements}
    return Needs(
        mindspore=_version(facts, "mindspore"),
        accepted=accepted_versions(),
        shared={name: of_mindspore[name] for name in SHARED if name in of_mindspore},
        packages=extra_requirements("ascend"),
        python=facts.python,
    )


def _run(name: str, check: Check) -> list[CheckResult]:
    try:
        return check()
    except Exception as error:  # noqa: BLE001 (a check that breaks must not hide the others)
        found = f"the check itself failed: {type(error).__name__}: {error}"
        return [CheckResult(name, Status.FAIL, found, "", "report it as an issue, with this line")]


def _version(facts: Installation, name: str) -> str | None:
    return (facts.versions or {}).get(name)


def _write(path: Path, content: str) -> None:
    try:
        path.write_text(content, "utf-8")
    except OSError as error:
        raise UserError(f"--json {path} can't be written: {error.strerror}") from None


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an IP address") from None


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is checked."""

    json: Path | None = None
    """Also write the results to this JSON file."""
    store: str | None = None
    """Also try this store: a path, file:///abs/path or s3://bucket/prefix."""
    api: Annotated[str | None, Parameter(show_default="PREFECT_API_URL")] = None
    """URL of the Prefect API."""
    workers: Annotated[int, parsed_by(whole_number(1, 1024))] = 2
    """Number of ranks that will run on this host."""
    disk: Annotated[float, parsed_by(non_negative_float)] = 2.0
    """Gigabytes of disk that must be free."""
    ascend: Annotated[bool, Parameter(show_default="if npu-smi or a device file is found")] = False
    """Also check Ascend: devices, driver, CANN and network."""
    peer: Annotated[tuple[str, ...], parsed_by(_address), Parameter(show_default=False)] = ()
    """Address of a device of another host that HCCL's network must reach; may be repeated."""


DEFAULTS = Options()


def command(options: Annotated[Options, OPTIONS] = DEFAULTS) -> int:
    """Check whether this machine can train. The table says what was found, and what to do.

    Exit codes: 0 it can (there may be warnings), 1 a check failed, 2 an option is wrong.

    Example: `sknet doctor --store artifacts --workers 2`
    """
    return run_interruptible(partial(main, options))


if __name__ == "__main__":
    sys.exit(start(app_of(command, "python -m infra.doctor")))
