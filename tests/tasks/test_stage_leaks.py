"""The task that stages a source shows leaks, and does about them what it is told to."""

import json
import shutil
from pathlib import Path

import pytest
from prefect import flow

from infra.artifacts import open_store
from sknet.data.copies.leaks import OnLeak
from sknet.records import Dataset
from tasks.results import TaskResult
from tasks.stage import stage
from tests.sknet.conftest import write_images
from tests.tiny_pipeline import shown_by

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("flow_harness")]


@flow(name="stage-with-leaks")
def stage_with_leaks(data: str, store: str, on_leak: OnLeak) -> TaskResult:
    return stage(data, store, on_leak=on_leak).result()


def test_leaks_are_shown_recorded_and_dropped(tmp_path: Path) -> None:
    images, store = write_images(tmp_path / "images"), open_store(str(tmp_path / "store"))
    shutil.copy(images / "val/cat/000.png", images / "train/cat/again.png")
    arguments = (str(images), str(tmp_path / "store"))

    state = stage_with_leaks(*arguments, "warn", return_state=True)
    warned = state.result()
    assert warned.facts["leaked"] == 2
    run = state.state_details.flow_run_id
    assert run is not None
    (row,) = json.loads(str(shown_by(run)["copies"].data))
    assert row == {
        "images": "train/cat/again.png = val/cat/000.png",
        "splits": "train, val",
        "classes": "cat",
        "equal": "yes",
    }
    artifact = store.load("dataset", warned.key)
    assert artifact.manifest.provenance["on_leak"] == "warn"
    (group,) = Dataset.read(artifact.path("dataset.json")).copies
    assert group.keys == ("train/cat/again.png", "val/cat/000.png")

    refused = stage_with_leaks(*arguments, "refuse", return_state=True)
    assert refused.is_failed()
    assert "such as train/cat/again.png = val/cat/000.png" in str(refused.message)

    dropped = stage_with_leaks(*arguments, "drop")
    assert dropped.facts == {**warned.facts, "leaked": 0, "splits": {"train": 15, "val": 6}}
    assert dropped.key != warned.key
