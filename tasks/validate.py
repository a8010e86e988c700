"""Stage `validate`: a checkpoint, checked and evaluated."""

import platform
import shutil
from importlib.metadata import version
from pathlib import Path

from prefect import get_run_logger
from prefect.artifacts import create_table_artifact
from pydantic import JsonValue

from infra.artifacts import (
    Artifact,
    ArtifactSpec,
    BuildOutput,
    open_store,
)
from sknet.recipe import Recipe
from sknet.records import CheckpointChecks, Evaluation
from sknet.records.evaluation import CHECKS_FILE, evaluation_file
from tasks.programs import run_program, write_recipe
from tasks.results import (
    JobFailedError,
    StageResult,
    artifact_of,
    finish,
    resolve_stage,
    stage_task,
)

EVALUATION_FORMAT = 2
"""Of the artifact: 2 has checks, predictions, attention and examples."""


@stage_task("validate")
def validate(
    recipe: Recipe, checkpoint: StageResult, shards: StageResult, store_uri: str, device_target: str
) -> StageResult:
    """Check the checkpoint, and if it is sound predict every validation sample.

    A checkpoint that fails a check gets an artifact that says so, and no counts.
    """
    store = open_store(store_uri)
    spec = evaluation_spec(checkpoint.digest, shards.digest, device_target)

    def build(workspace: Path) -> BuildOutput:
        out = evaluate_checkpoint(
            recipe,
            artifact_of(store, checkpoint),
            artifact_of(store, shards),
            device_target,
            workspace,
        )
        return BuildOutput(out, {}, {"processor": processor(device_target)})

    resolution = resolve_stage("validate", store, spec, build)
    checks = CheckpointChecks.read(resolution.artifact.path(CHECKS_FILE))
    if not checks.passed:
        return finish("validate", resolution, _show_failed(checks, checkpoint.key))
    evaluations = [
        Evaluation.read(resolution.artifact.path(evaluation_file(recipe, side)))
        for side in recipe.resolutions
    ]
    create_table_artifact(
        [table_row(evaluation) for evaluation in evaluations],
        key="accuracy",
        description=f"Accuracy of {checkpoint.key[:10]}",
    )
    return finish("validate", resolution, evaluation_facts(evaluations[0]))


def evaluation_spec(checkpoint: str, shards: str, device_target: str) -> ArtifactSpec:
    """Of the evaluation that the software here makes of a checkpoint, on the shards it is of."""
    return ArtifactSpec(
        kind="evaluation",
        format_version=EVALUATION_FORMAT,
        params=software(device_target),
        inputs={"checkpoint": checkpoint, "shards": shards},
    )


def software(device_target: str) -> dict[str, JsonValue]:
    """All by which the same checkpoint and shards could give other files."""
    packages = ("mindspore", "numpy", "pillow", "pyarrow")
    return {"device_target": device_target, **{name: version(name) for name in packages}}


def processor(device_target: str) -> str:
    """Of this host, as it names itself: another kind may round otherwise. No part of any key."""
    if device_target != "CPU":
        return device_target
    lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def evaluate_checkpoint(
    recipe: Recipe,
    checkpoint: Artifact,
    shards: Artifact,
    device_target: str,
    workspace: Path,
    *,
    own_shards: bool = True,
) -> Path:
    """Check and evaluate in a process of its own; return the directory of what it wrote.

    If a check failed, `checks.json` is alone in it. On other shards than the checkpoint's own,
    only its files are checked, and there is no `checks.json`.
    """
    out = workspace / "out"
    options = {
        "config": write_recipe(recipe.model_dump(mode="json"), workspace),
        "data_dir": shards.directory,
        "ckpt_path": checkpoint.directory / ("" if own_shards else "model.ckpt"),
        "device_target": device_target,
        "out": out,
    }
    # What an earlier try left may belong to another outcome.
    shutil.rmtree(out, ignore_errors=True)
    try:
        run_program("validate", options, workspace=workspace, log_name="validate")
    except JobFailedError:
        if not _refused(out / CHECKS_FILE):
            raise
    return out


def _refused(file: Path) -> bool:
    return file.is_file() and not CheckpointChecks.read(file).passed


def _show_failed(checks: CheckpointChecks, key: str) -> dict[str, JsonValue]:
    """In the log and as a table; returns the stage's facts."""
    failed = [check for check in checks.checks if not check.passed]
    for check in failed:
        get_run_logger().error("validate: %s: %s", check.name, check.detail)
    create_table_artifact(
        [
            {"check": check.name, "passed": "yes" if check.passed else "NO", "found": check.detail}
            for check in checks.checks
        ],
        key="checks",
        description=f"Checkpoint {key[:10]} is not sound and was not evaluated",
    )
    return {"checks_failed": len(failed)}


def evaluation_facts(evaluation: Evaluation) -> dict[str, JsonValue]:
    """The counts that summaries show."""
    return {
        "correct_top1": evaluation.correct_top1,
        "correct_top5": evaluation.correct_top5,
        "seen": evaluation.seen,
    }


def table_row(evaluation: Evaluation) -> dict[str, object]:
    """Of the table that Prefect shows."""
    low, high = evaluation.interval_top1
    error = evaluation.calibration_error
    return {
        "split": evaluation.split,
        "resolution": evaluation.resolution,
        "accuracy@1": f"{evaluation.accuracy_top1:.2%}",
        "95 % interval": f"{low:.2%} to {high:.2%}",
        "accuracy@5": f"{evaluation.accuracy_top5:.2%}",
        **evaluation_facts(evaluation),
        "loss": round(evaluation.loss, 4),
        "calibration error": None if error is None else round(error, 4),
    }
