"""What an evaluation holds, and that a checkpoint which fails a check gets no counts."""

import json
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest
from prefect import flow

from flows.summary import summary
from infra.artifacts import ArtifactSpec, open_store
from sknet.evaluation.predictions import read_predictions
from sknet.recipe import load_recipe
from sknet.records import CheckpointChecks, Evaluation
from tasks.results import TaskResult
from tasks.validate import validate
from tests.tiny_pipeline import Trained, shown_by

pytestmark = pytest.mark.slow


def test_the_artifact_holds_checks_counts_predictions_attention_and_examples(
    trained: Trained,
) -> None:
    result = trained.of("validate")
    artifact = open_store(str(trained.store)).load("evaluation", result.key)
    names = {file.path for file in artifact.manifest.files}
    assert {name for name in names if not name.startswith("example-")} == {
        *("checks.json", "evaluation.json", "predictions.parquet"),
        *("attention.json", "calibration.json", "examples.json", "classes.csv", "confusion.csv"),
    }
    assert CheckpointChecks.read(artifact.path("checks.json")).passed
    counts = Evaluation.read(artifact.path("evaluation.json"))
    kept = read_predictions(artifact.path("predictions.parquet"))
    assert (len(kept.keys), kept.correct.sum()) == (counts.seen, counts.correct_top1)
    assert sum(pair.count for pair in counts.confused) == counts.seen - counts.correct_top1
    assert artifact.manifest.params.keys() >= {"mindspore", "numpy", "pillow", "pyarrow"}


@pytest.mark.parametrize("task", ["convert", "train", "validate"])
def test_the_version_of_mindspore_is_part_of_the_key(trained: Trained, task: str) -> None:
    result = trained.of(task)
    manifest = open_store(str(trained.store)).load(result.kind, result.key).manifest
    assert manifest.params["mindspore"] == version("mindspore")


def test_a_checkpoint_that_fails_a_check_is_stored_and_shown_without_counts(
    trained: Trained, copied_store: Path, tmp_path: Path
) -> None:
    store = open_store(str(copied_store))
    train = trained.of("train")
    found = store.load("checkpoint", train.key)
    shutil.copytree(found.directory, tmp_path / "other", copy_function=shutil.copy)
    (tmp_path / "other/manifest.json").unlink()
    state = json.loads((tmp_path / "other/state.json").read_text("utf-8"))
    state["samples_seen"] += 1
    (tmp_path / "other/state.json").chmod(0o644)
    (tmp_path / "other/state.json").write_text(json.dumps(state), "utf-8")
    spec = ArtifactSpec(
        kind="checkpoint",
        format_version=found.manifest.format_version,
        params={"by": "a test"},
        inputs=found.manifest.inputs,
    )
    other = store.put(
        spec, tmp_path / "other", stats={}, provenance={"created": "9999-01-01"}
    ).manifest
    checkpoint = train.model_copy(update={"key": other.key, "digest": other.digest})

    @flow(name="only-validate")
    def only_validate() -> TaskResult:
        recipe = load_recipe(str(trained.recipe))
        shards = trained.of("convert")
        return validate(recipe, checkpoint, shards, str(copied_store), "CPU").result()

    ended = only_validate(return_state=True)

    result = ended.result()
    assert result.facts == {"checks_failed": 1}
    artifact = store.load("evaluation", result.key)
    assert [file.path for file in artifact.manifest.files] == ["checks.json"]
    shown = shown_by(ended.state_details.flow_run_id)
    assert shown.keys() == {"checks"}
    rows = {row["check"]: row for row in json.loads(str(shown["checks"].data))}
    seen = state["samples_seen"]
    assert rows["progress"] == {
        "check": "progress",
        "passed": "NO",
        "found": f"samples seen is {seen}, expected {seen - 1}",
    }
    assert {row["passed"] for name, row in rows.items() if name != "progress"} == {"yes"}
    results = [result if each.task == "validate" else each for each in trained.results]
    assert "accuracy    not evaluated: 1 check of the checkpoint failed" in summary(results)
