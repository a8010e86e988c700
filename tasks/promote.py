"""Task `promote`: point production to a checkpoint, if every criterion allows it."""

import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

from prefect import get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from pydantic import JsonValue
from tabulate import tabulate

from infra.artifacts import Artifact, ArtifactStore, BuildOutput, RefConflictError, open_store
from sknet.errors import UserError
from sknet.judgement import Candidate, judge_promotion, promotion_of
from sknet.recipe import Recipe
from sknet.records import Checkpoint
from tasks.catalog.production import (
    MAX_CONFLICTS,
    PRODUCTION,
    candidate_of,
    comparison_spec,
    production_of,
    put_promotion,
)
from tasks.errors import PERMANENT
from tasks.pages import worth_no_failure
from tasks.results import (
    Status,
    TaskResult,
    artifact_of,
    completed,
    pipeline_task,
    resolve_artifact,
)
from tasks.validate import evaluate_checkpoint


@pipeline_task("promote")
def promote(
    recipe: Recipe, checkpoint: TaskResult, evaluation: TaskResult, store_uri: str
) -> State[TaskResult]:
    """Point `refs/production` to a checkpoint if every criterion allows it.

    Raises:
        RefConflictError: Other processes keep moving the ref.
    """
    began = time.perf_counter()
    store = open_store(store_uri)
    logger = get_run_logger()
    for _ in range(MAX_CONFLICTS):
        try:
            status, facts = _promote(recipe, checkpoint, evaluation, store)
            break
        except RefConflictError as error:
            logger.warning("promote: judging again, as another process promoted: %s", error)
    else:
        raise RefConflictError(
            f"refs/{PRODUCTION} moved {MAX_CONFLICTS} times while {checkpoint.key[:10]} was "
            "judged: run it again when nobody else promotes"
        )
    logger.info("promote: %s, %s", status, facts["reason"])
    result = TaskResult(
        task="promote",
        status=status,
        seconds=time.perf_counter() - began,
        kind=checkpoint.kind,
        key=checkpoint.key,
        digest=checkpoint.digest,
        facts={"ref": PRODUCTION, **facts},
    )
    return completed(result)


def _promote(
    recipe: Recipe, checkpoint: TaskResult, evaluated: TaskResult, store: ArtifactStore
) -> tuple[Status, dict[str, JsonValue]]:
    """Judge a checkpoint against production as it is now, and promote it if that is granted.

    Raises:
        RefConflictError: Production moved meanwhile.
    """
    logger = get_run_logger()
    history = store.refs.history(PRODUCTION)
    current = history[-1] if history else None
    evaluation = artifact_of(store, evaluated)
    candidate = candidate_of(store, checkpoint.digest, evaluation, history)
    if current is not None and current.digest == checkpoint.digest:
        return "reused", {"reason": f"{_accuracy(candidate)}, in production already"}
    compared = None
    if current is not None:
        compared = production_of(
            store,
            current,
            evaluation.manifest,
            candidate.classes,
            evaluate=partial(_evaluate, store, str(evaluation.manifest.params["device_target"])),
            warn=lambda line: logger.warning("promote: %s", line),
        )
    production = compared.production if compared else None
    by_hand = (
        f"python -m infra.artifacts refs set {PRODUCTION} {checkpoint.kind}/{checkpoint.key} "
        "--reason …"
    )
    floor = recipe.min_accuracy
    judgement = judge_promotion(candidate, production, floor=floor, by_hand=by_hand)
    put_promotion(
        store,
        promotion_of(candidate, production, judgement, floor=floor),
        evaluation.manifest,
        compared.evaluation if compared else None,
    )
    criteria = [asdict(each) for each in judgement.criteria]
    with worth_no_failure():
        create_table_artifact(
            criteria, key="promotion", description=f"May {checkpoint.key[:10]} be promoted?"
        )
    reason = f"{_accuracy(candidate)}, floor {floor:.2%}"
    if judgement.comparison:
        reason += f", p {judgement.comparison.p_value:.3g} against production"
    if not judgement.granted:
        failed = ", ".join(each.name for each in judgement.criteria if not each.passed)
        logger.warning("promote: refused\n%s", criteria_table([*criteria]))
        return "refused", {"reason": f"{reason}; failed: {failed}", "criteria": [*criteria]}
    target = artifact_of(store, checkpoint).manifest
    store.refs.set(PRODUCTION, target, expected=current, reason=reason)
    return "built", {"reason": reason}


def criteria_table(criteria: JsonValue) -> str:
    """Return the criteria of a result's facts as a table for a terminal."""
    return str(tabulate(criteria, headers="keys"))


def _evaluate(
    store: ArtifactStore,
    device_target: str,
    checkpoint: Artifact,
    state: Checkpoint,
    shards: Artifact,
) -> Artifact:
    """Evaluate production on the candidate's shards.

    Raises:
        UserError: That is not possible.
    """

    def build(workspace: Path) -> BuildOutput:
        out = evaluate_checkpoint(
            state.run.recipe, checkpoint, shards, device_target, workspace, own_shards=False
        )
        return BuildOutput(out, {}, {})

    spec = comparison_spec(checkpoint.digest, shards.digest, device_target)
    try:
        return resolve_artifact("promote", store, spec, build).artifact
    except PERMANENT as error:
        raise UserError(str(error)) from error


def _accuracy(candidate: Candidate) -> str:
    counts = candidate.evaluation
    if counts is None:
        return "not evaluated"
    return f"accuracy@1 {counts.accuracy_top1:.2%} ({counts.correct_top1}/{counts.seen})"
