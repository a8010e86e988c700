"""The report as Markdown, for a repository, a terminal or an orchestrator's artifact."""

import re
from collections.abc import Sequence

import pandas as pd

from sknet.report.comparison import Comparison, accuracy_frame, changes_frame, sentences
from sknet.report.findings import Findings, TrainedRun
from sknet.report.run_figures import describe_curve
from sknet.report.store_figures import describe_nights
from sknet.report.tables import (
    epochs_table,
    evaluations_table,
    nights_table,
    shown,
    unreadable_table,
)
from sknet.report.text import (
    NOTES,
    criteria_frame,
    facts,
    headline,
    published_shown,
    recipe_yaml,
    stages_shown,
)

MOST_ROWS = 60
"""Of a table of runs or nights: what goes beyond stands in the CSV files."""


FIGURE = "accuracy.svg"
"""The file beside the Markdown that it shows."""


def render_markdown(
    findings: Findings, detailed: Sequence[TrainedRun], comparison: Comparison | None = None
) -> str:
    """The tables without their figures; `detailed` runs have a section each."""
    results = published_shown(findings)
    parts = ["# SKNet training report", escape(headline(findings))]
    parts.append(f"![Accuracy@1 with intervals, own runs and published ones]({FIGURE})")
    parts += ["## Results", *_first(results, "table.csv")]
    parts.append("\n".join(f"- {escape(note)}" for note in NOTES))
    if comparison is not None:
        parts += ["## Comparison", *comparison_parts(comparison)]
    if findings.nights:
        parts += ["## Nightly re-validation", escape(describe_nights(findings.nights))]
        last_first = shown(nights_table(findings)).iloc[::-1]
        parts += _first(last_first, "nights.csv")
    if findings.unreadable:
        parts += ["## What could not be read"]
        parts += _first(shown(unreadable_table(findings)), "unreadable.csv")
    if findings.runs:
        evaluations = shown(evaluations_table(detailed))
        parts += ["## Evaluations", _table(evaluations)]
    for run in detailed:
        parts += _run(run)
    left = len(findings.runs) - len(detailed)
    if left > 0:
        parts.append(f"{left} more runs stand in the table above and in `runs.csv`.")
    return "\n\n".join(part for part in parts if part) + "\n"


def render_comparison(comparison: Comparison) -> str:
    """The comparison alone."""
    title = f"# {escape(comparison.first.title)} and {escape(comparison.second.title)}"
    return "\n\n".join(part for part in (title, *comparison_parts(comparison)) if part) + "\n"


def comparison_parts(comparison: Comparison) -> list[str]:
    """Paragraphs and tables."""
    return [
        f"First: {escape(comparison.first.title)}. Second: {escape(comparison.second.title)}.",
        "\n".join(f"- {escape(sentence)}" for sentence in sentences(comparison)),
        _table(accuracy_frame(comparison)),
        _table(changes_frame(comparison)),
    ]


def escape(text: str) -> str:
    """Markdown in which names stay names: no markup, no new cell, no new line."""
    line = " ".join(text.split())
    return re.sub(r"([\\`*\[\]<>|&])", r"\\\1", line)


def _run(run: TrainedRun) -> list[str]:
    text = recipe_yaml(run)
    # A fence longer than any row of backticks in the text, so that no name can close it.
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    rows = pd.DataFrame(list(facts(run).items()), columns=["fact", "value"])
    return [
        f"## {escape(run.title)}",
        escape(describe_curve(run)),
        _table(shown(epochs_table([run]))),
        _table(criteria_frame(run)),
        _table(stages_shown(run)),
        _table(rows),
        f"{fence}yaml\n{text}{fence}",
    ]


def _first(frame: pd.DataFrame, rest: str) -> list[str]:
    """The table's first rows, and where all of them are."""
    parts = [_table(frame.head(MOST_ROWS))]
    if len(frame) > MOST_ROWS:
        parts.append(f"{len(frame) - MOST_ROWS} more rows: `{rest}`.")
    return parts


def _table(frame: pd.DataFrame) -> str:
    if frame.empty:
        return ""
    cells = frame.map(lambda cell: escape(str(cell)))
    cells.columns = [escape(str(name)) for name in frame.columns]
    return str(cells.to_markdown(index=False, disable_numparse=True))
