from pathlib import Path

import pytest

from infra.artifacts import ArtifactStore, LocalStore, open_store
from tests.places import Place


@pytest.fixture
def other(place: Place) -> ArtifactStore:
    """As another host sees it."""
    return place.host("other")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    opened = open_store(str(tmp_path / "store"))
    assert isinstance(opened, LocalStore)
    return opened
