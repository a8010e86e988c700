"""The key of a training has what decides its checkpoint, and nothing else."""

from pathlib import Path

import pytest

import tasks.catalog.specs
from infra.artifacts import ArtifactSpec, open_store
from sknet.recipe import Recipe, load_recipe
from tasks.catalog.specs import checkpoint_spec, earlier_checkpoint_spec
from tasks.train import about_earlier

SHARDS = "5" * 64


def spec(recipe: Recipe) -> ArtifactSpec:
    return checkpoint_spec(recipe, SHARDS, 2, "CPU")


def test_how_a_training_is_read_logged_kept_and_judged_is_not_in_its_key() -> None:
    changes = ["log_interval=7", "keep_checkpoint_max=9", "min_accuracy=0.5"]
    changes += ["num_parallel_workers=7"]
    changed = load_recipe("skresnet18_digits", changes)
    assert spec(changed) == spec(load_recipe("skresnet18_digits"))
    assert spec(changed) != spec(load_recipe("skresnet18_digits", ["lr=0.07"]))


def test_a_training_that_an_earlier_version_has_begun_is_told_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.catalog.specs, "version", lambda _: "2.9.0")
    recipe = load_recipe("skresnet18_digits", ["num_parallel_workers=3"])
    earlier = earlier_checkpoint_spec(recipe, SHARDS, 2, "CPU")
    # The key that the last version of that format gave it.
    assert earlier.key == "ed14830a455071eaed87508d74b0e2f3a61f8ec7ff2151ce4b3975e9bb0e0fcb"
    store = open_store(str(tmp_path / "store"))
    with store.workspace(spec(recipe)) as workspace:
        assert about_earlier(store, earlier, workspace) is None
        with store.workspace(earlier):
            pass  # it was interrupted
        line = about_earlier(store, earlier, workspace)
        assert line is not None
        assert line.endswith("can't go on here: training from the first step")
        (workspace / "checkpoints").mkdir()
        assert about_earlier(store, earlier, workspace) is None
