"""A work pool with this project's template, and queues that limit how many runs there are at once.

A limit on a deployment (`concurrency_limit`) would be held by leases, which the run renews at the
server: it is ended if it can't, as after an outage of the server. The limit of a queue is counted
from the states of the runs in the server's database, and asks nothing of a run.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound
from prefect.utilities.schema_tools.validation import validate
from prefect.workers.utilities import get_default_base_job_template_for_infrastructure_type

from infra.base.outcomes import UserError

PoolType = Literal["process", "kubernetes"]
TEMPLATES: dict[str, str] = {"process": "process-pool.json", "kubernetes": "volcano-pool.json"}


async def make_pool(
    client: PrefectClient, name: str, kind: PoolType, *, must_match: bool = True
) -> str:
    """Create the pool if it is missing; return what was done.

    A worker that starts before its pool is there creates one with Prefect's own template, which is
    replaced. Templates that people have changed stay.

    Args:
        client: Connected to the server.
        name: Name of the pool.
        kind: Type of a pool that is created.
        must_match: Whether a pool that is there must have this type.

    Raises:
        UserError: The pool has another type.
    """
    try:
        present = await client.read_work_pool(name)
    except ObjectNotFound:
        await client.create_work_pool(
            WorkPoolCreate(name=name, type=kind, base_job_template=template(kind))
        )
        return "created"
    if must_match and present.type != kind:
        raise UserError(
            f"the work pool {name!r} has the type {present.type!r}: expected {kind!r}; "
            "choose another --pool or --type"
        )
    default = await get_default_base_job_template_for_infrastructure_type(present.type)
    if present.type in TEMPLATES and present.base_job_template in (default, {}):
        own = WorkPoolUpdate(base_job_template=template(present.type))
        await client.update_work_pool(name, own)
        return "Prefect's template replaced"
    return "kept"


def template(kind: str) -> dict[str, Any]:
    """Return this project's base job template for pools of a type."""
    content: dict[str, Any] = json.loads(
        Path(__file__).with_name(TEMPLATES[kind]).read_text("utf-8")
    )
    return content


async def check_job_variables(client: PrefectClient, name: str, values: Mapping[str, Any]) -> None:
    """Check job variables by the template of their pool, which Prefect does only for known names.

    Raises:
        UserError: One is unknown, or has a wrong value.
    """
    found = (await client.read_work_pool(name)).base_job_template
    known = found.get("variables", {}).get("properties", {})
    if unknown := set(values).difference(known):
        raise UserError(
            f"the work pool {name!r} has no job variable {min(unknown)!r}: expected one of "
            f"{', '.join(sorted(known))}"
        )
    for error in validate(dict(values), found.get("variables", {}), ignore_required=True):
        variable = ".".join(map(str, error.absolute_path))
        raise UserError(
            f"the work pool {name!r} refuses the job variable {variable}: {error.message}"
        )


async def limit_runs(pool: str, queue: str, limit: int) -> dict[str, Any]:
    """Let a queue start no more runs than this at once; a step of prefect.yaml.

    Args:
        pool: Name of the work pool. If there is none, nothing is done.
        queue: Name of the queue, which is created if it is missing.
        limit: Largest number of runs that are Pending or Running. A limit that people have set
            stays.
    """
    async with get_client() as client:
        try:
            await client.read_work_pool(pool)
        except ObjectNotFound:
            return {}
        try:
            present = await client.read_work_queue_by_name(queue, pool)
        except ObjectNotFound:
            await client.create_work_queue(queue, work_pool_name=pool, concurrency_limit=limit)
        else:
            if present.concurrency_limit is None:
                await client.update_work_queue(present.id, concurrency_limit=limit)
    return {}
