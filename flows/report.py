"""report: the performance report over all runs of a store.

python -m flows.report --store URI --out DIR [--compare A B …] [--price PER_DEVICE_HOUR]
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated

from prefect import flow
from pydantic import Field

import tasks.report
from flows.command import call, prepare, run_flow, stoppable
from infra.artifacts import absolute_uri, default_store, open_store
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
    compare: tuple[str, ...] | None = None,
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
    store = store or default_store()
    open_store(store, create=False)
    result = tasks.report.report(store, compare, price).result()
    if out:
        copy_report(artifact_of(open_store(store), result).directory, Path(out))
    return result


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


def main(arguments: argparse.Namespace) -> None:
    """Run the flow; print where the page is, and the comparison that was asked for."""
    open_store(arguments.store, create=False)
    check_directory(arguments.out)
    out = Path(arguments.out)
    prepare()
    store = absolute_uri(arguments.store)
    result = call(report, store, arguments.out, arguments.compare, arguments.price)
    if arguments.compare:
        print((out / "comparison.md").read_text("utf-8"))
    print(f"report      {out / 'report.html'}")
    if unreadable := result.facts["unreadable"]:
        print(f"unreadable  {unreadable}: see {out / 'unreadable.csv'}")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    result.add_argument(
        "--store",
        default=default_store(),
        help="a path, file:///… or s3://… (default: SKNET_STORE, or artifacts)",
    )
    result.add_argument(
        "--out", default="reports", help="directory for a copy of the report (default: %(default)s)"
    )
    result.add_argument(
        "--compare",
        nargs="+",
        metavar="RUN",
        help="runs to show side by side, each by the first digits of its key or by a ref; the "
        "first is compared with each of the others",
    )
    result.add_argument(
        "--price",
        type=non_negative_float,
        metavar="PER_DEVICE_HOUR",
        help="price of a device-hour, in whatever currency, to show what each run cost",
    )
    return result


if __name__ == "__main__":
    sys.exit(run_flow(main, parser().parse_args()))
