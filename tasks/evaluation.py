"""Stage `validate`: a checkpoint, evaluated."""

from importlib.metadata import version
from pathlib import Path

from prefect.artifacts import create_table_artifact

from infra.artifacts import (
    Artifact,
    ArtifactSpec,
    BuildOutput,
    open_store,
)
from sknet.recipe import Recipe
from sknet.records import Evaluation
from tasks.jobs import run_program, write_recipe
from tasks.stages import (
    StageResult,
    artifact_of,
    finish,
    resolve_stage,
    stage_task,
)


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
        [table_row(evaluation)], key="accuracy", description=f"Accuracy of {checkpoint.key[:10]}"
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


def table_row(evaluation: Evaluation) -> dict[str, object]:
    """Of the table that Prefect shows."""
    return {
        "split": evaluation.split,
        "resolution": evaluation.resolution,
        "accuracy@1": f"{evaluation.accuracy_top1:.2%}",
        "accuracy@5": f"{evaluation.accuracy_top5:.2%}",
        **evaluation_facts(evaluation),
        "loss": round(evaluation.loss, 4),
    }
