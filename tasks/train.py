"""Task `train`: train a recipe on shards to its final checkpoint."""

import shutil
import uuid
from datetime import UTC, datetime
from pathlib import Path

from prefect import get_run_logger
from prefect.client.schemas.objects import State

from infra.artifacts import ArtifactSpec, ArtifactStore, BuildOutput, open_store
from infra.base.machine_load import OthersLoad
from infra.base.shortages import size_text
from infra.launch import Preparation
from sknet.recipe import Recipe
from sknet.records import Checkpoint
from sknet.records.training import METRICS_FILE, STATE_FILE
from tasks.catalog.production import processor
from tasks.catalog.specs import about_earlier, checkpoint_spec, earlier_checkpoint_spec
from tasks.errors import LostWorkerError
from tasks.pages import KEY_DIGITS, complete_run_name
from tasks.programs import (
    THIS_HOST,
    LaunchSettings,
    ProgressBar,
    Ranks,
    gang_of,
    run_program,
)
from tasks.results import TaskResult, artifact_of, finish, pipeline_task, resolve_artifact
from tasks.training_host import (
    ATTEMPT,
    CHECKPOINTS,
    RECIPE,
    SharedWorkspace,
    TrainingHost,
)


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
        launch: The hosts. They share a store on S3 and nothing else, or the directory of another
            store under the same path. After the loss of a host a retry resumes on the others.

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
        checkpoints = workspace / CHECKPOINTS
        gang = gang_of(launch, recipe, num_workers, device_target)
        if is_new and gang and not store.is_shared_directory:
            files = artifact_of(store, shards).manifest.files
            if line := about_order(recipe, sum(entry.size for entry in files)):
                get_run_logger().warning("train: %s", line)
        load = OthersLoad()
        run_program(
            "train",
            {"device_target": device_target, "planned_workers": num_workers},
            workspace=workspace,
            ranks=Ranks(
                workers=num_workers,
                bind_core=device_target == "Ascend",
                gang=gang,
            ),
            prepare=preparation(workspace, is_gang=gang is not None),
            bar=ProgressBar("training", "Fraction of the training's steps that are done"),
        )
        if gang:
            store.download_parts(spec, workspace)  # the host of rank 0 has uploaded them
        final, state = _last(checkpoints)
        load_by_others = None if gang else load.fraction()  # a gang has other hosts than this
        _store_log(store, spec, recipe.name, workspace)
        return BuildOutput(
            final,
            {"steps": state.step, "params": state.num_params},
            {"processor": processor(device_target), "load_by_others": load_by_others},
        )

    def preparation(workspace: Path, *, is_gang: bool) -> Preparation:
        """Return what prepares each host for its ranks."""
        if not (is_gang and store.is_shared_directory):
            return TrainingHost(
                store_uri, spec, (shards.kind, shards.key), recipe, is_temporary=is_gang
            )
        recipe.write(workspace / RECIPE)
        attempt = uuid.uuid4().hex
        (workspace / ATTEMPT).write_text(attempt, "ascii")
        return SharedWorkspace(workspace, artifact_of(store, shards).directory, attempt)

    resolution = resolve_artifact("train", store, spec, build)
    state = Checkpoint.read(resolution.artifact.path(STATE_FILE))
    return finish("train", resolution, {"steps": state.step, "params": state.num_params})


def about_order(recipe: Recipe, num_bytes: int) -> str | None:
    """Return what to tell of a new training on hosts that share no disk; None: nothing.

    Args:
        recipe: The recipe.
        num_bytes: Size of all shards.
    """
    if recipe.shuffle == "blocks":
        return None
    return (
        f"each host fetches all shards, {size_text(num_bytes)}, before the first step; with "
        "--set shuffle=blocks, only those of its parts, while it trains"
    )


def _last(checkpoints: Path) -> tuple[Path, Checkpoint]:
    """Return the last checkpoint of a training.

    Raises:
        LostWorkerError: It did not come from the host that saved it.
    """
    path = max(checkpoints.glob("step-*"), default=None)
    if path is not None:
        state = Checkpoint.read(path / STATE_FILE)
        if state.step == state.run.total_steps:
            return path, state
    raise LostWorkerError("the last checkpoint is not in the store, whose copy is damaged or lost")


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
        metrics = workspace / CHECKPOINTS / METRICS_FILE
        if metrics.is_file():
            shutil.copy2(metrics, directory)
        else:
            get_run_logger().warning("train: the metrics are lost: their copy is damaged")
        created = datetime.now(UTC).isoformat(timespec="seconds")
        store.put(spec, directory, stats={}, provenance={"created": created})
        shutil.rmtree(directory)
