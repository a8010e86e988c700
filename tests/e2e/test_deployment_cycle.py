"""From a fresh server to a Completed run, with the commands that people type."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infra.artifacts import open_store
from sknet.records import Revalidation
from tests.candidates import flip_a_bit
from tests.documented import documented
from tests.prefect_services import FINAL, PAUSE, PrefectServer, PrefectWorker
from tests.tiny_pipeline import Trained
from tests.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("prefect server")]

SECONDS_TO_SCHEDULE = 15


def test_missed_nightlies_run_once_and_a_regression_is_recorded_and_reported(
    server: PrefectServer, stopped_worker: PrefectWorker, trained: Trained, copied_store: Path
) -> None:
    stopped_worker.stop()
    flip_a_bit(copied_store / "checkpoint" / trained.of("train").key / "model.ckpt")
    (nightly,) = server.post("deployments/filter", {"deployments": {"name": {"any_": ["nightly"]}}})
    first = datetime.now(UTC) + timedelta(seconds=SECONDS_TO_SCHEDULE)
    # Two seconds stand for the day between two nightlies.
    rule = f"DTSTART:{first:%Y%m%dT%H%M%SZ}\nRRULE:FREQ=SECONDLY;INTERVAL=2;COUNT=2"
    schedule = {"rrule": rule, "timezone": "UTC"}
    parameters = {"store": str(copied_store)}
    of_test = {"schedule": schedule, "active": True, "slug": "missed", "parameters": parameters}
    server.post(f"deployments/{nightly['id']}/schedules", [of_test])

    def nightlies() -> list[dict[str, object]]:
        return [run for run in server.runs("nightly") if run["parameters"] == parameters]

    def state_names() -> list[str]:
        return sorted(str(run["state_name"]) for run in nightlies())

    wait_for(lambda: state_names() == ["Late", "Late"], server.log_tail, pause=PAUSE)
    assert all(run["auto_scheduled"] for run in nightlies())
    stopped_worker.start()

    wait_for(lambda: state_names() == ["CaughtUp", "Failed"], stopped_worker.log_tail, pause=PAUSE)

    store = open_store(str(copied_store))
    (artifact,) = store.list("revalidation")
    record = Revalidation.read(store.load("revalidation", artifact.key).path("revalidation.json"))
    (failed,) = [run for run in nightlies() if run["state_name"] == "Failed"]
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

    def report_states() -> list[object]:
        runs = server.runs("report")
        return [run["state_type"] for run in runs if run["parameters"] == parameters]

    wait_for(lambda: report_states() == ["COMPLETED"], stopped_worker.log_tail, pause=PAUSE)
    automations = server.post("automations/filter", {})
    enabled = {str(each["name"]): each["enabled"] for each in automations}
    assert enabled == {"report after a regression": True, "retrain after a regression": False}
    runs = server.runs("train-sknet")
    assert [run for run in runs if run["parameters"].get("store") == str(copied_store)] == []


def test_deploy_run_by_bare_name_and_revalidate(
    server: PrefectServer, worker: PrefectWorker, trained: Trained, copied_store: Path
) -> None:
    """The first run finds all that was trained, and has to validate, promote and report.

    It is started in a directory without prefect.toml, by a user whose profile has the settings that
    `python -m infra.prefect` writes; that command's automations would restart what a test kills.
    """
    settings = ("PREFECT_PLUGINS_ENABLED=true", "PREFECT_PLUGINS_ALLOW=sknet")
    server.prefect("config", "set", *settings)
    for kind in ("evaluation", "promotion", "refs", "report"):
        shutil.rmtree(copied_store / kind)

    def wait_until_completed(deployment: str, count: int) -> None:
        """Wait until so many runs have ended; the schedule's own runs lie in the future."""

        def states() -> list[object]:
            runs = server.runs(deployment)
            own = [run for run in runs if run["parameters"].get("store") == str(copied_store)]
            return [run["state_type"] for run in own]

        wait_for(
            lambda: sum(state in FINAL for state in states()) == count,
            worker.log_tail,
            pause=PAUSE,
        )
        ended = [state for state in states() if state in FINAL]
        assert ended == ["COMPLETED"] * count, worker.log_tail()

    parameters = [
        *(f"recipe={trained.recipe}", f"data={trained.images}"),
        *(f"store={copied_store}", "workers=2"),
    ]
    options = [word for parameter in parameters for word in ("--param", parameter)]
    bare = documented("prefect deployment run")
    assert bare[-1] == "train-sknet"
    output = server.prefect(*bare[1:], *options, directory=copied_store)
    assert "train-sknet/train-sknet" in output
    wait_until_completed("train-sknet", 1)
    promoted = open_store(str(copied_store), create=False).refs.get("production")
    assert promoted is not None
    assert promoted.kind == "checkpoint"
    assert promoted.digest == trained.of("train").digest

    server.run("revalidate/nightly", {"store": str(copied_store)})
    server.run("report/report", {"store": str(copied_store)})
    wait_until_completed("nightly", 1)
    wait_until_completed("report", 1)
    assert open_store(str(copied_store)).refs.history("production") == (promoted,)

    def scheduled() -> list[str]:
        return [
            str(run["expected_start_time"])
            for run in server.runs("nightly")
            if run["auto_scheduled"] and run["state_type"] == "SCHEDULED"
        ]

    wait_for(scheduled, worker.log_tail, pause=PAUSE)
    assert all(time_of_day(text) == "02:00:00" for text in scheduled())


def time_of_day(text: str) -> str:
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%H:%M:%S")
