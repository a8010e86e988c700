"""Work pools, the limits of their queues, and options that don't fit to them."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient, get_client

from infra.base.outcomes import UserError
from infra.prefect import deployments
from infra.prefect.pools import check_job_variables, limit_runs, make_pool, template

pytestmark = pytest.mark.usefixtures("flow_harness")


def with_client(act: Callable[[PrefectClient], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with get_client() as client:
            return await act(client)

    return asyncio.run(run())


@pytest.fixture
def pool() -> str:
    """Name of a new process pool."""
    name = f"pool-{uuid.uuid4().hex}"
    assert with_client(lambda client: make_pool(client, name, "process")) == "created"
    return name


def test_a_pool_is_kept_unless_it_has_another_type(pool: str) -> None:
    async def act(client: PrefectClient) -> None:
        assert await make_pool(client, pool, "process") == "kept"
        assert (await client.read_work_pool(pool)).base_job_template == template("process")
        with pytest.raises(UserError, match="has the type 'process': expected 'kubernetes'"):
            await make_pool(client, pool, "kubernetes")
        assert await make_pool(client, pool, "kubernetes", must_match=False) == "kept"

    with_client(act)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"devcies": "0"}, "has no job variable 'devcies': expected one of command, devices, env"),
        ({"devices": "a"}, "refuses the job variable devices: 'a' is not valid"),
        ({"env": {"A": 1}}, "refuses the job variable env.A: 1 is not of type 'string'"),
    ],
)
def test_a_wrong_job_variable_is_refused(
    pool: str, values: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        with_client(lambda client: check_job_variables(client, pool, values))
    with_client(lambda client: check_job_variables(client, pool, {"devices": "0,1"}))


def test_a_queue_gets_its_limit_once(pool: str) -> None:
    async def limit() -> int | None:
        async with get_client() as client:
            await limit_runs(pool, "train", 1)
            queue = await client.read_work_queue_by_name("train", pool)
            before = queue.concurrency_limit
            await client.update_work_queue(queue.id, concurrency_limit=3)
            await limit_runs(pool, "train", 1)
            await limit_runs("no such pool", "train", 1)
            assert before == 1
            return (await client.read_work_queue_by_name("train", pool)).concurrency_limit

    assert asyncio.run(limit()) == 3


def test_an_unknown_deployment_is_refused() -> None:
    with pytest.raises(UserError, match="no deployment 'nightlies': expected one of train-sknet"):
        with_client(lambda client: deployments.adapted(client, None, {}, ["nightlies"]))
