"""The tiny data in many shards, and copies of it that tests may change."""

import shutil
from pathlib import Path

import pytest

from sknet.data.shards import ShardSet
from sknet.recipe import Recipe, load_recipe
from tests.sknet.conversions import convert


@pytest.fixture(scope="session")
def many_shards(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """The images of `folders` in seven shards of each split; don't change them."""
    directory = tmp_path_factory.mktemp("many-shards")
    return ShardSet(convert(folders, directory, num_shards=7), directory)


@pytest.fixture
def images_copy(folders: Path, tmp_path: Path) -> Path:
    """The images of `folders`."""
    return Path(shutil.copytree(folders, tmp_path / "images"))


@pytest.fixture
def shards_copy(converted: ShardSet, tmp_path: Path) -> Path:
    """The shards of `converted`."""
    return Path(shutil.copytree(converted.directory, tmp_path / "shards"))


@pytest.fixture
def recipe(recipe_file: Path) -> Recipe:
    """The tiny recipe, with two threads that read."""
    return load_recipe(str(recipe_file), ["num_parallel_workers=2"])
