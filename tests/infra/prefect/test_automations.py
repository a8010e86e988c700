"""The automations fit to the flows, their states and the settings that are shipped."""

import re

import yaml
from prefect.events.schemas.automations import AutomationCore

from infra.prefect.automations import described
from infra.prefect.leaving import will_go_on
from tests.prefect_services import shipped_settings
from tests.processes import ROOT

AUTOMATIONS = {each["name"].removeprefix("sknet: "): each for each in described()}
SILENT = AUTOMATIONS["a silent run has crashed"]["trigger"]
UNSTARTED = AUTOMATIONS["a run that doesn't start has crashed"]["trigger"]
LOST = AUTOMATIONS["the host of a run is lost"]["trigger"]


def test_prefect_accepts_them() -> None:
    for each in described():
        AutomationCore.model_validate(each)


def test_they_act_on_the_flows_of_the_deployments_only() -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text("utf-8"))["deployments"]
    flows = {each["entrypoint"].partition(":")[2].replace("_", "-") for each in deployments}
    for each in described():
        related = each["trigger"]["match_related"]
        (names,) = (
            set(each["prefect.resource.name"])
            for each in related
            if each["prefect.resource.role"] == "flow"
        )
        assert names == flows


def test_every_state_in_which_flows_end_themselves_is_a_sign_of_life() -> None:
    """A named state sends an event of its name, which the automations must know."""
    named = {
        name
        for directory in ("flows", "tasks")
        for path in (ROOT / directory).glob("*.py")
        for name in re.findall(
            r"(?:Completed|Failed|Cancelled|Crashed|Scheduled)\(\s*name=\"(\w+)\"",
            path.read_text("utf-8"),
        )
    }
    assert {"Stopped", "CaughtUp"} <= named
    for trigger in (SILENT, UNSTARTED, LOST):
        signs = {event.removeprefix("prefect.flow-run.") for event in trigger["expect"]}
        assert named | {will_go_on("").name} <= signs
        # A heartbeat or a new start begins the wait anew instead of ending it.
        assert trigger is LOST or set(trigger["after"]) <= set(trigger["expect"])


def test_each_state_that_an_automation_sets_is_what_the_next_one_waits_for() -> None:
    states = [
        f"prefect.flow-run.{action['name']}"
        for each in described()
        for action in each["actions"]
        if "name" in action
    ]
    awaited = {
        event
        for each in described()
        for key in ("after", "expect")
        for event in each["trigger"].get(key, ())
    }
    assert len(states) == 3
    assert set(states) <= awaited


def test_a_run_may_miss_heartbeats_during_a_restart_of_the_server() -> None:
    heartbeat = int(shipped_settings()["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text("utf-8"))["deployments"]
    for each in deployments:
        env = each["work_pool"]["job_variables"]["env"]
        assert int(env["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]) == heartbeat
    assert SILENT["within"] >= 8 * heartbeat
    # As promised in docs/reliability.md: crashed, told and started again within five minutes.
    assert max(SILENT["within"], UNSTARTED["within"]) + LOST["within"] <= 300
