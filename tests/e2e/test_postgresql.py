"""Prefect on PostgreSQL, as compose and the cluster run it: register, work, restart."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.workers.process import ProcessWorker

from infra.artifacts import open_store
from infra.prefect.automations import described
from tests.documented import documented
from tests.postgresql import Database, running_database
from tests.prefect_services import PAUSE, PrefectServer, PrefectWorker, shipped_settings
from tests.processes import ROOT
from tests.waiting import wait_for

pytestmark = pytest.mark.long

DISABLED = "sknet: a run whose host was lost is started again"


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    with running_database() as result:
        yield result


def nightlies(server: PrefectServer) -> list[dict[str, Any]]:
    """Return the revalidations asked for; scheduled ones lie in the future."""
    return [run for run in server.runs("nightly") if not run["auto_scheduled"]]


def states(server: PrefectServer) -> list[str]:
    return [run["state_type"] for run in nightlies(server)]


def test_register_again_and_go_on_after_the_server_was_killed(
    database: Database, copied_store: Path, tmp_path: Path
) -> None:
    with PrefectServer(tmp_path, {**shipped_settings(), **database.settings}) as server:
        # As a worker does that starts before its pool is there.
        template = ProcessWorker.get_default_base_job_template()
        pool = {"name": "sknet-process", "type": "process", "base_job_template": template}
        server.post("work_pools/", pool)
        register = documented("python -m infra.prefect")[3:]
        server.register(*register)
        make_changes(server, str(copied_store))
        server.register(*register, "--job-variable", 'env={"ADDED": "now"}')
        check_changes(server, str(copied_store))
        with PrefectWorker(server, shipped_settings()) as worker:
            for _ in range(2):  # one at a time: the second waits for the first
                server.run("revalidate/nightly", {})
            wait_for(lambda: "RUNNING" in states(server), worker.log_tail, pause=PAUSE)
            server.kill()
            server.start()
            wait_for(
                lambda: states(server) == ["COMPLETED", "COMPLETED"], worker.log_tail, pause=PAUSE
            )
        first, second = sorted(nightlies(server), key=lambda run: str(run["start_time"]))
        assert first["end_time"] <= second["start_time"]
        for run in (first, second):
            # A lease would have to be renewed at the server.
            assert run["state"]["state_details"]["deployment_concurrency_lease_id"] is None
    assert len(list(open_store(str(copied_store)).list("revalidation"))) == 2
    assert int(database.query("select count(*) from flow_run where state_type = 'COMPLETED'")) == 2
    assert not list((tmp_path / "prefect").rglob("*.db"))


def of_name(found: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (result,) = [each for each in found if each["name"] == name]
    return result


def make_changes(server: PrefectServer, store: str) -> None:
    """Change what people can change in Prefect's pages."""
    deployments = server.post("deployments/filter", {})
    nightly = of_name(deployments, "nightly")
    (schedule,) = nightly["schedules"]
    path = f"deployments/{nightly['id']}"
    server.patch(path, {"parameters": {"store": store}, "tags": ["ours"]})
    server.patch(path, {"job_variables": {"devices": "5", "env": {"SET": "before"}}})
    server.patch(f"{path}/schedules/{schedule['id']}", {"active": False})
    added = {"schedule": {"cron": "0 5 * * *", "timezone": "UTC"}, "active": False}
    server.post(f"{path}/schedules", [added])
    server.post(f"deployments/{of_name(deployments, 'report')['id']}/pause_deployment", {})

    automations = server.post("automations/filter", {})
    for name, enabled in (("retrain after a regression", True), (DISABLED, False)):
        server.patch(f"automations/{of_name(automations, name)['id']}", {"enabled": enabled})
    # As `prefect automation create` does.
    server.post("automations/", described()[0])


def check_changes(server: PrefectServer, store: str) -> None:
    deployments = server.post("deployments/filter", {})
    nightly = of_name(deployments, "nightly")
    assert nightly["parameters"] == {"store": store}
    assert nightly["tags"] == ["ours"]
    assert nightly["job_variables"]["devices"] == "5"
    env = nightly["job_variables"]["env"]
    assert {"SET": "before", "ADDED": "now", "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}.items() <= (
        env.items()
    )
    crons = {each["schedule"]["cron"]: each["active"] for each in nightly["schedules"]}
    assert crons == {"0 2 * * *": False, "0 5 * * *": False}
    assert of_name(deployments, "report")["paused"]
    assert not of_name(deployments, "train-sknet")["paused"]

    automations = server.post("automations/filter", {})
    enabled = {each["name"]: each["enabled"] for each in automations}
    assert len(enabled) == len(automations)
    assert [name for name in enabled if not enabled[name]] == [DISABLED]
    (pool,) = server.post("work_pools/filter", {})
    template = json.loads((ROOT / "infra/prefect/process-pool.json").read_text("utf-8"))
    assert pool["base_job_template"] == template
