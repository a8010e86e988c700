"""Task `convert`: write a staged data set as sharded MindRecord files."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from prefect import get_run_logger
from prefect.client.schemas.objects import State
from pydantic import BaseModel, ConfigDict, Field

from infra.artifacts import BuildOutput, FileEntry, open_store
from infra.launch.cluster import ClusterError, LostHostError, map_on_cluster
from sknet.data.conversion.conversion import refuse_quarantine_above, write_shards
from sknet.data.conversion.converter import DEFAULT_QUALITY, reencoding_to
from sknet.data.conversion.progress import ConversionProgress, Shown
from sknet.data.conversion.uploading import upload_shards
from sknet.data.index import open_staged
from sknet.data.sources import absolute
from sknet.errors import UserError
from sknet.records import Reencoding, Shards
from sknet.records.data import SHARDS_FILE
from tasks.catalog.specs import shards_spec
from tasks.errors import LostWorkerError
from tasks.programs import THIS_HOST, LaunchSettings, ProgressBar, run_program
from tasks.results import TaskResult, artifact_of, finish, pipeline_task, resolve_artifact


class ConversionSettings(BaseModel):
    """The user's choices about shards."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    shards: Annotated[int, Field(ge=1)] | Literal["auto"] = 4
    """Number of shards of each split; auto: one for every 256 MiB of the split's images."""
    shorter_side: Annotated[int, Field(ge=1)] | None = None
    """Largest shorter side in pixels; larger images are resized to it. None: the original bytes."""
    quality: Annotated[int, Field(ge=1, le=100)] = DEFAULT_QUALITY
    """JPEG quality of resized images."""
    max_quarantine: Annotated[float, Field(ge=0, le=1)] | None = None
    """Largest fraction of unreadable images tolerated. None: 0.001 or 5 images, if that is more."""

    @property
    def reencoding(self) -> Reencoding | None:
        """The re-encoding as the shards record it."""
        return reencoding_to(self.shorter_side, self.quality) if self.shorter_side else None


@pipeline_task("convert")
def convert(
    data: str,
    dataset: TaskResult,
    store_uri: str,
    settings: ConversionSettings,
    num_workers: int,
    launch: LaunchSettings = THIS_HOST,
) -> State[TaskResult]:
    """Write the shards of a data set; a retry continues with the shards that are missing.

    Args:
        data: The source that was staged.
        dataset: Result of `stage`.
        store_uri: The artifact store.
        settings: Number and encoding of the shards.
        num_workers: Number of processes on this host.
        launch: The hosts. Those of a cluster need the source under the same name, and the store on
            S3 or as a directory that they share.

    Raises:
        UserError: The source changed, or too many of its images are unreadable.
        LostWorkerError: A process or a host was lost.
    """
    store = open_store(store_uri)
    spec = shards_spec(dataset.digest, settings.shards, settings.reencoding)

    def build(workspace: Path) -> BuildOutput:
        out = workspace / "shards"
        staged = artifact_of(store, dataset).directory
        source = absolute(data)
        bar = ProgressBar("conversion", "Fraction of the images that are in shards")
        if launch.is_local:
            _convert_here(source, staged, out, settings, num_workers, workspace, bar)
            return output_of(Shards.read(out / SHARDS_FILE), out)
        on_cluster = partial(_on_cluster, source, staged, settings, launch.ray_address, bar)
        if uploads := store.uploads(spec):
            scratch = workspace / "scratch"
            for directory in (out, scratch):
                shutil.rmtree(directory, ignore_errors=True)  # of an earlier attempt
                directory.mkdir()
            uploaded = on_cluster(partial(upload_shards, uploads=uploads, scratch=scratch))
            return output_of_uploads(uploaded, out)
        out.mkdir(exist_ok=True)
        return output_of(on_cluster(partial(write_shards, directory=out)), out)

    resolution = resolve_artifact("convert", store, spec, build)
    shards = Shards.read(resolution.artifact.path(SHARDS_FILE))
    # The limit is no part of the key, as it changes no byte, so it also holds for found shards.
    refuse_quarantine_above(settings.max_quarantine, shards)
    facts = {"files": len(shards.files), "quarantined": len(shards.quarantined)}
    return finish("convert", resolution, {**facts})


def output_of(shards: Shards, out: Path) -> BuildOutput:
    """Return the output of a conversion into a directory."""
    stats = {
        "bytes": sum(file.size + file.index_size for file in shards.files),
        "quarantined": len(shards.quarantined),
    }
    return BuildOutput(out, stats, {})


def output_of_uploads(shards: Shards, out: Path) -> BuildOutput:
    """Write the record of uploaded shards into a directory, and return the output of both."""
    shards.write(out / SHARDS_FILE)
    uploaded = (each for shard in shards.files for each in shard.files)
    entries = (FileEntry(path=name, size=size, sha256=sha) for name, size, sha in uploaded)
    return replace(output_of(shards, out), uploaded=tuple(entries))


def _convert_here(
    source: str,
    staged: Path,
    out: Path,
    settings: ConversionSettings,
    num_workers: int,
    workspace: Path,
    bar: ProgressBar,
) -> None:
    options = {
        "source": source,
        "staged": staged,
        "out": out,
        "shards": settings.shards,
        "workers": num_workers,
        "quality": settings.quality,
    }
    if settings.max_quarantine is not None:
        options["max-quarantine"] = settings.max_quarantine
    if settings.shorter_side:
        options["shorter-side"] = settings.shorter_side
    run_program("convert", options, workspace=workspace, bar=bar)


def _on_cluster(
    source: str,
    staged: Path,
    settings: ConversionSettings,
    address: str,
    bar: ProgressBar,
    convert_shards: Callable[..., Shards],
) -> Shards:
    """Let the hosts of a cluster convert: `write_shards` or `upload_shards`, and where to."""
    logger, shown = get_run_logger(), Shown()

    def on_progress(done: ConversionProgress) -> None:
        shown(done)
        bar.update(done.fraction)

    try:
        return convert_shards(
            open_staged(staged),
            source,
            num_shards=None if settings.shards == "auto" else settings.shards,
            reencoding=settings.reencoding,
            max_quarantine=settings.max_quarantine,
            parallel_map=partial(map_on_cluster, address=address),
            on_progress=on_progress,
            report=logger.log,
        )
    except ClusterError as error:
        raise UserError(str(error)) from None
    except LostHostError as error:
        raise LostWorkerError(str(error)) from None
