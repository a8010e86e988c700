"""Artifacts of production, made once more in a store of their own, to replace damaged ones."""

import os
from pathlib import Path

from infra.artifacts import (
    Artifact,
    ArtifactSpec,
    ArtifactStore,
    BuildOutput,
    Manifest,
    StoreError,
    open_store,
    resolve,
)
from sknet.records import Checkpoint
from tasks.convert import ConversionSettings, convert, stage
from tasks.validate import evaluate_checkpoint, evaluation_spec, processor
from tasks.catalog.integrity import Wanted, manifest_of
from tasks.results import artifact_of, results_of


def rebuild_shards(store: ArtifactStore, wanted: Wanted, data: str, scratch: Path) -> Artifact:
    """Stage and convert a source again, as the damaged shards were.

    Raises:
        StoreError: other shards came out, or the settings can't be read any more.
    """
    recorded = manifest_of(store, wanted)
    if recorded is None:
        raise StoreError("their manifest, which says how they were made, can't be read")
    settings = _settings(recorded)
    staged = stage(data, str(scratch), max_quarantine=1.0)
    shards = convert(data, staged, str(scratch), settings, os.cpu_count() or 1)
    (result,) = results_of(shards)
    rebuilt = artifact_of(open_store(str(scratch)), result)
    _require_same(rebuilt.manifest.spec, recorded.spec)
    return rebuilt


def rebuild_evaluation(
    wanted: Wanted, checkpoint: Artifact, shards: Artifact, scratch: Path
) -> Artifact:
    """Evaluate again, with the software that is here.

    Raises:
        StoreError: the damaged evaluation was made with other software.
    """
    run = Checkpoint.read(checkpoint.path("state.json")).run
    spec = evaluation_spec(checkpoint.digest, shards.digest, run.device_target)
    if spec.key != wanted.key:
        raise StoreError("it was made by other software or on another device than is here")

    def build(workspace: Path) -> BuildOutput:
        out = evaluate_checkpoint(run.recipe, checkpoint, shards, run.device_target, workspace)
        return BuildOutput(out, {}, {"processor": processor(run.device_target)})

    return resolve(open_store(str(scratch)), spec, build).artifact


def _settings(recorded: Manifest) -> ConversionSettings:
    """What the user had chosen; how many samples may be left out was judged then."""
    reencoding = recorded.params["reencoding"]
    chosen = {"shards": recorded.params["num_shards"], "max_quarantine": 1.0}
    if isinstance(reencoding, dict):
        chosen |= {name: reencoding[name] for name in ("shorter_side", "quality")}
    return ConversionSettings.model_validate(chosen)


def _require_same(found: ArtifactSpec, expected: ArtifactSpec) -> None:
    if found.inputs != expected.inputs:
        raise StoreError("the source holds other samples than they were made from")
    for name, value in expected.params.items():
        if found.params.get(name) != value:
            raise StoreError(f"{name} is {found.params.get(name)}, they were made with {value}")
    if found != expected:
        raise StoreError(
            f"their format is {expected.format_version}, this version writes {found.format_version}"
        )
