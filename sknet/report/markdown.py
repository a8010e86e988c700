"""The report as Markdown, for a repository, a terminal, or an artifact in Prefect's UI."""

import re
from collections.abc import Sequence

import pandas as pd

from sknet.report.comparison import RunComparison, accuracy_table, changes_table, conclusions
from sknet.report.contents import ReportContents, TrainedRun
from sknet.report.results import published_as_text, results_as_text, shows_published
from sknet.report.run_figures import describe_curve
from sknet.report.store_figures import describe_revalidations
from sknet.report.tables import (
    epochs_table,
    unreadable_table,
)
from sknet.report.text import (
    NOTES,
    PUBLISHED_NOTES,
    as_text,
    criteria_as_text,
    evaluations_as_text,
    facts,
    headline,
    recipe_yaml,
    revalidations_as_text,
    tasks_as_text,
)

FIGURE = "accuracy.svg"
"""The file beside the Markdown that it shows."""

MAX_ROWS = 60
"""Most rows of a table over runs or revalidations. The CSV files have all of them."""


def render_markdown(
    contents: ReportContents,
    detailed: Sequence[TrainedRun],
    comparisons: Sequence[RunComparison] = (),
) -> str:
    """Return the report as Markdown. Each of the `detailed` runs has a section of its own."""
    parts = ["# SKNet training report", escape(headline(contents))]
    parts.append(f"![Accuracy@1 with intervals]({FIGURE})")
    if contents.runs:
        parts += ["## Runs", *_first_rows(results_as_text(contents), "table.csv")]
        parts.append("\n".join(f"- {escape(note)}" for note in NOTES))
    if shows_published(contents):
        parts += ["## Published for ImageNet-1K", _markdown_table(published_as_text())]
        parts.append("\n".join(f"- {escape(note)}" for note in PUBLISHED_NOTES))
    for comparison in comparisons:
        parts += ["## Comparison", *_comparison_parts(comparison)]
    if contents.revalidations:
        parts += ["## Revalidations", escape(describe_revalidations(contents.revalidations))]
        parts += _first_rows(revalidations_as_text(contents), "nights.csv")
    if contents.unreadable:
        parts += ["## What could not be read"]
        parts += _first_rows(as_text(unreadable_table(contents)), "unreadable.csv")
    if contents.runs:
        parts += ["## Evaluations", _markdown_table(evaluations_as_text(detailed))]
    for run in detailed:
        parts += _run_parts(run)
    num_left = len(contents.runs) - len(detailed)
    if num_left > 0:
        parts.append(f"{num_left} more runs are in the table above and in `runs.csv`.")
    return _joined(parts)


def render_comparisons(comparisons: Sequence[RunComparison]) -> str:
    """Return a document with the comparisons alone."""
    parts = []
    for each in comparisons:
        parts.append(f"# {escape(each.first.title)} and {escape(each.second.title)}")
        parts += _comparison_parts(each)
    return _joined(parts)


def escape(text: str) -> str:
    """Return Markdown that shows a text as it is: without markup, in one line, in one cell."""
    line = " ".join(text.split())
    return re.sub(r"([\\`*\[\]<>|&])", r"\\\1", line)


def _comparison_parts(comparison: RunComparison) -> list[str]:
    return [
        f"First: {escape(comparison.first.title)}. Second: {escape(comparison.second.title)}.",
        "\n".join(f"- {escape(sentence)}" for sentence in conclusions(comparison)),
        _markdown_table(accuracy_table(comparison)),
        _markdown_table(changes_table(comparison)),
    ]


def _run_parts(run: TrainedRun) -> list[str]:
    recipe = recipe_yaml(run)
    # A fence longer than any row of backticks in the recipe, so that no name can close it.
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", recipe)), default=0))
    rows = pd.DataFrame(list(facts(run).items()), columns=["fact", "value"])
    return [
        f"## {escape(run.title)}",
        escape(describe_curve(run)),
        _markdown_table(as_text(epochs_table([run]))),
        _markdown_table(criteria_as_text(run)),
        _markdown_table(tasks_as_text(run)),
        _markdown_table(rows),
        f"{fence}yaml\n{recipe}{fence}",
    ]


def _first_rows(table: pd.DataFrame, file: str) -> list[str]:
    """Return the first rows of a table, and the name of the file that has all of them."""
    parts = [_markdown_table(table.head(MAX_ROWS))]
    if len(table) > MAX_ROWS:
        parts.append(f"{len(table) - MAX_ROWS} more rows: `{file}`.")
    return parts


def _markdown_table(table: pd.DataFrame) -> str:
    if table.empty:
        return ""
    cells = table.map(lambda cell: escape(str(cell)))
    cells.columns = [escape(str(name)) for name in table.columns]
    return str(cells.to_markdown(index=False, disable_numparse=True))


def _joined(parts: Sequence[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"
