"""Register the deployments of prefect.yaml again, and keep what people changed on the server.

`prefect deploy --all` makes a deployment what prefect.yaml says, so that parameters, tags and job
variables that were set in the UI are gone. It also ignores --pool and --job-variable. Here, what
the server has is added to a copy of prefect.yaml, which `prefect deploy` then registers.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName
from prefect.client.schemas.responses import DeploymentResponse

from infra.base.outcomes import UserError

ROOT = Path(__file__).resolve().parents[2]

Described = dict[str, Any]
"""prefect.yaml, or a deployment as it is described there."""


async def adapted(
    client: PrefectClient,
    pool: str | None,
    job_variables: Mapping[str, Any],
    names: Collection[str],
) -> Described:
    """Return the content of prefect.yaml with what the server has, for `register`.

    Args:
        client: Connected to the server.
        pool: Name of the work pool; None: the one that each deployment has on the server, or else
            the one in prefect.yaml.
        job_variables: Job variables to set in the deployments.
        names: Deployments to register; empty: all.

    Raises:
        UserError: There is no prefect.yaml, or it has no deployment of one of these names.
    """
    if not (ROOT / "prefect.yaml").is_file():
        raise UserError(
            f"{ROOT} has no prefect.yaml: start this command in the project's directory"
        )
    content: Described = yaml.safe_load((ROOT / "prefect.yaml").read_text("utf-8"))
    known = [described["name"] for described in content["deployments"]]
    if unknown := set(names).difference(known):
        raise UserError(f"no deployment {min(unknown)!r}: expected one of {', '.join(known)}")
    content["deployments"] = [
        described for described in content["deployments"] if not names or described["name"] in names
    ]
    for described in content["deployments"]:
        present = await present_deployment(client, described)
        set_pool(described, pool or (present.work_pool_name if present else None))
        if present:
            keep(described, present)
            await name_schedules(client, present)
        for trigger in described.get("triggers", ()):
            for automation in await client.read_automations_by_name(trigger["name"]):
                trigger["enabled"] = automation.enabled
        described["work_pool"]["job_variables"] = merged(
            described["work_pool"].get("job_variables", {}), job_variables
        )
    return content


def register(content: Described) -> list[str]:
    """Register the deployments of this content of prefect.yaml; return their names.

    Raises:
        CalledProcessError: `prefect deploy` has failed.
    """
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory) / "prefect.yaml"
        copy.write_text(yaml.safe_dump(content), "utf-8")
        command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
        output = subprocess.run(
            [*command, "--prefect-file", str(copy)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
        ).stdout
    return re.findall("Deployment '(.+?)' successfully created", output)


def set_pool(described: Described, pool: str | None) -> None:
    """Let a deployment run in this pool, if one is given, and its steps limit that pool's queue."""
    if pool:
        described["work_pool"] = {**described["work_pool"], "name": pool}
        described["build"] = [
            {step: {**inputs, "pool": pool} for step, inputs in steps.items()}
            for steps in described.get("build", ())
        ]


def keep(described: Described, present: DeploymentResponse) -> None:
    """Add to a deployment what the server has and prefect.yaml doesn't mention."""
    described["parameters"] = {**present.parameters, **described.get("parameters", {})}
    described["tags"] = described.get("tags", present.tags)
    described["paused"] = present.paused
    pool = described["work_pool"]
    if present.work_pool_name == pool["name"]:
        pool["job_variables"] = merged(present.job_variables, pool.get("job_variables", {}))


def merged(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """Return job variables with those of `high` added, and in `env` one by one."""
    return {**low, **high, "env": {**(low.get("env") or {}), **(high.get("env") or {})}}


async def present_deployment(
    client: PrefectClient, described: Described
) -> DeploymentResponse | None:
    """Return the deployment as the server has it, or None; others may have the same name."""
    name = DeploymentFilter(name=DeploymentFilterName(any_=[described["name"]]))
    for present in await client.read_deployments(deployment_filter=name):
        if present.entrypoint == described["entrypoint"]:
            return present
    return None


async def name_schedules(client: PrefectClient, present: DeploymentResponse) -> None:
    """Give a slug to each schedule without one, such as those that were added in the UI.

    If one has none, `prefect deploy` replaces all of them and makes them active.
    """
    for schedule in present.schedules:
        if schedule.slug is None:
            await client.update_deployment_schedule(
                present.id, schedule.id, slug=f"added-{schedule.id}"
            )
