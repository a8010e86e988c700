"""Task `stage`: list the files of a data source, and read those that changed."""

import time
from pathlib import Path

from prefect import get_run_logger
from prefect.client.schemas.objects import State
from pydantic import JsonValue

from infra.artifacts import ArtifactSpec, BuildOutput, open_store
from sknet.data.sources import absolute, open_source
from sknet.data.staging import MAX_QUARANTINE, ScanCache, Staged, stage_source
from tasks.results import TaskResult, finish, pipeline_task, resolve_artifact


@pipeline_task("stage")
def stage(
    data: str, store_uri: str, *, full: bool = False, max_quarantine: float = MAX_QUARANTINE
) -> State[TaskResult]:
    """List and hash the files of a source.

    Args:
        data: The source, as the command's `--data`.
        store_uri: The artifact store.
        full: Whether to read files again that haven't changed since they were last read.
        max_quarantine: Largest fraction of unreadable images tolerated.

    Raises:
        UserError: The source can't be listed, or too many of its images are unreadable.
    """
    began = time.perf_counter()
    logger = get_run_logger()
    source = open_source(absolute(data))
    cache = ScanCache(source)
    staged = stage_source(source, cache, full=full, max_quarantine=max_quarantine)
    logger.info("stage: read %d files; the others are unchanged", staged.num_files_read)
    for sample in staged.dataset.quarantined:
        logger.warning("stage: quarantined %s: %s", sample.key, sample.reason)
    if staged.ignored:
        logger.info(
            "stage: ignored %d files whose names are not those of images, such as %s",
            len(staged.ignored),
            staged.ignored[0],
        )
    spec = ArtifactSpec(
        kind="dataset",
        format_version=2,
        params={"dataset": staged.dataset.content_digest},
        inputs={},
    )

    def build(workspace: Path) -> BuildOutput:
        _write(staged, workspace)
        return BuildOutput(workspace, {"samples": len(staged.index)}, {"source": absolute(data)})

    seconds = time.perf_counter() - began
    resolution = resolve_artifact("stage", open_store(store_uri), spec, build)
    facts: dict[str, JsonValue] = {
        "splits": dict(staged.dataset.splits),
        "quarantined": len(staged.dataset.quarantined),
        "ignored": len(staged.ignored),
    }
    return finish("stage", resolution, facts, seconds_before=seconds)


def _write(staged: Staged, workspace: Path) -> None:
    """Write the data set into a workspace, in place of what an interrupted build left there."""
    for leftover in workspace.iterdir():
        leftover.unlink()
    staged.write(workspace)
