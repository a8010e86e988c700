"""report: the performance report over all runs of a store.

python -m flows.report --store URI --out DIR [--compare A B] [--price PER_DEVICE_HOUR]
"""

import argparse
import math
import shutil
import sys
from pathlib import Path

from prefect import flow

from flows.command import quieten, run_flow
from infra.artifacts import open_store
from sknet.errors import UserError
from tasks import report as reporting
from tasks.results import StageResult, artifact_of, results_of


@flow(name="report")
def report(
    store: str = "artifacts",
    out: str | None = None,
    compare: tuple[str, str] | None = None,
    price: float | None = None,
) -> StageResult:
    """Write the report, or find it; `out` gets a copy."""
    (result,) = results_of(reporting.report(store, compare, price))
    if out:
        shutil.copytree(
            artifact_of(open_store(store), result).directory,
            out,
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns("manifest.json"),
        )
    return result


def main(arguments: argparse.Namespace) -> None:
    """Run the flow and name the page; print the comparison that was asked for."""
    open_store(arguments.store, create=False)
    out = Path(arguments.out)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file: expected a directory")
    quieten()
    result = report(arguments.store, arguments.out, arguments.compare, arguments.price)
    if arguments.compare:
        print((out / "comparison.md").read_text("utf-8"))
    print(f"report      {out / 'report.html'}")
    if unreadable := result.facts["unreadable"]:
        print(f"unreadable  {unreadable}: see {out / 'unreadable.csv'}")


def parser() -> argparse.ArgumentParser:
    """The options."""
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    result.add_argument("--store", default="artifacts", help="a path, file:///… or s3://…")
    result.add_argument("--out", default="reports", help="directory for a copy of the report")
    runs = "two runs, each by the beginning of its key or by a ref"
    result.add_argument("--compare", nargs=2, metavar=("A", "B"), help=runs)
    cost = "of a device-hour, in whatever currency"
    result.add_argument("--price", type=price, metavar="PER_DEVICE_HOUR", help=cost)
    return result


def price(text: str) -> float:
    """A number that is not negative."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no price: expected a number from 0 on")
    return value


if __name__ == "__main__":
    sys.exit(run_flow(main, parser().parse_args()))
