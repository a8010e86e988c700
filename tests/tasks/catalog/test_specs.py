"""The key of a training has what decides its checkpoint, and nothing else."""

from pathlib import Path

import pytest

import sknet.records.training
import tasks.catalog.specs
from infra.artifacts import ArtifactSpec, open_store
from sknet.recipe import Recipe, load_recipe
from tasks.catalog.specs import about_earlier, checkpoint_spec, earlier_checkpoint_spec

SHARDS = "5" * 64


def spec(recipe: Recipe) -> ArtifactSpec:
    return checkpoint_spec(recipe, SHARDS, 2, "CPU")


def test_how_a_training_is_read_logged_kept_and_judged_is_not_in_its_key() -> None:
    changes = ["log_interval=7", "keep_checkpoint_max=9", "min_accuracy=0.5"]
    changes += ["num_parallel_workers=7"]
    changed = load_recipe("skresnet18_digits", changes)
    assert spec(changed) == spec(load_recipe("skresnet18_digits"))
    assert spec(changed) != spec(load_recipe("skresnet18_digits", ["lr=0.07"]))


def test_a_training_that_an_earlier_version_has_begun_or_done_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.catalog.specs, "version", lambda _: "2.9.0")
    recipe = load_recipe("skresnet18_digits", ["num_parallel_workers=3"])
    earlier = earlier_checkpoint_spec(recipe, SHARDS, 2, "CPU")
    # The key that the last version of that format gave it.
    assert earlier.key == "ed14830a455071eaed87508d74b0e2f3a61f8ec7ff2151ce4b3975e9bb0e0fcb"
    store = open_store(str(tmp_path / "store"))
    assert about_earlier(None, earlier) is about_earlier(store, earlier) is None
    with store.workspace(earlier) as workspace:
        (workspace / "model.ckpt").write_bytes(b"weights")  # and it was interrupted
    line = about_earlier(store, earlier)
    assert line is not None
    assert line.startswith(
        "an earlier version has begun this training, but it augmented images oth"
    )
    store.put(earlier, workspace, stats={}, provenance={})
    line = about_earlier(store, earlier)
    assert line is not None
    assert line.startswith(
        "an earlier version has done this training (checkpoint/ed14830a4550), but"
    )


def test_other_libraries_of_images_make_another_training(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe("skresnet18_digits")
    now = spec(recipe)
    assert "opencv-python-headless" in str(now.params["image_libraries"])
    assert "pillow" not in str(now.params["image_libraries"])
    monkeypatch.setattr(sknet.records.training, "version", lambda _: "9.9")
    assert spec(recipe) != now
    antialiased = load_recipe("skresnet18_digits", ["antialias=true"])
    assert str(spec(antialiased).params["image_libraries"]).endswith("pillow 9.9")
