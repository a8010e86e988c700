"""Task `train`: train a recipe on shards to its final checkpoint."""

import shutil
import uuid
from datetime import UTC, datetime
from pathlib import Path

from prefect import get_run_logger
from prefect.client.schemas.objects import State

from infra.artifacts import ArtifactSpec, ArtifactStore, BuildOutput, open_store
from infra.base.machine_load import OthersLoad
from sknet.recipe import Recipe
from sknet.records import Checkpoint
from sknet.records.training import METRICS_FILE, STATE_FILE
from tasks.catalog.production import processor
from tasks.catalog.specs import about_earlier, checkpoint_spec, earlier_checkpoint_spec
from tasks.pages import KEY_DIGITS, complete_run_name
from tasks.programs import (
    THIS_HOST,
    LaunchSettings,
    ProgressBar,
    Ranks,
    gang_of,
    run_program,
    write_recipe,
)
from tasks.results import TaskResult, artifact_of, finish, pipeline_task, resolve_artifact
from tasks.supply import shards_for


@pipeline_task("train")
def train(
    recipe: Recipe,
    shards: TaskResult,
    store_uri: str,
    num_workers: int,
    device_target: str,
    launch: LaunchSettings = THIS_HOST,
) -> State[TaskResult]:
    """Train to the end; an interrupted training resumes from its newest valid checkpoint.

    Args:
        recipe: Every choice of the training.
        shards: Result of `convert`.
        store_uri: The artifact store.
        num_workers: Number of ranks on all hosts. Global batch and learning rate follow from it.
        device_target: CPU or Ascend.
        launch: The hosts. Those of a cluster need the store as a shared file system, mounted at
            the same path. After the loss of a host a retry resumes on the remaining ones.

    Raises:
        UserError: Recipe, data and hosts don't fit each other.
        NonFiniteLossError: The loss became NaN or infinite.
        LostWorkerError: A rank or a host was lost.
        JobStoppedError: The training was asked to stop.
    """
    store = open_store(store_uri)
    spec = checkpoint_spec(recipe, shards.digest, num_workers, device_target)
    complete_run_name(f"{recipe.name} {spec.key[:KEY_DIGITS]}")

    earlier = earlier_checkpoint_spec(recipe, shards.digest, num_workers, device_target)

    def build(workspace: Path) -> BuildOutput:
        is_new = not any(workspace.iterdir())
        if is_new and (line := about_earlier(store, earlier)):
            get_run_logger().warning("train: %s", line)
        checkpoints = workspace / "checkpoints"
        gang = gang_of(launch, recipe, num_workers, device_target)
        load = OthersLoad()
        data = shards_for(recipe, artifact_of(store, shards), workspace, on_this_host=gang is None)
        with data as data_dir, store.uploading_parts(spec, checkpoints):
            options = {
                "config": write_recipe(recipe, workspace),
                "data_dir": data_dir,
                "ckpt_save_dir": checkpoints,
                "device_target": device_target,
                "planned_workers": num_workers,
            }
            run_program(
                "train",
                options,
                workspace=workspace,
                ranks=Ranks(
                    workers=num_workers,
                    bind_core=device_target == "Ascend",
                    gang=gang,
                ),
                bar=ProgressBar("training", "Fraction of the training's steps that are done"),
            )
        final = max(checkpoints.glob("step-*"))
        state = Checkpoint.read(final / STATE_FILE)
        load_by_others = None if gang else load.fraction()  # a gang has other hosts than this
        _store_log(store, spec, recipe.name, workspace)
        return BuildOutput(
            final,
            {"steps": state.step, "params": state.num_params},
            {"processor": processor(device_target), "load_by_others": load_by_others},
        )

    resolution = resolve_artifact("train", store, spec, build)
    state = Checkpoint.read(resolution.artifact.path(STATE_FILE))
    return finish("train", resolution, {"steps": state.step, "params": state.num_params})


def _store_log(store: ArtifactStore, run: ArtifactSpec, name: str, workspace: Path) -> None:
    """Store metrics and rank logs as an artifact of their own.

    They differ in every execution, so that they can't be part of the checkpoint.
    """
    spec = ArtifactSpec(
        kind="training-log",
        format_version=1,
        params={"run": run.key, "recipe_name": name, "execution": uuid.uuid4().hex},
        inputs={},
    )
    with store.workspace(spec) as directory:
        shutil.copytree(workspace / "logs", directory / "logs")
        shutil.copy2(workspace / "checkpoints" / METRICS_FILE, directory)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        store.put(spec, directory, stats={}, provenance={"created": created})
        shutil.rmtree(directory)
