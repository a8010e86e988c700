"""report: the performance report over all runs of a store.

python -m flows.report --store URI --out DIR [--compare A B] [--price PER_DEVICE_HOUR]
"""

import argparse
import shutil
import sys
from pathlib import Path

from prefect import flow

import tasks.report
from flows.command import quiet_loggers, run_flow
from infra.artifacts import default_store, open_store
from infra.base.options import non_negative_float
from sknet.errors import UserError
from tasks.results import TaskResult, artifact_of


@flow(name="report")
def report(
    store: str | None = None,
    out: str | None = None,
    compare: tuple[str, str] | None = None,
    price: float | None = None,
) -> TaskResult:
    """Write the report, or find it in the store, and copy it to `out`."""
    store = store or default_store()
    result = tasks.report.report(store, compare, price).result()
    if out:
        shutil.copytree(
            artifact_of(open_store(store), result).directory,
            out,
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns("manifest.json"),
        )
    return result


def main(arguments: argparse.Namespace) -> None:
    """Run the flow; print where the page is, and the comparison that was asked for."""
    open_store(arguments.store, create=False)
    out = Path(arguments.out)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file: expected a directory")
    quiet_loggers()
    result = report(arguments.store, arguments.out, arguments.compare, arguments.price)
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
        nargs=2,
        metavar=("A", "B"),
        help="two runs to show side by side, each by the first digits of its key or by a ref",
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
