"""Stages `validate` and `promote`, and the nightly check of what was promoted."""

import json
import time
from importlib.metadata import version
from pathlib import Path

from prefect import get_run_logger
from prefect.artifacts import create_table_artifact

from infra.artifacts import (
    Artifact,
    ArtifactSpec,
    BuildOutput,
    Ref,
    StoreError,
    open_store,
)
from sknet.recipe import Recipe
from sknet.records import Checkpoint, Evaluation
from tasks.jobs import run_program, write_recipe
from tasks.stages import (
    StageResult,
    Status,
    artifact_of,
    completed,
    finish,
    newest,
    resolve_stage,
    stage_task,
)

PRODUCTION = "production"


class RegressionError(RuntimeError):
    """The promoted checkpoint is not what was recorded of it."""


@stage_task("validate")
def validate(
    recipe: Recipe, checkpoint: StageResult, shards: StageResult, store_uri: str, device_target: str
) -> StageResult:
    """Verify the checkpoint's files and count its correct predictions."""
    store = open_store(store_uri)
    spec = ArtifactSpec(
        kind="evaluation",
        format_version=1,
        params={"device_target": device_target, "mindspore": version("mindspore")},
        inputs={"checkpoint": checkpoint.digest, "shards": shards.digest},
    )

    def build(workspace: Path) -> BuildOutput:
        evaluation = evaluate_checkpoint(
            recipe,
            artifact_of(store, checkpoint),
            artifact_of(store, shards),
            device_target,
            workspace,
        )
        (workspace / "out").mkdir(exist_ok=True)
        evaluation.write(workspace / "out" / "evaluation.json")
        return BuildOutput(workspace / "out", {}, {})

    resolution = resolve_stage("validate", store, spec, build)
    evaluation = Evaluation.read(resolution.artifact.path("evaluation.json"))
    create_table_artifact(
        [_row(evaluation)], key="accuracy", description=f"Accuracy of {checkpoint.key[:10]}"
    )
    return finish("validate", resolution, evaluation_facts(evaluation))


def evaluate_checkpoint(
    recipe: Recipe, checkpoint: Artifact, shards: Artifact, device_target: str, workspace: Path
) -> Evaluation:
    """Evaluate in a process of its own, which verifies all files before it opens them."""
    out = workspace / "evaluation.json"
    options = {
        "config": write_recipe(recipe.model_dump(mode="json"), workspace),
        "data_dir": shards.directory,
        "ckpt_path": checkpoint.directory,
        "device_target": device_target,
        "json": out,
    }
    run_program("validate", options, workspace=workspace, log_name="validate")
    return Evaluation.read(out)


def evaluation_facts(evaluation: Evaluation) -> dict[str, int]:
    """The counts that summaries show."""
    return {
        "correct_top1": evaluation.correct_top1,
        "correct_top5": evaluation.correct_top5,
        "seen": evaluation.seen,
    }


def _row(evaluation: Evaluation) -> dict[str, object]:
    return {
        "split": evaluation.split,
        "resolution": evaluation.resolution,
        "accuracy@1": f"{evaluation.accuracy_top1:.2%}",
        "accuracy@5": f"{evaluation.accuracy_top5:.2%}",
        **evaluation_facts(evaluation),
        "loss": round(evaluation.loss, 4),
    }


@stage_task("promote")
def promote(
    recipe: Recipe, checkpoint: StageResult, evaluation: StageResult, store_uri: str
) -> StageResult:
    """Point `refs/production` to the checkpoint if it reaches the recipe's floor."""
    began = time.perf_counter()
    store = open_store(store_uri)
    counts = Evaluation.read(artifact_of(store, evaluation).path("evaluation.json"))
    current = store.refs.get(PRODUCTION)
    status: Status = "built"
    said = (
        f"accuracy@1 {counts.accuracy_top1:.2%} ({counts.correct_top1}/{counts.seen}), "
        f"floor {recipe.min_accuracy:.2%}"
    )
    if counts.accuracy_top1 < recipe.min_accuracy:
        status = "refused"
    elif current is not None and current.digest == checkpoint.digest:
        status = "reused"
    else:
        manifest = artifact_of(store, checkpoint).manifest
        store.refs.set(PRODUCTION, manifest, expected=current, reason=said)
    get_run_logger().info("promote: %s, %s", status, said)
    result = StageResult(
        stage="promote",
        status=status,
        seconds=time.perf_counter() - began,
        kind=checkpoint.kind,
        key=checkpoint.key,
        digest=checkpoint.digest,
        facts={"ref": PRODUCTION, "reason": said},
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


@stage_task("verify-promoted")
def verify_promoted(store_uri: str) -> Ref:
    """Read every byte of the promoted checkpoint and its shards. Raises RegressionError."""
    store = open_store(store_uri, create=False)
    ref = promoted(store_uri)
    faults = [f"checkpoint: {damage}" for damage in store.verify(ref.kind, ref.key, level="full")]
    if not faults:
        manifest = store.load(ref.kind, ref.key).manifest
        if manifest.digest != ref.digest:
            faults.append(f"checkpoint: digest is {manifest.digest}, {ref.digest} was promoted")
        else:
            shards = store.find("shards", manifest.inputs["shards"]).manifest
            damages = store.verify("shards", shards.key, level="full")
            faults += [f"shards: {damage}" for damage in damages]
    if faults:
        raise RegressionError(f"{PRODUCTION} ({ref.key[:10]}) is damaged: {'; '.join(faults)}")
    get_run_logger().info("%s: every file of checkpoint and shards is sound", PRODUCTION)
    return ref


@stage_task("reevaluate-promoted")
def reevaluate_promoted(ref: Ref, store_uri: str, scratch: Path) -> dict[str, int]:
    """Evaluate again and compare with the record, count by count. Raises RegressionError."""
    store = open_store(store_uri, create=False)
    checkpoint = store.load(ref.kind, ref.key)
    state = Checkpoint.read(checkpoint.path("state.json"))
    shards = store.find("shards", checkpoint.manifest.inputs["shards"])
    recorded = newest(
        manifest
        for manifest in store.list("evaluation")
        if manifest.inputs.get("checkpoint") == ref.digest
    )
    if recorded is None:
        raise StoreError(f"no evaluation of checkpoint {ref.key} is recorded: run train-sknet")
    record = Evaluation.read(store.load("evaluation", recorded.key).path("evaluation.json"))
    fresh = evaluate_checkpoint(
        state.run.recipe, checkpoint, shards, state.run.device_target, scratch
    )
    create_table_artifact(
        [{"evaluation": "recorded", **_row(record)}, {"evaluation": "tonight", **_row(fresh)}],
        key="revalidation",
        description=f"{PRODUCTION} ({ref.key[:10]}) against its recorded evaluation",
    )
    if differences := differing_counts(record, fresh):
        raise RegressionError(
            f"{PRODUCTION} ({ref.key[:10]}) differs from its recorded evaluation: "
            f"{'; '.join(differences)}"
        )
    return evaluation_facts(fresh)


def differing_counts(recorded: Evaluation, fresh: Evaluation) -> list[str]:
    """Every field that is not equal, with both values."""
    before, now = recorded.model_dump(mode="json"), fresh.model_dump(mode="json")
    return [
        f"{name} was {json.dumps(before[name])}, is {json.dumps(now[name])}"
        for name in before
        if before[name] != now[name]
    ]
