"""Stage `report`: all runs of a store as tables, figures and one page.

What draws and tabulates is imported where it is used: flows are imported wherever they register.
"""

import base64
import hashlib
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_table_artifact,
)
from pydantic import JsonValue

from infra.artifacts import (
    Artifact,
    ArtifactSpec,
    ArtifactStore,
    BuildOutput,
    StoreError,
    open_store,
)
from tasks.results import TaskResult, finish, pipeline_task, resolve_artifact

if TYPE_CHECKING:
    from sknet.report import TrainedRun

# Raised whenever the same findings would give other pages.
REPORT_VERSION = 3
# They decide bytes of drawings, tables and pages.
LIBRARIES = ("jinja2", "matplotlib", "pandas", "pyarrow", "tabulate")
# Of a thumbnail: more is none, and a page has dozens.
MAX_PICTURE_BYTES = 64 * 1024
MOST_ROWS = 200
"""Of the table that Prefect shows."""


@pipeline_task("report")
def report(
    store_uri: str, compare: tuple[str, str] | None = None, price: float | None = None
) -> TaskResult:
    """Write the report over every run; the same findings give the same report.

    `compare` names two runs to show side by side, `price` is that of a device-hour.
    """
    from sknet.report import write_report
    from sknet.report.page import shown_in_full
    from tasks.catalog.comparison import compare_named
    from tasks.catalog.runs import collect

    store = open_store(store_uri)
    findings = collect(store, price=price)
    comparison = compare_named(store, findings, *compare) if compare else None
    spec = ArtifactSpec(
        kind="report",
        format_version=REPORT_VERSION,
        params={
            "findings": _sha256(findings.model_dump_json()),
            "comparison": _sha256(comparison.model_dump_json()) if comparison else None,
            "libraries": {name: version(name) for name in LIBRARIES},
        },
        inputs={},
    )

    def build(workspace: Path) -> BuildOutput:
        out = workspace / "out"
        out.mkdir(exist_ok=True)
        pictures = thumbnails(store, shown_in_full(findings, comparison))
        write_report(findings, out, comparison=comparison, pictures=pictures)
        return BuildOutput(out, {"runs": len(findings.runs)}, {})

    resolution = resolve_artifact("report", store, spec, build)
    directory = resolution.artifact.directory
    _show(resolution.artifact)
    facts: dict[str, JsonValue] = {
        "runs": len(findings.runs),
        "unreadable": len(findings.unreadable),
        "html": str(directory / "report.html"),
    }
    return finish("report", resolution, facts)


def _show(report: Artifact) -> None:
    """Table, text and figure in Prefect's UI."""
    import pandas as pd

    from sknet.report.markdown import FIGURE

    directory, manifest = report.directory, report.manifest
    table = pd.read_csv(directory / "table.csv", dtype=str, keep_default_na=False)
    create_table_artifact(
        [dict(zip(table.columns, row, strict=True)) for row in table.head(MOST_ROWS).values],
        key="results",
        description="All runs",
    )
    content = base64.b64encode((directory / FIGURE).read_bytes()).decode()
    figure = f"data:image/svg+xml;base64,{content}"
    text = (directory / "report.md").read_text("utf-8")
    # Nothing lies beside a page of Prefect's, and it can't link to files of this host.
    text = text.replace(f"({FIGURE})", f"({figure})")
    page = f"`report.html` of the artifact `{manifest.kind}/{manifest.key}`"
    create_markdown_artifact(
        f"The page that stands alone is {page}.\n\n{text}", key="report", description="All runs"
    )
    create_image_artifact(
        figure,
        key="accuracy-intervals",
        description="Accuracy with 95 % intervals, beside published results",
    )


def thumbnails(store: ArtifactStore, runs: "Iterable[TrainedRun]") -> dict[str, bytes]:
    """The pictures of the runs' examples by sha256; a page does without those that are unsound."""
    from tasks.catalog.comparison import evaluation_of

    pictures = {}
    for run in runs:
        for shown in run.examples:
            try:
                path = evaluation_of(store, run).path(shown.example.file)
                content = path.read_bytes() if path.stat().st_size <= MAX_PICTURE_BYTES else b""
            except (StoreError, OSError):
                continue
            if hashlib.sha256(content).hexdigest() == shown.sha256:
                pictures[shown.sha256] = content
    return pictures


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
