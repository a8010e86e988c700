"""From a fresh server to a Completed run, with the commands that people type."""

import json
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from infra.artifacts import open_store
from sknet.records import Revalidation
from tests.candidates import flip_a_bit
from tests.documented import documented
from tests.prefect_services import (
    FINAL,
    SERVER,
    UUID,
    WORKER,
    PrefectServer,
    PrefectWorker,
    eventually,
)
from tests.runs import MARK
from tests.tiny_pipeline import Trained, processes_marked

pytestmark = pytest.mark.slow

SECONDS_TO_RUN = 150
SECONDS_TO_VANISH = 15
SECONDS_TO_SCHEDULE = 15
# By default the schedules are looked at every minute, a run is late after 15 s, and one that waits
# for another looks every 30 s.
SOON = {
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "1",
    "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "1",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """As documented, but for its port and home."""
    exported = dict(word.split("=", 1) for word in documented("export PREFECT_API_URL")[1:])
    assert exported == {"PREFECT_API_URL": "http://127.0.0.1:4200/api", "SKNET_HOME": "$PWD"}
    assert documented("prefect server start") == ["prefect", *SERVER]
    with PrefectServer(tmp_path_factory.mktemp("server"), SOON) as started:
        yield started


@pytest.fixture(scope="module")
def deployed(server: PrefectServer) -> None:
    """Pool and deployments are there, and no worker yet."""
    server.prefect(*documented("prefect work-pool create")[1:])
    server.prefect(*documented("prefect deploy --all")[1:])


@pytest.fixture(scope="module")
def worker(server: PrefectServer, deployed: None) -> Iterator[PrefectWorker]:
    """It carries out what is scheduled."""
    assert documented("prefect worker start") == ["prefect", *WORKER]
    with PrefectWorker(server) as started:
        yield started


def test_missed_nights_are_caught_up_once_and_a_regression_is_told_and_reported(
    server: PrefectServer,
    deployed: None,
    trained: Trained,
    copied_store: Path,
    request: pytest.FixtureRequest,
) -> None:
    flip_a_bit(copied_store / "checkpoint" / trained.of("train").key / "model.ckpt")
    (nightly,) = server.post("deployments/filter", {"deployments": {"name": {"any_": ["nightly"]}}})
    first = datetime.now(UTC) + timedelta(seconds=SECONDS_TO_SCHEDULE)
    # Two seconds stand for the day between two nights.
    rule = f"DTSTART:{first:%Y%m%dT%H%M%SZ}\nRRULE:FREQ=SECONDLY;INTERVAL=2;COUNT=2"
    schedule = {"rrule": rule, "timezone": "UTC"}
    parameters = {"store": str(copied_store)}
    of_test = {"schedule": schedule, "active": True, "slug": "missed", "parameters": parameters}
    server.post(f"deployments/{nightly['id']}/schedules", [of_test])

    def nights() -> list[dict[str, object]]:
        return [run for run in server.runs("nightly") if run["parameters"] == parameters]

    def names() -> list[str]:
        return sorted(str(run["state_name"]) for run in nights())

    eventually(lambda: names() == ["Late", "Late"], 4 * SECONDS_TO_SCHEDULE, server.said)
    assert all(run["auto_scheduled"] for run in nights())
    worker = request.getfixturevalue("worker")

    eventually(lambda: names() == ["CaughtUp", "Failed"], SECONDS_TO_RUN, worker.said)

    store = open_store(str(copied_store))
    (night,) = store.list("revalidation")
    record = Revalidation.read(store.load("revalidation", night.key).path("revalidation.json"))
    (failed,) = [run for run in nights() if run["state_name"] == "Failed"]
    assert record.outcome == "damaged"
    assert record.scheduled == datetime.fromisoformat(str(failed["expected_start_time"]))
    assert record.scheduled is not None
    assert record.scheduled < record.began
    (damage,) = record.damages
    assert "'model.ckpt': sha256" in damage
    production = store.refs.get("production")
    assert production is not None
    assert production.digest == trained.of("train").digest
    assert production.suspect == f"damaged: {record.said}"

    def reports() -> list[object]:
        runs = server.runs("report")
        return [run["state_type"] for run in runs if run["parameters"] == parameters]

    eventually(lambda: reports() == ["COMPLETED"], SECONDS_TO_RUN, worker.said)
    automations = server.post("automations/filter", {})
    enabled = {str(each["name"]): each["enabled"] for each in automations}
    assert enabled == {"report after a regression": True, "retrain after a regression": False}
    assert server.runs("train-sknet") == []


def test_deploy_run_by_bare_name_and_revalidate(
    server: PrefectServer, worker: PrefectWorker, tmp_path: Path, images: Path, recipe: Path
) -> None:
    store = tmp_path / "store"

    def completed(deployment: str, count: int) -> None:
        """Wait until that many runs have ended; the schedule's own runs lie in the future."""

        def states() -> list[object]:
            runs = server.runs(deployment)
            own = [run for run in runs if run["parameters"].get("store") == str(store)]
            return [run["state_type"] for run in own]

        eventually(lambda: sum(s in FINAL for s in states()) == count, SECONDS_TO_RUN, worker.said)
        ended = [state for state in states() if state in FINAL]
        assert ended == ["COMPLETED"] * count, worker.said()

    parameters = [f"recipe={recipe}", f"data={images}", f"store={store}", "workers=1"]
    options = [word for parameter in parameters for word in ("--param", parameter)]
    bare = documented("prefect deployment run")
    assert bare[-1] == "train-sknet"
    said = server.prefect(*bare[1:], *options)
    assert "train-sknet/train-sknet" in said
    completed("train-sknet", 1)
    promoted = open_store(str(store), create=False).refs.get("production")
    assert promoted is not None
    assert promoted.kind == "checkpoint"

    server.prefect("deployment", "run", "train-sknet/train-sknet", *options)
    server.prefect("deployment", "run", "revalidate/nightly", "--param", f"store={store}")
    server.prefect("deployment", "run", "report/report", "--param", f"store={store}")
    completed("train-sknet", 2)
    completed("nightly", 1)
    completed("report", 1)
    assert open_store(str(store)).refs.history("production") == (promoted,)

    def nights() -> list[str]:
        return [
            str(run["expected_start_time"])
            for run in server.runs("nightly")
            if run["auto_scheduled"] and run["state_type"] == "SCHEDULED"
        ]

    eventually(lambda: bool(nights()), 60, worker.said)
    assert all(time_of_day(night) == "02:00:00" for night in nights())


def test_a_cancelled_run_leaves_no_process_and_keeps_its_checkpoints(
    server: PrefectServer, worker: PrefectWorker, tmp_path: Path, trained: Trained
) -> None:
    store = tmp_path / "store"
    for kind in ("dataset", "shards"):
        shutil.copytree(trained.store / kind, store / kind)
    parameters = [f"recipe={trained.recipe}", f"data={trained.images}", f"store={store}"]
    longer = "overrides=" + json.dumps(["epoch_size=200"])
    options = [word for value in [*parameters, "workers=2", longer] for word in ("--param", value)]
    said = server.prefect("deployment", "run", "train-sknet", *options)
    (run,) = set(re.findall(UUID, said))
    checkpoints = ".work/checkpoint/*/checkpoints/step-*"
    eventually(lambda: any(store.glob(checkpoints)), SECONDS_TO_RUN, worker.said)
    assert len(of_the_job(server)) == 3  # two ranks and the scheduler

    server.prefect("flow-run", "cancel", run)

    eventually(lambda: of_the_job(server) == set(), SECONDS_TO_VANISH, worker.said)
    eventually(lambda: server.state_of(run) == "CANCELLED", 60, worker.said)
    assert any(store.glob(checkpoints))


def of_the_job(server: PrefectServer) -> set[psutil.Process]:
    """The ranks and the scheduler under this test's worker."""
    own = set(processes_marked(MARK, server.mark))
    roles = (processes_marked("MS_ROLE", role) for role in ("MS_WORKER", "MS_SCHED"))
    return own & {process for processes in roles for process in processes}


def time_of_day(text: str) -> str:
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%H:%M:%S")
