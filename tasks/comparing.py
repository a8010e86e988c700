"""What production predicts of a candidate's samples: as recorded, or evaluated for it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prefect import get_run_logger

from infra.artifacts import (
    Artifact,
    ArtifactSpec,
    ArtifactStore,
    BuildOutput,
    DamagedArtifactError,
    Manifest,
    Ref,
    StoreError,
)
from sknet.errors import NonFiniteLossError, UserError
from sknet.judgement import Production, read_predictions
from sknet.records import Checkpoint
from tasks.validate import EVALUATION_FORMAT, evaluate_checkpoint, software
from tasks.results import JobFailedError, resolve_stage

PREDICTIONS = "predictions.parquet"
"""At the recipe's resolution."""


@dataclass(frozen=True)
class Compared:
    """Production as a candidate is measured by it."""

    production: Production
    by: Manifest | None
    """Of the artifact with its predictions."""


def production_of(
    store: ArtifactStore, ref: Ref, candidate: Artifact, classes: tuple[str, ...]
) -> Compared:
    """What is known of production; its predictions are of the candidate's samples.

    What stands against a comparison is told, not raised.
    """

    def without(own: tuple[str, ...] | None, why: str) -> Compared:
        return Compared(Production(ref.digest, own, None, why, ref.suspect), None)

    try:
        checkpoint = store.load(ref.kind, ref.key)
        state = Checkpoint.read(checkpoint.path("state.json"))
    except (StoreError, UserError) as error:
        return without(None, f"production's checkpoint can't be read: {error}")
    if state.run.classes != classes:
        return without(state.run.classes, "production has other classes")
    for evaluation in _recorded(store, ref, candidate.manifest):
        predictions = read_predictions(evaluation.path(PREDICTIONS))
        return Compared(
            Production(ref.digest, classes, predictions, "", ref.suspect), evaluation.manifest
        )
    try:
        evaluation = _evaluate(store, checkpoint, state, candidate.manifest)
        predictions = read_predictions(evaluation.path(PREDICTIONS))
    except (StoreError, UserError, NonFiniteLossError, JobFailedError) as error:
        return without(classes, f"production can't be evaluated on these samples: {error}")
    return Compared(
        Production(ref.digest, classes, predictions, "", ref.suspect), evaluation.manifest
    )


def _recorded(store: ArtifactStore, ref: Ref, candidate: Manifest) -> Iterator[Artifact]:
    """The sound evaluations of production on the candidate's shards, on its software first."""
    inputs = {"checkpoint": ref.digest, "shards": candidate.inputs["shards"]}
    there = [
        manifest
        for manifest in store.list("evaluation")
        if manifest.inputs == inputs
        and manifest.format_version == EVALUATION_FORMAT
        and PREDICTIONS in {entry.path for entry in manifest.files}
    ]
    for manifest in sorted(there, key=lambda each: each.params != candidate.params):
        try:
            yield store.load("evaluation", manifest.key, level="full")
        except DamagedArtifactError as error:
            get_run_logger().warning("promote: not compared with what is damaged: %s", error)


def _evaluate(
    store: ArtifactStore, checkpoint: Artifact, state: Checkpoint, candidate: Manifest
) -> Artifact:
    """Production on the candidate's shards, which are not those it was trained on."""
    device_target = str(candidate.params["device_target"])
    shards = store.find("shards", candidate.inputs["shards"])
    spec = ArtifactSpec(
        # No `evaluation`: those are of the shards that a checkpoint was trained on.
        kind="comparison",
        format_version=1,
        params=software(device_target),
        inputs={"checkpoint": checkpoint.digest, "shards": shards.digest},
    )

    def build(workspace: Path) -> BuildOutput:
        recipe = state.run.recipe
        out = evaluate_checkpoint(
            recipe, checkpoint, shards, device_target, workspace, own_shards=False
        )
        return BuildOutput(out, {}, {})

    return resolve_stage("promote", store, spec, build).artifact
