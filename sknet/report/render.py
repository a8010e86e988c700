"""Writing the report: a page, Markdown, a drawing for it, and every table as CSV and Parquet."""

from collections.abc import Sequence
from pathlib import Path

from sknet.report.comparison import Comparison
from sknet.report.figures import printed
from sknet.report.tables import all_frames
from sknet.report.markdown import FIGURE, render_comparison, render_markdown
from sknet.report.store_figures import accuracy_figure
from sknet.report.page import Pictures, render_html
from sknet.report.findings import Findings, TrainedRun

NUM_DETAILED = 8
"""Runs with a section of their own: a figure takes a tenth of a second and 20 kB."""


def write_report(
    findings: Findings,
    out_dir: Path,
    *,
    comparison: Comparison | None = None,
    pictures: Pictures | None = None,
) -> list[str]:
    """Writes the report into `out_dir` and returns the names of the files; equal findings give
    equal bytes.
    """
    detailed = shown_in_full(findings, comparison)
    accuracy = accuracy_figure(findings)
    texts = {
        "report.html": render_html(findings, detailed, accuracy, comparison, pictures),
        "report.md": render_markdown(findings, detailed, comparison),
        FIGURE: printed(accuracy),
    }
    if comparison is not None:
        texts["comparison.md"] = render_comparison(comparison)
    out_dir.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (out_dir / name).write_text(text, encoding="utf-8", newline="\n")
    names = list(texts)
    for name, frame in all_frames(findings).items():
        frame.to_csv(out_dir / f"{name}.csv", index=False, lineterminator="\n")
        frame.to_parquet(out_dir / f"{name}.parquet", index=False)
        names += [f"{name}.csv", f"{name}.parquet"]
    return names


def shown_in_full(findings: Findings, comparison: Comparison | None = None) -> Sequence[TrainedRun]:
    """The runs that have a section of their own."""
    named = () if comparison is None else (comparison.first, comparison.second)
    runs = {run.run: run for run in (*findings.detailed(NUM_DETAILED), *named)}
    return tuple(runs.values())
