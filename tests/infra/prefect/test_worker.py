"""Whose worker `prefect worker start` runs; tests/e2e/test_killed_and_stopped.py tells it to go."""

import asyncio
import socket
from uuid import uuid4

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.workers.base import BaseWorker

from tests.waiting import HANG_SECONDS


def test_prefect_finds_the_worker_of_this_package_for_process_pools() -> None:
    # An import of the worker here would make it the one, whether Prefect finds it or not.
    worker = BaseWorker.get_worker_class_from_type("process")
    assert worker is not None
    assert worker.__module__ == "infra.prefect.worker"


def test_a_server_that_does_not_answer_keeps_no_run_from_being_told_to_go() -> None:
    process_worker = BaseWorker.get_worker_class_from_type("process")
    assert process_worker is not None

    async def ask(url: str) -> bool:
        with temporary_settings({PREFECT_API_URL: url}):
            async with get_client() as client:
                worker = process_worker(work_pool_name="pool")
                worker._client = client
                run = FlowRun(id=uuid4(), flow_id=uuid4())
                return await asyncio.wait_for(worker._is_pending(run), HANG_SECONDS)

    # It takes connections, and says nothing.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert not asyncio.run(ask(f"http://127.0.0.1:{silent.getsockname()[1]}/api"))
