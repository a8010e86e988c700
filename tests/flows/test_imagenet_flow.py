"""ImageNet's archives, in miniature, through the whole flow: nothing is unpacked on the way."""

from pathlib import Path

import pytest

from infra.artifacts import open_store
from sknet.records import Dataset, Evaluation, Shards
from tests.imagenet import WORDS, write_archives
from tests.tiny_pipeline import RECIPE, STAGES, run_flow_once

pytestmark = pytest.mark.slow


def test_the_archives_are_trained_validated_and_found_again(
    flow_harness: None, tmp_path: Path
) -> None:
    archives = write_archives(tmp_path / "archives")
    before = {path: path.stat().st_mtime_ns for path in sorted(archives.iterdir())}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.replace("epoch_size: 2", "epoch_size: 1"), "utf-8")

    _, results = run_flow_once(recipe, archives, tmp_path / "store")
    assert [result.stage for result in results] == STAGES
    found = {result.stage: result for result in results}
    assert found["stage"].facts["splits"] == {"train": 48, "val": 16}

    store = open_store(str(tmp_path / "store"))
    dataset = Dataset.read(store.load("dataset", found["stage"].key).path("dataset.json"))
    assert dataset.source == "ilsvrc2012"
    assert dict(zip(dataset.classes, dataset.titles, strict=True)) == WORDS
    shards = Shards.read(store.load("shards", found["convert"].key).path("shards.json"))
    assert (shards.num_samples("train"), shards.num_samples("val")) == (48, 16)
    evaluation = Evaluation.read(
        store.load("evaluation", found["validate"].key).path("evaluation.json")
    )
    assert evaluation.class_seen == (2,) * 8

    _, again = run_flow_once(recipe, archives, tmp_path / "store")
    assert {result.status for result in again if result.stage != "promote"} == {"reused"}
    assert {path: path.stat().st_mtime_ns for path in sorted(archives.iterdir())} == before
