"""Stage `promote`: the checkpoint that production points to."""

import time
from dataclasses import asdict
from typing import cast

from prefect import get_run_logger
from prefect.artifacts import create_table_artifact
from pydantic import JsonValue
from tabulate import tabulate

from infra.artifacts import (
    Artifact,
    ArtifactSpec,
    ArtifactStore,
    Manifest,
    Ref,
    RefConflictError,
    StoreError,
    open_store,
)
from sknet.evaluation.names import CHECKS_FILE
from sknet.judgement import (
    Candidate,
    judge_promotion,
    promotion_of,
    read_predictions,
    taken_back,
)
from sknet.recipe import Recipe
from sknet.records import CheckpointChecks, Evaluation, Promotion, Shards
from tasks.comparing import production_of
from tasks.keeping import put_record
from tasks.results import StageResult, Status, artifact_of, completed, stage_task

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
        taken_back=taken_back(targets, checkpoint.digest),
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
            "record": promotion.digest,
        },
        inputs={
            "candidate": candidate.digest,
            **({"production": production.digest} if production else {}),
        },
    )
    put_record(store, spec, promotion, "promotion.json")
