"""Stage `promote`: the checkpoint that production points to."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from prefect import get_run_logger
from prefect.artifacts import create_table_artifact
from pydantic import JsonValue
from tabulate import tabulate

from infra.artifacts import (
    Artifact,
    ArtifactSpec,
    ArtifactStore,
    BuildOutput,
    DamagedArtifactError,
    Manifest,
    Ref,
    RefConflictError,
    StoreError,
    open_store,
)
from sknet.errors import NonFiniteLossError, UserError
from sknet.evaluation.predictions import read_predictions
from sknet.judgement import (
    Candidate,
    Production,
    judge_promotion,
    promotion_of,
    was_rolled_back,
)
from sknet.recipe import Recipe
from sknet.records import Checkpoint, CheckpointChecks, Evaluation, Promotion, Shards
from sknet.records.evaluation import CHECKS_FILE
from tasks.catalog.production import put_record
from tasks.results import (
    JobFailedError,
    StageResult,
    Status,
    artifact_of,
    completed,
    resolve_stage,
    stage_task,
)
from tasks.validate import EVALUATION_FORMAT, evaluate_checkpoint, software

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


PRODUCTION = "production"

# Each judgement may cost an evaluation; who loses that often is up against something that loops.
MAX_RACES = 5


@stage_task("promote")
def promote(
    recipe: Recipe, checkpoint: StageResult, evaluation: StageResult, store_uri: str
) -> StageResult:
    """Point `refs/production` to the checkpoint if every criterion allows it."""
    began = time.perf_counter()
    store = open_store(store_uri)
    for _ in range(MAX_RACES):
        try:
            status, facts = _promote(recipe, checkpoint, evaluation, store)
            break
        except RefConflictError as error:
            get_run_logger().warning("promote: judged again, as %s", error)
    else:
        raise RefConflictError(
            f"refs/{PRODUCTION} moved {MAX_RACES} times while {checkpoint.key[:10]} was judged: "
            "run it again when nobody else promotes"
        )
    get_run_logger().info("promote: %s, %s", status, facts["reason"])
    result = StageResult(
        stage="promote",
        status=status,
        seconds=time.perf_counter() - began,
        kind=checkpoint.kind,
        key=checkpoint.key,
        digest=checkpoint.digest,
        facts={"ref": PRODUCTION, **facts},
    )
    return completed(result)


def promoted(store_uri: str) -> Ref:
    """Where `refs/production` points. Raises StoreError if nothing was promoted yet."""
    ref = open_store(store_uri, create=False).refs.get(PRODUCTION)
    if ref is None:
        raise StoreError(
            f"{store_uri} has no refs/{PRODUCTION}.json: run train-sknet until it promotes one"
        )
    return ref


def _promote(
    recipe: Recipe, checkpoint: StageResult, evaluated: StageResult, store: ArtifactStore
) -> tuple[Status, dict[str, JsonValue]]:
    """Judge once against what production is now. Raises RefConflictError if it moved meanwhile."""
    entries = store.refs.history(PRODUCTION)
    current = entries[-1] if entries else None
    evaluation = artifact_of(store, evaluated)
    candidate = _candidate(store, checkpoint, evaluation, [entry.digest for entry in entries])
    if current is not None and current.digest == checkpoint.digest:
        return "reused", {"reason": f"{_accuracy(candidate)}, in production already"}
    compared = production_of(store, current, evaluation, candidate.classes) if current else None
    production = compared.production if compared else None
    by_hand = (
        f"python -m infra.artifacts refs set {PRODUCTION} {checkpoint.kind}/{checkpoint.key} "
        "--reason …"
    )
    floor = recipe.min_accuracy
    judgement = judge_promotion(candidate, production, floor=floor, by_hand=by_hand)
    _keep(
        store,
        promotion_of(candidate, production, judgement, floor=floor),
        evaluation.manifest,
        compared.by if compared else None,
    )
    rows = [asdict(criterion) for criterion in judgement.criteria]
    create_table_artifact(
        rows, key="promotion", description=f"May {checkpoint.key[:10]} be promoted?"
    )
    said = f"{_accuracy(candidate)}, floor {floor:.2%}"
    if judgement.comparison:
        said += f", p {judgement.comparison.p_value:.3g} against production"
    if not judgement.granted:
        failed = ", ".join(c.name for c in judgement.criteria if not c.passed)
        get_run_logger().warning("promote: refused\n%s", as_table(cast(JsonValue, rows)))
        return "refused", {"reason": f"{said}; failed: {failed}", "criteria": cast(JsonValue, rows)}
    target = artifact_of(store, checkpoint).manifest
    store.refs.set(PRODUCTION, target, expected=current, reason=said)
    return "built", {"reason": said}


def as_table(criteria: JsonValue) -> str:
    """Of the facts of a refusal: every criterion, for a terminal."""
    return str(tabulate(cast("list[dict[str, object]]", criteria), headers="keys"))


def _candidate(
    store: ArtifactStore, checkpoint: StageResult, evaluation: Artifact, targets: list[str]
) -> Candidate:
    checks = CheckpointChecks.read(evaluation.path(CHECKS_FILE))
    shards = store.find("shards", evaluation.manifest.inputs["shards"])
    return Candidate(
        checkpoint=checkpoint.digest,
        classes=Shards.read(shards.path("shards.json")).dataset.classes,
        checks=checks,
        evaluation=Evaluation.read(evaluation.path("evaluation.json")) if checks.passed else None,
        predictions=(
            read_predictions(evaluation.path("predictions.parquet")) if checks.passed else None
        ),
        rolled_back=was_rolled_back(targets, checkpoint.digest),
    )


def _accuracy(candidate: Candidate) -> str:
    counts = candidate.evaluation
    if counts is None:
        return "not evaluated"
    return f"accuracy@1 {counts.accuracy_top1:.2%} ({counts.correct_top1}/{counts.seen})"


def _keep(
    store: ArtifactStore, promotion: Promotion, candidate: Manifest, production: Manifest | None
) -> None:
    """The record goes into the store, whatever it says."""
    spec = ArtifactSpec(
        kind="promotion",
        format_version=1,
        params={
            "checkpoint": promotion.candidate,
            "evaluation": candidate.key,
            "granted": promotion.granted,
            "floor": promotion.floor,
            "significance": promotion.significance,
            # What a judgement says may depend on what could be read just then.
            "record": promotion.content_digest,
        },
        inputs={
            "candidate": candidate.digest,
            **({"production": production.digest} if production else {}),
        },
    )
    put_record(store, spec, promotion, "promotion.json")
