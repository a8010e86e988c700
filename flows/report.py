"""report: the performance report over all runs of a store.

python -m flows.report --store URI --out DIR [--compare A B …] [--price PER_DEVICE_HOUR]
"""

import os
import shutil
import sys
import tempfile
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from prefect import flow
from pydantic import Field

import tasks.report
from flows.command import call, prepare, run_flow, stoppable
from infra.artifacts import absolute_uri, default_store, open_store
from infra.base.commands import OPTIONS, STORE, ConsoleOptions, Flag, app_of, parsed_by, start
from infra.base.options import non_negative_float
from sknet.errors import UserError
from tasks.pages import run_name
from tasks.results import TaskResult, artifact_of


def _run_name(compare: tuple[str, ...] | None, **_: object) -> str:
    return " and ".join(compare) if compare else "all runs"


@flow(name="report", flow_run_name=run_name(_run_name))
@stoppable
def report(
    store: str | None = None,
    out: str | None = None,
    compare: Annotated[tuple[str, ...], Field(min_length=2)] | None = None,
    price: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None,
) -> TaskResult:
    """Write the report, or find it in the store, and copy it to `out`.

    Args:
        store: The artifact store: a path, or s3://BUCKET/PREFIX. Empty: what SKNET_STORE says on
            the worker, or artifacts.
        out: A directory on the worker for a copy of the report.
        compare: Runs to show side by side, each by the first digits of its key or by a ref. The
            first is compared with each of the others.
        price: Price of a device-hour, in whatever currency, to show what each run cost.

    Raises:
        UserError: Not into this directory, or a name in `compare` stands for no run.
    """
    if out:
        check_directory(out)
    if compare:
        check_compared(compare)
    store = store or default_store()
    open_store(store, create=False)
    result = tasks.report.report(store, compare, price).result()
    if out:
        copy_report(artifact_of(open_store(store), result).directory, Path(out))
    return result


def check_compared(names: tuple[str, ...]) -> None:
    """Check that there are enough runs to compare.

    Raises:
        UserError: There are fewer than two.
    """
    if len(names) < 2:
        raise UserError(
            f"--compare has {', '.join(map(repr, names)) or 'no run'}: name two runs or more, each "
            "by the first digits of its key or by a ref"
        )


def check_directory(out: str) -> None:
    """Check, without leaving a trace, that a report can be copied into a directory.

    Raises:
        UserError: It is no directory, can't be written, or has other files than a report's.
    """
    from sknet.report.page import file_names  # takes as long to import as all else here

    if not out or "://" in out or "\0" in out:
        raise UserError(f"report directory {out!r} is no path: expected a directory on this host")
    directory = Path(out).absolute()
    try:
        present = next(each for each in (directory, *directory.parents) if os.path.lexists(each))
        if not present.is_dir():
            raise UserError(f"report directory {out}: {present} is a file, expected a directory")
        with tempfile.TemporaryFile(dir=present):
            pass  # permissions aren't enough: the file system may be full or read-only
        shown = [path for path in directory.glob("*") if not path.name.startswith(".")]
    except OSError as error:
        raise UserError(f"report directory {out} can't be written: {error.strerror}") from None
    known = file_names()
    others = sorted(path.name for path in shown if path.name not in known or path.is_dir())
    if others:
        raise UserError(
            f"report directory {out} has other files than a report's, such as {others[0]!r}: "
            "expected a new directory, or one with an earlier report, which is replaced"
        )


def copy_report(report: Path, out: Path) -> None:
    """Replace the report in a directory, so that no file of an earlier one stays.

    Raises:
        UserError: The directory can't be written.
    """
    from sknet.report.page import file_names

    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".report-") as scratch:
            for name in file_names():
                if (report / name).is_file():
                    shutil.copyfile(report / name, Path(scratch, name))
            for name in file_names():
                (out / name).unlink(missing_ok=True)
            for path in Path(scratch).iterdir():
                path.rename(out / path.name)
    except OSError as error:
        raise UserError(f"report directory {out} can't be written: {error.strerror}") from None


def main(arguments: "Options") -> None:
    """Run the flow; print where the page is, and the comparison that was asked for."""
    if arguments.compare is not None:
        check_compared(arguments.compare)
    store = arguments.store or default_store()
    open_store(store, create=False)
    opened = open_store(store)  # refused if the report can't be stored there
    if arguments.compare:
        # Its import takes a second, for pandas.
        from tasks.catalog.comparison import check_names

        check_names(opened, arguments.compare)
    check_directory(arguments.out)
    out = Path(arguments.out)
    prepare()
    store = absolute_uri(store)
    result = call(report, store, arguments.out, arguments.compare, arguments.price)
    if arguments.compare:
        print((out / "comparison.md").read_text("utf-8"))
    print(f"report      {out / 'report.html'}")
    if unreadable := result.facts["unreadable"]:
        print(f"unreadable  {unreadable}: see {out / 'unreadable.csv'}")
    if arguments.open and not webbrowser.open((out / "report.html").resolve().as_uri()):
        print("warning: there is no web browser here that --open could use", file=sys.stderr)


@dataclass(frozen=True, kw_only=True)
class Options(ConsoleOptions):
    """The options of a report."""

    store: Annotated[str | None, STORE] = None
    """The artifact store: a path, file:///… or s3://…"""
    out: str = "reports"
    """Directory for a copy of the report."""
    compare: Annotated[tuple[str, ...] | None, Parameter(consume_multiple=True)] = None
    """Runs to show side by side, each by the first digits of its key or by a ref. The first is
    compared with each of the others."""
    price: Annotated[float | None, parsed_by(non_negative_float)] = None
    """Price of a device-hour, in whatever currency, to show what each run cost."""
    open: Flag = False
    """Show the page in the web browser."""


DEFAULTS = Options()


def command(options: Annotated[Options, OPTIONS] = DEFAULTS) -> int:
    """Write the performance report over all runs of a store.

    Example: `sknet report --store artifacts --out reports`
    """
    return run_flow(main, options)


if __name__ == "__main__":
    sys.exit(start(app_of(command, "python -m flows.report")))
