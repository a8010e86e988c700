"""The results of the crash matrix as a table in the documentation."""

import re
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from tests.crashes.experiment import Observed, Result
from tests.crashes.points import Point

BEGIN, END = "<!-- crash matrix: begin -->", "<!-- crash matrix: end -->"


def markdown(results: Sequence[Result], missed: Sequence[Point], seed: int) -> str:
    """Return one line that sums up, and a table with a row for each point."""
    passed = sum(result.verdict.passed for result in results)
    took = sorted(result.observed.seconds for result in results)
    summary = (
        f"Seed {seed}: {len(results)} points, {passed} of them ended like the uninterrupted run, "
        f"{took[0]:.0f} to {took[-1]:.0f} s after the kill (median {took[len(took) // 2]:.0f} s)."
    )
    if missed:
        numbers = ", ".join(str(point.number) for point in missed)
        summary += f" Not hit, as the task was over before its victim started: {numbers}."
    rows = [
        {
            "point": result.point.number,
            "victim": _victim(result.point),
            "task": result.point.task,
            "at": f"{result.observed.moment:.1f} s",
            "run": f"{result.point.form}, {result.point.store}",
            "what happened": _happened(result.observed),
            "done after": f"{result.observed.seconds:.0f} s",
            "equal": "yes" if result.verdict.passed else f"NO: {result.verdict.faults()}",
        }
        for result in results
    ]
    return f"{summary}\n\n{tabulate(rows, headers='keys', tablefmt='github')}\n"


def write_into(page: Path, text: str) -> None:
    """Replace what stands between the page's two marks."""
    before = page.read_text("utf-8")
    marked = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    assert marked.search(before), f"{page} has no place for the table"
    page.write_text(marked.sub(lambda _: f"{BEGIN}\n{text}{END}", before), "utf-8")


def _victim(point: Point) -> str:
    if "server" in point.victim or point.victim == "worker":
        return f"{point.victim}, for {point.down:.0f} s"
    return point.victim


def _happened(observed: Observed) -> str:
    parts = ["the task was retried"] if observed.retried else []
    parts += [f"the run ended as {end} and was started again" for end in observed.ends[:-1]]
    return ", ".join(parts) or "the run continued"
