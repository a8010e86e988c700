"""Task `promote`: point production to a checkpoint, if every criterion allows it."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from prefect import get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from pydantic import JsonValue
from tabulate import tabulate

from infra.artifacts import (
    Artifact,
    ArtifactStore,
    BuildOutput,
    Ref,
    RefConflictError,
    StoreError,
    open_store,
)
from sknet.errors import UserError
from sknet.judgement import (
    NO_FLOORS,
    Candidate,
    Floors,
    below_floors,
    judge_promotion,
    promotion_of,
)
from sknet.recipe import Recipe
from sknet.records import Checkpoint, SealedResult
from tasks.catalog.passports import (
    KEY_SETTING,
    Issuer,
    build_passport,
    passport_spec,
    sources_of,
)
from tasks.catalog.production import (
    MAX_CONFLICTS,
    PRODUCTION,
    candidate_of,
    comparison_spec,
    production_of,
    put_promotion,
    sealed_split,
)
from tasks.errors import PERMANENT
from tasks.pages import worth_no_failure
from tasks.programs import SHOWN_OTHERWISE
from tasks.results import (
    Status,
    TaskResult,
    artifact_of,
    completed,
    pipeline_task,
    resolve_artifact,
)
from tasks.validate import evaluate_checkpoint, evaluate_sealed


@pipeline_task("promote")
def promote(
    recipe: Recipe,
    checkpoint: TaskResult,
    evaluation: TaskResult,
    store_uri: str,
    floors: Floors = NO_FLOORS,
) -> State[TaskResult]:
    """Point `refs/production` to a checkpoint if every criterion allows it.

    A checkpoint that may be promoted is then evaluated on the sealed test split, if there is one.

    Args:
        recipe: The recipe of the training; it has the floor of accuracy@1.
        checkpoint: What may be promoted.
        evaluation: Its evaluation.
        store_uri: The artifact store.
        floors: The other floors.

    Raises:
        RefConflictError: Other processes keep moving the ref.
    """
    began = time.perf_counter()
    store = open_store(store_uri)
    logger = get_run_logger()
    for _ in range(MAX_CONFLICTS):
        try:
            status, facts = _promote(recipe, checkpoint, evaluation, store, floors)
            break
        except RefConflictError as error:
            logger.warning("promote: judging again, as another process promoted: %s", error)
    else:
        raise RefConflictError(
            f"refs/{PRODUCTION} moved {MAX_CONFLICTS} times while {checkpoint.key[:10]} was "
            "judged: run it again when nobody else promotes"
        )
    judged = facts["judged"]
    logger.info("promote: %s%s", status, f", {judged}" if judged else "")
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
    recipe: Recipe,
    checkpoint: TaskResult,
    evaluated: TaskResult,
    store: ArtifactStore,
    floors: Floors,
) -> tuple[Status, dict[str, JsonValue]]:
    """Judge a checkpoint against production as it is now, and promote it if that is granted.

    Raises:
        RefConflictError: Production moved meanwhile.
    """
    logger = get_run_logger()
    facts: dict[str, JsonValue]
    history = store.refs.history(PRODUCTION)
    current = history[-1] if history else None
    evaluation = artifact_of(store, evaluated)
    candidate = candidate_of(store, checkpoint.digest, evaluation, history)
    if current is not None and current.digest == checkpoint.digest:
        missed = below_floors(candidate, floor=recipe.min_accuracy, floors=floors)
        warnings = [f"production stays, but it is below a floor: {each}" for each in missed]
        judged = "in production already"
        facts = {
            "reason": f"{_accuracy(candidate)}, {judged}",
            "judged": judged,
            "earlier": _key_before(history),
        }
        try:
            facts |= _issue_passport(store, checkpoint)
        except StoreError as error:  # something that it tells of is gone since the promotion
            warnings.append(f"production stays, but no passport can be made: {error}")
        _warn(warnings)
        return "reused", {**facts, "warnings": [*warnings]}
    compared = None
    if current is not None:
        compared = production_of(
            store,
            current,
            evaluation.manifest,
            candidate.classes,
            evaluate=partial(_evaluate, store, str(evaluation.manifest.made_with("device_target"))),
            warn=lambda line: logger.warning("promote: %s", line),
        )
    production = compared.production if compared else None
    by_hand = f"sknet store refs set {PRODUCTION} {checkpoint.kind}/{checkpoint.key} --reason …"
    floor = recipe.min_accuracy
    judgement = judge_promotion(candidate, production, floor=floor, floors=floors, by_hand=by_hand)
    _warn(judgement.warnings)
    sealed = _evaluate_sealed(recipe, checkpoint, evaluation, store) if judgement.granted else None
    put_promotion(
        store,
        promotion_of(candidate, production, judgement, floor=floor, floors=floors, sealed=sealed),
        evaluation.manifest,
        compared.evaluation if compared else None,
    )
    criteria = [asdict(each) for each in judgement.criteria]
    with worth_no_failure():
        create_table_artifact(
            criteria, key="promotion", description=f"May {checkpoint.key[:10]} be promoted?"
        )
    found = []
    if floor or not floors.are_set:
        found.append(f"floor {floor:.2%}" if floor else "no floor is set")
    if judgement.comparison:
        found.append(f"p {judgement.comparison.p_value:.3g} against production")
    judged = ", ".join(found)
    if not judgement.granted:
        failed = ", ".join(each.name for each in judgement.criteria if not each.passed)
        judged = "; ".join([*([judged] if judged else []), f"failed: {failed}"])
    facts = {
        "reason": ", ".join(part for part in (_accuracy(candidate), judged) if part),
        "judged": judged,
        "warnings": list(judgement.warnings),
        "earlier": current.key if current else None,
    }
    if not judgement.granted:
        logger.warning(
            "promote: refused\n%s", criteria_table([*criteria]), extra={SHOWN_OTHERWISE: True}
        )
        return "refused", facts | {"criteria": [*criteria]}
    # Before the ref moves, so that production is never without a passport.
    facts |= _issue_passport(store, checkpoint)
    target = artifact_of(store, checkpoint).manifest
    store.refs.set(PRODUCTION, target, expected=current, reason=str(facts["reason"]))
    return "built", facts | ({"sealed": sealed.text} if sealed else {})


def _warn(warnings: Sequence[str]) -> None:
    """Log what a command's summary shows."""
    for warning in warnings:
        get_run_logger().warning("promote: %s", warning, extra={SHOWN_OTHERWISE: True})


def _key_before(history: Sequence[Ref]) -> str | None:
    """Return the key of the checkpoint that was in production before the present one."""
    others = (ref.key for ref in reversed(history) if ref.key != history[-1].key)
    return next(others, None)


def _issue_passport(store: ArtifactStore, checkpoint: TaskResult) -> dict[str, JsonValue]:
    """Make a checkpoint's passport, or find it in the store; return the facts for the summary.

    Raises:
        UserError: The card or the signing key that the environment names can't be used.
    """
    issuer = Issuer.read()
    sources = sources_of(store, artifact_of(store, checkpoint))
    build = partial(build_passport, sources, issuer)
    passport = resolve_artifact("passport", store, passport_spec(sources, issuer), build).artifact
    signed = f"signed by {issuer.key.id[:10]}" if issuer.key else f"not signed: set {KEY_SETTING}"
    text = f"passport/{passport.manifest.key}, {signed}"
    get_run_logger().info("promote: %s", text)
    return {"passport": text}


def _evaluate_sealed(
    recipe: Recipe, checkpoint: TaskResult, evaluation: Artifact, store: ArtifactStore
) -> SealedResult | None:
    """Evaluate a checkpoint on the sealed test split; None if its data has none."""
    device_target = str(evaluation.manifest.made_with("device_target"))
    shards = store.find("shards", evaluation.manifest.made_from("shards"))
    sealed = sealed_split(store, checkpoint.digest, shards, device_target)
    if sealed is None:
        return None

    def build(workspace: Path) -> BuildOutput:
        found = artifact_of(store, checkpoint)
        out = evaluate_sealed(recipe, found, shards, device_target, workspace)
        return BuildOutput(out, {}, {})

    result = sealed.result(resolve_artifact("promote", store, sealed.spec, build).artifact)
    get_run_logger().info("promote: on the sealed test split, %s", result.text)
    return result


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
