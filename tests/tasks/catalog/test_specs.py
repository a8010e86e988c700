"""The key of a training has what decides its checkpoint, and finds what earlier versions stored."""

from pathlib import Path

import pytest

from infra.artifacts import ArtifactSpec, ArtifactStore, open_store
from sknet.recipe import Recipe, load_recipe
from tasks.catalog.specs import checkpoint_spec, stored_checkpoint_spec

SHARDS = "5" * 64


def spec(recipe: Recipe) -> ArtifactSpec:
    return checkpoint_spec(recipe, SHARDS, 2, "CPU")


def stored_spec(store: ArtifactStore | None, recipe: Recipe) -> ArtifactSpec:
    return stored_checkpoint_spec(store, recipe, SHARDS, 2, "CPU")


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return open_store(str(tmp_path / "store"))


def put(store: ArtifactStore, stored: ArtifactSpec, directory: Path) -> Path:
    directory.mkdir()
    (directory / "model.ckpt").write_bytes(b"weights")
    store.put(stored, directory, stats={}, provenance={})
    return store.load(stored.kind, stored.key).path("model.ckpt")


def test_how_a_training_is_logged_kept_and_judged_is_not_in_its_key() -> None:
    changes = ["log_interval=7", "keep_checkpoint_max=9", "min_accuracy=0.5"]
    changed = load_recipe("skresnet18_digits", changes)
    assert spec(changed) == spec(load_recipe("skresnet18_digits"))
    assert spec(changed) != spec(load_recipe("skresnet18_digits", ["lr=0.07"]))


def test_a_training_that_an_earlier_version_stored_is_found(
    store: ArtifactStore, tmp_path: Path
) -> None:
    # Its key had all choices. The floor of this recipe is not the default.
    recipe = load_recipe("skresnet18_digits")
    params = spec(recipe).params | {"recipe": recipe.choices()}
    earlier = spec(recipe).model_copy(update={"params": params})
    assert stored_spec(store, recipe) == stored_spec(None, recipe) == spec(recipe) != earlier
    weights = put(store, earlier, tmp_path / "earlier")
    assert stored_spec(store, recipe) == earlier
    other = load_recipe("skresnet18_digits", ["lr=0.07"])
    assert stored_spec(store, other) == spec(other)
    # A damaged one is no longer found, and stays where it is: a dry run looks, too.
    weights.chmod(0o644)
    weights.write_bytes(b"other")
    assert stored_spec(store, recipe) == spec(recipe)
    assert weights.read_bytes() == b"other"
