"""Stages `stage` and `convert`: from a source to sharded MindRecord files."""

from importlib.metadata import version
from pathlib import Path

from infra.artifacts import ArtifactSpec, BuildOutput, open_store
from sknet.data.shards import HEADER_BYTES, MAX_QUARANTINED_SHARE, PAGE_BYTES
from sknet.data.sources import absolute, open_source
from sknet.data.staging import Staged
from sknet.data.staging import stage as stage_source
from sknet.records import Shards
from tasks.jobs import run_program
from tasks.stages import (
    StageResult,
    artifact_of,
    finish,
    resolve_stage,
    stage_task,
)


@stage_task("stage")
def stage(data: str, store_uri: str) -> StageResult:
    """Read the source once and keep what it holds; its content is its key."""
    staged = stage_source(open_source(data))
    spec = ArtifactSpec(
        kind="dataset",
        format_version=2,
        params={"dataset": staged.dataset.digest},
        inputs={},
    )

    def build(workspace: Path) -> BuildOutput:
        _write(staged, workspace)
        return BuildOutput(workspace, {"samples": len(staged.index)}, {"source": data})

    resolution = resolve_stage("stage", open_store(store_uri), spec, build)
    return finish("stage", resolution, {"splits": dict(staged.dataset.splits)})


def _write(staged: Staged, workspace: Path) -> None:
    for leftover in workspace.iterdir():
        leftover.unlink()
    staged.write(workspace)


@stage_task("convert")
def convert(
    data: str, dataset: StageResult, store_uri: str, num_shards: int, num_workers: int
) -> StageResult:
    """Write the shards with several processes; every sample is checked against the staged one."""
    store = open_store(store_uri)
    spec = ArtifactSpec(
        kind="shards",
        format_version=1,
        params={
            "num_shards": num_shards,
            "header_bytes": HEADER_BYTES,
            "page_bytes": PAGE_BYTES,
            "max_quarantined_share": MAX_QUARANTINED_SHARE,
            "mindspore": version("mindspore"),
        },
        inputs={"dataset": dataset.digest},
    )

    def build(workspace: Path) -> BuildOutput:
        out = workspace / "shards"
        options = {
            "source": absolute(data),
            "staged": artifact_of(store, dataset).directory,
            "out": out,
            "shards": num_shards,
            "workers": num_workers,
        }
        run_program("convert", options, workers=1, workspace=workspace, log_name="convert")
        shards = Shards.read(out / "shards.json")
        stats = {
            "bytes": sum(file.size + file.index_size for file in shards.files),
            "quarantined": len(shards.quarantined),
        }
        return BuildOutput(out, stats, {})

    resolution = resolve_stage("convert", store, spec, build)
    shards = Shards.read(resolution.artifact.path("shards.json"))
    facts = {"files": len(shards.files), "quarantined": len(shards.quarantined)}
    return finish("convert", resolution, {**facts})
