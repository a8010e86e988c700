"""report: the performance report over all runs of a store.

python -m flows.report --store URI --out DIR
"""

import argparse
import shutil
import sys
from pathlib import Path

from prefect import flow

from flows.command import quieten, run_flow
from infra.artifacts import open_store
from sknet.errors import UserError
from tasks import reporting
from tasks.stages import StageResult, artifact_of, results_of


@flow(name="report")
def report(store: str = "artifacts", out: str | None = None) -> StageResult:
    """Write the report, or find it; `out` gets a copy."""
    (result,) = results_of(reporting.report(store))
    if out:
        shutil.copytree(
            artifact_of(open_store(store), result).directory,
            out,
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns("manifest.json"),
        )
    return result


def main(arguments: argparse.Namespace) -> None:
    """Run the flow and name the page."""
    open_store(arguments.store, create=False)
    out = Path(arguments.out)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file: expected a directory")
    quieten()
    report(arguments.store, arguments.out)
    print(f"report      {out / 'report.html'}")


def parser() -> argparse.ArgumentParser:
    """The options."""
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    result.add_argument("--store", default="artifacts", help="a path, file:///… or s3://…")
    result.add_argument("--out", default="reports", help="directory for a copy of the report")
    return result


if __name__ == "__main__":
    sys.exit(run_flow(main, parser().parse_args()))
