from pathlib import Path

import pytest

from infra.artifacts import LocalStore, open_store


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    opened = open_store(str(tmp_path / "store"))
    assert isinstance(opened, LocalStore)
    return opened
