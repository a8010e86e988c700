"""One Prefect server and one worker for all tests of deployments, on one of xdist's workers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crashes.experiment import Testbed
from tests.documented import documented
from tests.flow_runs import CommandRun, harness_api
from tests.prefect_services import SERVER, WORKER, PrefectServer, PrefectWorker
from tests.tiny_pipeline import Trained, train_command

# The defaults: schedules are read every minute, and a run is late after 15 s.
SOON = {
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "1",
}


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A server as documented but for its port and home, with the pool and the deployments.

    It has no automations, so that runs which a test kills are not started again.
    """
    exported = dict(word.split("=", 1) for word in documented("export PREFECT_API_URL")[1:])
    assert exported == {"PREFECT_API_URL": "http://127.0.0.1:4200/api", "SKNET_HOME": "$PWD"}
    assert documented("prefect server start") == ["prefect", *SERVER]
    with PrefectServer(tmp_path_factory.mktemp("server"), SOON) as started:
        for start in ("prefect work-pool create", "prefect deploy --all"):
            started.prefect(*documented(start, page="infra/prefect/README.md")[1:])
        yield started


@pytest.fixture(scope="session")
def stopped_worker(server: PrefectServer) -> Iterator[PrefectWorker]:
    """The worker, which may not have been started yet."""
    assert documented("prefect worker start") == ["prefect", *WORKER]
    result = PrefectWorker(server)
    yield result
    result.stop()


@pytest.fixture
def worker(stopped_worker: PrefectWorker) -> PrefectWorker:
    """The worker at work."""
    if not stopped_worker.is_alive:
        stopped_worker.start()
    return stopped_worker


@pytest.fixture
def testbed(trained: Trained, server: PrefectServer, worker: PrefectWorker) -> Testbed:
    """What the experiments of tests/crashes need, without an S3 server."""
    return Testbed(trained, server, worker)


@pytest.fixture
def run(trained: Trained, tmp_path: Path) -> Iterator[CommandRun]:
    """The command of `trained`, into an empty store `store`, against the harness's server."""
    command = train_command(trained.recipe, trained.images, tmp_path / "store", 2)
    result = CommandRun(command, tmp_path / "run.log", harness_api())
    yield result
    result.end()
