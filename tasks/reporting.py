"""Stage `report`: all runs of a store as tables, curves and one page."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from prefect.artifacts import create_markdown_artifact

from infra.artifacts import ArtifactSpec, ArtifactStore, BuildOutput, Manifest, open_store
from sknet.records import Checkpoint, Evaluation
from tasks.stages import StageResult, finish, newest, resolve_stage, stage_task

if TYPE_CHECKING:
    from sknet.report import TrainedRun

# Raised whenever the same runs would give other pages.
REPORT_VERSION = 1


@stage_task("report")
def report(store_uri: str) -> StageResult:
    """Write the report over every evaluated run; the same runs give the same report."""
    store = open_store(store_uri)
    runs = collect_runs(store)
    content = json.dumps([run.model_dump(mode="json") for run in runs], sort_keys=True)
    spec = ArtifactSpec(
        kind="report",
        format_version=REPORT_VERSION,
        params={"runs_digest": hashlib.sha256(content.encode()).hexdigest()},
        inputs={},
    )

    def build(workspace: Path) -> BuildOutput:
        from sknet.report import write_report  # here, as it imports pandas and jinja2

        out = workspace / "out"
        out.mkdir(exist_ok=True)
        write_report(runs, out)
        return BuildOutput(out, {"runs": len(runs)}, {})

    resolution = resolve_stage("report", store, spec, build)
    directory = resolution.artifact.directory
    create_markdown_artifact(
        (directory / "report.md").read_text("utf-8"), key="report", description="All runs"
    )
    return finish("report", resolution, {"runs": len(runs), "html": str(directory / "report.html")})


def collect_runs(store: ArtifactStore) -> "list[TrainedRun]":
    """Every evaluated checkpoint of the store with what was measured of it, by key."""
    logs: dict[str, list[Manifest]] = {}
    for manifest in store.list("training-log"):
        logs.setdefault(str(manifest.params["run"]), []).append(manifest)
    evaluations: dict[str, list[Manifest]] = {}
    for manifest in store.list("evaluation"):
        evaluations.setdefault(manifest.inputs["checkpoint"], []).append(manifest)
    return [
        _trained_run(store, checkpoint, newest(logs.get(checkpoint.key, ())), evaluated)
        for checkpoint in store.list("checkpoint")
        if (evaluated := newest(evaluations.get(checkpoint.digest, ())))
    ]


def _trained_run(
    store: ArtifactStore, checkpoint: Manifest, log: Manifest | None, evaluated: Manifest
) -> "TrainedRun":
    from sknet.report import EvaluationCounts, StageTime, TrainedRun

    state = Checkpoint.read(store.load("checkpoint", checkpoint.key).path("state.json"))
    evaluation = Evaluation.read(store.load("evaluation", evaluated.key).path("evaluation.json"))
    shards = store.find("shards", checkpoint.inputs["shards"]).manifest
    dataset = store.find("dataset", shards.inputs["dataset"]).manifest
    stages = {"stage": dataset, "convert": shards, "train": checkpoint, "validate": evaluated}
    lines = []
    name = "recipe"
    if log:
        name = str(log.params["recipe_name"])
        metrics = store.load("training-log", log.key).path("metrics.jsonl")
        lines = [json.loads(line) for line in metrics.read_text("utf-8").splitlines()]
    counts = evaluation.model_dump(include={*EvaluationCounts.model_fields})
    return TrainedRun(
        run=checkpoint.key,
        recipe=state.run.recipe.model_copy(update={"name": name}),
        model=state.run.recipe.model,
        params=state.num_params,
        world_size=state.run.world_size,
        global_batch_size=state.run.global_batch_size,
        device_target=state.run.device_target,
        mindspore=state.run.mindspore,
        steps=state.step,
        evaluation=EvaluationCounts.model_validate(counts),
        log=tuple(lines),
        stages=tuple(
            StageTime(stage=stage, seconds=float(str(manifest.provenance["seconds"])))
            for stage, manifest in stages.items()
        ),
        checkpoint_digest=checkpoint.digest,
    )
