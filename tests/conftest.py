"""Settings of the test processes, the order of the tests, and the fixtures that all tests share."""

import ctypes
import gc
import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from filelock import FileLock
from hypothesis import settings

from tests.processes import PYTHONPATH

if TYPE_CHECKING:
    from infra.s3.server import RunningServer
    from tests.store_roots import StoreRoot
    from tests.tiny_pipeline import Trained

# Prefect reads its settings when it is imported; every process that a test starts inherits them.
_prefect_home = tempfile.TemporaryDirectory(prefix="prefect-home-")
_is_xdist_worker = "PYTEST_XDIST_WORKER" in os.environ
if not _is_xdist_worker:
    _cache = tempfile.TemporaryDirectory(prefix="sknet-cache-")
# pytest-xdist's workers share the cache of the process that started them.
_cache_name = os.environ["SKNET_CACHE"] if _is_xdist_worker else _cache.name
for _name in [name for name in os.environ if name.startswith(("PREFECT_", "SKNET_"))]:
    del os.environ[_name]
os.environ |= {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_HOME": _prefect_home.name,
    "SKNET_CACHE": _cache_name,
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "600",
    "PREFECT_CLI_COLORS": "false",
    "GLOG_v": "3",
    "OMP_NUM_THREADS": "1",
    # Ranks look for each other every second; by default, every 3 to 5 seconds.
    "MS_RETRY_INTERVAL_LOWER": "1",
    "MS_RETRY_INTERVAL_UPPER": "1",
    "PYTHONPATH": PYTHONPATH,
}

# This process started before PYTHONPATH was set.
importlib.import_module("tests.tiny_model.sitecustomize")

# How long an example takes says more about the machine than about the code.
settings.register_profile("without deadlines", deadline=None)
settings.load_profile("without deadlines")

# Each of these marks implies `slow`.
SLOW_MARKS = ("alone", "timed", "long")
RELEASE_ABOVE_BYTES = 1536 << 20


@pytest.hookimpl(tryfirst=True)  # before tests are deselected, and pytest-xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Complete the marks, then group and order the tests for `--dist loadgroup`.

    A file is a group, so that its tests share their fixtures, unless it names its group itself.
    All tests marked `alone` are one group. Groups start in this order: `alone`, the groups that
    files name, other files with slow tests, all others. So the longest groups start first, and
    short ones are left for the end. Of the slow files, those that need the fixture `trained` come
    last, because only one process makes it, and the others wait.
    """
    for item in items:
        if any(item.get_closest_marker(name) for name in SLOW_MARKS):
            item.add_marker("slow")
    slow_files = {item.path for item in items if item.get_closest_marker("slow")}
    waiting_files = {item.path for item in items if "trained" in getattr(item, "fixturenames", ())}

    def turn(item: pytest.Item) -> int:
        if item.get_closest_marker("alone"):
            return 0
        if item.path not in slow_files:
            return 4
        if item.get_closest_marker("xdist_group"):
            return 1
        return 3 if item.path in waiting_files else 2

    items.sort(key=turn)
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            if item.get_closest_marker("alone"):
                item.add_marker(pytest.mark.xdist_group("alone"))
            elif not item.get_closest_marker("xdist_group"):
                item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.hookimpl(trylast=True)  # after the test's fixtures have ended
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Free the memory of networks that are no longer used, at the end of each test file.

    Networks are reference cycles, MindSpore keeps what it compiled, and the allocator keeps what
    was freed: a process that runs half of the suite would grow to more than 4 GB. A network that
    is still used is compiled again at its next call.
    """
    if nextitem is not None and nextitem.path == item.path:
        return  # it takes most of a second
    mindspore = sys.modules.get("mindspore")
    if mindspore and psutil.Process().memory_info().rss > RELEASE_ABOVE_BYTES:
        gc.collect()
        mindspore.ms_memory_recycle()
        ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture(scope="session")
def flow_harness() -> Iterator[None]:
    """A temporary Prefect server for all flows that run in the test process."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    with (
        prefect_test_harness(server_startup_timeout=600),
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
    ):
        yield


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[RunningServer]":
    """A real S3 server; this process's AWS settings have its address and credentials."""
    from infra.s3.server import serving

    with serving(tmp_path_factory.mktemp("s3")) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(params=["local", "s3"])
def store_root(request: pytest.FixtureRequest, tmp_path: Path) -> "StoreRoot":
    """Of an empty store in a directory, then of one in a bucket."""
    from tests.store_roots import LocalRoot, S3Root

    if request.param == "local":
        return LocalRoot(tmp_path / "store")
    request.getfixturevalue("s3_server")
    return S3Root(tmp_path / "hosts")


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of images in three colours that are easy to tell apart."""
    from tests.tiny_pipeline import write_images

    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe for `images`."""
    from tests.tiny_pipeline import write_recipe

    return write_recipe(tmp_path_factory.mktemp("recipe") / "tiny.yaml")


@pytest.fixture(scope="session")
def trained(flow_harness: None, tmp_path_factory: pytest.TempPathFactory) -> "Trained":
    """One uninterrupted run of the whole flow with two workers; tests change copies of its store.

    It takes a minute: the first of pytest-xdist's workers that needs it runs it, the others wait.
    """
    from tests.tiny_pipeline import Trained, run_flow_once, write_images, write_recipe

    base = tmp_path_factory.getbasetemp()
    directory = (base.parent if _is_xdist_worker else base) / "trained"
    directory.mkdir(exist_ok=True)
    with FileLock(directory / "lock"):
        if not (directory / "results.json").exists():
            shutil.rmtree(directory / "images", ignore_errors=True)
            shutil.rmtree(directory / "store", ignore_errors=True)
            recipe = write_recipe(directory / "tiny.yaml")
            images = write_images(directory / "images")
            _, results = run_flow_once(recipe, images, directory / "store")
            Trained.write(results, directory)
        return Trained.read(directory)


@pytest.fixture
def copied_store(trained: "Trained", tmp_path: Path) -> Path:
    """A copy of the store of `trained`, free to be damaged."""
    return shutil.copytree(trained.store, tmp_path / "store", copy_function=shutil.copy2)
