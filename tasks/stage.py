"""Task `stage`: list the files of a data source, and read those that changed."""

import time
from importlib.metadata import version
from pathlib import Path

from prefect import get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from pydantic import JsonValue

from infra.artifacts import ArtifactSpec, ArtifactStore, BuildOutput, open_store
from sknet.data.copies.leaks import ON_LEAK, OnLeak, table_rows
from sknet.data.scan_cache import ScanCache
from sknet.data.sources import Source, absolute, open_source
from sknet.data.staging import Staged, stage_source
from tasks.catalog.specs import dataset_spec
from tasks.pages import worth_no_failure
from tasks.results import TaskResult, finish, pipeline_task, resolve_artifact


@pipeline_task("stage")
def stage(
    data: str,
    store_uri: str,
    *,
    full: bool = False,
    max_quarantine: float | None = None,
    on_leak: OnLeak = ON_LEAK,
) -> State[TaskResult]:
    """List and hash the files of a source.

    Args:
        data: The source, as the command's `--data`.
        store_uri: The artifact store.
        full: Whether to read files again that haven't changed since they were last read.
        max_quarantine: Largest fraction of unreadable images tolerated; None: the default.
        on_leak: What happens to images that are in several splits.

    Raises:
        UserError: The source can't be listed, too many of its images are unreadable, or some are in
            several splits and `on_leak` refuses that.
    """
    began = time.perf_counter()
    logger = get_run_logger()
    source = open_source(absolute(data))
    cache = ScanCache(source)
    staged = stage_source(
        source,
        cache,
        full=full,
        max_quarantine=max_quarantine,
        on_leak=on_leak,
        report=logger.log,
    )
    logger.info("stage: read %d files; the others are unchanged", staged.num_files_read)
    _show_copies(staged)
    spec = dataset_spec(staged.dataset)
    num_leaked = sum(len(staged.dataset.leaked(split)) for split in staged.dataset.splits)

    def build(workspace: Path) -> BuildOutput:
        _write(staged, workspace)
        stats = {"samples": len(staged.index), "leaked": num_leaked}
        return BuildOutput(workspace, stats, {"source": absolute(data), "on_leak": on_leak})

    seconds = time.perf_counter() - began
    store = open_store(store_uri)
    resolution = resolve_artifact("stage", store, spec, build)
    _keep_survey(store, staged, source, resolution.artifact.manifest.digest)
    facts: dict[str, JsonValue] = {
        "splits": dict(staged.dataset.splits),
        "quarantined": len(staged.dataset.quarantined),
        "ignored": len(staged.ignored),
        "leaked": num_leaked,
    }
    return finish("stage", resolution, facts, seconds_before=seconds)


def _show_copies(staged: Staged) -> None:
    """Show on Prefect's page which images are in several splits or under several labels."""
    if rows := table_rows(staged.dataset):
        with worth_no_failure():
            create_table_artifact(
                rows,
                key="copies",
                description="Images in several splits or under several labels",
            )


def _keep_survey(store: ArtifactStore, staged: Staged, source: Source, dataset: str) -> None:
    """Store for the report what it shows of a data set with this digest."""
    spec = ArtifactSpec(
        kind="survey",
        format_version=2,  # 2: pictures of some samples of each class
        params={name: version(name) for name in ("pandas", "pillow", "pyarrow")},
        inputs={"dataset": dataset},
    )

    def build(workspace: Path) -> BuildOutput:
        # It draws and decodes, so it is imported where that is needed.
        from sknet.data.survey import write_survey

        write_survey(staged, source, workspace)
        return BuildOutput(workspace, {}, {})

    resolve_artifact("survey", store, spec, build)


def _write(staged: Staged, workspace: Path) -> None:
    """Write the data set into a workspace, in place of what an interrupted build left there."""
    for leftover in workspace.iterdir():
        leftover.unlink()
    staged.write(workspace)
