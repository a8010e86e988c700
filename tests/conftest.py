"""Session-wide: an environment of its own for Prefect, one flow harness, one tiny data set."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from infra.s3.server import Running
    from tests.places import Place
    from tests.tiny_pipeline import Trained

# Read by Prefect when it is imported, and inherited by every command that a test starts.
_prefect_home = tempfile.TemporaryDirectory(prefix="prefect-home-")
_worker = "PYTEST_XDIST_WORKER" in os.environ
if not _worker:
    _cache = tempfile.TemporaryDirectory(prefix="sknet-cache-")
# Of pytest-xdist's processes, the first makes the cache for all.
_cache_name = os.environ["SKNET_CACHE"] if _worker else _cache.name
for _name in [name for name in os.environ if name.startswith(("PREFECT_", "SKNET_"))]:
    del os.environ[_name]
os.environ |= {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_HOME": _prefect_home.name,
    "SKNET_CACHE": _cache_name,
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
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Running]":
    """A real S3 server, whose address and credentials are this process's AWS settings."""
    from infra.s3.server import serving

    with serving(tmp_path_factory.mktemp("s3")) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> "Place":
    """Of an empty store in a directory, then of one in a bucket."""
    from tests.places import LocalPlace, S3Place

    if request.param == "local":
        return LocalPlace(tmp_path / "store")
    request.getfixturevalue("s3_server")
    return S3Place(tmp_path / "hosts")


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


@pytest.fixture(scope="session")
def trained(flow_harness: None, tmp_path_factory: pytest.TempPathFactory) -> "Trained":
    """One undisturbed run of the whole flow with two workers. Tests change copies of its store.

    It takes a minute, so that of pytest-xdist's processes only the first to need it runs it.
    """
    from tests.tiny_pipeline import Trained, run_flow_once, write_images, write_recipe

    base = tmp_path_factory.getbasetemp()
    place = (base.parent if _worker else base) / "trained"
    place.mkdir(exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "results.json").exists():
            shutil.rmtree(place / "images", ignore_errors=True)
            shutil.rmtree(place / "store", ignore_errors=True)
            recipe, images = write_recipe(place / "tiny.yaml"), write_images(place / "images")
            _, results = run_flow_once(recipe, images, place / "store")
            Trained.write(results, place)
        return Trained.read(place)


@pytest.fixture
def copied_store(trained: "Trained", tmp_path: Path) -> Path:
    """The store of `trained`, free to be damaged."""
    return shutil.copytree(trained.store, tmp_path / "store", copy_function=shutil.copy2)
