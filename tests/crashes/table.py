"""The matrix as a table, and its place in the documentation."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from tests.crashes.checks import Verdict
from tests.crashes.points import Point
from tests.crashes.scene import Seen

BEGIN, END = "<!-- crash matrix: begin -->", "<!-- crash matrix: end -->"


@dataclass(frozen=True)
class Result:
    """A point that was carried out."""

    point: Point
    seen: Seen
    verdict: Verdict


def markdown(results: Sequence[Result], missed: Sequence[Point], seed: int) -> str:
    """A line that sums up, and a row for each point."""
    sound = sum(result.verdict.sound for result in results)
    took = sorted(result.seen.seconds for result in results)
    said = (
        f"Seed {seed}: {len(results)} points, {sound} of them ended like the undisturbed run, "
        f"{took[0]:.0f} to {took[-1]:.0f} s after the kill (median {took[len(took) // 2]:.0f} s)."
    )
    if missed:
        numbers = ", ".join(str(point.number) for point in missed)
        said += f" Not hit, as the stage was over before the victim was there: {numbers}."
    rows = [
        {
            "point": result.point.number,
            "victim": _victim(result.point),
            "stage": result.point.stage,
            "at": f"{result.seen.moment:.1f} s",
            "run": f"{result.point.form}, {result.point.place}",
            "what was seen": _seen(result.seen),
            "done after": f"{result.seen.seconds:.0f} s",
            "equal": "yes" if result.verdict.sound else f"NO: {result.verdict.faults()}",
        }
        for result in results
    ]
    return f"{said}\n\n{tabulate(rows, headers='keys', tablefmt='github')}\n"


def write_into(page: Path, text: str) -> None:
    """Between the page's two marks."""
    before = page.read_text("utf-8")
    marked = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    assert marked.search(before), f"{page} has no place for the table"
    page.write_text(marked.sub(lambda _: f"{BEGIN}\n{text}{END}", before), "utf-8")


def _victim(point: Point) -> str:
    if "server" in point.victim or point.victim == "worker":
        return f"{point.victim}, for {point.down:.0f} s"
    return point.victim


def _seen(seen: Seen) -> str:
    *before, last = seen.ends
    del last
    parts = ["the stage was tried again"] if seen.retried else []
    parts += [f"the run ended as {end} and was started again" for end in before]
    return ", ".join(parts) or "the run went on"
