"""Task `validate`: check a checkpoint and evaluate it on the validation split."""

import shutil
from pathlib import Path

from prefect import get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from pydantic import JsonValue

from infra.artifacts import Artifact, BuildOutput, open_store
from sknet.data.sources import TEST
from sknet.recipe import Recipe
from sknet.records import CheckpointChecks, Evaluation
from sknet.records.evaluation import CHECKS_FILE, EVALUATION_FILE, SPLIT, evaluation_file
from sknet.records.training import MODEL_FILE
from tasks.catalog.production import evaluation_spec, processor
from tasks.errors import JobFailedError
from tasks.pages import worth_no_failure
from tasks.programs import ProgressBar, device_here, run_program
from tasks.results import TaskResult, artifact_of, finish, pipeline_task, resolve_artifact
from tasks.training_host import RECIPE, directory_of_split


@pipeline_task("validate")
def validate(
    recipe: Recipe, checkpoint: TaskResult, shards: TaskResult, store_uri: str, device_target: str
) -> State[TaskResult]:
    """Check a checkpoint and, if every check passes, predict each validation sample.

    The artifact of a checkpoint that fails a check has the checks and no counts. `device_target` is
    the device of the training; see `device_here`.
    """
    store = open_store(store_uri)
    device_target = device_here(device_target)
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

    resolution = resolve_artifact("validate", store, spec, build)
    checks = CheckpointChecks.read(resolution.artifact.path(CHECKS_FILE))
    if not checks.passed:
        return finish("validate", resolution, _show_failed(checks, checkpoint.key))
    evaluations = [
        Evaluation.read(resolution.artifact.path(evaluation_file(recipe, side)))
        for side in recipe.resolutions
    ]
    with worth_no_failure():
        create_table_artifact(
            [_table_row(evaluation) for evaluation in evaluations],
            key="accuracy",
            description=f"Accuracy of {checkpoint.key[:10]}",
        )
    return finish("validate", resolution, _counts(evaluations[0]))


def evaluate_checkpoint(
    recipe: Recipe,
    checkpoint: Artifact,
    shards: Artifact,
    device_target: str,
    workspace: Path,
    *,
    own_shards: bool = True,
) -> Path:
    """Check and evaluate a checkpoint in a process of its own.

    Args:
        recipe: The checkpoint's recipe.
        checkpoint: Its artifact.
        shards: The shards whose validation split is predicted.
        device_target: CPU or Ascend.
        workspace: Directory for the process's files.
        own_shards: Whether the checkpoint was trained on these shards. On others, only its files
            are checked, and no `checks.json` is written.

    Returns:
        The directory of the evaluation. If a check failed, it has `checks.json` alone.

    Raises:
        JobFailedError: The process failed for another reason than a check.
        UserError: Recipe, checkpoint and shards don't fit each other.
        LostWorkerError: The process was lost.
    """
    out = workspace / "out"
    options = {
        "config": recipe.write(workspace / RECIPE),
        "data_dir": directory_of_split(shards, SPLIT),
        "ckpt_path": checkpoint.directory / ("" if own_shards else MODEL_FILE),
        "device_target": device_target,
        "out": out,
    }
    # An earlier attempt may have left files of another outcome.
    shutil.rmtree(out, ignore_errors=True)
    try:
        run_program(
            "validate",
            options,
            workspace=workspace,
            bar=ProgressBar(
                "evaluation", "Fraction of the samples that are predicted", phase="predicting"
            ),
        )
    except JobFailedError:
        if not _has_failed_check(out / CHECKS_FILE):
            raise
    return out


def evaluate_sealed(
    recipe: Recipe, checkpoint: Artifact, shards: Artifact, device_target: str, workspace: Path
) -> Path:
    """Evaluate a checkpoint on the sealed test split, in a process of its own.

    Returns:
        The directory with the counts alone: predictions and examples would show the images.

    Raises:
        JobFailedError: The process failed.
        LostWorkerError: The process was lost.
    """
    out = workspace / "out"
    options = {
        "config": recipe.write(workspace / RECIPE),
        "data_dir": directory_of_split(shards, TEST),
        "ckpt_path": checkpoint.directory / MODEL_FILE,
        "device_target": device_target,
        "split": TEST,
        "json": out / EVALUATION_FILE,
    }
    run_program("validate", options, workspace=workspace)
    return out


def _has_failed_check(file: Path) -> bool:
    return file.is_file() and not CheckpointChecks.read(file).passed


def _show_failed(checks: CheckpointChecks, key: str) -> dict[str, JsonValue]:
    """Show failed checks in the log and as a table, and return the task's facts."""
    failed = [check for check in checks.checks if not check.passed]
    for check in failed:
        get_run_logger().error("validate: %s: %s", check.name, check.detail)
    with worth_no_failure():
        create_table_artifact(
            [
                {"check": each.name, "passed": "yes" if each.passed else "NO", "found": each.detail}
                for each in checks.checks
            ],
            key="checks",
            description=f"Checkpoint {key[:10]} failed a check and was not evaluated",
        )
    return {"checks_failed": len(failed)}


def _counts(evaluation: Evaluation) -> dict[str, JsonValue]:
    """Return the facts of the task; None of what the evaluation doesn't tell."""
    balanced, macro_f1 = evaluation.balanced_accuracy, evaluation.macro_f1
    precision = evaluation.mean_average_precision
    return {
        "correct_top1": evaluation.correct_top1,
        "correct_top5": evaluation.correct_top5 if evaluation.is_top5_telling else None,
        "seen": evaluation.seen,
        "without_leaked": list(evaluation.without_leaked or ()) or None,
        "balanced_accuracy": balanced and balanced.value,
        "macro_f1": macro_f1 and macro_f1.value,
        "mean_average_precision": precision and precision.value,
    }


def _table_row(evaluation: Evaluation) -> dict[str, object]:
    """Return an evaluation as a row of the table on Prefect's pages."""
    low, high = evaluation.interval_top1
    error = evaluation.calibration_error
    row: dict[str, object] = {
        "split": evaluation.split,
        "resolution": evaluation.resolution,
        "accuracy@1": f"{evaluation.accuracy_top1:.2%}",
        "95 % interval": f"{low:.2%} to {high:.2%}",
        "correct_top1": evaluation.correct_top1,
        "seen": evaluation.seen,
    }
    if without := evaluation.without_leaked:
        row["without leaked images"] = f"{without[0] / without[1]:.2%} ({without[0]}/{without[1]})"
    if evaluation.is_top5_telling:
        row["accuracy@5"] = f"{evaluation.accuracy_top5:.2%}"
    for name, interval in evaluation.means.items():
        if interval:
            row[name] = f"{interval.value:.2%} ({interval.low:.2%} to {interval.high:.2%})"
    row["loss"] = round(evaluation.loss, 4)
    row["calibration error"] = None if error is None else round(error, 4)
    return row
