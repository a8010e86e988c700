"""Whose worker `prefect worker start` runs; tests/e2e/test_killed_and_stopped.py tells it to go."""

from prefect.workers.base import BaseWorker

from infra.prefect.worker import ProcessWorker


def test_prefect_takes_the_worker_of_this_package_for_process_pools() -> None:
    assert BaseWorker.get_worker_class_from_type("process") is ProcessWorker
