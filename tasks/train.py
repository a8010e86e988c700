"""Stage `train`: a recipe and shards to a final checkpoint, through msrun on the hosts."""

import re
import shutil
import uuid
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from infra.artifacts import ArtifactSpec, ArtifactStore, BuildOutput, open_store
from sknet.recipe import Recipe
from sknet.records import Checkpoint
from tasks.programs import (
    LaunchSettings,
    ProgressArtifact,
    Ranks,
    gang_of,
    run_program,
    write_recipe,
)
from tasks.results import (
    StageResult,
    artifact_of,
    finish,
    resolve_stage,
    stage_task,
)

HERE = LaunchSettings()
# As rank 0 reports: `… step 20/300 loss …`.
STEP = re.compile(r" step (\d+)/(\d+) ")


@stage_task("train")
def train(
    recipe: Recipe,
    shards: StageResult,
    store_uri: str,
    num_workers: int,
    device_target: str,
    launch: LaunchSettings = HERE,
) -> StageResult:
    """Train to the end; an interrupted training goes on from its newest valid checkpoint.

    Hosts of a cluster must share the store as a file system, under the same path. After the loss
    of a host a retry goes on with those that are left.
    """
    store = open_store(store_uri)
    spec = ArtifactSpec(
        kind="checkpoint",
        # 2: other names of parameters, and a loss that rounds otherwise; 3: Checkpoint's format 2;
        # 4: its evaluations have more fields
        format_version=4,
        params={
            "recipe": recipe.choices(),
            "world_size": num_workers,
            "device_target": device_target,
            "mindspore": version("mindspore"),
        },
        inputs={"shards": shards.digest},
    )

    def build(workspace: Path) -> BuildOutput:
        checkpoints = workspace / "checkpoints"
        options = {
            "config": write_recipe(recipe.model_dump(mode="json"), workspace),
            "data_dir": artifact_of(store, shards).directory,
            "ckpt_save_dir": checkpoints,
            "device_target": device_target,
            "planned_workers": num_workers,
        }
        with store.keeping(spec, checkpoints):
            run_program(
                "train",
                options,
                workspace=workspace,
                log_name="train",
                ranks=Ranks(
                    workers=num_workers,
                    bind_core=device_target == "Ascend",
                    gang=gang_of(launch, recipe, num_workers, device_target),
                ),
                after_line=_Progress(),
            )
        final = max(checkpoints.glob("step-*"))
        state = Checkpoint.read(final / "state.json")
        _keep_log(store, spec, recipe.name, workspace)
        return BuildOutput(final, {"steps": state.step, "params": state.num_params}, {})

    resolution = resolve_stage("train", store, spec, build)
    state = Checkpoint.read(resolution.artifact.path("state.json"))
    return finish("train", resolution, {"steps": state.step, "params": state.num_params})


class _Progress:
    """Shows the share of the steps that are done."""

    def __init__(self) -> None:
        self._shown = ProgressArtifact("training", "Share of the training's steps that are done")

    def __call__(self, line: str) -> None:
        if found := STEP.search(line):
            done, total = map(int, found.groups())
            self._shown.update(done / total)


def _keep_log(store: ArtifactStore, run: ArtifactSpec, name: str, workspace: Path) -> None:
    """Times and rank logs are facts of one execution, so they are no part of the checkpoint."""
    spec = ArtifactSpec(
        kind="training-log",
        format_version=1,
        params={"run": run.key, "recipe_name": name, "execution": uuid.uuid4().hex},
        inputs={},
    )
    with store.workspace(spec) as directory:
        shutil.copytree(workspace / "logs", directory / "logs")
        shutil.copy2(workspace / "checkpoints" / "metrics.jsonl", directory)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        store.put(spec, directory, stats={}, provenance={"created": created})
        shutil.rmtree(directory)
