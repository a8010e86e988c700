"""Task `report`: all runs of a store as tables, figures and one page.

Libraries that draw and tabulate are imported in the functions that use them, as every machine that
registers or starts flows imports this module.
"""

import base64
import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_table_artifact,
)
from prefect.client.schemas.objects import State
from pydantic import JsonValue

from infra.artifacts import Artifact, ArtifactSpec, BuildOutput, open_store
from tasks.pages import link_to, worth_no_failure
from tasks.results import TaskResult, finish, pipeline_task, resolve_artifact

REPORT_VERSION = 8
"""Raised whenever the same contents would give other pages."""

LIBRARIES = ("jinja2", "matplotlib", "pandas", "pyarrow", "tabulate")
"""Libraries whose version may change the bytes of figures, tables and pages."""

PAGE = "report.html"

MAX_ROWS = 200
"""Rows of the table on Prefect's pages."""


@pipeline_task("report")
def report(
    store_uri: str, compare: Sequence[str] | None = None, price: float | None = None
) -> State[TaskResult]:
    """Write the report over every run. The same contents give the same report.

    Args:
        store_uri: The artifact store.
        compare: Two runs or more to show side by side, each by the first digits of its key or by a
            ref; the first is the one that the others are compared with.
        price: Price of a device-hour, in whatever currency.

    Raises:
        UserError: A name in `compare` stands for no run, or for several.
    """
    from sknet.report import write_report
    from sknet.report.data_section import MAX_DATA_SETS
    from sknet.report.page import shown_in_full
    from tasks.catalog.comparison import compare_named, confusions, predicted_samples
    from tasks.catalog.runs import collect, thumbnails

    store = open_store(store_uri)
    contents = collect(store, price=price)
    comparisons = compare_named(store, contents, *compare) if compare else ()
    spec = ArtifactSpec(
        kind="report",
        format_version=REPORT_VERSION,
        params={
            "findings": _sha256(contents.model_dump_json()),
            "comparison": [_sha256(each.model_dump_json()) for each in comparisons],
            "libraries": {name: version(name) for name in LIBRARIES},
        },
        inputs={},
    )

    def build(workspace: Path) -> BuildOutput:
        out = workspace / "out"
        out.mkdir(exist_ok=True)
        detailed = shown_in_full(contents, comparisons)
        pictures = thumbnails(store, detailed, contents.data_sets[:MAX_DATA_SETS])
        write_report(
            contents,
            out,
            comparisons=comparisons,
            pictures=pictures,
            confusions=confusions(store, detailed),
            samples=predicted_samples(store, detailed, contents.data_sets),
        )
        return BuildOutput(out, {"runs": len(contents.runs)}, {})

    resolution = resolve_artifact("report", store, spec, build)
    with worth_no_failure():
        _show(resolution.artifact, store_uri, len(contents.runs))
    facts: dict[str, JsonValue] = {
        "runs": len(contents.runs),
        "unreadable": len(contents.unreadable),
        "html": str(resolution.artifact.directory / PAGE),
    }
    return finish("report", resolution, facts)


def _show(report: Artifact, store_uri: str, num_runs: int) -> None:
    """Show the report's table, text, first figure and page on Prefect's pages."""
    import pandas as pd

    from sknet.report.markdown import FIGURE
    from sknet.report.text import as_text

    directory, manifest = report.directory, report.manifest
    table = as_text(pd.read_parquet(directory / "table.parquet").head(min(num_runs, MAX_ROWS)))
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.to_numpy()]
    create_table_artifact(rows, key="results", description="All runs")
    content = base64.b64encode((directory / FIGURE).read_bytes()).decode()
    figure = f"data:image/svg+xml;base64,{content}"
    text = (directory / "report.md").read_text("utf-8").replace(f"({FIGURE})", f"({figure})")
    page = f"`{PAGE}` of the artifact `{manifest.kind}/{manifest.key}`"
    create_markdown_artifact(
        f"The page that stands alone is {page}.\n\n{text}", key="report", description="All runs"
    )
    create_image_artifact(
        figure,
        key="accuracy-intervals",
        description="Accuracy with 95 % intervals",
    )
    link_to(report, PAGE, store_uri, key="page", description="The report as one page")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
