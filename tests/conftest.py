"""Session-wide: an environment of its own for Prefect, one flow harness, one tiny data set."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Read by Prefect when it is imported, and inherited by every command that a test starts.
_prefect_home = tempfile.TemporaryDirectory(prefix="prefect-home-")
for _name in [name for name in os.environ if name.startswith(("PREFECT_", "SKNET_"))]:
    del os.environ[_name]
os.environ |= {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_HOME": _prefect_home.name,
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_CLI_COLORS": "false",
    "GLOG_v": "3",
    "OMP_NUM_THREADS": "1",
}


@pytest.fixture(scope="session")
def flow_harness() -> Iterator[None]:
    """One temporary Prefect server for all flows that run in the test process."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    with (
        prefect_test_harness(server_startup_timeout=120),
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
    ):
        yield


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three colours that are easy to tell apart."""
    from tests.tiny_pipeline import write_images

    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe for `images`."""
    from tests.tiny_pipeline import write_recipe

    return write_recipe(tmp_path_factory.mktemp("recipe") / "tiny.yaml")
