"""Stages `stage` and `convert`: from a source to sharded MindRecord files."""

import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

from prefect import get_run_logger
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from infra.artifacts import ArtifactSpec, BuildOutput, open_store
from infra.launch.cluster import ClusterError, LostHostError, map_on_cluster
from sknet.data.conversion.conversion import refuse_quarantine_above, write_shards
from sknet.data.conversion.converter import DEFAULT_QUALITY, reencoding_by
from sknet.data.conversion.progress import ProgressLine
from sknet.data.shards import SHARDS_FORMAT
from sknet.data.sources import absolute, open_source
from sknet.data.staging import MAX_QUARANTINE, Ledger, Staged, read_staged
from sknet.data.staging import stage as stage_source
from sknet.errors import UserError
from sknet.progress import read_progress
from sknet.records import Reencoding, Shards
from tasks.programs import LaunchSettings, ProgressArtifact, run_program
from tasks.results import (
    LostWorkerError,
    StageResult,
    artifact_of,
    finish,
    resolve_stage,
    stage_task,
)

SECONDS_BETWEEN_LINES = 10
HERE = LaunchSettings()


@stage_task("stage")
def stage(
    data: str, store_uri: str, *, full: bool = False, max_quarantine: float = MAX_QUARANTINE
) -> StageResult:
    """Find what the source holds, reading only what changed since the last time, unless `full`."""
    logger = get_run_logger()
    source = open_source(absolute(data))
    ledger = Ledger(source)
    said = time.monotonic()

    def say(files: int, size: int) -> None:
        nonlocal said
        if time.monotonic() - said > SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            logger.info("stage: %d files, %.1f GB so far", files, size / 1e9)

    staged = stage_source(source, ledger, full=full, max_quarantine=max_quarantine, on_progress=say)
    logger.info("stage: %d files read, the others were known", staged.files_read)
    for sample in staged.dataset.quarantined:
        logger.warning("stage: left out %s: %s", sample.key, sample.reason)
    if staged.ignored:
        logger.info(
            "stage: %d files are no images by their names, %s the first",
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
        return BuildOutput(workspace, {"samples": len(staged.index)}, {"source": data})

    resolution = resolve_stage("stage", open_store(store_uri), spec, build)
    facts: dict[str, JsonValue] = {
        "splits": dict(staged.dataset.splits),
        "quarantined": len(staged.dataset.quarantined),
        "ignored": len(staged.ignored),
    }
    return finish("stage", resolution, facts)


def _write(staged: Staged, workspace: Path) -> None:
    for leftover in workspace.iterdir():
        leftover.unlink()
    staged.write(workspace)


class ConversionSettings(BaseModel):
    """What a user may choose about the shards."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shards: Annotated[int, Field(ge=1)] | Literal["auto"] = 4
    """Of each split; auto: one for every 256 MiB of the split's images."""
    shorter_side: Annotated[int, Field(ge=1)] | None = None
    """Images with a greater one are resized to it; None: the original bytes."""
    quality: Annotated[int, Field(ge=1, le=100)] = DEFAULT_QUALITY
    """Of resized JPEGs."""
    max_quarantine: Annotated[float, Field(ge=0, le=1)] = MAX_QUARANTINE
    """Share of the samples that may fail to decode."""

    @property
    def reencoding(self) -> Reencoding | None:
        """As the shards record it."""
        return reencoding_by(self.shorter_side, self.quality) if self.shorter_side else None


@stage_task("convert")
def convert(
    data: str,
    dataset: StageResult,
    store_uri: str,
    settings: ConversionSettings,
    num_workers: int,
    launch: LaunchSettings = HERE,
) -> StageResult:
    """Write the shards with several processes or hosts; a retry keeps those that are finished.

    Hosts of a cluster must share the source and the store as file systems, under the same paths.
    """
    store = open_store(store_uri)
    reencoding = settings.reencoding
    spec = ArtifactSpec(
        kind="shards",
        format_version=SHARDS_FORMAT,
        params={
            "num_shards": settings.shards,
            "reencoding": reencoding.model_dump() if reencoding else None,
            "mindspore": version("mindspore"),
        },
        inputs={"dataset": dataset.digest},
    )

    def build(workspace: Path) -> BuildOutput:
        out = workspace / "shards"
        staged = artifact_of(store, dataset).directory
        source = absolute(data)
        if launch.is_local:
            _convert_here(source, staged, out, settings, num_workers, workspace)
        else:
            _convert_on_cluster(source, staged, out, settings, launch.ray_address)
        shards = Shards.read(out / "shards.json")
        stats = {
            "bytes": sum(file.size + file.index_size for file in shards.files),
            "quarantined": len(shards.quarantined),
        }
        return BuildOutput(out, stats, {})

    resolution = resolve_stage("convert", store, spec, build)
    shards = Shards.read(resolution.artifact.path("shards.json"))
    # No part of the key, as it shapes no byte: what was built under a greater share is judged anew.
    refuse_quarantine_above(settings.max_quarantine, shards)
    facts = {"files": len(shards.files), "quarantined": len(shards.quarantined)}
    return finish("convert", resolution, {**facts})


def _convert_here(
    source: str,
    staged: Path,
    out: Path,
    settings: ConversionSettings,
    num_workers: int,
    workspace: Path,
) -> None:
    shown = ProgressArtifact("conversion", "Share of the images that are in shards")
    told = workspace / "convert-progress.json"
    told.unlink(missing_ok=True)

    def show(_line: str) -> None:
        if (fraction := read_progress(told)) is not None:
            shown.update(fraction)

    options = {
        "source": source,
        "staged": staged,
        "out": out,
        "shards": settings.shards,
        "workers": num_workers,
        "quality": settings.quality,
        "max-quarantine": settings.max_quarantine,
        "progress_file": told,
    }
    if settings.shorter_side:
        options["shorter-side"] = settings.shorter_side
    run_program("convert", options, workspace=workspace, log_name="convert", after_line=show)


def _convert_on_cluster(
    source: str, staged: Path, out: Path, settings: ConversionSettings, address: str
) -> None:
    logger = get_run_logger()
    shown = ProgressArtifact("conversion", "Share of the images that are in shards")
    out.mkdir(parents=True, exist_ok=True)
    try:
        write_shards(
            read_staged(staged),
            source,
            out,
            num_shards=None if settings.shards == "auto" else settings.shards,
            reencoding=settings.reencoding,
            max_quarantine=settings.max_quarantine,
            spread=partial(map_on_cluster, address=address),
            on_progress=ProgressLine(
                logger.info, also=lambda progress: shown.update(progress.share)
            ),
        )
    except ClusterError as error:
        raise UserError(str(error)) from None
    except LostHostError as error:
        raise LostWorkerError(str(error)) from None
