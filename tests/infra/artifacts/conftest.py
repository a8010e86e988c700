from pathlib import Path

import pytest

from infra.artifacts import ArtifactStore, LocalStore, open_store
from tests.store_roots import StoreRoot


@pytest.fixture
def other(store_root: StoreRoot) -> ArtifactStore:
    """The same store, as another host opens it."""
    return store_root.host("other")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    opened = open_store(str(tmp_path / "store"))
    assert isinstance(opened, LocalStore)
    return opened
