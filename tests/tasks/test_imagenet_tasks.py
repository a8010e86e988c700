"""A miniature of ImageNet's archives through the tasks; nothing is unpacked on the way."""

from pathlib import Path

import pytest
from prefect import flow

from infra.artifacts import open_store
from sknet.records import Dataset, Evaluation, Shards
from tasks.convert import ConversionSettings, convert
from tasks.results import TaskResult
from tasks.stage import stage
from tests.imagenet import WORDS, write_archives
from tests.tiny_pipeline import RECIPE, TASKS, run_flow_once

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("flow_harness")]


@flow(name="stage-and-convert")
def stage_and_convert(data: str, store: str) -> list[TaskResult]:
    dataset = stage(data, store).result()
    return [dataset, convert(data, dataset, store, ConversionSettings(), 2).result()]


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    return write_archives(tmp_path / "archives")


def modification_times(directory: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in sorted(directory.iterdir())}


def test_the_archives_are_staged_converted_and_found_again(archives: Path, tmp_path: Path) -> None:
    before = modification_times(archives)
    store = open_store(str(tmp_path / "store"))

    staged, converted = stage_and_convert(str(archives), str(tmp_path / "store"))

    assert (staged.status, converted.status) == ("built", "built")
    assert staged.facts["splits"] == {"train": 48, "val": 16}
    dataset = Dataset.read(store.load("dataset", staged.key).path("dataset.json"))
    assert dataset.source == "ilsvrc2012"
    assert dict(zip(dataset.classes, dataset.titles, strict=True)) == WORDS
    shards = Shards.read(store.load("shards", converted.key).path("shards.json"))
    assert (shards.num_samples("train"), shards.num_samples("val")) == (48, 16)

    again = stage_and_convert(str(archives), str(tmp_path / "store"))
    assert [result.status for result in again] == ["reused", "reused"]
    assert modification_times(archives) == before


@pytest.mark.long
def test_the_archives_are_trained_and_validated_by_the_whole_flow(
    archives: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.replace("epoch_size: 2", "epoch_size: 1"), "utf-8")

    _, results = run_flow_once(recipe, archives, tmp_path / "store")

    assert [result.task for result in results] == TASKS
    (validated,) = [result for result in results if result.task == "validate"]
    artifact = open_store(str(tmp_path / "store")).load("evaluation", validated.key)
    assert Evaluation.read(artifact.path("evaluation.json")).class_seen == (2,) * 8

    _, again = run_flow_once(recipe, archives, tmp_path / "store")
    assert {result.status for result in again if result.task != "promote"} == {"reused"}
