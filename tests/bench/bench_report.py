"""The report on many runs: how long it takes, and how large its page is.

python -m tests.bench.bench_report [--runs 1000] [--revalidations 365]

The runs are synthetic, with records in the real format that are committed to a store first; that is
not measured. Prints a Markdown table; it checks no limits.
"""

import argparse
import tempfile
import time
from pathlib import Path

from sknet.report import write_report
from sknet.report.page import shown_in_full
from tasks.catalog.runs import collect, thumbnails
from tests.synthetic_store import fill

MAX_SECONDS, MAX_MEBIBYTES = 20, 5
MIB = 2**20


def main(arguments: argparse.Namespace) -> None:
    """Fill a store, write the report, print the figures."""
    with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
        store = fill(Path(folder) / "store", arguments.runs, arguments.revalidations).store
        marks = [(time.perf_counter(), time.process_time())]
        findings = collect(store)
        digest = findings.model_dump_json()
        marks.append((time.perf_counter(), time.process_time()))
        pictures = thumbnails(store, shown_in_full(findings))
        write_report(findings, Path(folder) / "out", pictures=pictures)
        marks.append((time.perf_counter(), time.process_time()))
        page = (Path(folder) / "out" / "report.html").stat().st_size / MIB
    begin, read, end = marks
    print(
        f"{len(findings.runs)} runs, {len(findings.revalidations)} revalidations, "
        f"findings of {len(digest)} bytes\n"
    )
    print("| | s | s of processor | goal |\n|---|---:|---:|---:|")
    for name, one, other in (("read", begin, read), ("write", read, end), ("all", begin, end)):
        goal = f"{MAX_SECONDS}" if name == "all" else ""
        print(f"| {name} | {other[0] - one[0]:.2f} | {other[1] - one[1]:.2f} | {goal} |")
    print(f"\nreport.html: {page:.2f} MiB (goal {MAX_MEBIBYTES})")


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    result = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    result.add_argument("--runs", type=int, default=1000)
    result.add_argument("--revalidations", type=int, default=365)
    result.add_argument("--dir", help="directory for the store (default: a temporary one)")
    return result


if __name__ == "__main__":
    main(parser().parse_args())
